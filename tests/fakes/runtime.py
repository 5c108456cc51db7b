"""A runtime without a library: every output of a row is the sum of the row's numbers."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from apps.inference.engine.types import Tensors
from apps.registry.signature import Signature


class FakeModel:
    """A loaded model whose runs a test can hold, slow down or let fail.

    Clear ``go`` to hold runs; ``entered`` is set when a run begins. ``runs`` has the rows of each.
    """

    def __init__(
        self,
        signature: Signature,
        *,
        delay: float = 0.0,
        fail_on: float | Callable[[Tensors], bool] | None = None,
        resident_bytes: int = 1000,
    ) -> None:
        self.signature = signature
        self.delay = delay
        self.fail_on = fail_on
        self.size = resident_bytes
        self.runs: list[int] = []
        self.deadlines: list[float] = []
        self.threads: list[int] = []
        self.closed = 0
        self.running = False
        self.closed_while_running = False
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    @property
    def resident_bytes(self) -> int:
        return self.size

    def predict(self, inputs: Tensors, *, deadline: float) -> Tensors:
        rows = len(next(iter(inputs.values())))
        self.runs.append(rows)
        self.deadlines.append(deadline)
        self.threads.append(threading.get_ident())
        self.running = True
        self.entered.set()
        try:
            assert self.go.wait(timeout=30)
            if self.delay:
                time.sleep(self.delay)
            if self._fails(inputs):
                raise ValueError("the fake model does not like this input")
            return self._sums(inputs, rows)
        finally:
            self.running = False

    def close(self) -> None:
        self.closed += 1
        self.closed_while_running = self.closed_while_running or self.running

    def _fails(self, inputs: Tensors) -> bool:
        if callable(self.fail_on):
            return self.fail_on(inputs)
        if self.fail_on is None:
            return False
        return any(bool(np.any(tensor == self.fail_on)) for tensor in inputs.values())

    def _sums(self, inputs: Tensors, rows: int) -> Tensors:
        total = np.zeros(rows)
        for tensor in inputs.values():
            if tensor.dtype != object:
                total = total + np.asarray(tensor, dtype=np.float64).reshape(rows, -1).sum(axis=1)
        outputs: dict[str, Any] = {}
        for spec in self.signature.outputs:
            shape = (rows, *(1 if size == -1 else size for size in spec.row_shape))
            wide = total.reshape(rows, *([1] * (len(shape) - 1)))
            outputs[spec.name] = np.broadcast_to(wide, shape).astype(spec.dtype.value)
        return outputs


class FakeRuntime:
    """Loads ``FakeModel``; ``loads`` counts, ``refuse`` lets loads fail."""

    def __init__(
        self,
        signature: Signature,
        *,
        delay: float = 0.0,
        fail_on: float | Callable[[Tensors], bool] | None = None,
    ) -> None:
        self.signature = signature
        self.delay = delay
        self.fail_on = fail_on
        self.loads = 0
        self.refuse = False
        self.models: list[FakeModel] = []

    def load(self, files: Path, *, threads: int) -> FakeModel:
        self.loads += 1
        if self.refuse:
            raise OSError("the fake file is damaged")
        model = FakeModel(self.signature, delay=self.delay, fail_on=self.fail_on)
        self.models.append(model)
        return model

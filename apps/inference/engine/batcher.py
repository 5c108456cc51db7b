"""Runs of one loaded model: calls that wait while it is busy share the next run.

An idle model whose runs are short is run by the caller itself, without a change of thread; else the
model's own thread takes what waits. Neighbours are safe from each other: a failing run is repeated
one by one, a caller who left is skipped, a late one is told so.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from apps.core.errors import PlatformError
from apps.inference.engine.errors import DeadlinePassed, ModelFailed, ModelUnavailable, Overloaded
from apps.inference.engine.protocol import LoadedModel
from apps.inference.engine.types import Tensors
from apps.registry.signature import Dtype, Signature, TensorSpec

log = logging.getLogger(__name__)

# Weight of the newest run in the measured run time.
NEWEST = 0.2
WARM_SECONDS = 30.0
IDLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run gave one caller.

    Attributes:
        queue_ms: From submission to the start of the run.
        inference_ms: The run itself, shared with ``batch_rows - rows`` rows of others.
    """

    outputs: Tensors
    queue_ms: float
    inference_ms: float
    batch_rows: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    tensors: Tensors
    rows: int
    deadline: float
    form: tuple[tuple[int, ...], ...]
    since: float
    answer: "Future[Ran]" = field(default_factory=Future)


class Batcher:
    """One loaded model and the calls that wait for it; lives in the pool."""

    def __init__(
        self,
        model: LoadedModel,
        signature: Signature,
        *,
        name: str = "",
        max_batch_rows: int = 64,
        max_waiting: int = 64,
        inline_below_ms: float = 1.0,
        company_seconds: float = 0.0,
    ) -> None:
        """Take over a loaded model; it is closed with the batcher.

        Args:
            model: Ready to run.
            signature: Its inputs and outputs; says whether rows may be joined.
            name: For the thread and the log.
            max_batch_rows: Rows of one joined run; a single larger call runs alone.
            max_waiting: Calls that may wait; the next one is refused at once.
            inline_below_ms: Measured run time below which an idle model runs in its caller's
                thread. 0 never does.
            company_seconds: How long a first call waits for others. Raise it only with a
                measurement.
        """
        self._model = model
        self._signature = signature
        self._name = name
        self._joins = signature.batchable and all(
            spec.has_batch for spec in (*signature.inputs, *signature.outputs)
        )
        self._max_batch_rows = max_batch_rows
        self._max_waiting = max_waiting
        self._inline_below_ms = inline_below_ms
        self._company_seconds = company_seconds
        self._running = threading.Lock()
        self._arrived = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._run_ms: float | None = None

    @property
    def resident_bytes(self) -> int:
        """Memory of the model, as measured at its load."""
        return self._model.resident_bytes

    @property
    def run_ms(self) -> float | None:
        """Measured time of a run, newest runs weighing most; None before the first."""
        return self._run_ms

    def submit(self, tensors: Tensors, rows: int, deadline: float) -> "Future[Ran]":
        """Ask for one run; the future may be done at once.

        Args:
            tensors: Checked against the signature; ``rows`` is their first axis.
            rows: Number of rows.
            deadline: ``time.monotonic()`` second after which nobody wants the answer.

        Raises:
            Overloaded: Too many calls wait for this model.
            ModelUnavailable: The batcher is closed.
        """
        form = tuple(tensor.shape[1:] for tensor in tensors.values()) if self._joins else ()
        one = _Waiting(tensors, rows, deadline, form, time.monotonic())
        if self._may_run_here() and self._running.acquire(blocking=False):
            self._run_here(one)
        else:
            self._enqueue(one)
        return one.answer

    def warm(self) -> None:
        """Run once on a made-up row, so that the first caller does not pay for a first run.

        A model may refuse a made-up row with good reason, so its failure means nothing.
        """
        tensors = sample_tensors(self._signature)
        try:
            for _ in range(2):  # the first run is slow by nature and says nothing of the later ones
                self._run_ms = None
                now = time.monotonic()
                one = _Waiting(tensors, 1, now + WARM_SECONDS, (), now)
                self._enqueue(one)
                one.answer.result(timeout=WARM_SECONDS)
        except (PlatformError, TimeoutError) as error:
            log.info("Warming %s gave no answer: %s", self._name, error)

    def close(self) -> None:
        """End the thread, refuse who still waits, close the model after its current run."""
        with self._arrived:
            self._closed = True
            left = tuple(self._queue)
            self._queue.clear()
            self._arrived.notify_all()
        for one in left:
            _refuse(one, _closed())
        self._close_model_when_idle()

    def _may_run_here(self) -> bool:
        return (
            self._run_ms is not None
            and self._run_ms < self._inline_below_ms
            and not self._queue  # whoever waits is first
            and not self._closed
        )

    def _run_here(self, one: _Waiting) -> None:
        try:
            self._answer([one])
        finally:
            self._running.release()
        self._close_model_when_idle()

    def _enqueue(self, one: _Waiting) -> None:
        late: list[_Waiting] = []
        with self._arrived:
            if self._closed:
                raise _closed()
            if len(self._queue) >= self._max_waiting:
                late = self._sweep()
            full = len(self._queue) >= self._max_waiting
            if not full:
                self._queue.append(one)
                self._start_thread()
                self._arrived.notify()
        for gone in late:
            _refuse(gone, _late())
        if full:
            raise Overloaded(
                "Too many calls wait for this model. Try again shortly.", waiting=self._max_waiting
            )

    def _sweep(self) -> list[_Waiting]:
        """Take out of the full queue whoever left or is too late."""
        now = time.monotonic()
        gone: list[_Waiting] = []
        stay: deque[_Waiting] = deque()
        for one in self._queue:
            (gone if one.answer.cancelled() or one.deadline < now else stay).append(one)
        self._queue = stay
        return gone

    def _start_thread(self) -> None:
        if self._thread is None:
            name = f"model-{self._name}"
            self._thread = threading.Thread(target=self._keep_running, name=name, daemon=True)
            self._thread.start()

    def _keep_running(self) -> None:
        while batch := self._next_batch():
            with self._running:
                self._answer(batch)
            self._close_model_when_idle()

    def _next_batch(self) -> list[_Waiting]:
        """Wait for calls and take those that can share a run; empty when the batcher is closed."""
        with self._arrived:
            while not self._queue and not self._closed:
                self._arrived.wait(IDLE_SECONDS)
            if self._company_seconds and not self._closed:
                self._arrived.wait_for(self._is_enough, self._company_seconds)
            return self._take() if self._queue else []

    def _is_enough(self) -> bool:
        return self._closed or sum(one.rows for one in self._queue) >= self._max_batch_rows

    def _take(self) -> list[_Waiting]:
        first = self._queue.popleft()
        batch, rows = [first], first.rows
        while self._joins and self._queue:
            following = self._queue[0]
            if following.form != first.form or rows + following.rows > self._max_batch_rows:
                break
            batch.append(self._queue.popleft())
            rows += following.rows
        return batch

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Run a batch and give every caller its part; called with ``_running`` held."""
        live = [one for one in batch if _still_wanted(one)]
        if not live:
            return
        if self._closed:
            for one in live:
                one.answer.set_exception(_closed())
            return
        try:
            parts = self._run(live)
        except Exception as error:  # noqa: BLE001 - a stranger's row must not cost its neighbours
            if len(live) == 1:
                live[0].answer.set_exception(self._translated(error))
                return
            for one in live:
                self._answer_alone(one)
            return
        for one, part in zip(live, parts, strict=True):
            _give(one, part)

    def _answer_alone(self, one: _Waiting) -> None:
        if one.deadline < time.monotonic():
            one.answer.set_exception(_late())
            return
        try:
            (part,) = self._run([one])
        except Exception as error:  # noqa: BLE001 - only the culprit gets its error
            one.answer.set_exception(self._translated(error))
            return
        _give(one, part)

    def _run(self, live: Sequence[_Waiting]) -> list[Ran]:
        started = time.monotonic()
        # The longest deadline: a neighbour in a hurry must not end the run of the others.
        deadline = max(one.deadline for one in live)
        outputs = self._model.predict(_joined(live), deadline=deadline)
        run_ms = (time.monotonic() - started) * 1000
        self._run_ms = (
            run_ms if self._run_ms is None else self._run_ms + NEWEST * (run_ms - self._run_ms)
        )
        total = sum(one.rows for one in live)
        ordered = self._ordered(outputs, total)
        return [
            Ran(part, (started - one.since) * 1000, run_ms, total)
            for one, part in zip(live, _parts(ordered, live), strict=True)
        ]

    def _ordered(self, outputs: Tensors, rows: int) -> dict[str, NDArray[np.generic]]:
        """Put the outputs in signature order, and refuse a run that lost or made up rows."""
        by_rows = all(spec.has_batch for spec in self._signature.inputs)
        ordered: dict[str, NDArray[np.generic]] = {}
        for spec in self._signature.outputs:
            output = outputs.get(spec.name)
            if output is None:
                raise ModelFailed(f"The model did not return its output `{spec.name}`.")
            if by_rows and spec.has_batch and (output.ndim == 0 or output.shape[0] != rows):
                raise ModelFailed(
                    f"The model returned output `{spec.name}` of shape {list(output.shape)} for "
                    f"{rows} rows."
                )
            ordered[spec.name] = output
        return ordered

    def _translated(self, error: Exception) -> PlatformError:
        if isinstance(error, PlatformError):
            return error
        log.error("%s failed", self._name, exc_info=error)
        failed = ModelFailed(
            "The model failed on this input. Check that the values are what it was trained on; "
            "its team finds the cause with the prediction in the log."
        )
        failed.__cause__ = error
        return failed

    def _close_model_when_idle(self) -> None:
        """Close the model if it is to be and nobody runs it; else the runner does so afterwards."""
        if self._closed and self._running.acquire(blocking=False):
            try:
                self._model.close()
            finally:
                self._running.release()


def sample_tensors(signature: Signature) -> dict[str, NDArray[np.generic]]:
    """Make one row that fits a signature; free axes get the size 1."""
    return {spec.name: _sample(spec) for spec in signature.inputs}


def _sample(spec: TensorSpec) -> NDArray[np.generic]:
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    text = spec.dtype is Dtype.STRING
    value: object = "" if text else 0
    if spec.categories:
        value = spec.categories[0]
    elif spec.minimum is not None and spec.minimum > 0:
        value = spec.minimum
    elif spec.maximum is not None and spec.maximum < 0:
        value = spec.maximum
    return np.full(shape, value, dtype=object if text else spec.dtype.value)


def _joined(live: Sequence[_Waiting]) -> Tensors:
    if len(live) == 1:
        return live[0].tensors
    return {name: np.concatenate([one.tensors[name] for one in live]) for name in live[0].tensors}


def _parts(outputs: Mapping[str, NDArray[np.generic]], live: Sequence[_Waiting]) -> list[Tensors]:
    if len(live) == 1:
        return [outputs]
    parts: list[Tensors] = []
    at = 0
    for one in live:
        parts.append({name: array[at : at + one.rows] for name, array in outputs.items()})
        at += one.rows
    return parts


def _still_wanted(one: _Waiting) -> bool:
    if not one.answer.set_running_or_notify_cancel():
        return False  # the caller left; its neighbours must not notice
    if one.deadline < time.monotonic():
        one.answer.set_exception(_late())
        return False
    return True


def _give(one: _Waiting, ran: Ran) -> None:
    if one.deadline < time.monotonic():  # the run outlived this caller, though not its neighbours
        one.answer.set_exception(_late())
    else:
        one.answer.set_result(ran)


def _refuse(one: _Waiting, error: PlatformError) -> None:
    if one.answer.set_running_or_notify_cancel():
        one.answer.set_exception(error)


def _late() -> DeadlinePassed:
    return DeadlinePassed(
        "The model did not answer in time. Send fewer rows, or try again when it is less busy."
    )


def _closed() -> ModelUnavailable:
    return ModelUnavailable("The model is just leaving this process. Try again.")

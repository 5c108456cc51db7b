"""PyTorch as it is, for programs that do not become ONNX; only inside a confined process.

The serving process never imports this file: ``runner`` starts a child that does.
"""

import contextlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.inference.engine.errors import DeadlinePassed, ModelFailed
from apps.inference.engine.types import Tensors
from apps.inference.runtimes.torch_load import Opened, open_program

Array = NDArray[np.generic]


class TorchRuntime:
    """Opens TorchScript and exported programs."""

    def load(self, files: Path, *, threads: int) -> "TorchModel":
        """Open one file.

        Args:
            files: A TorchScript or ``.pt2`` file.
            threads: Threads inside one run.

        Returns:
            The loaded model.

        Raises:
            Unloadable: It holds something else than a program made of known operators.
        """
        before = _resident_bytes()
        import torch  # the library is most of what a child of its own costs

        torch.set_num_threads(threads)
        with contextlib.suppress(RuntimeError):  # it takes this once in the life of a process
            torch.set_num_interop_threads(1)
        opened = open_program(files)
        grown = _resident_bytes() - before
        return TorchModel(opened, max(grown, files.stat().st_size))


class TorchModel:
    """One program in this process."""

    def __init__(self, opened: Opened, resident_bytes: int) -> None:
        """Take over an open program; ``resident_bytes`` is what opening it added."""
        self._opened: Opened | None = opened
        self._resident_bytes = resident_bytes

    @property
    def resident_bytes(self) -> int:
        """Memory that the library and the program added to the process."""
        return self._resident_bytes

    @property
    def opened(self) -> Opened:
        """The program itself, for the stages that measure and convert it.

        Raises:
            ModelFailed: The model is closed.
        """
        if self._opened is None:
            raise ModelFailed("The model has been closed.")
        return self._opened

    def predict(self, inputs: Tensors, *, deadline: float) -> Tensors:
        """Call the program once.

        Args:
            inputs: Arrays by input name.
            deadline: ``time.monotonic()`` second; a run that has begun is not ended from inside,
                the runner ends the whole process.

        Returns:
            Arrays by output name.

        Raises:
            DeadlinePassed: There was no time left to begin with.
            ModelFailed: The program raised on this input, or the model is closed.
        """
        opened = self.opened
        if time.monotonic() >= deadline:
            raise DeadlinePassed("The time was over before the model ran.")
        if inputs and all(array.ndim and len(array) == 0 for array in inputs.values()):
            # Not every operator takes an empty batch; one row shows types and widths.
            one = {n: np.zeros((1, *a.shape[1:]), a.dtype) for n, a in inputs.items()}
            answer = _run(opened, one)
            return {name: array[:0] if array.ndim else array for name, array in answer.items()}
        return _run(opened, inputs)

    def close(self) -> None:
        """Forget the program."""
        self._opened = None


def _run(opened: Opened, inputs: Tensors) -> dict[str, Array]:
    import torch

    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A copy: the array may be read-only, and a program may write into its inputs.
            tensors = {
                name: torch.from_numpy(np.array(array, order="C", copy=True))
                for name, array in inputs.items()
            }
            return dict(_named(opened.call(tensors)))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  a model may raise anything
        raise ModelFailed("The model raised an error on this input.") from _plain(error)


def _plain(error: Exception) -> Exception:
    """The reason itself: the interpreter of TorchScript puts its whole stack before it."""
    said = str(error).strip().splitlines()
    if len(said) < 2 or "TorchScript interpreter" not in said[0]:
        return error
    kind, _, reason = said[-1].rpartition("Error: ")
    return RuntimeError(reason if kind else said[-1])


def _named(answer: Any) -> list[tuple[str, Array]]:
    """Arrays by name: the keys of a dict, the fields of a named tuple, else their places."""
    found = list(_leaves(answer, ""))
    if not found:
        raise TypeError("The model's forward gives no tensor.")
    if len({name for name, _ in found}) != len(found):
        raise TypeError("The model's forward gives two outputs of one name.")
    return found


def _leaves(answer: Any, at: str) -> Iterator[tuple[str, Array]]:
    import torch

    fields = getattr(answer, "_fields", None)
    if isinstance(answer, torch.Tensor):
        yield at or "output_0", _array(answer)
    elif isinstance(answer, bool | int | float):
        yield at or "output_0", np.asarray(answer)
    elif isinstance(answer, Mapping):
        for name, one in answer.items():
            yield from _leaves(one, f"{at}.{name}" if at else str(name))
    elif isinstance(answer, tuple) and fields:
        for name, one in zip(fields, answer, strict=True):
            yield from _leaves(one, f"{at}.{name}" if at else str(name))
    elif isinstance(answer, tuple | list):
        for place, one in enumerate(answer):
            yield from _leaves(one, f"{at or 'output'}_{place}")
    elif answer is not None:
        raise TypeError(f"The model's forward gives a {type(answer).__name__}, not tensors.")


def _array(tensor: Any) -> Array:
    import torch

    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype is torch.bfloat16:  # numpy has no such type; single precision holds all of it
        tensor = tensor.float()
    array: Array = tensor.detach().cpu().resolve_conj().resolve_neg().numpy()
    return array


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

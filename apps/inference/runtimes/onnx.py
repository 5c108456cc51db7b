"""ONNX Runtime: the only library that opens a model inside a serving process.

Each run can be ended at its deadline, and all sessions of a process share one arena with an upper
bound, so that neither an endless loop nor a huge allocation in a model costs its neighbours more
than this one answer. A run is ended between nodes; one giant operator is not cut.
"""

import logging
import os
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from apps.inference.engine.errors import DeadlinePassed, ModelFailed
from apps.inference.engine.types import Tensors
from apps.inference.runtimes.watchdog import watch

logger = logging.getLogger(__name__)

ARENA_BYTES = 2 << 30
# The least a session takes beside its weights: 75 kB measured over 100 sessions of a tiny graph. A
# single load of one often shows no growth at all, because the allocator reuses freed pages.
SESSION_BYTES = 128 << 10

# Element types that a signature can say; bfloat16, float8 and the like have no numpy form.
DTYPES: dict[str, np.dtype[np.generic]] = {
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int16)": np.dtype(np.int16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint32)": np.dtype(np.uint32),
    "tensor(uint64)": np.dtype(np.uint64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(string)": np.dtype(np.object_),
}

_arena_lock = threading.Lock()
_arena_of_process: int | None = None


class OnnxRuntime:
    """Loads ONNX files into sessions of this process."""

    def __init__(self, arena_bytes: int = ARENA_BYTES) -> None:
        """Keep the bound of the arena.

        Args:
            arena_bytes: Most that all runs of this process may hold together. The first session
                of the process decides; later values change nothing.
        """
        self._arena_bytes = arena_bytes

    def load(self, files: Path, *, threads: int) -> "OnnxModel":
        """Open one ONNX file.

        Args:
            files: The served file.
            threads: Threads inside one run.

        Returns:
            The loaded model.

        Raises:
            ModelFailed: ONNX Runtime does not take the file.
        """
        _share_arena(self._arena_bytes)
        before = _resident_bytes()
        try:
            session = ort.InferenceSession(
                str(files), _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            logger.warning("ONNX Runtime refused a file: %s", error)
            raise ModelFailed("The ONNX file cannot be loaded.") from error
        grown = _resident_bytes() - before
        return OnnxModel(session, max(grown, files.stat().st_size + SESSION_BYTES))


class OnnxModel:
    """One ONNX session."""

    def __init__(self, session: ort.InferenceSession, resident_bytes: int) -> None:
        """Take over an open session; ``resident_bytes`` is what it added to the process."""
        self._session: ort.InferenceSession | None = session
        self.inputs: list[tuple[str, str, list[int | str | None]]] = [
            (one.name, one.type, one.shape) for one in session.get_inputs()
        ]
        self._outputs = [(one.name, one.type, one.shape) for one in session.get_outputs()]
        self._names = [name for name, _, _ in self._outputs]
        self._resident_bytes = resident_bytes

    @property
    def resident_bytes(self) -> int:
        """Memory the session added to the process when it was loaded."""
        return self._resident_bytes

    def predict(self, inputs: Tensors, *, deadline: float) -> Tensors:
        """Run the graph once.

        Args:
            inputs: Arrays by input name; texts as object arrays.
            deadline: ``time.monotonic()`` second at which the run is ended.

        Returns:
            Arrays by output name.

        Raises:
            DeadlinePassed: The run was ended, or had no time left to begin with.
            ModelFailed: The graph raised on this input, or the model is closed.
        """
        session = self._session
        if session is None:
            raise ModelFailed("The model has been closed.")
        if time.monotonic() >= deadline:
            raise DeadlinePassed("The time was over before the model ran.")
        if inputs and all(array.ndim and array.shape[0] == 0 for array in inputs.values()):
            return self._nothing()
        options = ort.RunOptions()
        guard = watch(deadline, lambda: setattr(options, "terminate", True))
        try:
            answers = session.run(self._names, dict(inputs), options)
        except Exception as error:
            if guard.fired:
                raise DeadlinePassed("The model was still running at the deadline.") from error
            logger.info("A model raised: %s", error)
            raise ModelFailed("The model raised an error on this input.") from error
        finally:
            guard.release()
        return dict(zip(self._names, map(_plain, answers), strict=True))

    def close(self) -> None:
        """Drop the session; a run in progress keeps it until it ends."""
        self._session = None

    def _nothing(self) -> Tensors:
        """Answer no rows without a run: many operators do not take an empty batch."""
        return {
            name: np.empty(
                (0, *(size if isinstance(size, int) else 0 for size in shape[1:])),
                dtype=DTYPES.get(kind, np.dtype(np.object_)),
            )
            for name, kind, shape in self._outputs
        }


def _plain(answer: object) -> NDArray[np.generic]:
    """One array per output; texts as objects, also where the library gives fixed widths."""
    array = np.asarray(answer)
    return array.astype(np.object_) if array.dtype.kind == "U" else array


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Spinning threads would take the processor from the other workers between runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Weights live as long as the session and are counted by the pool, not by the arena.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


def _share_arena(most_bytes: int) -> None:
    """Register the one bounded arena of this process before its first session."""
    global _arena_of_process  # noqa: PLW0603  the library keeps it per process too
    with _arena_lock:
        if _arena_of_process == os.getpid():
            return
        memory = ort.OrtMemoryInfo(
            "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
        )
        arena = ort.OrtArenaCfg(
            {
                "max_mem": most_bytes,
                "arena_extend_strategy": 1,  # as much as asked, not the next power of two
                "initial_chunk_size_bytes": -1,
                "max_dead_bytes_per_chunk": -1,
            }
        )
        ort.create_and_register_allocator(memory, arena)
        _arena_of_process = os.getpid()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

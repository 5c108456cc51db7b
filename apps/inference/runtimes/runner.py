"""Serves a native model from a confined child process of its own; imports no ML library.

One child per loaded version. Calls go one at a time over its pipes. Whatever it does, a caller
gets an answer or an error by the deadline: a child that is late, breaks the protocol or dies is
ended, and the next call starts another. It dies with this process.
"""

import contextlib
import json
import logging
import os
import select
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from apps.core.confined import Confined, Limits, start_confined, work_folder
from apps.inference.engine.errors import DeadlinePassed, ModelFailed
from apps.inference.engine.types import Tensors
from apps.inference.runtimes.frames import (
    LENGTHS,
    BadFrame,
    Frame,
    decode,
    encode,
    lengths,
)

logger = logging.getLogger(__name__)

LOAD_SECONDS = 120.0
EXIT_OUT_OF_MEMORY = 77
CLOSED = "The model has been closed."


class NativeRunner:
    """Serves the files of one native format from confined children; its children name it."""

    format: ClassVar[str]

    def load(self, files: Path, *, threads: int) -> "RunnerModel":
        """Start a child and wait until it has opened the file.

        Args:
            files: The served file.
            threads: Threads inside one run.

        Returns:
            The loaded model, which lives in the child.

        Raises:
            ModelFailed: The child could not open the file.
        """
        return RunnerModel(self.format, files, threads=threads)


class SklearnRunner(NativeRunner):
    """Serves scikit-learn files."""

    format = "sklearn"


class TorchRunner(NativeRunner):
    """Serves PyTorch programs."""

    format = "torch"


class RunnerModel:
    """One version, opened by a child of its own."""

    def __init__(
        self, runtime: str, files: Path, *, threads: int, limits: Limits | None = None
    ) -> None:
        """Start the first child; raises ``ModelFailed`` if it cannot open the file."""
        self._runtime = runtime
        self._files = files.resolve()
        self._threads = threads
        self._limits = limits or replace(
            Limits.for_file(files.stat().st_size, cpu_seconds=0),
            file_bytes=1 << 20,  # for its standard error, the only thing it can write to
            may_write=False,
        )
        self._turn = threading.Lock()  # one call at a time talks to the child
        self._change = threading.Lock()  # guards the two fields below
        self._starting: Future[_Child] | None = None
        self._closed = False
        try:
            child = self._child(time.monotonic() + LOAD_SECONDS)
        except DeadlinePassed:
            self.close()  # nobody else knows of the child that may still come
            raise
        self._resident_bytes = child.resident_bytes()

    @property
    def resident_bytes(self) -> int:
        """Memory of the child when it had opened the file."""
        return self._resident_bytes

    @property
    def pid(self) -> int | None:
        """Process id of the child, if one runs."""
        with self._change:
            started = self._starting
        if started is None or not started.done() or started.exception() is not None:
            return None
        return started.result().pid

    def predict(self, inputs: Tensors, *, deadline: float) -> Tensors:
        """Ask the child once.

        Args:
            inputs: Arrays by input name.
            deadline: ``time.monotonic()`` second at which the child is ended.

        Returns:
            Arrays by output name.

        Raises:
            DeadlinePassed: The child was busy, still starting, or ended at the deadline.
            ModelFailed: The model raised, crashed, used up its memory, or is closed.
        """
        if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise DeadlinePassed("The model was busy until the deadline.")
        try:
            child = self._child(deadline)
            return self._exchange(child, inputs, deadline)
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the child now, also in the middle of a call."""
        with self._change:
            self._closed = True
            started, self._starting = self._starting, None
        if started is not None:
            started.add_done_callback(_end)

    def _exchange(self, child: "_Child", inputs: Tensors, deadline: float) -> Tensors:
        question = Frame({"seconds": max(0.0, deadline - time.monotonic())}, inputs)
        try:
            answer = child.ask(question, deadline)
        except TimeoutError as error:
            self._drop(child)
            raise DeadlinePassed("The model was still running at the deadline.") from error
        except (OSError, EOFError, BadFrame) as error:
            raise ModelFailed(self._drop(child)) from error
        failed = answer.facts.get("error")
        if failed == "deadline":
            raise DeadlinePassed("The time was over before the model ran.")
        if failed is not None:
            logger.info("A native model raised: %.300s", answer.facts.get("message"))
            raise ModelFailed("The model raised an error on this input.")
        return answer.tensors

    def _child(self, deadline: float) -> "_Child":
        """The running child, or a new one; a start that takes longer goes on for later calls."""
        with self._change:
            if self._closed:
                raise ModelFailed(CLOSED)
            if self._starting is None:
                self._starting = Future()
                threading.Thread(
                    target=self._start, args=(self._starting,), name="runner-start", daemon=True
                ).start()
            started = self._starting
        try:
            return started.result(timeout=max(0.0, deadline - time.monotonic()))
        except NotYet as error:
            raise DeadlinePassed("The model's process was still starting.") from error
        except ModelFailed:
            with self._change:
                if self._starting is started:
                    self._starting = None
            raise

    def _start(self, promise: "Future[_Child]") -> None:
        try:
            promise.set_result(_Child(self._runtime, self._files, self._threads, self._limits))
        except ModelFailed as error:
            promise.set_exception(error)
        except Exception as error:  # a waiting caller must not be left waiting
            logger.exception("A runner could not be started")
            failed = ModelFailed("The model's process could not be started.")
            failed.__cause__ = error
            promise.set_exception(failed)

    def _drop(self, child: "_Child") -> str:
        """End a child that cannot be trusted any more; says what became of it."""
        with self._change:
            if self._starting is not None and self._starting.done():
                self._starting = None
            closed = self._closed
        words = child.end()
        return CLOSED if closed else words


def _end(started: "Future[_Child]") -> None:
    if started.exception() is None:
        started.result().end()


class _Child:
    """One confined process that has opened the file."""

    def __init__(self, runtime: str, files: Path, threads: int, limits: Limits) -> None:
        ask = {"runtime": runtime, "file": str(files), "threads": threads}
        self._ended = threading.Lock()
        self._words: str | None = None
        self._folder = contextlib.ExitStack()
        work = self._folder.enter_context(work_folder())
        try:
            self._process: Confined = start_confined(
                ["serve", "--read", str(files), "--ask", json.dumps(ask)], work=work, limits=limits
            )
        except BaseException:
            self._folder.close()
            raise
        os.set_blocking(self._process.stdin, False)
        os.set_blocking(self._process.stdout, False)
        try:
            ready = self._read(time.monotonic() + LOAD_SECONDS)
        except TimeoutError as error:
            self.end()
            raise ModelFailed(f"The model did not open within {LOAD_SECONDS:.0f} s.") from error
        except (OSError, EOFError, BadFrame) as error:
            raise ModelFailed(self.end()) from error
        if ready.facts.get("ready") is not True:
            self.end()
            raise ModelFailed(f"The model cannot be opened: {ready.facts.get('message')!s:.300}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def resident_bytes(self) -> int:
        """Memory as the kernel counts it, not as the child says."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def ask(self, question: Frame, deadline: float) -> Frame:
        self._write(encode(question), deadline)
        return self._read(deadline)

    def end(self) -> str:
        """Kill it, remove its folder, and say how it ended."""
        with self._ended:
            if self._words is None:
                status = self._process.kill()
                if status not in {0, -9}:
                    logger.warning("A runner ended with %d: %s", status, self._process.last_words())
                self._folder.close()
                self._words = _ending(status)
            return self._words

    def _write(self, data: bytes, deadline: float) -> None:
        left = memoryview(data)
        while left:
            _wait(self._process.stdin, select.POLLOUT, deadline)
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self._process.stdin, left) :]

    def _read(self, deadline: float) -> Frame:
        head, body = lengths(self._take(LENGTHS.size, deadline))
        return decode(self._take(head, deadline), self._take(body, deadline))

    def _take(self, size: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        while size:
            _wait(self._process.stdout, select.POLLIN, deadline)
            try:
                part = os.read(self._process.stdout, min(size, 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise EOFError("The process closed its side.")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _wait(handle: int, event: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(handle, event)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def _ending(status: int) -> str:
    if status == EXIT_OUT_OF_MEMORY:
        return "The model needed more memory than its process may use."
    if status < 0 and status != -9:
        return f"The model's process crashed (signal {-status})."
    return "The model's process ended or broke its protocol."

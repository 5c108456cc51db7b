"""Starts one of our Python modules as a confined child and judges how it ended; plain Python.

The child closes the inner doors itself (``apps.inference.sandbox`` enters Landlock and seccomp
before it imports anything). This module holds the outer ones, which a hostile child cannot reach:
a private folder, an empty environment, a session of its own, a deadline, a watch on disk and
threads, and the end of every process that works in that folder. What the child has to say is read
from one file of limited size. Its exit status and its output prove nothing: a hostile file can
forge both.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

MODULE = "apps.inference.sandbox"
REPORT_NAME = "report.json"
STDERR_NAME = "stderr.log"
REPORT_BYTES = 4 << 20
EXIT_OUT_OF_MEMORY = 77
WATCH_SECONDS = 0.25
GIGABYTE = 1 << 30
MAX_FOLDER_ENTRIES = 1000
FOLDER_PREFIX = "confined-"

PROJECT_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may use.

    Attributes:
        memory_bytes: Address space, which also bounds resident memory.
        cpu_seconds: Processor time over its whole life; 0 is no limit (a runner lives for weeks).
        file_bytes: Largest single file it may write.
        folder_bytes: All it may have on disk at once.
        open_files: File descriptors.
        threads: Threads, counted from outside.
        may_write: Whether it may make files in its folder. Disk and threads are watched only while
            ``run_confined`` waits; a child that stays must not write.
    """

    memory_bytes: int
    cpu_seconds: int
    file_bytes: int
    folder_bytes: int
    open_files: int = 128
    threads: int = 64
    may_write: bool = True

    @classmethod
    def for_file(cls, size: int, *, cpu_seconds: int) -> "Limits":
        """Limits that grow with the upload, so that a 5 GB model can be judged."""
        room = 2 * size + (256 << 20)
        return cls(
            memory_bytes=3 * size + 2 * GIGABYTE,
            cpu_seconds=cpu_seconds,
            file_bytes=room,
            folder_bytes=2 * room,
        )


class Ending(StrEnum):
    """How a child's life ended."""

    FINISHED = "finished"
    FAILED = "failed"
    CRASHED = "crashed"
    DEADLINE = "deadline"
    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    THREADS = "threads"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one confined child.

    Attributes:
        ending: Why it is no longer there.
        status: Exit status; negative is a signal.
        seconds: Wall-clock time it lived.
        limits: What it was allowed.
        allowed_seconds: Its wall-clock deadline.
        report: The bytes it left in its report file, or None. Hostile data.
    """

    ending: Ending
    status: int
    seconds: float
    limits: Limits
    allowed_seconds: float
    report: bytes | None

    def sentence(self) -> str:
        """Say in words why the child did not finish."""
        memory = self.limits.memory_bytes / GIGABYTE
        disk = self.limits.folder_bytes / GIGABYTE
        return {
            Ending.FINISHED: "It finished.",
            Ending.FAILED: f"It stopped with status {self.status} and left no reason.",
            Ending.CRASHED: f"It crashed ({_signal_name(-self.status)}).",
            Ending.DEADLINE: f"It ran longer than {self.allowed_seconds:.0f} s.",
            Ending.CPU: f"It used more than {self.limits.cpu_seconds} s of processor time.",
            Ending.MEMORY: f"It needed more memory than {memory:.1f} GB.",
            Ending.DISK: f"It wrote more to disk than {disk:.1f} GB.",
            Ending.THREADS: f"It started more than {self.limits.threads} threads.",
        }[self.ending]


class Confined:
    """A running confined child with pipes to its standard input and output."""

    def __init__(self, child: "subprocess.Popen[bytes]", work: Path) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self._child = child
        self._work = work
        self.stdin = child.stdin.fileno()
        self.stdout = child.stdout.fileno()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def last_words(self) -> str:
        """End of what it wrote to standard error; hostile text, for the operator's log."""
        return (read_plain_file(self._work / STDERR_NAME, 1 << 22) or b"")[-2000:].decode(
            "utf-8", "replace"
        )

    def kill(self) -> int:
        """End it and everything it may have started; returns its exit status."""
        _kill(self._child, self._work)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return self._child.returncode


@contextlib.contextmanager
def work_folder(parent: Path | None = None) -> Iterator[Path]:
    """A private folder for one child; whatever works in it is ended, then it is removed."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent)).resolve()
    try:
        yield folder
    finally:
        _end_processes_in(folder)
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(parent: Path, *, older_than_seconds: float) -> int:
    """Remove work folders whose parent was killed before it could; returns how many.

    A folder in which a process still works (a runner may live for weeks) is left alone.
    """
    removed = 0
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            is_old = time.time() - folder.stat().st_mtime > older_than_seconds
            if is_old and folder.is_dir() and not _processes_in(folder.resolve()):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    return removed


def run_confined(
    args: Sequence[str], *, work: Path, limits: Limits, seconds: float, module: str = MODULE
) -> Outcome:
    """Run one child to its end, or to its deadline.

    Args:
        args: Its command line behind ``python -m <module>``.
        work: Its private folder, made by ``work_folder``.
        limits: What it may use.
        seconds: Wall-clock deadline.
        module: Module to run; it must enter the sandbox itself.
    """
    started = time.monotonic()
    child = _spawn(args, work=work, limits=limits, module=module, stdio=subprocess.DEVNULL)
    try:
        ending = _watch(child, work, limits, started + seconds)
    finally:
        lived = time.monotonic() - started
        _kill(child, work)
    return Outcome(
        ending=ending or _ending(child.returncode, work, lived >= limits.cpu_seconds),
        status=child.returncode,
        seconds=lived,
        limits=limits,
        allowed_seconds=seconds,
        report=read_plain_file(work / REPORT_NAME, REPORT_BYTES),
    )


def start_confined(
    args: Sequence[str], *, work: Path, limits: Limits, module: str = MODULE
) -> Confined:
    """Start a child that stays and talks over pipes; the caller must ``kill`` it."""
    return _from_lasting_thread(
        lambda: Confined(
            _spawn(args, work=work, limits=limits, module=module, stdio=subprocess.PIPE), work
        )
    )


def read_plain_file(path: Path, most_bytes: int) -> bytes | None:
    """Read a small file that a hostile child may have made; None for anything unusual."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or facts.st_size > most_bytes:
            return None
        return file.read(most_bytes)


# -- starting ----------------------------------------------------------------------------------


def _spawn(
    args: Sequence[str], *, work: Path, limits: Limits, module: str, stdio: int
) -> "subprocess.Popen[bytes]":
    facts = {**asdict(limits), "work": str(work), "parent": os.getpid()}
    # -P keeps the working folder, which the child writes to, off the import path.
    command = [sys.executable, "-P", "-s", "-m", module, *args, "--confine", json.dumps(facts)]
    with (work / STDERR_NAME).open("wb") as errors:
        return subprocess.Popen(  # noqa: S603  our own interpreter and module, no shell
            command,
            stdin=stdio,
            stdout=stdio,
            stderr=errors,
            cwd=work,
            env=_environment(work),
            start_new_session=True,
            close_fds=True,
        )


def _environment(work: Path) -> dict[str, str]:
    """Everything the child learns from its environment; nothing of ours is inherited."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        **one,
        "HOME": str(work),
        "JOBLIB_MULTIPROCESSING": "0",  # it would try semaphores, which the sandbox refuses
        "LANG": "C.UTF-8",
        # Each further malloc arena reserves 64 MB of the address space that is limited.
        "MALLOC_ARENA_MAX": "2",
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(PROJECT_ROOT),
        "TMPDIR": str(work),
        # PyTorch makes this folder when it is imported, and may make none; this one is there.
        "TORCHINDUCTOR_CACHE_DIR": str(work),
        "TZ": "UTC",
    }


_lasting: ThreadPoolExecutor | None = None


def _from_lasting_thread(start: Callable[[], Confined]) -> Confined:
    """Fork from a thread that lives as long as the process.

    The death signal a child asks for (PDEATHSIG) comes when the *thread* that forked it ends; a
    child started from a short-lived request thread would die with that request.
    """
    global _lasting  # noqa: PLW0603  one per process, forgotten after a fork
    if _lasting is None:
        _lasting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="confined-parent")
    return _lasting.submit(start).result()


def _forget_lasting_thread() -> None:
    global _lasting  # noqa: PLW0603
    _lasting = None


os.register_at_fork(after_in_child=_forget_lasting_thread)


# -- watching ----------------------------------------------------------------------------------


def _watch(
    child: "subprocess.Popen[bytes]", work: Path, limits: Limits, deadline: float
) -> Ending | None:
    """Wait for the end; None if the child ended by itself, else the limit it broke."""
    handle = os.pidfd_open(child.pid)
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    try:
        while True:
            left = max(0.0, min(deadline - time.monotonic(), WATCH_SECONDS))
            if poller.poll(left * 1000):
                return None
            # Disk is watched, not only limited: a limit per file says nothing about many files.
            if _is_over_disk(work, limits):
                return Ending.DISK
            if _thread_count(child.pid) > limits.threads:
                return Ending.THREADS
            if time.monotonic() >= deadline:
                return Ending.DEADLINE
    finally:
        os.close(handle)


def _is_over_disk(work: Path, limits: Limits) -> bool:
    total = entries = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(work):
            entries += 1
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total > limits.folder_bytes or entries > MAX_FOLDER_ENTRIES


def _thread_count(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return 0


def _ending(status: int, work: Path, lived_past_cpu_limit: bool) -> Ending:
    if status == 0:
        return Ending.FINISHED
    if status == EXIT_OUT_OF_MEMORY or (status == -signal.SIGABRT and _died_of_memory(work)):
        return Ending.MEMORY
    if status == -signal.SIGXCPU:
        return Ending.CPU
    if status == -signal.SIGKILL:
        # Nobody but the kernel kills it here: for processor time, when the child ignored the
        # first warning, or for the machine's memory.
        return Ending.CPU if lived_past_cpu_limit else Ending.MEMORY
    return Ending.CRASHED if status < 0 else Ending.FAILED


def _died_of_memory(work: Path) -> bool:
    """Whether a C++ library aborted for want of memory; only chooses the words of a refusal."""
    return b"bad_alloc" in (read_plain_file(work / STDERR_NAME, 1 << 20) or b"")


def _signal_name(number: int) -> str:
    try:
        return f"signal {number}, {signal.Signals(number).name}"
    except ValueError:
        return f"signal {number}"


# -- ending ------------------------------------------------------------------------------------


def _kill(child: "subprocess.Popen[bytes]", work: Path) -> None:
    """End the group before the leader is reaped: until then nobody else can get its number."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    _end_processes_in(work)


def _end_processes_in(work: Path) -> None:
    """Kill whatever still works in the folder, also what left the session."""
    for _ in range(50):
        found = _processes_in(work)
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _processes_in(work: Path) -> list[int]:
    return [pid for pid in _pids() if _is_within(pid, work)]


def _pids() -> list[int]:
    try:
        return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
    except OSError:
        return []


def _is_within(pid: int, work: Path) -> bool:
    if pid == os.getpid():
        return False
    try:
        here = str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return False
    return here == str(work) or here.startswith(f"{work}{os.sep}")

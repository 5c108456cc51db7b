"""Keeps several child processes running, each known by its pid, and leaves none behind.

One thread and one ``select``: children are forked from the main thread only, because the death
signal that a child asks for comes when the *thread* that forked it ends, and because nothing else
then holds a lock at the fork. Each child leads a session of its own, so Ctrl-C in the terminal
reaches only the supervisor, and whatever a dead child left in its group can be ended with it.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
LINE_BYTES = 64 * 1024
LOOK_SECONDS = 0.25
# A child that lived this long did not fail at its start; its next pause is the shortest again.
HEALTHY_SECONDS = 30.0

Say = Callable[[str], None]
# Resolved before any fork: looking a name up between fork and exec could meet a held lock.
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


@dataclass(frozen=True, slots=True)
class Part:
    """One process to run.

    Attributes:
        last: It is told to end only when the others are gone.
        bare: Its lines are passed on as they are, to be copied; others carry the part's name.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    last: bool = False
    bare: bool = False


@dataclass(slots=True, eq=False)
class _Child:
    part: Part
    ended: Callable[[int], None] | None
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS
    start_at: float | None = 0.0
    # Set while it is to be started anew: when it is killed if it has not ended by itself.
    renew_by: float | None = None
    unfinished: bytes = b""


def pause_after(pause: float, lived_seconds: float) -> tuple[float, float]:
    """Return how long to wait before the next start, and the pause for the one after."""
    now = FIRST_PAUSE_SECONDS if lived_seconds >= HEALTHY_SECONDS else pause
    return now, min(now * 2, LONGEST_PAUSE_SECONDS)


class Supervisor:
    """Runs parts until it is asked to stop, then ends them all."""

    def __init__(self, *, folder: Path, say: Say, stop_seconds: float = 30.0) -> None:
        self._folder = folder
        self._say = say
        self._stop_seconds = stop_seconds
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()
        self._width = 6
        self._asked_at: float | None = None
        self._in_haste = False

    @property
    def stopping(self) -> bool:
        """Whether the end has been asked for."""
        return self._asked_at is not None

    def keep(self, part: Part) -> None:
        """Run a part, and again whenever it ends."""
        self._add(_Child(part, None))

    def once(self, part: Part, ended: Callable[[int], None]) -> None:
        """Run a part to its own end; ``ended`` learns its exit status."""
        self._add(_Child(part, ended))

    def renew(self) -> None:
        """End every kept part politely and start it again at once."""
        deadline = time.monotonic() + self._stop_seconds
        for child in self._children:
            if child.ended is None:
                child.renew_by, child.pause = deadline, FIRST_PAUSE_SECONDS
                if child.process is None:
                    child.start_at = 0.0
                else:
                    _tell(child, signal.SIGTERM)

    def run(self, look: Callable[[], None]) -> None:
        """Run until a signal asks for the end; ``look`` is called a few times a second."""
        with self._signals():
            try:
                while not self.stopping:
                    self._start_due()
                    self._pass_on_output(LOOK_SECONDS)
                    self._bury()
                    if not self.stopping:
                        look()
            finally:
                self._end_all()

    # --- starting -----------------------------------------------------------------------------

    def _add(self, child: _Child) -> None:
        self._width = max(self._width, len(child.part.name))
        self._children.append(child)

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is None and child.start_at is not None and child.start_at <= now:
                self._start(child)
            elif child.renew_by is not None and child.renew_by < now:
                _tell(child, signal.SIGKILL)

    def _start(self, child: _Child) -> None:
        child.start_at = child.renew_by = None
        child.started = time.monotonic()
        child.process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
            child.part.command,
            cwd=self._folder,
            env={**os.environ, **child.part.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509 - there is one thread
        )
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    # --- output ---------------------------------------------------------------------------------

    def _pass_on_output(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            else:
                self._read(key.data)

    def _read(self, child: _Child) -> bool:
        """Pass on what a child wrote; return whether there may be more."""
        assert child.process is not None
        assert child.process.stdout is not None
        try:
            data = os.read(child.process.stdout.fileno(), LINE_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_output(child)
            return False
        *lines, child.unfinished = (child.unfinished + data).split(b"\n")
        if len(child.unfinished) >= LINE_BYTES:
            lines, child.unfinished = [*lines, child.unfinished], b""
        for line in lines:
            self._say_line(child, line)
        return True

    def _say_line(self, child: _Child, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self._say(text if child.part.bare else f"{child.part.name:<{self._width}} | {text}")

    def _close_output(self, child: _Child) -> None:
        assert child.process is not None
        if child.process.stdout is not None and not child.process.stdout.closed:
            self._selector.unregister(child.process.stdout)
            child.process.stdout.close()
        if child.unfinished:
            self._say_line(child, child.unfinished)
            child.unfinished = b""

    # --- the dead -------------------------------------------------------------------------------

    def _bury(self) -> None:
        for child in list(self._children):
            if child.process is not None and _has_ended(child.process.pid):
                self._bury_one(child)

    def _bury_one(self, child: _Child) -> None:
        process = child.process
        assert process is not None
        # Before it is reaped its number cannot belong to anybody else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        while process.stdout is not None and not process.stdout.closed and self._read(child):
            pass
        self._close_output(child)
        child.process = None
        if child.ended is not None:
            self._children.remove(child)
            child.ended(status)
        elif not self.stopping:
            self._plan_restart(child, status)

    def _plan_restart(self, child: _Child, status: int) -> None:
        if child.renew_by is not None:
            child.start_at = 0.0
            return
        wait, child.pause = pause_after(child.pause, time.monotonic() - child.started)
        child.start_at = time.monotonic() + wait
        self._say(f"{child.part.name} {_ending(status)}; it starts again in {wait:.0f} s")

    # --- ending ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn signals into a byte that wakes the loop; a second Ctrl-C means at once."""
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        self._selector.register(reader, selectors.EVENT_READ, None)
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
        before = {number: signal.signal(number, self._asked) for number in numbers}
        waker = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(waker)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            os.close(reader)
            os.close(writer)

    def _asked(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGCHLD:
            return
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif number == signal.SIGINT and now - self._asked_at > 1:
            self._in_haste = True

    def _end_all(self) -> None:
        """End the parts, the ``last`` ones after the others; kill what does not go in time."""
        self._asked_at = self._asked_at or time.monotonic()
        for last in (False, True):
            wave = [child for child in self._children if child.part.last == last]
            self._end(wave)

    def _end(self, wave: Sequence[_Child]) -> None:
        for child in wave:
            _tell(child, signal.SIGTERM)
        deadline = time.monotonic() + self._stop_seconds
        while any(child.process is not None for child in wave):
            if self._in_haste or time.monotonic() > deadline:
                for child in wave:
                    _tell(child, signal.SIGKILL)
            self._pass_on_output(LOOK_SECONDS)
            self._bury()


def _tell(child: _Child, number: signal.Signals) -> None:
    if child.process is not None:
        # Not Popen's way, which reaps the dead in passing: only `_bury` may do that.
        os.kill(child.process.pid, number)


def _has_ended(pid: int) -> bool:
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, pid, options) is not None


def _ending(status: int) -> str:
    return f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"


def _end_with(parent: int) -> Callable[[], None]:
    """Ask the kernel to end the child politely when the supervisor dies, however it dies."""

    def ask() -> None:
        if _prctl is not None:
            _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask

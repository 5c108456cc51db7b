"""Ends runs at their deadline: one thread for all of them.

A timer thread per call costs more than a small model's whole run. Here a call pushes one entry on
a heap; the thread is woken only when a call has an earlier deadline than all before it.
"""

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable


class Guard:
    """One watched run; ``release`` when it is over, ``fired`` if it was ended."""

    __slots__ = ("_end", "_lock", "fired")

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] | None = end
        self._lock = threading.Lock()
        self.fired = False

    def fire(self) -> None:
        """End the run, unless it is over."""
        with self._lock:
            if self._end is not None:
                self.fired = True
                self._end()
                self._end = None

    def release(self) -> None:
        """The run is over; nothing of it is kept until the deadline."""
        with self._lock:
            self._end = None


class Watchdog:
    """Calls ``end`` of each watched run whose deadline passes before it is released."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._due: list[tuple[float, int, Guard]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def watch(self, deadline: float, end: Callable[[], None]) -> Guard:
        """Call ``end`` when ``time.monotonic()`` reaches the deadline.

        Args:
            deadline: ``time.monotonic()`` second.
            end: Ends the run; called from the watchdog's thread.

        Returns:
            The guard to release when the run is over.
        """
        guard = Guard(end)
        with self._wake:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            is_first = not self._due or deadline < self._due[0][0]
            heapq.heappush(self._due, (deadline, next(self._numbers), guard))
            if is_first:
                self._wake.notify()
        return guard

    def _run(self) -> None:
        while True:
            self._wait_for_one().fire()

    def _wait_for_one(self) -> Guard:
        with self._wake:
            while True:
                if not self._due:
                    self._wake.wait()
                    continue
                left = self._due[0][0] - time.monotonic()
                if left <= 0:
                    return heapq.heappop(self._due)[2]
                self._wake.wait(left)


_watchdog = Watchdog()


def watch(deadline: float, end: Callable[[], None]) -> Guard:
    """Watch a run with the process's one watchdog."""
    return _watchdog.watch(deadline, end)


def _start_anew() -> None:
    """A fork copies the heap and not the thread."""
    global _watchdog  # noqa: PLW0603  one per process
    _watchdog = Watchdog()


os.register_at_fork(after_in_child=_start_anew)

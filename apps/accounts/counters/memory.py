"""Counters of one process: what counts when neither Redis nor the node's file can be had."""

import threading
from collections.abc import Sequence

from apps.accounts.limits import Ask, Taken, given

MOST_COUNTERS = 100_000


class MemoryCounters:
    """Exact among the threads of one process, and gone with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[tuple[str, int], tuple[int, float]] = {}

    def take(self, asks: Sequence[Ask], now: float) -> list[Taken]:
        """Count what fits."""
        with self._lock:
            if len(self._used) >= MOST_COUNTERS:
                self._forget(now)
            stood = [self._of(one) for one in asks]
            gifts = given(asks, stood)
            for one, count, gift in zip(asks, stood, gifts, strict=True):
                if gift or count:
                    self._used[one.counter, one.window] = (count + gift, one.ends)
        return [
            Taken(count + gift, gift, one.most)
            for one, count, gift in zip(asks, stood, gifts, strict=True)
        ]

    def _of(self, ask: Ask) -> int:
        count, _ = self._used.get((ask.counter, ask.window), (0, 0.0))
        return max(count, ask.known) + ask.owed

    def _forget(self, now: float) -> None:
        """Make room: windows that are over leave, then those that were used least."""
        living = {name: one for name, one in self._used.items() if one[1] > now}
        excess = max(0, len(living) - MOST_COUNTERS // 2)
        for name in sorted(living, key=lambda name: living[name][0])[:excess]:
            del living[name]
        self._used = living

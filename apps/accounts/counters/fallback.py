"""Shared counters with a way on when they are away or slow: the node's own, for its share."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from apps.accounts.counters.redis_store import CountersAway
from apps.accounts.limits import Ask, Counters, Taken

LOG = logging.getLogger(__name__)
OPEN_SECONDS = 5.0
# Nodes get a little more than their share: callers are never spread evenly.
GENEROSITY = 1.2
# Answers over the budget, one after the other, until the counters count as away.
SLOW_ANSWERS = 3


class SharedCounters(Protocol):
    """Counters of all nodes; ``nodes`` is 0 until it is known."""

    nodes: int

    def take(self, asks: Sequence[Ask], now: float) -> Sequence[Taken]:
        """Count, or raise ``CountersAway``."""
        ...


class LocalCounters(Counters, Protocol):
    """Counters of this node, which also keep how many nodes there were."""

    @property
    def nodes(self) -> int:
        """The number kept, or 0."""
        ...

    def remember_nodes(self, nodes: int) -> None:
        """Keep the number."""
        ...


class FallbackCounters:
    """Asks the shared counters; after a failure it leaves them alone for five seconds.

    Then one call tries again, and all others go on with the node's own counters until it succeeds:
    a limit is 1.2 times its nominal value there, divided by the nodes last known. What was already
    used counts with the same share, so that an outage does not open a window anew.
    """

    def __init__(
        self,
        shared: SharedCounters,
        local: LocalCounters,
        *,
        budget_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take both.

        Args:
            shared: Counters of all nodes.
            local: Counters of this one; they never fail.
            budget_seconds: What a call may spend on asking the shared ones.
            clock: Monotonic seconds.
        """
        self._shared = shared
        self._local = local
        self._budget = budget_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._closed_at = 0.0  # 0 while all is well, else when somebody may try again
        self._slow = 0

    @property
    def is_away(self) -> bool:
        """Whether the shared counters are left alone."""
        return self._closed_at > 0

    def take(self, asks: Sequence[Ask], now: float) -> Sequence[Taken]:
        """Count in the one place or the other."""
        if not self._may_try():
            return self._stand_in(asks, now)
        begun = self._clock()
        try:
            taken = self._shared.take(asks, now)
        except CountersAway as error:
            self._leave_alone(str(error))
            return self._stand_in(asks, now)
        self._heard(self._clock() - begun)
        return taken

    def _may_try(self) -> bool:
        if not self._closed_at:
            return True
        with self._lock:
            if self._closed_at and self._clock() < self._closed_at:
                return False
            if self._closed_at:  # one tries; if it succeeds the others follow
                self._closed_at = self._clock() + OPEN_SECONDS
            return True

    def _heard(self, seconds: float) -> None:
        if seconds > self._budget:
            self._slow += 1
            if self._slow >= SLOW_ANSWERS:
                self._leave_alone(
                    f"{SLOW_ANSWERS} answers took longer than {self._budget * 1000:.0f} ms"
                )
            return
        self._slow = 0
        if self._closed_at:
            self._closed_at = 0.0
            LOG.warning("limits are counted by Redis again")
        if self._shared.nodes:
            self._local.remember_nodes(self._shared.nodes)

    def _leave_alone(self, why: str) -> None:
        with self._lock:
            if not self._closed_at:
                LOG.warning("limits are counted by this node alone, Redis does not help: %s", why)
            self._closed_at = self._clock() + OPEN_SECONDS
            self._slow = 0

    def _stand_in(self, asks: Sequence[Ask], now: float) -> list[Taken]:
        share = GENEROSITY / max(1, self._local.nodes)
        scaled = [
            replace(
                one,
                most=max(1, int(one.most * share)) if one.most else 0,
                want=one.need,
                known=int(one.known * share),
                owed=0,
            )
            for one in asks
        ]
        return [replace(one, stands_in=True) for one in self._local.take(scaled, now)]

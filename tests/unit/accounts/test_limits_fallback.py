"""Shared counters that are away or slow: calls go on, for this node's share of each limit."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from apps.accounts.callers import Caller
from apps.accounts.counters.fallback import OPEN_SECONDS, FallbackCounters
from apps.accounts.counters.memory import MemoryCounters
from apps.accounts.counters.node_file import NodeCounters
from apps.accounts.counters.redis_store import CountersAway
from apps.accounts.limits import Ask, Limiter, Taken
from apps.accounts.snapshot import KeyBody, PlanBody
from apps.core.errors import RateLimited
from tests.fakes.clock import FakeClock

PLAN = PlanBody("p", requests_per_minute=100)
LARGE = PlanBody("p", requests_per_minute=6_000)


class Shared(MemoryCounters):
    """Counters that can be taken away, or made slow, and that count who asked."""

    def __init__(self, clock: FakeClock, nodes: int = 1) -> None:
        super().__init__()
        self.clock, self.nodes = clock, nodes
        self.is_away, self.seconds, self.asked = False, 0.0, 0

    def take(self, asks: Sequence[Ask], now: float) -> list[Taken]:
        self.asked += 1
        self.clock.advance(self.seconds)
        if self.is_away:
            raise CountersAway("gone")
        return super().take(asks, now)


class Node:
    """One node: a limiter in front of its own file and the shared counters."""

    def __init__(self, folder: Path, shared: Shared) -> None:
        self.counters = FallbackCounters(
            shared, NodeCounters(folder / "limits"), budget_seconds=0.02, clock=shared.clock
        )
        self.limiter = Limiter(self.counters, clock=shared.clock)

    def passed(self, calls: int, plan: PlanBody = PLAN) -> int:
        key = KeyBody("k1", "", 1, 1, (), (), (), None)
        who = Caller(1, "ada", False, {}, frozenset(), key=key, plan=plan)
        passed = 0
        for _ in range(calls):
            try:
                self.limiter.enter(who, None).spend(1)
            except RateLimited:
                continue
            passed += 1
        return passed


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(6_000_000.0)


def window(clock: FakeClock) -> None:
    """Go to the beginning of the key's next minute."""
    from apps.accounts.limits import plan_limits

    limit = plan_limits(PLAN, "key:k1")[0]
    clock.now = limit.ends(limit.window(clock.now))


def test_while_they_are_away_each_node_lets_its_share_through(
    tmp_path: Path, clock: FakeClock
) -> None:
    shared = Shared(clock, nodes=3)
    nodes = [Node(tmp_path / str(number), shared) for number in range(3)]
    window(clock)
    for one in nodes:
        assert one.passed(1) == 1  # each has heard how many there are
    window(clock)
    shared.is_away = True
    assert [one.passed(500) for one in nodes] == [40, 40, 40]


def test_a_node_that_never_heard_of_others_counts_alone(tmp_path: Path, clock: FakeClock) -> None:
    shared = Shared(clock)
    shared.is_away = True
    window(clock)
    assert Node(tmp_path, shared).passed(500) == 120


def test_an_outage_does_not_open_the_window_anew(tmp_path: Path, clock: FakeClock) -> None:
    shared = Shared(clock)
    node = Node(tmp_path, shared)
    window(clock)
    before = node.passed(90)
    shared.is_away = True
    during = node.passed(500)
    assert before == 90
    assert before + during <= 120


def test_what_passed_meanwhile_counts_when_they_are_back(tmp_path: Path, clock: FakeClock) -> None:
    shared = Shared(clock)
    node = Node(tmp_path, shared)
    window(clock)
    shared.is_away = True
    assert node.passed(70) == 70
    shared.is_away = False
    clock.advance(OPEN_SECONDS)
    assert node.passed(500) == 30
    window(clock)
    assert node.passed(500) == 100


def test_counters_that_forgot_are_told_what_is_known(tmp_path: Path, clock: FakeClock) -> None:
    shared = Shared(clock)
    node = Node(tmp_path, shared)
    window(clock)
    assert node.passed(60) == 60
    shared._used.clear()
    assert node.passed(500) == 40


def test_leases_are_spent_before_the_nodes_own_counters_are_asked(
    tmp_path: Path, clock: FakeClock
) -> None:
    shared = Shared(clock)
    node = Node(tmp_path, shared)
    window(clock)
    assert node.passed(1, LARGE) == 1
    shared.is_away = True
    assert node.passed(59, LARGE) == 59
    assert shared.asked == 1
    assert node.passed(20_000, LARGE) <= 7_200 - 60


def test_away_means_five_seconds_without_a_question(tmp_path: Path, clock: FakeClock) -> None:
    shared = Shared(clock)
    node = Node(tmp_path, shared)
    window(clock)
    shared.is_away = True
    node.passed(20)
    assert shared.asked == 1
    clock.advance(OPEN_SECONDS - 0.1)
    node.passed(20)
    assert shared.asked == 1
    clock.advance(0.2)
    node.passed(20)
    assert shared.asked == 2
    assert node.counters.is_away


def test_slow_counters_are_left_alone_too(tmp_path: Path, clock: FakeClock) -> None:
    shared = Shared(clock)
    node = Node(tmp_path, shared)
    window(clock)
    shared.seconds = 0.05
    node.passed(2)
    assert not node.counters.is_away
    node.passed(10)
    assert node.counters.is_away
    assert shared.asked == 3


def test_one_slow_answer_is_forgiven(tmp_path: Path, clock: FakeClock) -> None:
    shared = Shared(clock)
    node = Node(tmp_path, shared)
    window(clock)
    for seconds in (0.05, 0.0, 0.05, 0.0, 0.05, 0.0):
        shared.seconds = seconds
        node.passed(1)
    assert not node.counters.is_away


def test_a_limit_smaller_than_the_number_of_nodes_lets_one_through_on_each(
    tmp_path: Path, clock: FakeClock
) -> None:
    shared = Shared(clock, nodes=50)
    node = Node(tmp_path, shared)
    window(clock)
    node.passed(1)
    window(clock)
    shared.is_away = True
    assert node.passed(10, PlanBody("p", requests_per_minute=2)) == 1
    assert node.passed(10, PlanBody("p", requests_per_minute=0)) == 0

"""Loaded models of a process; orders are forced by events, never by sleeping."""

import threading
import time

import pytest

from apps.inference.engine.errors import DeadlinePassed, ModelUnavailable, Overloaded
from apps.inference.engine.pool import ModelPool
from apps.registry.snapshot import VersionBody
from tests.fakes.bodies import version_body
from tests.fakes.clock import FakeClock

SOON = 30.0


class Thing:
    """A resident that remembers what was done to it."""

    def __init__(self, version: VersionBody, size: int) -> None:
        self.version = version
        self.resident_bytes = size
        self.warmed = 0
        self.closed = 0

    def warm(self) -> None:
        self.warmed += 1

    def close(self) -> None:
        self.closed += 1


class Shelf:
    """A loader: counts loads, can be held, can refuse, decides the measured size."""

    def __init__(self) -> None:
        self.loads: list[int] = []
        self.things: list[Thing] = []
        self.sizes: dict[int, int] = {}
        self.refuse: Exception | None = None
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    def __call__(self, version: VersionBody) -> Thing:
        self.loads.append(version.number)
        self.entered.set()
        assert self.go.wait(SOON)
        if self.refuse is not None:
            raise self.refuse
        thing = Thing(version, self.sizes.get(version.number, version.resident_bytes))
        self.things.append(thing)
        return thing

    def thing(self, number: int) -> Thing:
        return next(one for one in reversed(self.things) if one.version.number == number)


def later() -> float:
    return time.monotonic() + SOON


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pool(shelf: Shelf, clock: FakeClock) -> ModelPool[Thing]:
    return ModelPool(shelf, budget_bytes=3000, clock=clock, room_seconds=0.05)


def use(pool: ModelPool[Thing], number: int) -> Thing:
    with pool.lease(version_body(number)) as lease:
        return lease.model(later())


def in_memory(pool: ModelPool[Thing]) -> list[int]:
    return [one.version.number for one in pool.loaded()]


def test_a_version_is_loaded_once_however_many_ask(pool: ModelPool[Thing], shelf: Shelf) -> None:
    shelf.go.clear()
    barrier = threading.Barrier(9)
    got: list[Thing] = []

    def ask() -> None:
        with pool.lease(version_body(1)) as lease:
            barrier.wait(SOON)
            got.append(lease.model(later()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait(SOON)
    shelf.go.set()
    for thread in threads:
        thread.join(SOON)
    assert shelf.loads == [1]
    assert len(got) == 8
    assert len({id(one) for one in got}) == 1


def test_whoever_waits_for_a_load_leaves_at_its_deadline(
    pool: ModelPool[Thing], shelf: Shelf
) -> None:
    shelf.go.clear()
    with pool.lease(version_body(1)) as lease, pytest.raises(DeadlinePassed):
        lease.model(time.monotonic() + 0.01)
    shelf.go.set()
    assert use(pool, 1).closed == 0
    assert shelf.loads == [1]


def test_the_least_recently_used_leaves_first_and_the_budget_holds(
    pool: ModelPool[Thing], shelf: Shelf
) -> None:
    for number in (1, 2, 3, 1, 4):
        use(pool, number)
    assert in_memory(pool) == [3, 1, 4]
    assert shelf.thing(2).closed == 1
    assert sum(one.bytes for one in pool.loaded()) <= 3000


def test_a_model_in_use_never_leaves(pool: ModelPool[Thing], shelf: Shelf) -> None:
    held = [pool.lease(version_body(number)) for number in (1, 2, 3)]
    for lease in held:
        lease.model(later())
    with pool.lease(version_body(4)) as lease, pytest.raises(ModelUnavailable) as caught:
        lease.model(later())
    assert caught.value.retryable
    assert [one.closed for one in shelf.things] == [0, 0, 0]
    for lease in held:
        lease.release()


def test_a_load_waits_for_a_model_in_use_to_become_idle(shelf: Shelf) -> None:
    pool = ModelPool(shelf, budget_bytes=1000, room_seconds=SOON)
    held = pool.lease(version_body(1))
    held.model(later())
    waiting = pool.lease(version_body(2))
    held.release()
    assert waiting.model(later()).version.number == 2
    assert shelf.thing(1).closed == 1


def test_the_measured_size_counts_not_the_planned_one(pool: ModelPool[Thing], shelf: Shelf) -> None:
    shelf.sizes = {3: 2500}
    for number in (1, 2, 3):
        use(pool, number)
    assert in_memory(pool) == [3]
    assert (shelf.thing(1).closed, shelf.thing(2).closed) == (1, 1)


def test_a_model_larger_than_the_whole_budget_is_refused_with_the_figures(
    pool: ModelPool[Thing], shelf: Shelf
) -> None:
    shelf.sizes = {1: 5000}
    with pool.lease(version_body(1)) as lease, pytest.raises(ModelUnavailable) as caught:
        lease.model(later())
    assert "MB" in caught.value.message
    assert shelf.thing(1).closed == 1
    with (
        pool.lease(version_body(2, resident_bytes=9000)) as lease,
        pytest.raises(ModelUnavailable),
    ):
        lease.model(later())
    assert shelf.loads == [1]


def test_a_pinned_version_never_leaves_to_make_room(pool: ModelPool[Thing]) -> None:
    use(pool, 1)
    pool.pin([version_body(1)])
    for number in (2, 3, 4, 5):
        use(pool, number)
    assert 1 in in_memory(pool)
    pool.pin([])
    for number in (6, 7, 8):
        use(pool, number)
    assert 1 not in in_memory(pool)


def test_a_switch_may_exceed_the_budget_until_the_old_version_is_dropped(shelf: Shelf) -> None:
    pool = ModelPool(shelf, budget_bytes=1000, room_seconds=0.01)
    pool.ensure(version_body(1), deadline=later())
    pool.pin([version_body(1), version_body(2)])
    pool.ensure(version_body(2), deadline=later())
    assert in_memory(pool) == [1, 2]
    pool.pin([version_body(2)])
    assert in_memory(pool) == [2]
    assert shelf.thing(2).warmed == 1


def test_a_dropped_version_is_closed_after_its_last_lease(
    pool: ModelPool[Thing], shelf: Shelf
) -> None:
    one, two = pool.lease(version_body(1)), pool.lease(version_body(1))
    one.model(later())
    pool.drop(version_body(1))
    assert in_memory(pool) == []
    one.release()
    one.release()
    assert shelf.thing(1).closed == 0
    two.release()
    assert shelf.thing(1).closed == 1


def test_a_version_dropped_while_it_loads_is_closed_afterwards(
    pool: ModelPool[Thing], shelf: Shelf
) -> None:
    shelf.go.clear()
    lease = pool.lease(version_body(1))
    assert shelf.entered.wait(SOON)
    pool.drop(version_body(1))
    shelf.go.set()
    assert lease.model(later()).closed == 0
    lease.release()
    assert shelf.thing(1).closed == 1


def test_a_failed_load_reaches_all_who_wait_and_is_tried_again_after_a_pause(
    pool: ModelPool[Thing], shelf: Shelf, clock: FakeClock
) -> None:
    shelf.refuse = OSError("damaged")
    shelf.go.clear()
    leases = [pool.lease(version_body(1)) for _ in range(3)]
    shelf.go.set()
    for lease in leases:
        with pytest.raises(ModelUnavailable) as caught:
            lease.model(later())
        assert "damaged" not in caught.value.message
        lease.release()
    with pytest.raises(ModelUnavailable):
        pool.lease(version_body(1))
    assert shelf.loads == [1]
    shelf.refuse = None
    clock.advance(1.1)
    assert use(pool, 1).closed == 0
    assert shelf.loads == [1, 1]


def test_the_pause_after_failures_grows_and_is_bounded(
    pool: ModelPool[Thing], shelf: Shelf, clock: FakeClock
) -> None:
    shelf.refuse = OSError("damaged")
    pauses: list[float] = []
    for _ in range(8):
        with pool.lease(version_body(1)) as lease, pytest.raises(ModelUnavailable):
            lease.model(later())
        until = pool._failures["wine", 1, version_body(1).sha256].until
        pauses.append(until - clock())
        clock.now = until
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_ensuring_does_not_wait_for_the_pause(pool: ModelPool[Thing], shelf: Shelf) -> None:
    shelf.refuse = OSError("damaged")
    with pytest.raises(ModelUnavailable):
        pool.ensure(version_body(1), deadline=later())
    shelf.refuse = None
    pool.ensure(version_body(1), deadline=later())
    assert pool.is_loaded(version_body(1))


def test_too_many_waiting_for_one_load_are_refused_at_once(shelf: Shelf) -> None:
    pool = ModelPool(shelf, budget_bytes=3000, max_waiting=2)
    shelf.go.clear()
    leases = [pool.lease(version_body(1)) for _ in range(2)]
    with pytest.raises(Overloaded):
        pool.lease(version_body(1))
    shelf.go.set()
    for lease in leases:
        lease.model(later())
    pool.lease(version_body(1)).release()


def test_a_closed_pool_refuses_and_closes_everything_once(
    pool: ModelPool[Thing], shelf: Shelf
) -> None:
    use(pool, 1)
    held = pool.lease(version_body(2))
    held.model(later())
    pool.close()
    assert shelf.thing(1).closed == 1
    assert shelf.thing(2).closed == 0
    held.release()
    assert shelf.thing(2).closed == 1
    with pytest.raises(ModelUnavailable):
        pool.lease(version_body(1))


def test_a_model_that_cannot_be_closed_does_not_cost_anybody_an_answer(
    pool: ModelPool[Thing], shelf: Shelf
) -> None:
    thing = use(pool, 1)
    thing.close = lambda: 1 / 0  # type: ignore[assignment, method-assign]
    pool.drop(version_body(1))
    assert use(pool, 2).version.number == 2


def test_leases_and_drops_in_any_order_close_every_model_exactly_once(shelf: Shelf) -> None:
    pool = ModelPool(shelf, budget_bytes=2500, room_seconds=SOON)
    wrong: list[str] = []

    def work(seed: int) -> None:
        for turn in range(150):
            version = version_body((seed * 7 + turn) % 4 + 1)
            with pool.lease(version) as lease:
                if lease.model(later()).closed:
                    wrong.append("closed under use")
            if turn % 13 == seed:
                pool.drop(version)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    pool.close()
    assert wrong == []
    assert {one.closed for one in shelf.things} == {1}

"""Limits: which a caller has, what is counted when, and what a reply says of them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from apps.accounts import limits
from apps.accounts.callers import Caller
from apps.accounts.counters.memory import MemoryCounters
from apps.accounts.limits import Ask, Ceilings, Limiter, Stage, Taken, Visit, most_rows
from apps.accounts.snapshot import CountedBy, KeyBody, PlanBody
from apps.core.errors import RateLimited
from tests.fakes.clock import FakeClock

ADDRESS = "192.0.2.7"
TRIAL = PlanBody("trial", requests_per_minute=3, rows_per_minute=10, rows_per_day=15)
LARGE = PlanBody("large", requests_per_minute=6_000, rows_per_minute=60_000)


class Counted(MemoryCounters):
    """Real counters that remember what they were asked."""

    def __init__(self) -> None:
        super().__init__()
        self.trips: list[list[Ask]] = []

    def take(self, asks: Sequence[Ask], now: float) -> list[Taken]:
        self.trips.append(list(asks))
        return super().take(asks, now)


def key(name: str = "k1") -> KeyBody:
    return KeyBody(name, "", 1, 1, (), (), (), None)


def caller(plan: PlanBody | None = TRIAL, key_id: str | None = "k1", user: int = 1) -> Caller:
    held = key(key_id) if key_id else None
    return Caller(user, f"user{user}", False, {}, frozenset(), key=held, plan=plan)


def limiter(
    counters: Counted | None = None, clock: FakeClock | None = None, **ceilings: int
) -> Limiter:
    return Limiter(counters or Counted(), clock=clock or FakeClock(), ceilings=Ceilings(**ceilings))


def call(made: Limiter, who: Caller, rows: int = 1) -> Visit:
    visit = made.enter(who, ADDRESS)
    visit.spend(rows)
    return visit


def refusal(made: Limiter, who: Caller, rows: int = 1) -> RateLimited:
    with pytest.raises(RateLimited) as refused:
        call(made, who, rows)
    return refused.value


# --- what is counted ----------------------------------------------------------------------------


def test_requests_are_refused_beyond_the_minutes_limit() -> None:
    made = limiter()
    for _ in range(3):
        call(made, caller())
    assert "3 requests a minute" in refusal(made, caller()).message


def test_rows_count_and_not_calls_alone() -> None:
    made = limiter()
    call(made, caller(), rows=9)
    refused = refusal(made, caller(), rows=2)
    assert "10 predictions a minute" in refused.message
    assert "1 left, and this call needs 2" in refused.message
    call(made, caller(), rows=1)


def test_rows_that_do_not_fit_cost_their_request() -> None:
    made = limiter()
    call(made, caller(), rows=9)
    refusal(made, caller(), rows=2)
    refusal(made, caller(), rows=2)
    assert "requests" in refusal(made, caller(), rows=1).message


def test_a_request_that_does_not_fit_costs_no_rows() -> None:
    counters, clock = Counted(), FakeClock()
    made = limiter(counters, clock)
    for _ in range(3):
        call(made, caller(), rows=1)
    # Another process, whose memory does not know that yet.
    other = limiter(counters, clock)
    refusal(other, caller(), rows=5)
    rows = {one.counter: one for one in counters.trips[-1] if one.stage is Stage.ROWS}
    after = counters.take([replace(one, need=0, known=0) for one in rows.values()], clock())
    assert [one.used for one in after] == [3, 3]


def test_a_call_that_ended_early_costs_one_request() -> None:
    counters = Counted()
    visit = limiter(counters).enter(caller(), ADDRESS)
    visit.close()
    assert [(one.counter, one.need) for one in counters.trips[0]] == [
        ("requests:key:k1", 1),
        ("rows:key:k1", 0),
        ("rows-day:key:k1", 0),
    ]


def test_a_call_is_counted_once() -> None:
    counters = Counted()
    visit = limiter(counters).enter(caller(), ADDRESS)
    visit.spend(2)
    visit.close()
    assert len(counters.trips) == 1


def test_the_day_holds_when_the_minute_opens() -> None:
    clock = FakeClock()
    made = limiter(clock=clock)
    call(made, caller(), rows=10)
    clock.advance(60)
    call(made, caller(), rows=5)
    refused = refusal(made, caller(), rows=1)
    assert "15 predictions a day" in refused.message
    assert refused.retry_after_seconds == 86_400 - 1_060


def test_a_new_minute_opens_anew() -> None:
    clock = FakeClock()
    made = limiter(clock=clock)
    for _ in range(3):
        call(made, caller())
    wait = refusal(made, caller()).retry_after_seconds
    assert wait is not None
    clock.advance(wait)
    call(made, caller())


def test_windows_of_subjects_open_at_different_seconds_and_a_day_at_midnight() -> None:
    many = [limits.plan_limits(TRIAL, f"key:{number}") for number in range(50)]
    assert len({one[0].phase for one in many}) > 20
    assert {one[2].phase for one in many} == {0}


def test_no_plan_is_no_limit() -> None:
    counters = Counted()
    visit = call(limiter(counters), caller(plan=None), rows=100)
    assert (counters.trips, dict(visit.headers())) == ([], {})


def test_a_plan_without_numbers_is_no_limit() -> None:
    counters = Counted()
    visit = call(limiter(counters), caller(plan=PlanBody("unlimited")), rows=100)
    assert (counters.trips, dict(visit.headers())) == ([], {})


# --- who is counted -----------------------------------------------------------------------------


def test_keys_count_by_themselves() -> None:
    made = limiter()
    for _ in range(3):
        call(made, caller())
    call(made, caller(key_id="k2"))


def test_keys_and_tokens_of_a_person_share_a_plan_that_counts_by_person() -> None:
    made = limiter()
    shared = replace(TRIAL, counted_by=CountedBy.PERSON)
    for key_id in ("k1", "k2", None):
        call(made, caller(shared, key_id))
    refusal(made, caller(shared, "k3"))
    call(made, caller(shared, "k4", user=2))


def test_a_persons_tokens_count_together_and_apart_from_her_keys() -> None:
    made = limiter()
    for _ in range(3):
        call(made, caller(key_id=None))
    refusal(made, caller(key_id=None))
    call(made, caller(key_id="k1"))


def test_a_person_has_one_ceiling_over_all_keys() -> None:
    made = limiter(person=2)
    call(made, caller(LARGE, "k1"))
    call(made, caller(LARGE, "k2"))
    assert "A person may make 2 requests" in refusal(made, caller(LARGE, "k3")).message
    call(made, caller(LARGE, "k4", user=2))


def test_an_address_has_one_ceiling_over_all_people() -> None:
    made = limiter(address=2)
    call(made, caller(None, "k1", 1))
    call(made, caller(None, "k2", 2))
    assert "One address may make 2 requests" in refusal(made, caller(None, "k3", 3)).message


@pytest.mark.parametrize(
    ("address", "counted"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64")],
)
def test_a_customers_whole_ipv6_network_is_one_address(address: str, counted: str) -> None:
    assert limits.neighbourhood(address) == counted


@pytest.mark.parametrize(
    ("plan", "rows"),
    [
        (None, 100),
        (PlanBody("a"), 100),
        (PlanBody("a", rows_per_call=10), 10),
        (PlanBody("a", rows_per_call=500), 100),
        (PlanBody("a", rows_per_minute=7, rows_per_day=1000), 7),
        (PlanBody("a", rows_per_day=0), 1),
    ],
)
def test_a_call_may_not_have_more_rows_than_could_ever_be_paid(
    plan: PlanBody | None, rows: int
) -> None:
    assert most_rows(plan, 100) == rows


# --- bad credentials ----------------------------------------------------------------------------


def test_an_address_with_too_many_bad_credentials_waits() -> None:
    made = limiter(refused=2)
    for _ in range(2):
        made.guard(ADDRESS)
        made.note_refused(ADDRESS)
    with pytest.raises(RateLimited, match="no or bad credentials 2 times"):
        made.guard(ADDRESS)
    made.guard("192.0.2.8")


def test_a_credential_that_was_good_passes_a_neighbours_bad_ones() -> None:
    made = limiter(refused=1)
    made.note_good("good")
    made.note_refused(ADDRESS, "bad")
    made.guard(ADDRESS, "good")
    with pytest.raises(RateLimited):
        made.guard(ADDRESS, "unknown")


def test_a_credential_that_is_good_no_longer_waits_like_others() -> None:
    made = limiter(refused=1)
    made.note_good("good")
    made.note_refused(ADDRESS, "good")
    with pytest.raises(RateLimited):
        made.guard(ADDRESS, "good")


def test_bad_credentials_of_unknown_origin_are_not_put_on_one_heap() -> None:
    made = limiter(refused=1)
    made.note_refused(None)
    made.guard(None)


# --- memory -------------------------------------------------------------------------------------


def test_who_has_nothing_left_is_refused_from_memory_and_before_the_body() -> None:
    counters, clock = Counted(), FakeClock()
    made = limiter(counters, clock)
    for _ in range(3):
        call(made, caller())
    trips = len(counters.trips)
    for _ in range(5):
        with pytest.raises(RateLimited):
            made.enter(caller(), ADDRESS)
    assert len(counters.trips) == trips


def test_a_changed_plan_counts_from_the_next_call_on() -> None:
    made = limiter()
    for _ in range(3):
        call(made, caller())
    call(made, caller(replace(TRIAL, requests_per_minute=4)))
    refusal(made, caller(replace(TRIAL, requests_per_minute=4)))
    refusal(made, caller())


def test_a_limit_of_nothing_lets_nothing_through() -> None:
    refusal(limiter(), caller(PlanBody("none", requests_per_minute=0)))


def test_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_REMEMBERED", 100)
    made = limiter(refused=5)
    for number in range(1_000):
        made.note_refused(f"10.0.{number // 250}.{number % 250}")
    assert len(made._known) <= 100


# --- leases -------------------------------------------------------------------------------------


def test_a_large_limit_is_leased_and_spent_without_a_trip() -> None:
    counters = Counted()
    made = limiter(counters)
    for _ in range(60):
        call(made, caller(LARGE))
    assert len(counters.trips) == 1
    assert [one.want for one in counters.trips[0]] == [60, 600]


def test_a_small_limit_is_counted_call_by_call() -> None:
    counters = Counted()
    made = limiter(counters)
    call(made, caller())
    call(made, caller())
    assert len(counters.trips) == 2


def test_leases_never_let_more_through_than_the_limit() -> None:
    """Seven processes, served in turn: exactly the limit, though each holds a lease."""
    counters, clock = Counted(), FakeClock()
    processes = [limiter(counters, clock) for _ in range(7)]
    assert _passed(processes, calls=8_000) == 6_000


def test_what_idle_processes_hold_back_is_a_hundredth_each_at_the_most() -> None:
    counters, clock = Counted(), FakeClock()
    processes = [limiter(counters, clock) for _ in range(7)]
    for one in processes:
        call(one, caller(LARGE))
    passed = 7 + _passed(processes[:1], calls=8_000)
    assert 6_000 - 6 * 60 <= passed < 6_000


def test_a_refused_call_gives_back_what_it_drew_from_a_lease() -> None:
    counters, clock = Counted(), FakeClock()
    rows = PlanBody("rows", rows_per_minute=1_000)
    first, second = limiter(counters, clock), limiter(counters, clock)
    call(first, caller(rows), rows=1)  # holds nine of its block of ten
    call(second, caller(rows), rows=985)
    refusal(first, caller(rows), rows=20)
    call(first, caller(rows), rows=9)


def test_a_lease_is_worth_no_more_than_the_plan_after_a_cut() -> None:
    made = limiter()
    call(made, caller(LARGE))
    cut = PlanBody("large", requests_per_minute=10)
    assert _passed([made], calls=100, plan=cut) == 0


def _passed(processes: Sequence[Limiter], *, calls: int, plan: PlanBody = LARGE) -> int:
    passed = 0
    for number in range(calls):
        try:
            call(processes[number % len(processes)], caller(plan))
        except RateLimited:
            continue
        passed += 1
    return passed


# --- what a reply says --------------------------------------------------------------------------


def test_headers_name_the_tightest_limit_and_all_of_them() -> None:
    visit = call(limiter(), caller(), rows=8)
    assert dict(visit.headers()) == {
        "RateLimit-Limit": "10",
        "RateLimit-Remaining": "2",
        "RateLimit-Reset": str(_reset(limits.plan_limits(TRIAL, "key:k1")[1])),
        "RateLimit-Policy": '"requests";q=3;w=60, "rows";q=10;w=60, "rows-day";q=15;w=86400',
    }


def test_a_refusal_carries_the_headers_of_its_own_limit() -> None:
    made = limiter()
    call(made, caller(), rows=9)
    refused = refusal(made, caller(), rows=2)
    assert refused.headers["RateLimit-Limit"] == "10"
    assert refused.headers["RateLimit-Remaining"] == "1"
    assert refused.headers["RateLimit-Reset"] == str(refused.retry_after_seconds)


def test_headers_before_anything_was_counted_say_what_memory_knows() -> None:
    made = limiter()
    call(made, caller())
    assert made.enter(caller(), ADDRESS).headers()["RateLimit-Remaining"] == "2"


def _reset(limit: limits.Limit, now: float = 1000.0) -> int:
    left = limit.ends(limit.window(now)) - now
    assert 0 < left <= limit.seconds
    return int(left)


def test_a_clock_that_was_a_day_ahead_for_a_moment_costs_no_lease_for_each_call() -> None:
    counters, clock = Counted(), FakeClock(1_000_000.0)
    made = limiter(counters, clock)
    who = caller(PlanBody("large", rows_per_day=1_000_000))
    clock.advance(limits.DAY)
    call(made, who)
    clock.advance(-limits.DAY)
    counters.trips.clear()
    for _ in range(50):
        call(made, who)
    assert len(counters.trips) == 1


def test_a_thread_that_read_the_clock_before_the_turn_takes_nothing_from_the_new_window() -> None:
    counters, clock = Counted(), FakeClock(1_000_000.0)
    made = limiter(counters, clock)
    who = caller(PlanBody("large", rows_per_day=1_000_000))
    clock.now = float(12 * limits.DAY)
    call(made, who)
    clock.advance(-0.001)
    call(made, who)
    clock.advance(0.001)
    counters.trips.clear()
    call(made, who)
    assert counters.trips == []

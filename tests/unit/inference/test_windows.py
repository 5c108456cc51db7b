"""Spans of time: they begin and end on whole steps, and add up."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from apps.core.errors import Invalid
from apps.inference import windows
from apps.inference.windows import DAY, FIVE_MINUTES, HOUR, MINUTE, RANGES, SIX_HOURS

NOW = datetime(2026, 11, 21, 14, 37, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "step", "steps"),
    [
        ("hour", MINUTE, 60),
        ("day", FIVE_MINUTES, 288),
        ("week", HOUR, 168),
        ("month", SIX_HOURS, 120),
        ("quarter", DAY, 90),
    ],
)
def test_a_named_time_is_cut_into_whole_steps_up_to_this_moment(
    name: str, step: int, steps: int
) -> None:
    window = windows.named(name, now=NOW)
    assert (window.step_seconds, len(window.times), window.name) == (step, steps, name)
    assert window.start.timestamp() % step == 0
    assert window.end - timedelta(seconds=step) <= NOW < window.end
    assert window.place(NOW) == steps - 1


def test_every_name_has_its_words() -> None:
    assert all(windows.named(name, now=NOW).words.startswith("last ") for name in RANGES)


def test_the_period_before_is_as_long_and_ends_where_this_one_begins() -> None:
    window = windows.named("week", now=NOW)
    assert window.before.end == window.start
    assert window.before.seconds == window.seconds
    assert len(window.before.times) == len(window.times)


@pytest.mark.parametrize(
    ("days", "step"),
    [(0.1, MINUTE), (2, FIVE_MINUTES), (14, HOUR), (60, SIX_HOURS), (61, DAY), (400, DAY)],
)
def test_a_longer_time_is_cut_more_coarsely(days: float, step: int) -> None:
    window = windows.between(NOW - timedelta(days=days), NOW, now=NOW)
    assert window.step_seconds == step
    assert window.start <= NOW - timedelta(days=days)
    assert window.end >= NOW
    assert len(window.times) <= 600


def test_what_lies_far_back_is_cut_by_the_hour_because_finer_counts_are_gone() -> None:
    start = NOW - timedelta(days=windows.FINE_DAYS + 1)
    assert windows.between(start, start + timedelta(hours=2), now=NOW).step_seconds == HOUR


def test_a_time_without_a_zone_is_utc_and_one_with_a_zone_is_the_same_moment() -> None:
    plain = windows.asked({"from": "2026-11-21T10:00", "to": "2026-11-21T12:00"}, now=NOW)
    zoned = windows.asked(
        {"from": "2026-11-21T05:00-05:00", "to": "2026-11-21T13:00+01:00"}, now=NOW
    )
    assert plain == zoned
    assert plain.start.utcoffset() == timedelta()


def test_a_day_begins_at_midnight_of_utc_wherever_the_clock_hangs() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=-11)))
    assert windows.named("quarter", now=there).end == datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"range": "fortnight"}, "/range"),
        ({"from": "yesterday"}, "/from"),
        ({"from": "2026-11-21", "to": "x"}, "/to"),
        ({"from": "2026-11-21", "to": "2026-11-20"}, "/from"),
        ({"from": "2027-01-01"}, "/from"),
        ({"from": "1999-01-01"}, "/from"),
        ({"from": "2025-01-01"}, "/from"),
        ({"to": "2026-11-20"}, "/from"),
    ],
)
def test_a_time_that_cannot_be_is_refused_with_its_place(query: Any, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        windows.asked(query, now=NOW)
    assert [one.pointer for one in caught.value.problems] == [pointer]


def test_usage_that_is_kept_by_the_hour_has_no_finer_step() -> None:
    for name in RANGES:
        assert windows.named(name, now=NOW, least_step=HOUR).step_seconds >= HOUR


@pytest.mark.parametrize("name", ["day", "week", "month", "quarter"])
def test_pieces_fill_a_window_without_gap_and_overlap(name: str) -> None:
    window = windows.named(name, now=NOW)
    pieces = windows.pieces(window)
    assert (pieces[0].start, pieces[-1].end) == (window.start, window.end)
    assert all(one.end == next_one.start for one, next_one in pairwise(pieces))
    assert all(one.start.timestamp() % one.seconds == 0 for one in pieces)
    assert len(pieces) <= 7

"""How long failed sign-ins lock."""

from datetime import timedelta

import pytest

from apps.accounts.services.guards import LONGEST, lock_length

QUARTER = timedelta(minutes=15)


@pytest.mark.parametrize("failures", [1, 4, 6, 9, 11])
def test_nothing_is_locked_between_two_full_counts(failures: int) -> None:
    assert lock_length(failures, allowed=5, first=QUARTER) is None


@pytest.mark.parametrize(
    ("failures", "minutes"), [(5, 15), (10, 30), (15, 60), (20, 120), (25, 240), (30, 240)]
)
def test_each_full_count_doubles_the_lock_up_to_four_hours(failures: int, minutes: int) -> None:
    assert lock_length(failures, allowed=5, first=QUARTER) == timedelta(minutes=minutes)


def test_a_lock_that_goes_on_for_ever_does_not_overflow() -> None:
    assert lock_length(5_000_000, allowed=5, first=QUARTER) == LONGEST


def test_an_operator_who_wants_longer_first_locks_gets_them() -> None:
    day = timedelta(days=1)
    assert lock_length(5, allowed=5, first=day) == day

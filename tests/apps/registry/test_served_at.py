"""What served at a moment: from the times at which releases were decided, exact at their edges."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.registry import selectors
from apps.registry.models import Endpoint, Release
from apps.registry.services import releases
from tests.factories.registry import SYSTEM, endpoint_of, make_model, make_release, make_version

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def endpoint() -> Endpoint:
    """Releases 1, 2 and 3, an hour apart; 3 goes back to 1."""
    first = make_version(make_model("wine"))
    make_release(first)
    make_release(make_version(first.model))
    found = endpoint_of(first.model)
    releases.roll_back(found, actor=SYSTEM, reason="worse")
    for number in (1, 2, 3):
        Release.objects.filter(endpoint=found, number=number).update(
            decided=NOON + (number - 1) * HOUR
        )
    return found


def number_at(endpoint: Endpoint, moment: datetime) -> int | None:
    served = selectors.served_at(endpoint, moment)
    return served.release.number if served else None


def test_a_release_serves_from_its_own_moment_until_the_next_ones(endpoint: Endpoint) -> None:
    assert number_at(endpoint, NOON) == 1
    assert number_at(endpoint, NOON + HOUR - TICK) == 1
    assert number_at(endpoint, NOON + HOUR) == 2
    assert number_at(endpoint, NOON + 2 * HOUR) == 3
    served = selectors.served_at(endpoint, NOON + HOUR)
    assert served is not None
    assert (served.since, served.until) == (NOON + HOUR, NOON + 2 * HOUR)


def test_before_the_first_release_nothing_served(endpoint: Endpoint) -> None:
    assert selectors.served_at(endpoint, NOON - TICK) is None


def test_what_serves_now_has_no_end(endpoint: Endpoint) -> None:
    served = selectors.served_at(endpoint, NOON + 100 * HOUR)
    assert served is not None
    assert (served.release.number, served.until) == (3, None)


def test_what_was_rejected_or_waits_never_served(endpoint: Endpoint) -> None:
    newest = Release.objects.get(endpoint=endpoint, number=2)
    for number, state, decided in ((4, "rejected", NOON), (5, "awaiting_approval", None)):
        newest.pk, newest.number, newest.state, newest.decided = None, number, state, decided
        newest.save(force_insert=True)
    assert number_at(endpoint, NOON + 100 * HOUR) == 3


def test_of_two_releases_at_one_moment_the_later_one_serves(endpoint: Endpoint) -> None:
    Release.objects.filter(endpoint=endpoint, number=2).update(decided=NOON)
    assert number_at(endpoint, NOON) == 2
    assert number_at(endpoint, NOON - TICK) is None


def test_another_endpoint_has_its_own_past(endpoint: Endpoint) -> None:
    staging = Endpoint.objects.get(model=endpoint.model, environment="staging")
    assert selectors.served_at(staging, NOON + HOUR) is None

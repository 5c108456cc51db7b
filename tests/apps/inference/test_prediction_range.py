"""The list of predictions in a time of one's own: it stands in the address, beside the chips."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.snapshot import Role
from tests.factories.accounts import make_member, make_team
from tests.factories.inference import prediction

pytestmark = pytest.mark.django_db
LIST = reverse("admin:inference_prediction_changelist")
NOON = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=3)


@pytest.fixture
def ids() -> dict[str, UUID]:
    """Predictions by their time: an hour before noon, at noon, an hour after, and now."""
    team = make_team("blue")
    member = make_member(team, Role.VIEWER, "viv")
    User.objects.filter(pk=member.pk).update(is_staff=True)
    times = {
        "before": NOON - timedelta(hours=1),
        "noon": NOON,
        "after": NOON + timedelta(hours=1),
        "now": timezone.now(),
    }
    return {name: prediction(ts=ts, team_id=team.pk).pk for name, ts in times.items()}


def shown(ids: dict[str, UUID], **query: str) -> set[str]:
    client = Client()
    client.force_login(User.objects.get(username="viv"))
    reply = client.get(LIST, query)
    assert reply.status_code == 200
    text = reply.content.decode()
    return {name for name, pk in ids.items() if f"/prediction/{pk}/" in text}


def at(hours: int) -> str:
    return f"{NOON + timedelta(hours=hours):%Y-%m-%dT%H:%M}"


def test_from_is_within_and_to_is_not(ids: dict[str, UUID]) -> None:
    assert shown(ids, **{"from": at(0), "to": at(1)}) == {"noon"}
    assert shown(ids, **{"from": at(-1), "to": at(2)}) == {"before", "noon", "after"}


def test_one_end_alone_narrows_as_well(ids: dict[str, UUID]) -> None:
    assert shown(ids, **{"from": at(1)}) == {"after", "now"}
    assert shown(ids, to=at(0)) == {"before"}


def test_a_time_of_ones_own_stands_in_the_place_of_the_chip(ids: dict[str, UUID]) -> None:
    assert shown(ids, **{"from": at(0), "to": at(1), "when": "hour"}) == {"noon"}
    assert shown(ids, when="week") == set(ids)


def test_what_is_no_time_narrows_nothing_and_the_day_is_shown(ids: dict[str, UUID]) -> None:
    assert shown(ids, **{"from": "yesterday", "to": "-1"}) == {"now"}


def test_the_chips_lead_out_of_it_again(ids: dict[str, UUID]) -> None:
    client = Client()
    client.force_login(User.objects.get(username="viv"))
    text = client.get(LIST, {"from": at(0), "model": "wine"}).content.decode()
    assert "?model=wine&amp;when=week" in text or "?when=week&amp;model=wine" in text


def test_the_rate_of_the_match_is_of_the_same_time(ids: dict[str, UUID]) -> None:
    client = Client()
    client.force_login(User.objects.get(username="viv"))
    path = reverse("inference-pages:match-rate")
    assert client.get(path, {"from": at(0), "to": at(1)}).status_code == 200
    said = client.get(path, {"to": at(1)}).content.decode()
    assert "Say from when, too." in said

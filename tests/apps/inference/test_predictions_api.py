"""GET predictions: search the record by API."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import Team
from apps.accounts.snapshot import Role
from tests.factories.accounts import api_key, bearer, make_key, make_member, make_team
from tests.factories.inference import prediction

pytestmark = pytest.mark.django_db
URL = "/api/v1/predictions"


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def headers(team: Team) -> dict[str, str]:
    return bearer(make_member(team, Role.VIEWER))


def test_a_prediction_is_shown_whole(client: Client, team: Team, headers: dict[str, str]) -> None:
    one = prediction(team_id=team.pk, inputs=[{"age": 41}], outputs={"p": [0.5]}, unit="u")
    reply = client.get(f"{URL}/{one.id}", headers=headers)
    assert reply.status_code == 200
    body = reply.json()
    assert body["id"] == str(one.id)
    assert (body["inputs"], body["outputs"], body["unit"]) == ([{"age": 41}], {"p": [0.5]}, "u")
    assert (body["key"], body["variant"], body["error"]) == ("key0123456ab", None, None)
    assert body["ts"].endswith("Z")


def test_pages_lead_to_all_of_them(client: Client, team: Team, headers: dict[str, str]) -> None:
    made = [str(prediction(team_id=team.pk).id) for _ in range(5)]
    prediction(team_id=team.pk + 1)
    seen: list[str] = []
    url: str | None = f"{URL}?page_size=2"
    while url:
        body = client.get(url, headers=headers).json()
        assert len(body["results"]) <= 2
        assert "inputs" not in body["results"][0]
        seen += [one["id"] for one in body["results"]]
        url = body["next"]
    assert sorted(seen, reverse=True) == seen
    assert set(seen) == set(made)


def test_only_the_last_day_is_searched_unless_asked(
    client: Client, team: Team, headers: dict[str, str]
) -> None:
    old = prediction(team_id=team.pk, ts=timezone.now() - timedelta(days=2))
    assert client.get(URL, headers=headers).json()["results"] == []
    since = (old.ts - timedelta(hours=1)).isoformat()
    found = client.get(URL, {"since": since}, headers=headers).json()["results"]
    assert [one["id"] for one in found] == [str(old.id)]


def test_filters_are_those_of_the_address(
    client: Client, team: Team, headers: dict[str, str]
) -> None:
    failed = prediction(team_id=team.pk, model="b", version=3, status="model_failed")
    prediction(team_id=team.pk)
    for query in ("model=b", "version=3", "status=error", "status=model_failed"):
        found = client.get(f"{URL}?{query}", headers=headers).json()["results"]
        assert [one["id"] for one in found] == [str(failed.id)], query


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("version=x", "/version"),
        ("version=0", "/version"),
        ("since=yesterday", "/since"),
        ("until=0001-01-01T00:00:00Z", "/until"),
        ("page_size=201", "/page_size"),
        ("colour=blue", "/colour"),
        ("model=a%00b", "/model"),
    ],
)
def test_a_wrong_parameter_is_named(
    client: Client, headers: dict[str, str], query: str, pointer: str
) -> None:
    reply = client.get(f"{URL}?{query}", headers=headers)
    assert reply.status_code == 400
    assert [one["pointer"] for one in reply.json()["errors"]] == [pointer]


@pytest.mark.parametrize("query", ["cursor=x", "cursor=018f0000-0000-4000-8000-000000000000"])
def test_a_foreign_cursor_is_refused(client: Client, headers: dict[str, str], query: str) -> None:
    reply = client.get(f"{URL}?{query}", headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid")


@pytest.mark.parametrize("text", ["x", "018f0000-0000-4000-8000-000000000000", "%00", "a%0Ab"])
def test_what_is_no_id_is_not_found(client: Client, headers: dict[str, str], text: str) -> None:
    assert client.get(f"{URL}/{text}", headers=headers).status_code == 404


def test_four_kinds_of_caller(client: Client, team: Team, headers: dict[str, str]) -> None:
    one = prediction(team_id=team.pk)
    stranger = bearer(make_member(make_team("red"), Role.MAINTAINER))
    answers: list[tuple[Any, int]] = [
        (headers, 200),
        (stranger, 404),
        ({}, 401),
        (key_of(team, "logs:read"), 200),
        (key_of(team, "predict"), 403),
    ]
    for presented, status in answers:
        assert client.get(f"{URL}/{one.id}", headers=presented).status_code == status
    assert client.get(URL, headers=stranger).json()["results"] == []
    assert client.get(URL, headers=key_of(team, "predict")).status_code == 403


def key_of(team: Team, *scopes: str) -> dict[str, str]:
    _, text = make_key(team, make_member(team, Role.MAINTAINER), scopes=scopes)
    return api_key(text)


def test_a_page_costs_a_fixed_number_of_queries(
    client: Client, team: Team, headers: dict[str, str], django_assert_num_queries: Any
) -> None:
    for _ in range(10):
        prediction(team_id=team.pk)
    with django_assert_num_queries(6):  # four find out who is asking
        client.get(URL, headers=headers)

"""GET /api/v1/audit: own teams only, filters, pages, one event with its link in the chain."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import Team, User
from apps.accounts.services import teams
from apps.accounts.snapshot import Role
from apps.core import events
from apps.core.events import Actor
from apps.core.models import Event
from tests.factories.accounts import api_key, bearer, make_key, make_member, make_team, make_user

pytestmark = pytest.mark.django_db
PATH = "/api/v1/audit"


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def ada(team: Team) -> User:
    return make_member(team, Role.MAINTAINER, "ada")


def ask(user: User, query: str = "") -> Any:
    reply = Client().get(f"{PATH}{query}", headers=bearer(user))
    assert reply.status_code == 200, reply.content
    return reply.json()["results"]


def test_a_change_is_told_with_before_and_after(team: Team, ada: User) -> None:
    teams.rename_team(team, name="Azure", actor=Actor("user", str(ada.pk), "ada"))
    (found,) = ask(ada, "?verb=team.renamed")
    assert found["changes"] == [{"field": "Name", "before": "Blue", "after": "Azure"}]
    assert (found["actor"]["name"], found["object"]["kind"]) == ("ada", "accounts.team")
    assert (found["team"], found["seal"]) == ("blue", None)
    events.seal_pending()
    one = Client().get(f"{PATH}/{found['id']}", headers=bearer(ada)).json()
    assert one["seal"]["seq"] == Event.objects.get(pk=found["id"]).seal.seq
    assert one["facts"]["changes"] == {"name": ["Blue", "Azure"]}


def test_other_teams_events_do_not_exist(team: Team, ada: User) -> None:
    red = make_team("red")
    foreign = Event.objects.get(team_id=red.pk)
    assert {one["team"] for one in ask(ada)} == {"blue"}
    assert Client().get(f"{PATH}/{foreign.pk}", headers=bearer(ada)).status_code == 404
    boss = make_user("boss", is_admin=True)
    assert {"blue", "red", None} <= {one["team"] for one in ask(boss)}


def test_a_key_reads_its_own_team_only_whatever_its_owner_maintains(team: Team, ada: User) -> None:
    red = make_team("red")
    teams.add_member(red, ada, role=Role.MAINTAINER, actor=Actor.system())
    _, text = make_key(team, ada, scopes=["admin:*"])
    found = Client().get(PATH, headers=api_key(text)).json()["results"]
    assert {one["team"] for one in found} == {"blue"}


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("?verb=team.created", 1),
        ("?q=blue", 2),
        ("?q=nothing-like-it", 0),
        ("?actor=sys", 2),
        ("?actor_kind=user", 0),
        ("?object_kind=accounts.team", 2),
        ("?team=blue", 2),
        ("?team=red", 0),
        ("?address=192.0.2.1", 0),
        ("?request_id=nope", 0),
        ("?until=2020-01-01T00:00:00Z", 0),
        ("?since=2020-01-01T00:00:00Z", 2),
    ],
)
def test_filters_narrow_the_list(team: Team, ada: User, query: str, count: int) -> None:
    assert len(ask(ada, query)) == count


def test_pages_follow_each_other(team: Team, ada: User) -> None:
    for n in range(5):
        events.record(
            "team.renamed", actor=Actor.system(), target=team, team_id=team.pk, n=n, reason="x"
        )
    first = Client().get(f"{PATH}?page_size=3", headers=bearer(ada)).json()
    second = Client().get(first["next"], headers=bearer(ada)).json()
    ids = [one["id"] for one in (*first["results"], *second["results"])]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 6


@pytest.mark.parametrize("query", ["?verbs=x", "?since=yesterday", "?cursor=x", "?page_size=0"])
def test_what_it_does_not_know_is_refused(ada: User, query: str) -> None:
    assert Client().get(f"{PATH}{query}", headers=bearer(ada)).status_code == 400


def test_an_event_number_that_no_table_has_is_not_there(ada: User) -> None:
    assert Client().get(f"{PATH}/{10**30}", headers=bearer(ada)).status_code == 404


def test_a_list_makes_no_query_per_event(
    team: Team, ada: User, django_assert_max_num_queries: Any
) -> None:
    def many(count: int) -> None:
        for _ in range(count):
            events.record("team.renamed", actor=Actor.system(), target=team, team_id=team.pk)
        events.seal_everything()

    many(2)
    headers = bearer(ada)
    assert timezone.now()
    with django_assert_max_num_queries(8) as few:
        Client().get(PATH, headers=headers)
    many(20)
    with django_assert_max_num_queries(len(few.captured_queries)):
        Client().get(PATH, headers=headers)

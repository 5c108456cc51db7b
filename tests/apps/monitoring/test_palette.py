"""The command palette finds things of one's own teams, by few queries."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.accounts.models import Team, User
from apps.accounts.selectors import caller_of_user
from apps.accounts.snapshot import Role
from apps.monitoring.palette import find
from tests.factories.accounts import make_key, make_member, make_team, make_user
from tests.factories.inference import prediction
from tests.factories.registry import make_model, make_version

pytestmark = pytest.mark.django_db


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def ada(team: Team) -> User:
    return make_member(team, Role.MAINTAINER, "ada")


def titles(user: User, typed: str) -> list[tuple[str, str]]:
    return [
        (one.title, one.kind.split()[0].rstrip(",")) for one in find(caller_of_user(user), typed)
    ]


def test_models_versions_and_endpoints_are_found_by_name(team: Team, ada: User) -> None:
    make_version(make_model("wine", team=team))
    assert ("wine", "Model") in titles(ada, "win")
    assert ("wine in production", "Endpoint") in titles(ada, "wine")
    assert ("wine in staging", "Endpoint") in titles(ada, "wine stag")
    for typed in ("wine 1", "wine/1", "wine v1", "wine version 1"):
        assert ("wine 1", "Version") in titles(ada, typed)


def test_nothing_of_another_team_is_found(ada: User) -> None:
    red = make_team("crimson")
    eve = make_member(red, Role.CONTRIBUTOR, "eve")
    make_version(make_model("wine", team=red))
    key, _ = make_key(red, eve)
    seen = prediction(team_id=red.pk)
    for typed in ("wine", "wine 1", "Crimson", "eve", key.pk, key.prefix, "a key", str(seen.pk)):
        assert titles(ada, typed) == [], typed
    assert titles(eve, "wine") != []


def test_a_key_is_found_by_name_prefix_and_id(team: Team, ada: User) -> None:
    key, text = make_key(team, ada)
    for typed in ("a key", key.pk, key.prefix, key.prefix[:15], text):
        assert (key.name, "Key") in titles(ada, typed), typed


def test_a_prediction_is_found_by_its_id(team: Team, ada: User) -> None:
    seen = prediction(team_id=team.pk)
    assert (str(seen.pk), "Prediction") in titles(ada, str(seen.pk))


def test_people_are_found_by_platform_admins_only(ada: User) -> None:
    boss = make_user("boss", is_admin=True)
    assert ("ada", "ada@example.org") in titles(boss, "ada")
    assert titles(ada, "boss") == []


def test_pages_are_found_by_name_as_far_as_one_may_open_them(team: Team, ada: User) -> None:
    viv = make_member(team, Role.VIEWER, "viv")
    assert ("Audit", "Page") in titles(ada, "audit")
    assert titles(viv, "audit") == []
    assert titles(ada, "background") == []
    assert ("Make key", "Do") in titles(ada, "make")


@pytest.mark.parametrize("typed", ["", " ", "x", "\x00\x00", "%", "_"])
def test_too_little_finds_nothing(ada: User, typed: str) -> None:
    assert find(caller_of_user(ada), typed) == []


def test_the_palette_asks_few_questions(team: Team, ada: User) -> None:
    for number in range(10):
        make_model(f"wine-{number}", team=team)
    caller = caller_of_user(ada)
    with CaptureQueriesContext(connection) as asked:
        assert len(find(caller, "wine")) > 5
    assert len(asked) <= 6


def test_a_model_made_a_moment_ago_is_found_at_once(team: Team) -> None:
    client = Client()
    client.force_login(make_user("boss", is_admin=True))
    reply = client.get("/admin/search/?extended=1&s=wine")
    assert "No results" in reply.content.decode()
    make_model("wine", team=team)
    text = client.get("/admin/search/?extended=1&s=wine").content.decode()
    assert 'id="command-results-list"' in text
    assert "Model of Blue" in text
    assert client.get("/admin/search/?extended=1&s=").content == b""


def test_the_palette_is_for_those_who_are_signed_in() -> None:
    assert Client().get("/admin/search/?extended=1&s=wine").status_code == 302

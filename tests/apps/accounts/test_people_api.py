"""People by API: platform admins see and change them; nobody takes the last admin away."""

from typing import Any

import orjson
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.accounts.models import User
from apps.accounts.policies import DOWNLOAD, Scope
from apps.accounts.services import people
from apps.accounts.snapshot import Role
from apps.core.errors import Conflict
from apps.core.events import Actor
from apps.core.models import Event, SnapshotEntry
from tests.factories.accounts import api_key, bearer, make_key, make_member, make_team, make_user

pytestmark = pytest.mark.django_db
PEOPLE = "/api/v1/people"


@pytest.fixture
def boss() -> User:
    return make_user("boss", is_admin=True)


def call(user: User, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    return Client().generic(
        method,
        f"{PEOPLE}{path}",
        data=b"" if body is None else orjson.dumps(body),
        content_type="application/json",
        headers=bearer(user),
    )


def known(user: User) -> dict[str, Any]:
    """Return what serving knows of a person."""
    body = SnapshotEntry.objects.get(kind="person", key=str(user.pk)).body
    assert body is not None
    return dict(body)


def test_an_admin_sees_everybody_with_roles_plan_and_grants(boss: User) -> None:
    make_member(make_team("blue"), Role.VIEWER, "viv")
    found = {one["username"]: one for one in call(boss, "GET", "").json()["results"]}
    assert set(found) == {"boss", "viv"}
    assert found["viv"]["teams"] == [{"slug": "blue", "name": "Blue", "role": "viewer"}]
    assert (found["viv"]["plan"], found["viv"]["is_admin"]) == ("standard", False)
    assert found["boss"]["is_admin"]


def test_the_list_is_searched_by_name_and_costs_no_query_per_person(boss: User) -> None:
    team = make_team("blue")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert call(boss, "GET", "").status_code == 200
        return len(captured)

    make_member(team, Role.VIEWER, "viv")
    few = queries()
    for number in range(5):
        make_member(team, Role.VIEWER, f"v{number}")
    assert queries() == few
    names = [one["username"] for one in call(boss, "GET", "?search=viv").json()["results"]]
    assert names == ["viv"]


def test_no_answer_tells_a_password_or_what_hashes_one(boss: User) -> None:
    text = call(boss, "GET", "/boss").content.decode()
    assert boss.password not in text
    assert "password" not in text
    assert "token" not in text


def test_a_person_is_disabled_with_a_reason_and_serving_knows(boss: User) -> None:
    viv = make_user("viv")
    reply = call(boss, "PATCH", "/viv", {"is_active": False, "reason": "she left"})
    assert (reply.status_code, reply.json()["is_active"]) == (200, False)
    event = Event.objects.get(verb="user.disabled")
    assert (event.actor_name, event.target_id, event.reason) == ("boss", str(viv.pk), "she left")
    assert known(viv)["is_active"] is False
    assert call(boss, "PATCH", "/viv", {"is_active": True, "reason": "back"}).json()["is_active"]


def test_an_admin_is_made_and_unmade_and_the_event_says_before_and_after(boss: User) -> None:
    viv = make_user("viv")
    call(boss, "PATCH", "/viv", {"is_admin": True, "reason": "helps out"})
    viv.refresh_from_db()
    assert (viv.is_superuser, viv.is_staff) == (True, True)
    event = Event.objects.get(verb="user.changed")
    assert event.facts["changes"] == {"is_admin": [False, True]}
    assert event.reason == "helps out"
    assert call(viv, "PATCH", "/viv", {"is_admin": False, "reason": "done"}).status_code == 200
    assert call(viv, "GET", "").status_code in {401, 403}


def test_a_grant_reaches_serving_and_replaces_the_former_ones(boss: User) -> None:
    viv = make_user("viv")
    reply = call(boss, "PATCH", "/viv", {"permissions": [DOWNLOAD], "reason": "audits files"})
    assert reply.json()["permissions"] == [DOWNLOAD]
    assert known(viv)["permissions"] == [DOWNLOAD]
    reply = call(boss, "PATCH", "/viv", {"permissions": [], "reason": "done"})
    assert reply.json()["permissions"] == []


def test_only_what_is_grantable_can_be_granted(boss: User) -> None:
    make_user("viv")
    wish = {"permissions": ["accounts.delete_user"], "is_admin": True, "reason": "x"}
    reply = call(boss, "PATCH", "/viv", wish)
    assert (reply.status_code, reply.json()["errors"][0]["pointer"]) == (400, "/permissions/0")
    assert not User.objects.get(username="viv").is_superuser


def test_a_plan_is_given_and_an_unknown_one_undoes_the_rest(boss: User) -> None:
    make_user("viv")
    reply = call(boss, "PATCH", "/viv", {"plan": "trial", "reason": "x"})
    assert reply.json()["plan"] == "trial"
    wish = {"plan": "golden", "is_active": False, "reason": "x"}
    assert call(boss, "PATCH", "/viv", wish).status_code == 400
    assert User.objects.get(username="viv").is_active


def test_a_change_wants_its_reason_and_no_unknown_field(boss: User) -> None:
    make_user("viv")
    assert call(boss, "PATCH", "/viv", {"is_active": False}).status_code == 400
    for name in ("is_superuser", "username", "password", "token_version", "email"):
        wish = {name: "x", "reason": "x"}
        assert call(boss, "PATCH", "/viv", wish).status_code == 400


@pytest.mark.parametrize("wish", [{"is_admin": False}, {"is_active": False}])
def test_the_last_platform_admin_stays(boss: User, wish: dict[str, Any]) -> None:
    disabled = make_user("old", is_admin=True)
    people.set_active(disabled, active=False, actor=Actor.system())
    reply = call(boss, "PATCH", "/boss", {**wish, "reason": "tired"})
    assert reply.status_code == 409
    boss.refresh_from_db()
    assert (boss.is_superuser, boss.is_active) == (True, True)


def test_the_admins_form_cannot_take_the_last_admin_away(boss: User) -> None:
    User.objects.filter(pk=boss.pk).update(is_superuser=False)
    with pytest.raises(Conflict, match="Nobody would run"):
        people.standing_changed(boss, actor=Actor.system(), changed=["is_superuser"], created=False)


def test_nobody_but_a_signed_in_platform_admin_learns_who_there_is(boss: User) -> None:
    team = make_team("blue")
    mara = make_member(team, Role.MAINTAINER, "mara")
    _, key = make_key(team, boss, scopes=[Scope.ADMIN])
    for path in ("", "/boss", "/nobody"):
        assert call(mara, "GET", path).status_code == 403
        assert Client().get(f"{PEOPLE}{path}").status_code == 401
        # A key is one team's, whoever owns it.
        assert Client().get(f"{PEOPLE}{path}", headers=api_key(key)).status_code == 403
    assert call(boss, "GET", "/nobody").status_code == 404
    assert call(boss, "GET", "/a%00b").status_code == 404

"""Making an account for oneself, by API: who may, with what, and what one gets."""

from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import Invitation, Membership, Team, User
from apps.accounts.services import invitations, registration, sessions
from apps.accounts.services.keys import KeyWish, issue_key
from apps.accounts.snapshot import Role, person_from_json
from apps.core.models import Event, SnapshotEntry
from tests.factories.accounts import PASSWORD, SYSTEM, make_team, make_user

pytestmark = pytest.mark.django_db
REGISTER = "/api/v1/auth/register"


@pytest.fixture
def blue() -> Team:
    return make_team("blue")


def ask(**more: Any) -> Any:
    body = {"username": "eve", "email": "eve@example.org", "password": PASSWORD} | more
    return Client().post(REGISTER, body, content_type="application/json")


def invited(team: Team | None = None, role: Role | None = None, email: str = "") -> str:
    return invitations.invite(email=email or "Eve@example.org", team=team, role=role, actor=SYSTEM)[
        1
    ]


def test_nobody_registers_where_it_is_off(settings: Any) -> None:
    settings.REGISTRATION = "off"
    reply = ask()
    assert (reply.status_code, reply.json()["code"]) == (403, "registration_off")
    assert not User.objects.exists()


def test_an_invitation_from_before_opens_nothing_once_it_is_off(settings: Any) -> None:
    text = invited()
    settings.REGISTRATION = "off"
    assert ask(invitation=text).json()["code"] == "registration_off"


def test_openly_one_gets_a_trial_and_a_team_of_ones_own() -> None:
    make_team("eve")
    reply = ask(first_name="Eve")
    assert reply.status_code == HTTPStatus.CREATED
    assert reply.json() == {"username": "eve", "email": "eve@example.org", "teams": ["eve-2"]}
    eve = User.objects.get(username="eve")
    assert str(eve.plan_id) == "trial"
    member = Membership.objects.get(user=eve)
    assert (member.team.slug, member.role) == ("eve-2", "maintainer")
    body = SnapshotEntry.objects.get(kind="person", key=str(eve.pk)).body
    assert body is not None
    assert person_from_json(body).roles == {member.team_id: Role.MAINTAINER}
    assert sessions.sign_in("eve", PASSWORD).access


def test_whoever_registered_can_make_a_first_key() -> None:
    ask()
    eve, team = User.objects.get(username="eve"), Team.objects.get(slug="eve")
    key, _ = issue_key(
        team, owner=eve, wish=KeyWish(name="first", scopes=["predict"]), actor=SYSTEM
    )
    assert str(key.plan_id) == "trial"


def test_by_invitation_a_text_is_needed(settings: Any) -> None:
    settings.REGISTRATION = "invitation"
    reply = ask()
    assert reply.status_code == HTTPStatus.BAD_REQUEST
    assert reply.json()["errors"][0]["pointer"] == "/invitation"


@pytest.mark.parametrize("mode", ["invitation", "open"])
def test_an_invitation_leads_into_its_team_with_its_role(
    settings: Any, blue: Team, mode: str
) -> None:
    settings.REGISTRATION = mode
    reply = ask(invitation=invited(blue, Role.CONTRIBUTOR))
    assert reply.json()["teams"] == ["blue"]
    eve = User.objects.get(username="eve")
    assert Membership.objects.get(user=eve).role == "contributor"
    assert str(eve.plan_id) == "standard"
    kept = Invitation.objects.get()
    assert kept.accepted_by == eve
    event = Event.objects.get(verb="invitation.accepted")
    assert (event.actor_name, event.team_id) == ("eve", blue.pk)


def test_an_invitation_is_good_once() -> None:
    text = invited()
    assert ask(invitation=text).status_code == HTTPStatus.CREATED
    User.objects.update(email="moved@example.org")
    again = ask(username="eve2", invitation=text)
    assert (again.status_code, again.json()["code"]) == (403, "invitation_refused")


def test_what_failed_leaves_the_invitation_as_it_was() -> None:
    text = invited()
    assert ask(invitation=text, password="short").status_code == HTTPStatus.BAD_REQUEST
    assert ask(invitation=text).status_code == HTTPStatus.CREATED


def test_used_expired_revoked_and_made_up_invitations_look_the_same() -> None:
    expired, revoked = invited(), invited()
    rows = list(Invitation.objects.order_by("pk"))
    Invitation.objects.filter(pk=rows[0].pk).update(expires=timezone.now() - timedelta(seconds=1))
    invitations.revoke(rows[1], actor=SYSTEM)
    replies = [ask(invitation=one) for one in (expired, revoked, "inv_made-up", "x")]
    assert {one.status_code for one in replies} == {403}
    assert len({one.json()["detail"] for one in replies}) == 1


def test_an_invitation_is_for_the_address_it_names() -> None:
    reply = ask(invitation=invited(email="ada@example.org"))
    assert reply.status_code == HTTPStatus.FORBIDDEN
    assert "another email address" in reply.json()["detail"]
    assert invitations.open_ones(None).count() == 1


def test_a_name_that_is_taken_is_refused_without_leaving_anything() -> None:
    make_user("eve")
    assert ask(email="other@example.org").status_code == HTTPStatus.BAD_REQUEST
    assert not Team.objects.exists()


@pytest.mark.parametrize(
    "more",
    [
        {"password": "short"},
        {"username": "eve@example.org"},
        {"email": "nobody"},
        {"is_superuser": True},
        {"plan": "unlimited"},
        {"invitation": 5, "username": ["x"]},
    ],
)
def test_what_is_wrong_is_refused(more: dict[str, Any]) -> None:
    assert ask(**more).status_code == HTTPStatus.BAD_REQUEST
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Ada.Lovelace", "ada-lovelace"), ("___", "team"), ("a" * 100, "a" * 58), ("-x-", "x")],
)
def test_a_slug_sounds_like_the_name(name: str, slug: str) -> None:
    assert registration.free_slug(name) == slug

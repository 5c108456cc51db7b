"""The page on which somebody makes an account, and the pages on which somebody is invited."""

import re
from http import HTTPStatus
from typing import Any

import pytest
from django.test import Client

from apps.accounts.models import Invitation, Membership, Team, User
from apps.accounts.services import invitations
from apps.accounts.snapshot import Role
from tests.factories.accounts import PASSWORD, SYSTEM, make_member, make_team, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def blue() -> Team:
    return make_team("blue")


def staff(team: Team, role: Role, name: str) -> Client:
    user = make_member(team, role, name)
    User.objects.filter(pk=user.pk).update(is_staff=True)
    return page(User.objects.get(pk=user.pk))


def page(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def invited(team: Team) -> str:
    wish: Any = {"email": "eve@example.org", "team": team, "role": Role.CONTRIBUTOR}
    return invitations.invite(**wish, actor=SYSTEM)[1]


def wish(text: str, **more: str) -> dict[str, str]:
    mine = {"username": "eve", "email": "eve@example.org", "password": PASSWORD}
    return {**mine, "invitation": text, **more}


def test_the_link_leads_to_an_account_and_then_into_the_admin(blue: Team) -> None:
    text = invited(blue)
    client = Client(enforce_csrf_checks=True)
    shown = client.get(f"/register?invitation={text}")
    found = shown.content.decode()
    assert "Blue" in found
    assert "eve@example.org" in found
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', found)
    assert token is not None
    reply = client.post("/register", wish(text, csrfmiddlewaretoken=token[1]))
    assert reply.status_code == HTTPStatus.FOUND
    assert "Your account eve is made" in client.get(reply["Location"], follow=True).content.decode()
    eve = User.objects.get(username="eve")
    assert Membership.objects.get(user=eve).role == "contributor"
    assert page(eve).get("/admin/accounts/team/").status_code == HTTPStatus.OK


def test_without_a_csrf_token_nothing_is_made(blue: Team) -> None:
    reply = Client(enforce_csrf_checks=True).post("/register", wish(invited(blue)))
    assert reply.status_code == HTTPStatus.FORBIDDEN
    assert not User.objects.exists()


def test_the_page_runs_no_script_and_is_not_stored(blue: Team) -> None:
    reply = Client().get(f"/register?invitation={invited(blue)}")
    policy = reply["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "no-store" in reply["Cache-Control"]


@pytest.mark.parametrize("text", ["inv_made-up", "<script>"])
def test_a_link_that_opens_nothing_says_so(text: str) -> None:
    reply = Client().get("/register", {"invitation": text})
    assert reply.status_code == HTTPStatus.FORBIDDEN
    assert "Ask for a new one" in reply.content.decode()
    assert "<script>" not in reply.content.decode()


@pytest.mark.parametrize(("mode", "status"), [("off", 403), ("invitation", 403), ("open", 200)])
def test_without_a_link_the_page_opens_only_where_anybody_may(
    settings: Any, mode: str, status: int
) -> None:
    settings.REGISTRATION = mode
    assert Client().get("/register").status_code == status


def test_what_is_wrong_is_said_at_its_field_and_nothing_typed_is_lost(blue: Team) -> None:
    text = invited(blue)
    reply = Client().post("/register", wish(text, password="short", first_name="Eve"))
    found = reply.content.decode()
    assert "too short" in found
    assert 'value="Eve"' in found
    assert text in found
    assert '"short"' not in found
    assert invitations.open_ones(blue).exists()


def test_the_page_is_throttled_by_address(settings: Any) -> None:
    settings.THROTTLE_REGISTER = "1/h"
    client = Client(REMOTE_ADDR="192.0.2.77")
    client.post("/register", {})
    reply = client.post("/register", wish(""))
    assert reply.status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert "Too many calls" in reply.content.decode()
    assert not User.objects.exists()


# -- inviting --------------------------------------------------------------------------------------


def test_a_maintainer_invites_on_the_teams_page_and_sees_the_link_once(blue: Team) -> None:
    mara = staff(blue, Role.MAINTAINER, "mara")
    address = f"/admin/accounts/team/{blue.pk}/invite/"
    assert address in mara.get(f"/admin/accounts/team/{blue.pk}/change/").content.decode()
    assert mara.get(address).status_code == HTTPStatus.OK
    shown = mara.post(address, {"email": "eve@example.org", "role": "viewer"}).content.decode()
    link = re.search(r'id="invitation-link">([^<]+)<', shown)
    assert link is not None
    text = link[1].partition("invitation=")[2]
    assert invitations.found(text) == Invitation.objects.get()
    listed = mara.get(f"/admin/accounts/team/{blue.pk}/change/").content.decode()
    assert "eve@example.org" in listed
    assert text not in listed


def test_a_maintainer_revokes_on_the_teams_page(blue: Team) -> None:
    invited(blue)
    mara = staff(blue, Role.MAINTAINER, "mara")
    one = Invitation.objects.get()
    mara.post(f"/admin/accounts/team/{blue.pk}/invitations/{one.pk}/revoke/")
    assert not invitations.open_ones(blue).exists()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.CONTRIBUTOR])
def test_other_members_neither_see_nor_make_invitations(blue: Team, role: Role) -> None:
    invited(blue)
    member = staff(blue, role, "member")
    one = Invitation.objects.get()
    assert "eve@example.org" not in (
        member.get(f"/admin/accounts/team/{blue.pk}/change/").content.decode()
    )
    for address in ("invite/", f"invitations/{one.pk}/revoke/"):
        reply = member.post(f"/admin/accounts/team/{blue.pk}/{address}", {"email": "a@b.org"})
        assert reply.status_code == HTTPStatus.NOT_FOUND
    assert invitations.open_ones(blue).count() == 1


def test_another_teams_maintainer_finds_nothing(blue: Team) -> None:
    invited(blue)
    one, red = Invitation.objects.get(), make_team("red")
    rita = staff(red, Role.MAINTAINER, "rita")
    there = f"/admin/accounts/team/{blue.pk}/invitations/{one.pk}/revoke/"
    assert rita.post(there).status_code == HTTPStatus.NOT_FOUND
    rita.post(f"/admin/accounts/team/{red.pk}/invitations/{one.pk}/revoke/")
    assert invitations.open_ones(blue).count() == 1


def test_a_platform_admin_invites_and_revokes_under_people() -> None:
    boss = page(make_user("boss", is_admin=True))
    assert "Invite somebody" in boss.get("/admin/accounts/user/").content.decode()
    shown = boss.post("/admin/accounts/user/invite/", {"email": "eve@example.org"})
    assert "invitation-link" in shown.content.decode()
    one = Invitation.objects.get()
    boss.post(f"/admin/accounts/user/invitations/{one.pk}/revoke/")
    assert not invitations.open_ones(None).exists()


def test_only_platform_admins_invite_under_people(blue: Team) -> None:
    mara = staff(blue, Role.MAINTAINER, "mara")
    for path in ("invite/", "invitations/1/revoke/"):
        reply = mara.post(f"/admin/accounts/user/{path}", {"email": "eve@example.org"})
        assert reply.status_code in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}
    assert not Invitation.objects.exists()


def test_nobody_is_invited_where_registration_is_off(blue: Team, settings: Any) -> None:
    settings.REGISTRATION = "off"
    mara = staff(blue, Role.MAINTAINER, "mara")
    assert "Invite somebody" not in (
        mara.get(f"/admin/accounts/team/{blue.pk}/change/").content.decode()
    )
    mara.post(
        f"/admin/accounts/team/{blue.pk}/invite/", {"email": "eve@example.org", "role": "viewer"}
    )
    assert not Invitation.objects.exists()

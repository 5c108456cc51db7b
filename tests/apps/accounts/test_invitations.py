"""Inviting somebody: by whom, what is kept of the text, and how it ends."""

from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django.utils import timezone

from apps.accounts.models import ApiKey, Invitation, Team, User
from apps.accounts.services import invitations
from apps.accounts.snapshot import Role
from apps.core.errors import Conflict, Invalid
from apps.core.events import Actor
from apps.core.models import Event
from tests.factories.accounts import SYSTEM, bearer, make_key, make_member, make_team, make_user

pytestmark = pytest.mark.django_db
WISH = {"email": "eve@example.org", "role": "viewer"}


@pytest.fixture
def blue() -> Team:
    return make_team("blue")


def call(user: User, method: str, path: str, body: Any = None) -> Any:
    return getattr(Client(), method)(
        f"/api/v1/{path}", body, content_type="application/json", headers=bearer(user)
    )


def test_the_text_is_shown_once_and_only_its_digest_kept(blue: Team) -> None:
    mara = make_member(blue, Role.MAINTAINER)
    reply = call(mara, "post", "teams/blue/invitations", WISH)
    assert reply.status_code == HTTPStatus.CREATED
    text = reply.json()["invitation"]
    assert len(text) == 47
    assert text in reply.json()["url"]
    shown = call(mara, "get", "teams/blue/invitations")
    assert [one["email"] for one in shown.json()["results"]] == ["eve@example.org"]
    kept = str(Invitation.objects.values()[0]) + str(list(Event.objects.values()))
    for one in (shown.content.decode(), kept):
        assert text not in one


def test_revoking_ends_it_and_says_so_once(blue: Team) -> None:
    mara = make_member(blue, Role.MAINTAINER)
    number = call(mara, "post", "teams/blue/invitations", WISH).json()["id"]
    path = f"teams/blue/invitations/{number}"
    assert call(mara, "delete", path).status_code == HTTPStatus.NO_CONTENT
    assert call(mara, "delete", path).status_code == HTTPStatus.CONFLICT
    assert not invitations.open_ones(blue).exists()
    assert Event.objects.filter(verb="invitation.revoked").count() == 1


def test_another_teams_invitation_is_not_there(blue: Team) -> None:
    made, _ = invitations.invite(email="eve@example.org", team=blue, role=Role.VIEWER, actor=SYSTEM)
    rita = make_member(make_team("red"), Role.MAINTAINER)
    for path in (f"teams/blue/invitations/{made.pk}", f"teams/red/invitations/{made.pk}"):
        assert call(rita, "delete", path).status_code == HTTPStatus.NOT_FOUND
    boss = make_user("boss", is_admin=True)
    assert call(boss, "delete", f"invitations/{made.pk}").status_code == HTTPStatus.NOT_FOUND
    assert call(boss, "delete", f"invitations/{10**30}").status_code == HTTPStatus.NOT_FOUND
    assert invitations.open_ones(blue).count() == 1


def test_who_is_here_already_is_not_invited(blue: Team) -> None:
    make_user("ada")
    with pytest.raises(Conflict, match="Add them to the team"):
        invitations.invite(email="ADA@example.org", team=blue, role=Role.VIEWER, actor=SYSTEM)


@pytest.mark.parametrize("email", ["", "x", "a@b\nBcc: c@d.org", "a@b.org,c@d.org"])
def test_it_goes_to_one_real_address(blue: Team, email: str) -> None:
    with pytest.raises(Invalid):
        invitations.invite(email=email, team=blue, role=Role.VIEWER, actor=SYSTEM)


def test_there_is_an_end_to_open_invitations(blue: Team, monkeypatch: Any) -> None:
    monkeypatch.setattr(invitations, "MOST_OPEN", 1)
    invitations.invite(email="a@example.org", team=blue, role=Role.VIEWER, actor=SYSTEM)
    with pytest.raises(Conflict, match="Revoke some"):
        invitations.invite(email="b@example.org", team=blue, role=Role.VIEWER, actor=SYSTEM)


def test_who_may_no_longer_invite_leaves_no_link_behind(blue: Team) -> None:
    mara, boss = make_member(blue, Role.MAINTAINER), make_user(is_admin=True)
    texts = [
        call(mara, "post", "teams/blue/invitations", WISH).json()["invitation"],
        call(boss, "post", "invitations", {"email": "bob@example.org"}).json()["invitation"],
    ]
    assert all(invitations.found(one) for one in texts)
    mara.memberships.update(role="viewer")
    assert [bool(invitations.found(one)) for one in texts] == [False, True]
    mara.memberships.update(role="maintainer")
    User.objects.update(is_active=False)
    assert not any(invitations.found(one) for one in texts)


def test_a_link_that_a_key_made_ends_with_the_key(blue: Team) -> None:
    mara = make_member(blue, Role.MAINTAINER)
    key, _ = make_key(blue, mara)
    by = Actor("key", key.pk, "mara (key)")
    _, text = invitations.invite(email="a@example.org", team=blue, role=Role.VIEWER, actor=by)
    assert invitations.found(text)
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now())
    assert invitations.found(text) is None


def test_inviting_and_revoking_in_turns_has_an_end_as_well(blue: Team, monkeypatch: Any) -> None:
    monkeypatch.setattr(invitations, "MOST_OPEN", 1)
    made, _ = invitations.invite(email="a@example.org", team=blue, role=Role.VIEWER, actor=SYSTEM)
    invitations.revoke(made, actor=SYSTEM)
    with pytest.raises(Conflict, match="within a day"):
        invitations.invite(email="b@example.org", team=blue, role=Role.VIEWER, actor=SYSTEM)
    Invitation.objects.update(created=timezone.now() - timedelta(days=1))
    invitations.invite(email="b@example.org", team=blue, role=Role.VIEWER, actor=SYSTEM)


def test_the_link_is_mailed_after_commit(
    blue: Team, settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    settings.EMAIL_URL = "smtp://x"
    settings.PUBLIC_URL = "https://ml.example.org"
    with django_capture_on_commit_callbacks(execute=True):
        _, text = invitations.invite(
            email="eve@example.org", team=blue, role=Role.VIEWER, actor=SYSTEM
        )
        assert mail.outbox == []
    assert mail.outbox[0].to == ["eve@example.org"]
    assert f"https://ml.example.org/register?invitation={text}" in mail.outbox[0].body


def test_a_mail_server_that_is_away_undoes_nothing(
    blue: Team, settings: Any, django_capture_on_commit_callbacks: Any, caplog: Any
) -> None:
    settings.EMAIL_URL = "smtp://127.0.0.1:9"
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    with django_capture_on_commit_callbacks(execute=True):
        _, text = invitations.invite(
            email="eve@example.org", team=blue, role=Role.VIEWER, actor=SYSTEM
        )
    assert invitations.open_ones(blue).count() == 1
    assert "was not sent" in caplog.text
    assert text not in caplog.text

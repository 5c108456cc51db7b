"""Signing in, going on and signing out: what each token is good for, and until when."""

from datetime import timedelta

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from apps.accounts.callers import Caller, MemoryDirectory, caller_of
from apps.accounts.models import RefreshToken, User
from apps.accounts.selectors import DatabaseDirectory, token_verifier
from apps.accounts.services import people, sessions
from apps.accounts.tasks import tick_drop_expired_tokens
from apps.core import snapshot
from apps.core.errors import InvalidToken, WrongPassword
from apps.core.models import Event, SnapshotEntry
from apps.core.snapshot_file import Change
from tests.factories.accounts import PASSWORD, SYSTEM, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> User:
    return make_user("ada")


def ask(access: str) -> Caller:
    return caller_of(
        {"authorization": f"Bearer {access}"},
        directory=DatabaseDirectory(),
        verifier=token_verifier(),
        now=timezone.now().timestamp(),
    )


def ask_serving(access: str) -> Caller:
    """Ask as a serving process does: from the snapshot alone."""
    entries = tuple(snapshot.entries_after(0))
    directory = MemoryDirectory().applied(Change(True, "e", 1, entries))
    return caller_of(
        {"authorization": f"Bearer {access}"},
        directory=directory,
        verifier=token_verifier(),
        now=timezone.now().timestamp(),
    )


@pytest.mark.parametrize("name", ["ada", "ada@example.org", "ADA@Example.org"])
def test_a_user_signs_in_by_name_or_by_email_in_any_case(ada: User, name: str) -> None:
    pair = sessions.sign_in(name, PASSWORD)
    assert ask(pair.access).user_id == ask_serving(pair.access).user_id == ada.pk
    assert Event.objects.filter(verb="user.signed_in", actor_id=str(ada.pk)).count() == 1


@pytest.mark.parametrize(
    ("name", "password"), [("ada", "x"), ("bob", PASSWORD), ("", ""), ("@", "x")]
)
def test_a_wrong_name_and_a_wrong_password_look_the_same(
    ada: User, name: str, password: str
) -> None:
    with pytest.raises(
        WrongPassword, match=r"^The name and the password do not belong together\.$"
    ):
        sessions.sign_in(name, password)


def test_a_disabled_user_does_not_sign_in(ada: User) -> None:
    people.set_active(ada, active=False, actor=SYSTEM)
    with pytest.raises(WrongPassword):
        sessions.sign_in("ada", PASSWORD)


def test_a_refresh_token_is_good_for_one_use(ada: User) -> None:
    first = sessions.sign_in("ada", PASSWORD)
    second = sessions.refresh(first.refresh)
    assert ask(second.access).user_id == ada.pk
    sessions.refresh(second.refresh)


def test_using_a_refresh_token_again_ends_all_of_its_sign_in_and_no_other(ada: User) -> None:
    other = sessions.sign_in("ada", PASSWORD)
    first = sessions.sign_in("ada", PASSWORD)
    second = sessions.refresh(first.refresh)
    with pytest.raises(InvalidToken, match="used or revoked"):
        sessions.refresh(first.refresh)
    for pair in (first, second):
        for door in (ask, ask_serving):
            with pytest.raises(InvalidToken):
                door(pair.access)
    with pytest.raises(InvalidToken):
        sessions.refresh(second.refresh)
    assert ask(other.access).user_id == ask_serving(other.access).user_id == ada.pk
    sessions.refresh(other.refresh)


def test_a_token_that_was_used_twice_is_one_event_with_the_refusal_committed(ada: User) -> None:
    first = sessions.sign_in("ada", PASSWORD)
    sessions.refresh(first.refresh)
    for _ in range(3):
        reply = Client().post(
            "/api/v1/auth/refresh", {"refresh": first.refresh}, content_type="application/json"
        )
        assert (reply.status_code, reply.json()["code"]) == (401, "invalid_token")
    event = Event.objects.get(verb="user.token_reused")
    assert (event.target_id, event.facts["ended"]) == (str(ada.pk), 2)


def test_a_token_of_a_sign_in_that_was_ended_is_no_theft(ada: User) -> None:
    first = sessions.sign_in("ada", PASSWORD)
    second = sessions.refresh(first.refresh)
    sessions.sign_out(second.refresh)
    with pytest.raises(InvalidToken):
        sessions.refresh(first.refresh)
    assert not Event.objects.filter(verb="user.token_reused").exists()


def test_an_access_token_cannot_be_refreshed(ada: User) -> None:
    with pytest.raises(InvalidToken, match="`refresh` is wanted"):
        sessions.refresh(sessions.sign_in("ada", PASSWORD).access)


def test_signing_out_ends_every_token_of_the_sign_in_and_no_other(ada: User) -> None:
    other = sessions.sign_in("ada", PASSWORD)
    first = sessions.sign_in("ada", PASSWORD)
    second = sessions.refresh(first.refresh)
    sessions.sign_out(second.refresh)
    for pair in (first, second):
        for door in (ask, ask_serving):
            with pytest.raises(InvalidToken):
                door(pair.access)
        with pytest.raises(InvalidToken):
            sessions.refresh(pair.refresh)
    assert ask(other.access).user_id == ask_serving(other.access).user_id == ada.pk
    sessions.refresh(other.refresh)


def test_signing_out_twice_does_no_harm(ada: User) -> None:
    pair = sessions.sign_in("ada", PASSWORD)
    sessions.sign_out(pair.refresh)
    sessions.sign_out(pair.refresh)
    assert Event.objects.filter(verb="user.signed_out").count() == 1


def test_a_change_of_password_ends_all_tokens(ada: User) -> None:
    pair = sessions.sign_in("ada", PASSWORD)
    people.set_password(ada, "another-long-password", actor=SYSTEM)
    for door in (ask, ask_serving):
        with pytest.raises(InvalidToken):
            door(pair.access)
    with pytest.raises(InvalidToken):
        sessions.refresh(pair.refresh)
    assert ask(sessions.sign_in("ada", "another-long-password").access).user_id == ada.pk


def test_an_access_token_ends_after_half_an_hour_and_a_refresh_token_after_a_week(
    ada: User,
) -> None:
    with time_machine.travel("2026-06-01T00:00:00Z", tick=False) as clock:
        pair = sessions.sign_in("ada", PASSWORD)
        clock.shift(timedelta(minutes=30))
        ask(pair.access)
        clock.shift(timedelta(minutes=2))
        with pytest.raises(InvalidToken, match="expired"):
            ask(pair.access)
        clock.shift(timedelta(days=7))
        with pytest.raises(InvalidToken, match="expired"):
            sessions.refresh(pair.refresh)


def test_tokens_that_ended_by_themselves_are_forgotten(ada: User) -> None:
    with time_machine.travel("2026-06-01T00:00:00Z", tick=False) as clock:
        sessions.sign_out(sessions.sign_in("ada", PASSWORD).refresh)
        kept = sessions.sign_in("ada", PASSWORD)
        revoked = SnapshotEntry.objects.filter(kind="token", deleted=False)
        tick_drop_expired_tokens()
        assert revoked.count() == 1
        clock.shift(timedelta(minutes=40))
        tick_drop_expired_tokens()
        assert revoked.count() == 0
        assert RefreshToken.objects.count() == 2
        clock.shift(timedelta(days=8))
        tick_drop_expired_tokens()
        assert RefreshToken.objects.count() == 0
        with pytest.raises(InvalidToken):
            sessions.refresh(kept.refresh)

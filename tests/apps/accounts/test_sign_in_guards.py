"""Failed sign-ins: counted in the database, by name and by address, at every door alike."""

from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
import time_machine
from django.conf import settings as live
from django.contrib.auth import authenticate
from django.contrib.auth.hashers import BCryptSHA256PasswordHasher, identify_hasher, make_password
from django.core.exceptions import ValidationError
from django.test import Client

from apps.accounts.models import SignInGuard, User
from apps.accounts.services import guards, sessions
from apps.accounts.tasks import tick_drop_expired_tokens
from apps.core import context
from apps.core.errors import LockedOut, WrongPassword
from apps.core.models import Event
from mlplatform.settings import base
from tests.factories.accounts import PASSWORD, make_user

pytestmark = pytest.mark.django_db
LOGIN = "/api/v1/auth/login"


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture(autouse=True)
def clock() -> Iterator[Any]:
    with time_machine.travel("2026-06-01T00:00:00Z", tick=False) as traveller:
        yield traveller


def fail(name: str, times: int, address: str = "192.0.2.1") -> None:
    for _ in range(times):
        context.begin("r", address)
        with pytest.raises(WrongPassword):
            sessions.sign_in(name, "wrong")


def post(name: str, password: str) -> Any:
    body = {"username": name, "password": password}
    return Client().post(LOGIN, body, content_type="application/json")


def test_five_failures_lock_the_name_also_for_the_right_password(ada: User) -> None:
    fail("ada", 5)
    with pytest.raises(LockedOut) as refused:
        sessions.sign_in("ada", PASSWORD)
    assert refused.value.retry_after_seconds == 15 * 60


def test_four_failures_lock_nobody_and_success_forgets_them(ada: User) -> None:
    fail("ada", 4)
    sessions.sign_in("ada", PASSWORD)
    fail("ada", 4)
    sessions.sign_in("ada", PASSWORD)


def test_name_and_email_address_are_counted_as_one_person(ada: User) -> None:
    fail("ada", 3)
    fail("ADA@Example.org", 2)
    with pytest.raises(LockedOut):
        sessions.sign_in("ada", PASSWORD)


def test_a_name_that_nobody_has_is_locked_like_any_other(ada: User) -> None:
    replies = [post(name, "wrong") for name in ("ada", "bob") for _ in range(6)]
    told = [(one.status_code, one.json()["code"], one.json()["detail"]) for one in replies]
    assert told[:6] == told[6:]
    assert told[5][:2] == (429, "locked_out")
    assert replies[5]["Retry-After"] == "900"


def test_no_name_that_somebody_typed_is_kept(ada: User) -> None:
    fail("my-secret-password", 1)
    row = SignInGuard.objects.exclude(failures=0).values()[0]
    assert "my-secret" not in str(row)
    assert not Event.objects.filter(verb="user.sign_in_failed").exists()


def test_the_lock_ends_by_itself_and_doubles_while_it_goes_on(ada: User, clock: Any) -> None:
    fail("ada", 5)
    clock.shift(timedelta(minutes=15, seconds=1))
    fail("ada", 5)
    with pytest.raises(LockedOut) as refused:
        sessions.sign_in("ada", PASSWORD)
    assert refused.value.retry_after_seconds == 30 * 60
    clock.shift(timedelta(minutes=30, seconds=1))
    sessions.sign_in("ada", PASSWORD)


def test_failures_that_are_far_apart_are_not_added_up(ada: User, clock: Any) -> None:
    fail("ada", 4)
    clock.shift(timedelta(minutes=16))
    fail("ada", 4)
    sessions.sign_in("ada", PASSWORD)


def test_fifty_failures_lock_the_address_whatever_the_names_are(ada: User) -> None:
    for number in range(50):
        fail(f"somebody{number}", 1)
    with pytest.raises(LockedOut, match="from your network address") as refused:
        sessions.sign_in("ada", PASSWORD)
    assert "platform admin" not in refused.value.message, "nobody unlocks an address there"
    context.begin("r", "198.51.100.9")
    sessions.sign_in("ada", PASSWORD)


def test_another_address_of_the_same_ipv6_network_is_locked_too(ada: User) -> None:
    for one in range(50):
        fail(f"nobody{one}", 1, f"2001:db8::{one + 1:x}")
    context.begin("r", "2001:db8::beef")
    with pytest.raises(LockedOut, match="from your network address"):
        sessions.sign_in("ada", PASSWORD)
    context.begin("r", "2001:db8:0:1::1")
    assert sessions.sign_in("ada", PASSWORD)


def test_success_does_not_clear_the_address(ada: User) -> None:
    for number in range(49):
        fail(f"somebody{number}", 1)
    sessions.sign_in("ada", PASSWORD)
    fail("one-more", 1)
    with pytest.raises(LockedOut):
        sessions.sign_in("ada", PASSWORD)


def test_the_admins_form_passes_the_same_guard(ada: User) -> None:
    User.objects.filter(pk=ada.pk).update(is_staff=True)
    for _ in range(5):
        with pytest.raises(WrongPassword):
            guards.person_with("ada", "wrong")
    with pytest.raises(ValidationError, match="Too many sign-ins failed"):
        authenticate(None, username="ada", password=PASSWORD)


def test_failures_in_the_form_lock_the_api(ada: User) -> None:
    for _ in range(5):
        assert authenticate(None, username="ada", password="wrong") is None
    assert post("ada", PASSWORD).status_code == HTTPStatus.TOO_MANY_REQUESTS


def test_a_disabled_user_does_not_pass_the_backend(ada: User) -> None:
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert authenticate(None, username="ada", password=PASSWORD) is None


def test_failures_and_locks_are_events(ada: User) -> None:
    fail("ada", 5)
    failed = Event.objects.filter(verb="user.sign_in_failed", target_id=str(ada.pk))
    assert [one.address for one in failed] == ["192.0.2.1"] * 5
    locked = Event.objects.get(verb="user.locked_out")
    assert (locked.target_id, locked.facts["minutes"]) == (str(ada.pk), 15)


def test_an_admin_unlocks(ada: User) -> None:
    fail("ada", 5)
    boss = make_user("boss", is_admin=True)
    client = Client()
    client.force_login(boss)
    reply = client.post(
        f"/admin/accounts/user/{ada.pk}/unlock/",
        {"_form_submitted": "True", "reason": "she called"},
    )
    assert reply["HX-Redirect"] == f"/admin/accounts/user/{ada.pk}/change/"
    assert Event.objects.get(verb="user.unlocked").reason == "she called"
    sessions.sign_in("ada", PASSWORD)


def test_only_a_platform_admin_unlocks(ada: User) -> None:
    fail("ada", 5)
    eve = make_user("eve")
    User.objects.filter(pk=eve.pk).update(is_staff=True)
    client = Client()
    client.force_login(User.objects.get(pk=eve.pk))
    reply = client.post(f"/admin/accounts/user/{ada.pk}/unlock/")
    assert reply.status_code in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}
    assert guards.locked_until(ada) is not None


def test_counts_that_are_over_are_forgotten(ada: User, clock: Any) -> None:
    fail("ada", 5)
    clock.shift(timedelta(hours=23))
    tick_drop_expired_tokens()
    assert SignInGuard.objects.exists()
    clock.shift(timedelta(days=2))
    tick_drop_expired_tokens()
    assert not SignInGuard.objects.exists()


def test_new_passwords_are_hashed_by_bcrypt_with_twelve_rounds(settings: Any) -> None:
    settings.PASSWORD_HASHERS = base.PASSWORD_HASHERS
    assert isinstance(identify_hasher(make_password("x")), BCryptSHA256PasswordHasher)
    assert make_password(PASSWORD).startswith("bcrypt_sha256$$2b$12$")


def test_every_password_goes_through_the_guard() -> None:
    assert live.AUTHENTICATION_BACKENDS[0] == "apps.accounts.backends.GuardedBackend"
    assert "django.contrib.auth.backends.ModelBackend" not in live.AUTHENTICATION_BACKENDS

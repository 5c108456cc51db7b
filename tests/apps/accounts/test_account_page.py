"""*Your account*, and where somebody is signed in: what ends a browser's session, and when."""

from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.accounts.models import User
from apps.accounts.services import browsers, guards, sessions
from apps.accounts.snapshot import Role
from apps.core.errors import InvalidToken
from apps.core.models import Event
from tests.factories.accounts import PASSWORD, make_member, make_team, make_user

pytestmark = pytest.mark.django_db
PAGE = "/admin/me/"
NEW = "another-long-password"


@pytest.fixture
def ada() -> User:
    user = make_member(make_team("blue"), Role.VIEWER, "ada")
    User.objects.filter(pk=user.pk).update(is_staff=True)
    return User.objects.get(pk=user.pk)


@pytest.fixture(autouse=True)
def clock() -> Iterator[Any]:
    with time_machine.travel("2026-06-01T00:00:00Z", tick=False) as traveller:
        yield traveller


def browser(user: User, agent: str = "Firefox") -> Client:
    client = Client(headers={"User-Agent": agent}, REMOTE_ADDR="192.0.2.7")
    client.force_login(User.objects.get(pk=user.pk))
    return client


def fresh(user: User) -> User:
    return User.objects.get(pk=user.pk)


def is_in(client: Client) -> bool:
    return client.get(PAGE).status_code == HTTPStatus.OK


# -- the page --------------------------------------------------------------------------------------


def test_the_page_says_who_i_am_and_what_i_have(ada: User) -> None:
    text = browser(ada).get(PAGE).content.decode()
    for one in ("ada@example.org", "Blue", "Viewer", "Standard", "This browser"):
        assert one in text


def test_the_page_is_for_who_is_signed_in() -> None:
    reply = Client().get(PAGE)
    assert reply.status_code == HTTPStatus.FOUND
    assert "login" in reply["Location"]


def test_names_are_changed_without_the_password(ada: User) -> None:
    browser(ada).post(PAGE, {"first_name": "Ada", "last_name": "L", "email": ada.email})
    ada.refresh_from_db()
    assert ada.get_full_name() == "Ada L"


@pytest.mark.parametrize("password", ["", "wrong"])
def test_another_email_address_needs_the_password(ada: User, password: str) -> None:
    wish = {"email": "new@example.org", "current_password": password}
    assert "This is not your password." in browser(ada).post(PAGE, wish).content.decode()
    ada.refresh_from_db()
    assert ada.email == "ada@example.org"


def test_the_password_is_not_guessed_on_the_page(ada: User) -> None:
    client = browser(ada)
    for _ in range(5):
        client.post(PAGE, {"email": "new@example.org", "current_password": "wrong"})
    right = {"email": "new@example.org", "current_password": PASSWORD}
    assert "Too many sign-ins failed" in client.post(PAGE, right).content.decode()
    assert guards.locked_until(ada) is not None


def test_another_email_address_is_an_event_with_before_and_after(ada: User) -> None:
    wish = {"email": "new@example.org", "current_password": PASSWORD}
    assert browser(ada).post(PAGE, wish).status_code == HTTPStatus.FOUND
    event = Event.objects.get(verb="user.email_changed")
    assert event.facts["changes"] == {"email": ["ada@example.org", "new@example.org"]}


def test_an_email_address_that_somebody_has_is_refused(ada: User) -> None:
    make_user("bob")
    wish = {"email": "BOB@example.org", "current_password": PASSWORD}
    assert "Somebody has this email address" in browser(ada).post(PAGE, wish).content.decode()


@pytest.mark.parametrize("more", [{}, {"current_password": "wrong"}])
def test_by_api_too_an_email_address_needs_the_password(ada: User, more: dict[str, str]) -> None:
    access = sessions.sign_in("ada", PASSWORD).access
    headers = {"Authorization": f"Bearer {access}"}
    body = {"email": "new@example.org"} | more
    reply = Client().patch(
        "/api/v1/auth/me", body, content_type="application/json", headers=headers
    )
    assert reply.status_code == HTTPStatus.BAD_REQUEST
    assert reply.json()["errors"][0]["pointer"] == "/current_password"


def test_by_api_the_email_address_is_changed_with_the_password(ada: User) -> None:
    access = sessions.sign_in("ada", PASSWORD).access
    body = {"email": "new@example.org", "current_password": PASSWORD}
    headers = {"Authorization": f"Bearer {access}"}
    reply = Client().patch(
        "/api/v1/auth/me", body, content_type="application/json", headers=headers
    )
    assert (reply.status_code, reply.json()["email"]) == (200, "new@example.org")


# -- where I am signed in --------------------------------------------------------------------------


def test_browsers_are_listed_with_address_and_program(ada: User) -> None:
    browser(ada, "Opera")
    browser(make_user("bob"), "Safari")
    here = browser(ada)
    here.get(PAGE)
    text = here.get(PAGE).content.decode()
    assert "This browser" in text
    assert "A browser" in text
    assert "Safari" not in text


def test_ending_all_others_leaves_only_this_browser(ada: User) -> None:
    here, there, bob = browser(ada), browser(ada), browser(make_user("bob", is_admin=True))
    pair = sessions.sign_in("ada", PASSWORD)
    assert "A program with a token" in here.get(PAGE).content.decode()
    assert here.post("/admin/me/end-others/").status_code == HTTPStatus.FOUND
    assert "A program with a token" not in here.get(PAGE).content.decode()
    assert [is_in(one) for one in (here, there, bob)] == [True, False, True]
    with pytest.raises(InvalidToken):
        sessions.refresh(pair.refresh)
    assert Event.objects.get(verb="user.sessions_ended").facts["browsers"] == 1


def test_a_change_of_password_ends_other_browsers_and_all_tokens(ada: User) -> None:
    here, there = browser(ada), browser(ada)
    pair = sessions.sign_in("ada", PASSWORD)
    form = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert here.post("/admin/password_change/", form).status_code == HTTPStatus.FOUND
    told = browsers.browsers_of(fresh(ada), this=here.session.session_key)
    assert [one.is_this for one in told] == [True]
    assert [is_in(here), is_in(there)] == [True, False]
    with pytest.raises(InvalidToken):
        sessions.refresh(pair.refresh)


def test_the_old_password_is_guessed_no_more_often_here_than_elsewhere(ada: User) -> None:
    here = browser(ada)
    form = {"old_password": "a guess", "new_password1": NEW, "new_password2": NEW}
    for _ in range(5):
        assert here.post("/admin/password_change/", form).status_code == HTTPStatus.OK
    form["old_password"] = PASSWORD
    reply = here.post("/admin/password_change/", form, follow=True)
    assert "Too many sign-ins failed" in reply.content.decode()
    assert fresh(ada).check_password(PASSWORD)


def test_signing_in_and_out_are_events(ada: User) -> None:
    client = Client()
    client.force_login(ada)
    client.post("/admin/logout/")
    verbs = ("user.signed_in", "user.signed_out")
    told = [(one.verb, one.facts["method"]) for one in Event.objects.filter(verb__in=verbs)]
    assert told == [("user.signed_in", "password"), ("user.signed_out", "browser")]


# -- how long --------------------------------------------------------------------------------------


def test_half_an_hour_without_use_ends_a_session(ada: User, clock: Any) -> None:
    client = browser(ada)
    clock.shift(timedelta(minutes=29))
    assert is_in(client)
    clock.shift(timedelta(minutes=29))
    assert is_in(client)
    clock.shift(timedelta(minutes=30))
    assert not is_in(client)
    assert Event.objects.get(verb="user.signed_out").facts["why"] == "idle"


def test_what_a_page_loads_again_by_itself_is_no_use(ada: User, clock: Any) -> None:
    client = browser(ada)
    for _ in range(3):
        clock.shift(timedelta(minutes=10))
        client.get("/admin/monitoring/bell/", headers={"Sec-Fetch-Mode": "cors"})
    assert not is_in(client)


def test_eight_hours_end_a_session_that_is_in_use(ada: User, clock: Any) -> None:
    client = browser(ada)
    for _ in range(23):
        clock.shift(timedelta(minutes=20))
        assert is_in(client)
    clock.shift(timedelta(minutes=20))
    assert not is_in(client)


def test_a_session_that_ended_is_gone_and_not_only_hidden(ada: User, clock: Any) -> None:
    client = browser(ada)
    clock.shift(timedelta(hours=1))
    client.get(PAGE)
    assert not Session.objects.exists()


def test_use_is_written_down_at_most_once_a_minute(ada: User, clock: Any) -> None:
    client = browser(ada)
    client.get(PAGE)
    clock.shift(timedelta(seconds=59))
    with CaptureQueriesContext(connection) as asked:
        client.get("/admin/monitoring/bell/?mark=x")
    assert not [one for one in asked if one["sql"].startswith("UPDATE")]
    clock.shift(timedelta(seconds=2))
    with CaptureQueriesContext(connection) as asked:
        client.get("/admin/monitoring/bell/?mark=x")
    assert [one for one in asked if one["sql"].startswith("UPDATE")]


def test_an_operator_may_switch_the_idle_end_off(ada: User, clock: Any, settings: Any) -> None:
    settings.SESSION_IDLE_MINUTES = 0
    client = browser(ada)
    clock.shift(timedelta(hours=7))
    assert is_in(client)

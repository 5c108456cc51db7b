"""The refresh token as a cookie: out of scripts' reach, and of no use to another site."""

from http import HTTPStatus
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from apps.accounts.models import RefreshToken, User
from tests.factories.accounts import PASSWORD, make_user

pytestmark = pytest.mark.django_db
AUTH = "/api/v1/auth"


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def browser(ada: User) -> Client:
    return Client(enforce_csrf_checks=True)


def post(client: Client, door: str, body: Any = None, csrf: str = "", base: str = AUTH) -> Any:
    headers = {"X-CSRFToken": csrf} if csrf else {}
    return client.post(
        f"{base}/{door}", body or {}, content_type="application/json", headers=headers
    )


def signed_in(browser: Client) -> Any:
    return post(browser, "login", {"username": "ada", "password": PASSWORD, "cookie": True})


def cookie(reply: HttpResponse) -> Any:
    return reply.cookies["mlp_refresh"]


def test_the_token_comes_as_a_cookie_that_scripts_cannot_read(browser: Client) -> None:
    reply = signed_in(browser)
    assert reply.json().keys() == {"access", "csrf"}
    one = cookie(reply)
    assert (one["httponly"], one["samesite"], one["path"]) == (True, "Strict", "/api")
    assert one["max-age"] == 7 * 24 * 3600
    assert "csrftoken" in reply.cookies


@pytest.mark.parametrize("is_secure", [True, False])
def test_it_is_secure_where_the_sessions_cookie_is(
    browser: Client, settings: Any, is_secure: bool
) -> None:
    settings.SESSION_COOKIE_SECURE = is_secure
    assert bool(cookie(signed_in(browser))["secure"]) is is_secure


@pytest.mark.parametrize("base", [AUTH, "/api/auth"])
def test_it_goes_on_from_the_cookie_with_a_csrf_token(browser: Client, base: str) -> None:
    first = signed_in(browser)
    reply = post(browser, "refresh", csrf=first.json()["csrf"], base=base)
    assert reply.status_code == HTTPStatus.OK
    assert reply.json().keys() == {"access", "csrf"}
    assert cookie(reply).value != cookie(first).value


@pytest.mark.parametrize("door", ["refresh", "logout"])
def test_without_a_csrf_token_the_cookie_does_nothing(browser: Client, door: str) -> None:
    signed_in(browser)
    reply = post(browser, door)
    assert (reply.status_code, reply.json()["code"]) == (403, "not_allowed")
    assert not RefreshToken.objects.exclude(used_at=None, revoked_at=None).exists()


def test_signing_out_takes_the_cookie_away(browser: Client) -> None:
    csrf = signed_in(browser).json()["csrf"]
    reply = post(browser, "logout", csrf=csrf)
    assert reply.status_code == HTTPStatus.NO_CONTENT
    assert cookie(reply).value == ""
    assert (cookie(reply)["path"], cookie(reply)["max-age"]) == ("/api", 0)
    assert not RefreshToken.objects.filter(revoked_at=None).exists()


def test_a_program_gets_no_cookie_and_needs_no_csrf_token(browser: Client) -> None:
    reply = post(browser, "login", {"username": "ada", "password": PASSWORD})
    assert reply.json().keys() == {"access", "refresh"}
    assert not reply.cookies
    again = post(browser, "refresh", {"refresh": reply.json()["refresh"]})
    assert again.json().keys() == {"access", "refresh"}
    assert not again.cookies


def test_the_bodys_token_goes_before_the_cookies(browser: Client) -> None:
    signed_in(browser)
    pair = post(Client(), "login", {"username": "ada", "password": PASSWORD}).json()
    reply = post(browser, "logout", {"refresh": pair["refresh"]})
    assert reply.status_code == HTTPStatus.NO_CONTENT
    assert RefreshToken.objects.filter(revoked_at=None).count() == 1


def test_nothing_at_all_is_said_so(browser: Client) -> None:
    reply = post(browser, "refresh")
    assert reply.status_code == HTTPStatus.BAD_REQUEST
    assert reply.json()["errors"][0]["pointer"] == "/refresh"

"""How often one address or person may knock at the dear doors."""

import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
import time_machine
from django.core.cache import cache
from django.test import Client

from apps.accounts.services import throttles
from apps.core import context
from apps.core.errors import TooMany
from apps.core.models import Event
from tests.factories.accounts import PASSWORD, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def frozen() -> Iterator[Any]:
    cache.clear()
    with time_machine.travel("2026-06-01T00:00:00Z", tick=False) as clock:
        yield clock
    cache.clear()


def call(door: str, body: Any, address: str = "192.0.2.1") -> Any:
    return Client(REMOTE_ADDR=address).post(
        f"/api/v1/auth/{door}", body, content_type="application/json"
    )


def test_sign_in_is_throttled_by_address(settings: Any) -> None:
    settings.THROTTLE_LOGIN = "2/m"
    make_user("ada")
    wish = {"username": "ada", "password": PASSWORD}
    assert [call("login", wish).status_code for _ in range(3)] == [200, 200, 429]
    refused = call("login", wish)
    assert refused.json()["code"] == "too_many_requests"
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert call("login", wish, "192.0.2.2").status_code == HTTPStatus.OK


def test_the_addresses_of_one_ipv6_network_are_one(settings: Any) -> None:
    settings.THROTTLE_REGISTER = "1/m"
    knocks = ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1")
    assert [call("register", {}, one).status_code for one in knocks] == [400, 429, 400]


def test_registration_is_throttled_by_address(settings: Any) -> None:
    settings.THROTTLE_REGISTER = "1/m"
    assert [call("register", {}).status_code for _ in range(2)] == [400, 429]


def test_the_sign_in_page_is_throttled_too(settings: Any) -> None:
    settings.THROTTLE_LOGIN = "1/m"
    make_user("boss", is_admin=True)
    context.begin("r", "192.0.2.1")
    throttles.throttle_sign_in()
    with pytest.raises(TooMany):
        throttles.throttle_sign_in()


def test_the_first_refusal_of_a_window_is_an_event(settings: Any) -> None:
    settings.THROTTLE_LOGIN = "1/m"
    for _ in range(4):
        call("login", {"username": "x", "password": "x"})
    event = Event.objects.get(verb="user.throttled")
    assert (event.address, event.facts["door"], event.facts["by"]) == (
        "192.0.2.1",
        "login",
        "address",
    )


def test_a_new_window_opens_the_door(frozen: Any) -> None:
    throttles.throttled("upload", "person:1", "1/m")
    with pytest.raises(TooMany) as refused:
        throttles.throttled("upload", "person:1", "1/m")
    assert refused.value.retry_after_seconds is not None
    frozen.shift(refused.value.retry_after_seconds + 1)
    throttles.throttled("upload", "person:1", "1/m")


def test_each_door_and_each_subject_counts_by_itself() -> None:
    for door, subject in [("upload", "person:1"), ("upload", "person:2"), ("login", "person:1")]:
        throttles.throttled(door, subject, "1/m")


def test_no_rate_is_no_limit() -> None:
    for _ in range(50):
        throttles.throttled("upload", "person:1", "")


def test_the_doors_stay_open_without_the_cache(settings: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:9/0",
        }
    }
    for _ in range(3):
        throttles.throttled("login", "address:192.0.2.1", "1/m")


def test_it_counts_exactly_in_redis(settings: Any, redis_url: str) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": redis_url,
        }
    }
    subject = f"person:{time.monotonic_ns()}"
    for _ in range(3):
        throttles.throttled("upload", subject, "3/h")
    with pytest.raises(TooMany):
        throttles.throttled("upload", subject, "3/h")

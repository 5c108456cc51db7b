"""A shared cache holds JSON: bytes that would run a program when unpickled are only wrong bytes."""

import datetime
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.test import override_settings

from apps.core.caches import JsonSerializer
from mlplatform.settings import base

URL = os.environ.get("MLP_TEST_REDIS_URL", "")
RAN: list[str] = []


class Hostile:
    def __reduce__(self) -> Any:
        return (RAN.append, ("ran",))


@pytest.fixture
def cache() -> Iterator[Any]:
    if not URL:
        pytest.skip("needs Redis")
    shared = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": URL,
        "KEY_PREFIX": f"test-{os.getpid()}",
        "OPTIONS": {"serializer": "apps.core.caches.JsonSerializer"},
    }
    with override_settings(CACHES={"default": shared}):
        yield caches["default"]
        caches["default"].delete("x")
        caches["default"].close()


def test_the_shipped_redis_cache_is_the_one_without_pickle() -> None:
    # The suite's own run may be without Redis, so the code is asked, not the value.
    text = Path(base.__file__).read_text(encoding="utf-8")
    assert text.count("RedisCache") == text.count("apps.core.caches.JsonSerializer") == 1


@pytest.mark.parametrize("value", [0, 7, -1, True, None, 1.5, "x", [1, "a"], {"a": [1]}])
def test_a_value_of_json_comes_back_as_it_was(value: Any) -> None:
    kept = JsonSerializer().dumps(value)
    assert JsonSerializer().loads(str(kept).encode() if isinstance(kept, int) else kept) == value


@pytest.mark.parametrize("value", [{1}, b"x", datetime.date(2026, 1, 1), Hostile()])
def test_what_json_has_no_word_for_is_refused_when_it_is_written(value: Any) -> None:
    with pytest.raises(TypeError):
        JsonSerializer().dumps(value)


def test_a_pickle_is_a_value_that_is_not_there() -> None:
    assert JsonSerializer().loads(pickle.dumps(Hostile())) is None
    assert RAN == []


@pytest.mark.services
def test_a_pickle_that_somebody_put_into_redis_is_not_run(cache: Any) -> None:
    server = redis.Redis.from_url(URL)
    server.set(cache.make_key("x"), pickle.dumps(Hostile()))
    assert cache.get("x") is None
    assert RAN == []
    cache.set("x", {"n": [1, 2]})
    assert cache.get("x") == {"n": [1, 2]}
    server.close()


@pytest.mark.services
def test_redis_still_counts(cache: Any) -> None:
    assert cache.add("x", 1)
    assert not cache.add("x", 5)
    assert cache.incr("x") == 2
    assert cache.get("x") == 2

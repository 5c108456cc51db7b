"""The counters that nodes share: one Redis, asked once for each call."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from apps.accounts.counters.redis_store import NODES, PREFIX, CountersAway, RedisCounters
from apps.accounts.limits import Stage
from tests.factories.limits import NOW, ask, counted_window, passed_by_processes


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    yield client
    client.close()


@pytest.fixture
def name() -> str:
    """A counter that no other test counts on."""
    return f"requests:key:{uuid.uuid4().hex}"


@pytest.fixture
def counters(redis_url: str) -> Iterator[RedisCounters]:
    made = RedisCounters(redis_url, node="", timeout_seconds=5)
    yield made
    made.close()


def place(name: str) -> str:
    return f"{PREFIX}{name}:{int(NOW // 60)}"


def test_two_processes_are_counted_exactly(redis_url: str, server: Any) -> None:
    for key in server.scan_iter(f"{PREFIX}requests:key:counted:*"):
        server.delete(key)
    passed = passed_by_processes(
        redis_url, processes=2, calls=1000, threads=2, requests_per_minute=500
    )
    assert sum(passed) == 500
    assert int(server.get(f"{PREFIX}requests:key:counted:{counted_window()}")) == 500


def test_two_processes_with_leases_never_pass_a_large_limit(redis_url: str, server: Any) -> None:
    for key in server.scan_iter(f"{PREFIX}requests:key:counted:*"):
        server.delete(key)
    passed = passed_by_processes(redis_url, processes=2, calls=1500, requests_per_minute=1000)
    assert 1000 - 10 <= sum(passed) <= 1000


def test_the_script_decides_as_the_plain_rule_does(counters: RedisCounters, name: str) -> None:
    """Random asks, in Redis and in memory: the same answers."""
    import random

    from apps.accounts.counters.memory import MemoryCounters

    dice, plain = random.Random(4), MemoryCounters()
    for _ in range(200):
        asks = []
        for index in range(dice.randint(1, 4)):
            need = dice.randint(0, 4)
            asks.append(
                ask(
                    f"{name}:{index}",
                    most=dice.choice((0, 5, 60, 500)),
                    need=need,
                    want=max(need, dice.choice((0, 20))) if need else 0,
                    stage=dice.choice(list(Stage)),
                    known=dice.choice((0, 0, 3, 40)),
                    owed=dice.choice((0, 0, 0, 2)),
                )
            )
        assert counters.take(asks, NOW) == plain.take(asks, NOW)


def test_a_call_is_one_round_trip(counters: RedisCounters, name: str, server: Any) -> None:
    counters.take([ask(name)], NOW)
    before = server.info("commandstats")["cmdstat_evalsha"]["calls"]
    counters.take([ask(f"{name}:{index}") for index in range(5)], NOW)
    assert server.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1


def test_a_counter_leaves_after_its_window(counters: RedisCounters, name: str, server: Any) -> None:
    counters.take([ask(name, ends=NOW + 30)], NOW)
    assert 30 < server.ttl(place(name)) <= 35


@pytest.mark.parametrize("junk", ["many", "", "-5", "nan", "inf", "1e400", b"\xff\x00", "1.5"])
def test_a_value_that_is_no_count_is_begun_anew(
    counters: RedisCounters, name: str, server: Any, junk: Any
) -> None:
    server.set(place(name), junk)
    taken = counters.take([ask(name, need=2)], NOW)[0]
    assert (taken.given, taken.used) in {(2, 2), (2, 3)}
    assert int(server.get(place(name))) == taken.used


def test_another_kind_of_value_is_begun_anew(
    counters: RedisCounters, name: str, server: Any
) -> None:
    server.lpush(place(name), "a")
    assert counters.take([ask(name)], NOW)[0].used == 1
    assert counters.take([ask(name)], NOW)[0].used == 2


def test_a_flushed_redis_is_told_what_is_known(
    counters: RedisCounters, name: str, server: Any
) -> None:
    counters.take([ask(name, need=9)], NOW)
    server.delete(place(name))
    server.script_flush()
    assert counters.take([ask(name, need=2, known=9)], NOW)[0].given == 0
    assert counters.take([ask(name, need=1, known=9)], NOW)[0].used == 10


def test_nodes_are_counted_with_the_calls(redis_url: str, name: str, server: Any) -> None:
    server.delete(NODES)
    first = RedisCounters(redis_url, node="a", timeout_seconds=5)
    second = RedisCounters(redis_url, node="b", timeout_seconds=5)
    first.take([ask(name)], NOW)
    second.take([ask(name)], NOW)
    assert (first.nodes, second.nodes) == (1, 2)
    third = RedisCounters(redis_url, node="c", timeout_seconds=5)
    third.take([ask(name)], NOW + 60)  # the others have been silent
    assert third.nodes == 1
    server.set(NODES, "damaged")
    again = RedisCounters(redis_url, node="d", timeout_seconds=5)
    again.take([ask(name)], NOW)
    assert again.nodes == 1
    for one in (first, second, third, again):
        one.close()


def test_a_refused_connection_is_said_as_such(name: str) -> None:
    from scripts.services import free_port

    counters = RedisCounters(f"redis://127.0.0.1:{free_port()}/0", node="a", timeout_seconds=0.02)
    with pytest.raises(CountersAway):
        counters.take([ask(name)], NOW)


def test_a_wrong_password_is_said_as_such(redis_url: str, name: str) -> None:
    host = redis_url.rpartition("@")[2]
    counters = RedisCounters(f"redis://:wrong@{host}", node="a", timeout_seconds=5)
    with pytest.raises(CountersAway):
        counters.take([ask(name)], NOW)


@pytest.mark.parametrize("error", [redis.ResponseError("READONLY"), AttributeError("_sock")])
def test_whatever_the_library_raises_is_an_outage_and_no_other_error(
    counters: RedisCounters, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: Any) -> object:
        raise error

    monkeypatch.setattr(counters, "_said", fails)
    with pytest.raises(CountersAway):
        counters.take([ask()], NOW)

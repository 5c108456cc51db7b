"""Limits at the prediction door: what is refused when, what it costs, and what both skins say."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from django.test import Client

from apps.accounts import wiring as limits_wiring
from apps.accounts.counters.memory import MemoryCounters
from apps.accounts.limits import Ceilings, Limiter
from apps.accounts.snapshot import PLAN, PlanBody, plan_to_json
from apps.core import context
from apps.inference import wiring
from apps.inference.api import door
from apps.inference.api.dialects import native
from apps.inference.api.door import DoorReply, DoorRequest
from tests.factories.serving import ServingNode, ask
from tests.fakes.clock import FakeClock

ROW = [5.1, 3.5, 1.4, 0.2]
PATH = "/api/v1/predict/wine"
ADDRESS = "127.0.0.1"
NOW = 1_000_000.0
LIMITS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy")
Limit = Callable[..., str]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Count in this process, by a clock that stands still."""
    clock = FakeClock(NOW)
    made = Limiter(MemoryCounters(), clock=clock, ceilings=Ceilings(refused=2))
    monkeypatch.setattr(limits_wiring, "_limiter", made)
    return clock


@pytest.fixture
def limited(node: ServingNode, clock: FakeClock) -> Limit:
    """Release a model and return what makes a key with a plan of its own."""
    node.wine()

    def make(**numbers: Any) -> str:
        plan(node, **numbers)
        return node.key(plan="small")

    return make


def plan(node: ServingNode, **numbers: Any) -> None:
    node.put(PLAN, "small", plan_to_json(PlanBody("small", **numbers)))


def call(key: str | None, body: bytes = b"", path: str = PATH, method: str = "POST") -> DoorReply:
    context.begin("request-1", ADDRESS)
    headers = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})
    bare, _, query = path.partition("?")
    return door.answer(DoorRequest(method, bare, query, headers, body or ask([ROW])))


def code(reply: DoorReply) -> tuple[int, str]:
    return reply.status, orjson.loads(reply.body).get("code", "")


def limits_of(reply: DoorReply) -> dict[str, str]:
    return {name: reply.headers[name] for name in LIMITS if name in reply.headers}


def test_requests_beyond_the_plan_are_429_with_the_time_to_wait(limited: Limit) -> None:
    key = limited(requests_per_minute=2)
    assert [call(key).status for _ in range(3)] == [200, 200, 429]
    refused = call(key)
    body = orjson.loads(refused.body)
    assert body["code"] == "rate_limited"
    assert "The plan small allows 2 requests a minute" in body["detail"]
    assert refused.headers["Retry-After"] == refused.headers["RateLimit-Reset"]
    assert refused.headers["RateLimit-Remaining"] == "0"


def test_rows_count_and_are_refused_before_anything_runs(node: ServingNode, limited: Limit) -> None:
    key = limited(rows_per_minute=5)
    assert call(key, ask([ROW] * 4)).status == 200
    assert code(call(key, ask([ROW] * 2))) == (429, "rate_limited")
    assert call(key, ask([ROW])).status == 200
    # A refused call is not in the record: it asked for nothing yet.
    assert [one["rows"] for one in node.records()] == [4, 1]


def test_columns_and_rows_cost_alike(limited: Limit) -> None:
    key = limited(rows_per_minute=5)
    assert call(key, orjson.dumps({"inputs": {"x": [ROW] * 4}})).status == 200
    assert call(key, ask([ROW] * 2)).status == 429


@pytest.mark.parametrize("body", [b"{", ask([[1, 2]]), ask([])])
def test_a_call_that_is_wrong_costs_its_request_and_no_rows(limited: Limit, body: bytes) -> None:
    key = limited(requests_per_minute=10, rows_per_minute=5)
    refused = call(key, body)
    assert refused.status == 400
    good = call(key, ask([ROW] * 5))
    assert good.status == 200
    assert '"requests";q=10;w=60, "rows";q=5;w=60' in good.headers["RateLimit-Policy"]
    again = call(key, ask([ROW]))
    assert (again.status, again.headers["RateLimit-Limit"]) == (429, "5")


def test_wrong_calls_count_as_requests(limited: Limit) -> None:
    key = limited(requests_per_minute=2)
    assert [call(key, b"{").status for _ in range(3)] == [400, 400, 429]


def test_every_answer_to_a_limited_caller_says_how_it_stands(limited: Limit) -> None:
    key = limited(requests_per_minute=50)
    replies = [
        call(key),
        call(key, b"{"),
        call(key, path="/api/v1/predict/nobody"),
        call(key, path=f"{PATH}?environment=nowhere"),
        call(key, path=f"{PATH}?version=9"),
    ]
    assert [one.status for one in replies] == [200, 400, 404, 400, 409]
    left = [int(limits_of(one)["RateLimit-Remaining"]) for one in replies]
    assert left == [49, 48, 47, 46, 45]


def test_without_a_plan_there_are_no_such_headers(node: ServingNode, clock: FakeClock) -> None:
    assert limits_of(call(node.wine())) == {}


def test_over_the_limit_the_body_is_not_looked_at(
    limited: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = limited(requests_per_minute=1)
    call(key)
    monkeypatch.setattr(native, "question_of", pytest.fail)
    assert call(key, b"{").status == 429


def test_rows_of_one_call_are_bounded_by_the_plan(limited: Limit) -> None:
    key = limited(rows_per_call=3)
    assert code(call(key, ask([ROW] * 4))) == (400, "too_many_rows")
    assert call(key, ask([ROW] * 3)).status == 200


def test_a_changed_plan_holds_from_the_next_snapshot_on(node: ServingNode, limited: Limit) -> None:
    key = limited(requests_per_minute=1)
    assert [call(key).status for _ in range(2)] == [200, 429]
    plan(node, requests_per_minute=3)
    wiring.serving().follower.look()
    assert [call(key).status for _ in range(3)] == [200, 200, 429]


def test_a_new_minute_opens_anew(limited: Limit, clock: FakeClock) -> None:
    key = limited(requests_per_minute=1)
    assert [call(key).status for _ in range(2)] == [200, 429]
    clock.advance(int(call(key).headers["Retry-After"]))
    assert call(key).status == 200


def test_bad_credentials_are_looked_at_a_few_times_a_minute(
    limited: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = limited()
    assert [call(one).status for one in ("nonsense", None)] == [403, 401]
    monkeypatch.setattr(door, "caller_of", pytest.fail)
    refused = call("nonsense")
    assert code(refused) == (429, "rate_limited")
    assert int(refused.headers["Retry-After"]) >= 1
    assert call(key).status == 429  # a good one too, which nobody has seen here before


def test_a_key_that_was_good_here_is_not_shut_out_by_a_neighbour(limited: Limit) -> None:
    key = limited()
    assert call(key).status == 200
    assert [call("nonsense").status for _ in range(3)] == [403, 403, 429]
    assert call(key).status == 200


@pytest.mark.django_db
def test_a_limited_prediction_makes_no_query(
    limited: Limit, django_assert_num_queries: Any
) -> None:
    key = limited(requests_per_minute=2, rows_per_minute=10, rows_per_day=1000)
    call(key)
    with django_assert_num_queries(0):
        assert [call(key).status for _ in range(2)] == [200, 429]


CASES = [
    (PATH, ask([ROW])),
    (PATH, ask([ROW] * 4)),
    (PATH, b"{"),
    ("/api/v1/predict/nobody", ask([ROW])),
]


@pytest.mark.parametrize(("path", "body"), CASES)
@pytest.mark.parametrize("before", [0, 2])
def test_both_skins_say_the_same_of_limits(
    limited: Limit, path: str, body: bytes, before: int
) -> None:
    said = []
    keys = [limited(requests_per_minute=2, rows_per_minute=3) for _ in range(2)]
    for skin, key in zip((_by_door, _by_view), keys, strict=True):
        for _ in range(before):
            assert call(key).status == 200
        said.append(skin(key, path, body))
    assert said[0] == said[1]
    assert set(said[0][1]) >= set(LIMITS)


def _by_door(key: str, path: str, body: bytes) -> tuple[int, dict[str, str]]:
    reply = call(key, body, path)
    return reply.status, _phaseless(reply.headers)


def _by_view(key: str, path: str, body: bytes) -> tuple[int, dict[str, str]]:
    reply = Client().generic(
        "POST", path, body, content_type="application/json", headers={"X-API-Key": key}
    )
    return reply.status_code, _phaseless(reply.headers)


def _phaseless(headers: Any) -> dict[str, str]:
    """Leave out how many seconds are left: each key's minute begins at another second."""
    said = {name: headers[name] for name in (*LIMITS, "Retry-After") if name in headers}
    for name in ("RateLimit-Reset", "Retry-After"):
        if name in said:
            assert 1 <= int(said[name]) <= 60
            said[name] = "some"
    return said

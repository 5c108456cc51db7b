"""The DRF skin: the same replies as the door, without one query."""

from typing import Any

import orjson
import pytest
from django.test import Client

from apps.core import context
from apps.inference import wiring
from apps.inference.api import door
from apps.inference.api.door import DoorRequest
from tests.factories.serving import ServingNode, ask

ROW = [5.1, 3.5, 1.4, 0.2]
PATH = "/api/v1/predict/wine"
VARIES = ("prediction_id", "timing_ms", "request_id")
CASES: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("POST", PATH, ask([ROW, ROW], id="mine"), {}),
    ("POST", "/api/predict/wine/", ask([ROW]), {}),
    ("POST", PATH, orjson.dumps({"inputs": {"x": [ROW]}}), {"Accept": "text/csv"}),
    ("POST", PATH, b"{", {}),
    ("POST", PATH, ask([[1, 2]]), {}),
    ("POST", PATH, ask([ROW]), {"X-API-Key": "bad"}),
    ("POST", PATH, ask([ROW]), {"Authorization": "Bearer x"}),
    ("POST", PATH, b" " * (10 * 1024**2 + 1), {}),
    ("POST", PATH, ask([ROW]), {"Content-Type": "text/plain"}),
    ("POST", PATH + "?environment=nowhere", ask([ROW]), {}),
    ("POST", PATH + "?version=9", ask([ROW]), {}),
    ("POST", "/api/v1/predict/nobody", ask([ROW]), {}),
    ("GET", PATH, b"", {}),
    ("PUT", PATH, ask([ROW]), {}),
    ("OPTIONS", PATH, b"", {}),
]


def by_view(
    method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, dict[str, str], Any]:
    headers = dict(headers)
    kind = headers.pop("Content-Type", "application/json")
    reply = Client().generic(method, path, body, content_type=kind, headers=headers)
    names = ("Content-Type", "Allow", "WWW-Authenticate", "Retry-After", "Cache-Control")
    return reply.status_code, _only(reply.headers, names), _steady(reply.content)


def by_door(
    method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, dict[str, str], Any]:
    context.begin("request-1", None)
    bare, _, query = path.partition("?")
    given = {"content-type": "application/json"} | {
        name.lower(): value for name, value in headers.items()
    }
    reply = door.answer(DoorRequest(method, bare, query, given, body))
    names = ("Content-Type", "Allow", "WWW-Authenticate", "Retry-After", "Cache-Control")
    return reply.status, _only(reply.headers, names), _steady(reply.body)


def _only(headers: Any, names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


def _steady(body: bytes) -> Any:
    return {name: one for name, one in orjson.loads(body).items() if name not in VARIES}


@pytest.mark.parametrize(("method", "path", "body", "headers"), CASES)
def test_the_view_answers_as_the_door_does(
    node: ServingNode, method: str, path: str, body: bytes, headers: dict[str, str]
) -> None:
    key = node.wine()
    headers = headers if "Authorization" in headers else {"X-API-Key": key, **headers}
    assert by_view(method, path, body, headers) == by_door(method, path, body, headers)


@pytest.mark.django_db
def test_a_prediction_makes_no_query(node: ServingNode, django_assert_num_queries: Any) -> None:
    key = node.wine()
    wiring.start(10)
    with django_assert_num_queries(0):
        for _ in range(3):
            reply = Client().post(
                PATH, ask([ROW]), content_type="application/json", headers={"X-API-Key": key}
            )
            assert reply.status_code == 200


@pytest.mark.django_db
def test_a_refusal_makes_no_query_either(node: ServingNode, django_assert_num_queries: Any) -> None:
    node.wine()
    with django_assert_num_queries(0):
        reply = Client().post(PATH, ask([ROW]), content_type="application/json")
    assert reply.status_code == 401


def test_a_request_id_is_echoed_and_recorded(node: ServingNode) -> None:
    reply = Client().post(
        PATH,
        ask([ROW]),
        content_type="application/json",
        headers={"X-API-Key": node.wine(), "X-Request-ID": "abc-123"},
    )
    assert reply.headers["X-Request-ID"] == "abc-123"
    assert node.records()[0]["request_id"] == "abc-123"


@pytest.mark.urls("mlplatform.urls_serving")
def test_the_serving_role_has_predictions_and_health_and_nothing_else(node: ServingNode) -> None:
    headers = {"X-API-Key": node.wine()}
    client = Client()
    reply = client.post(PATH, ask([ROW]), content_type="application/json", headers=headers)
    assert reply.status_code == 200
    assert client.get("/health/live").status_code == 200
    for path in ("/admin/", "/api/v1/models", "/api/v1/predictions", "/docs"):
        assert client.get(path, headers=headers).status_code == 404


def test_a_second_version_of_the_api_is_answered_with_the_first(node: ServingNode) -> None:
    reply = Client().get("/api/v2/models/wine")
    assert reply.status_code == 404
    assert "/api/v1/" in reply.json()["detail"]

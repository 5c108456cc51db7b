"""The door function: bytes in, bytes out, from memory alone."""

import time
from typing import Any

import orjson
import pytest

from apps.accounts.policies import ENVIRONMENTS
from apps.accounts.selectors import token_signer
from apps.accounts.snapshot import Role
from apps.accounts.tokens import TokenKind
from apps.core import context
from apps.inference import wiring
from apps.inference.api import door
from apps.inference.api.door import DoorReply, DoorRequest
from apps.registry.snapshot import Arm, ArmRole
from tests.factories.serving import (
    PERSON_ID,
    TWO_OUTPUTS,
    ServingNode,
    answering,
    ask,
    primary,
    scores,
)

ROW = [5.1, 3.5, 1.4, 0.2]
OTHER = [1.0, 2.0, 3.0, 4.0]
JSON = {"content-type": "application/json"}


def call(
    key: str | None,
    body: bytes = b"",
    *,
    path: str = "/api/v1/predict/wine",
    method: str = "POST",
    query: str = "",
    **headers: str,
) -> DoorReply:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    credential = {} if key is None else {"x-api-key": key}
    context.begin("request-1", None)
    return door.answer(
        DoorRequest(method, path, query, {**JSON, **credential, **given}, body or ask([ROW]))
    )


def said(reply: DoorReply) -> Any:
    return orjson.loads(reply.body)


def problem(reply: DoorReply) -> tuple[int, str, list[str]]:
    body = said(reply)
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert body["status"] == reply.status
    assert body["request_id"] == "request-1"
    return reply.status, body["code"], [one["pointer"] for one in body.get("errors", [])]


# --- answers -------------------------------------------------------------------------------------


def test_rows_in_rows_out(node: ServingNode) -> None:
    reply = call(node.wine(), ask([ROW, OTHER], id="mine"))
    body = said(reply)
    assert reply.status == 200
    assert body["predictions"] == [pytest.approx(scores(ROW)), pytest.approx(scores(OTHER))]
    assert (body["model"], body["version"], body["variant"]) == ("wine", 1, None)
    assert body["cached"] is False
    assert body["id"] == "mine"
    assert set(body["timing_ms"]) == {"total", "queue", "inference"}
    assert reply.headers["X-Request-ID"] == "request-1"
    assert reply.headers["Content-Type"] == "application/json"


def test_a_model_with_several_outputs_answers_an_object_per_row(node: ServingNode) -> None:
    key = node.wine()
    node.version(2, signature=TWO_OUTPUTS)
    node.endpoint(answering(primary(2), number=2))
    body = said(call(key, ask([ROW, OTHER])))
    assert [set(row) for row in body["predictions"]] == [{"total", "scores"}] * 2
    assert body["predictions"][1]["total"] == pytest.approx(10.0)
    assert body["predictions"][0]["scores"] == pytest.approx(scores(ROW))


def test_columns_in_columns_out(node: ServingNode) -> None:
    body = said(call(node.wine(), orjson.dumps({"inputs": {"x": [ROW, OTHER]}})))
    assert body["predictions"] == {
        "scores": [pytest.approx(scores(ROW)), pytest.approx(scores(OTHER))]
    }


def test_numbers_that_are_none_become_null(node: ServingNode) -> None:
    body = said(call(node.wine(shift=float("nan"))))
    assert body["predictions"] == [[None, None, None]]


def test_what_is_answered_is_recorded_before_the_reply(node: ServingNode) -> None:
    body = said(call(node.wine(), ask([ROW], id="mine", unit="u-1")))
    (record,) = node.records()
    assert record["id"] == body["prediction_id"]
    assert (record["status"], record["rows"], record["source"]) == ("ok", 1, "api")
    assert (record["client_id"], record["unit"]) == ("mine", "u-1")
    assert record["request_id"] == "request-1"
    assert record["user_id"] == PERSON_ID


def test_an_equal_question_is_answered_from_the_cache_under_a_new_id(node: ServingNode) -> None:
    key = node.wine(cache_seconds=60)
    first, second = said(call(key)), said(call(key))
    assert [first["cached"], second["cached"]] == [False, True]
    assert first["predictions"] == second["predictions"]
    assert first["prediction_id"] != second["prediction_id"]


@pytest.mark.parametrize(
    "path", ["/api/predict/wine", "/api/v1/predict/wine/", "/api/predict/wine/"]
)
def test_every_form_of_the_address_answers(node: ServingNode, path: str) -> None:
    assert call(node.wine(), path=path).status == 200


def test_a_signed_in_person_may_predict_too(node: ServingNode) -> None:
    node.wine()
    assert call(None, authorization=bearer()).status == 200


def bearer(version: int = 1, seconds: int = 60) -> str:
    token = token_signer().sign(
        TokenKind.ACCESS,
        user_id=PERSON_ID,
        token_version=version,
        seconds=seconds,
        now=time.time(),
    )
    return f"Bearer {token.text}"


# --- who may -------------------------------------------------------------------------------------


def test_no_credential_is_401(node: ServingNode) -> None:
    node.wine()
    reply = call(None)
    assert problem(reply)[:2] == (401, "not_authenticated")
    assert reply.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("key", ["nonsense", "mlp_live_000000000000_" + "0" * 38, ""])
def test_a_bad_key_is_403(node: ServingNode, key: str) -> None:
    node.wine()
    assert problem(call(key))[:2] == (403, "invalid_key")


def test_an_expired_key_is_403(node: ServingNode) -> None:
    node.wine()
    key = node.key(expires=int(time.time()) - 1)
    assert problem(call(key))[:2] == (403, "invalid_key")


def test_an_old_token_is_401_and_says_so_in_the_header(node: ServingNode) -> None:
    node.wine()
    reply = call(None, authorization=bearer(version=0))
    assert problem(reply)[:2] == (401, "invalid_token")
    assert 'error="invalid_token"' in reply.headers["WWW-Authenticate"]


def test_a_key_of_a_disabled_owner_is_403(node: ServingNode) -> None:
    key = node.wine()
    node.person(is_active=False)
    assert problem(call(key))[:2] == (403, "invalid_key")


def test_a_key_without_the_scope_is_403(node: ServingNode) -> None:
    node.wine()
    assert problem(call(node.key(scopes=("models:read",))))[:2] == (403, "not_allowed")


def test_a_key_for_other_models_is_403(node: ServingNode) -> None:
    node.wine()
    assert problem(call(node.key(models=("iris",))))[:2] == (403, "not_allowed")


def test_another_teams_model_looks_exactly_like_one_that_is_not_there(node: ServingNode) -> None:
    key = node.wine()
    node.version(1, model="secret")
    node.endpoint(answering(primary(1)), model="secret", team_id=8)
    theirs = call(key, path="/api/v1/predict/secret")
    nobodys = call(key, path="/api/v1/predict/nobody")
    assert problem(theirs)[:2] == (404, "unknown_model")
    assert theirs.body.replace(b"secret", b"nobody") == nobodys.body
    assert theirs.headers == nobodys.headers


def test_a_revoked_key_is_refused_as_soon_as_the_file_says_so(node: ServingNode) -> None:
    key = node.wine()
    assert call(key).status == 200
    node.put("key", key.split("_")[2], None)
    wiring.serving().follower.look()
    assert problem(call(key))[:2] == (403, "invalid_key")


def test_a_process_without_a_snapshot_says_try_again(node: ServingNode) -> None:
    (node.node.folder / "snapshot.jsonl").unlink()
    reply = call("mlp_live_x")
    assert problem(reply)[:2] == (503, "unavailable")
    assert "Retry-After" in reply.headers


# --- where it goes -------------------------------------------------------------------------------


def test_a_model_without_a_live_release_is_409(node: ServingNode) -> None:
    key = node.wine()
    node.endpoint(None)
    assert problem(call(key))[:2] == (409, "not_released")


def test_a_key_of_one_environment_calls_that_one(node: ServingNode) -> None:
    node.wine()
    node.version(2, shift=1.0)
    node.endpoint(answering(primary(2)), environment="staging")
    assert said(call(node.key(environments=("staging",))))["version"] == 2


def test_a_key_of_several_environments_calls_production_unless_it_says(node: ServingNode) -> None:
    node.wine()
    node.version(2, shift=1.0)
    node.endpoint(answering(primary(2)), environment="staging")
    key = node.key(environments=ENVIRONMENTS)
    assert said(call(key))["version"] == 1
    assert said(call(key, query="environment=staging"))["version"] == 2


def test_a_key_does_not_reach_an_environment_it_is_not_bound_to(node: ServingNode) -> None:
    key = node.wine()
    node.endpoint(answering(primary(1)), environment="staging")
    assert problem(call(key, query="environment=staging"))[:2] == (403, "not_allowed")


@pytest.mark.parametrize(
    "query",
    [
        "environment=produktion",
        "enviroment=staging",
        "version=zwei",
        "version=0",
        "version=-1",
        "version=99999999999999999999",
        "version=%D9%A3",
        "version=1&version=2",
        "version=1&alias=champion",
    ],
)
def test_a_query_that_means_nothing_is_400(node: ServingNode, query: str) -> None:
    assert problem(call(node.wine(), query=query))[:2] == (400, "invalid")


def test_an_arm_of_the_live_release_may_be_asked_for_by_number_and_by_alias(
    node: ServingNode,
) -> None:
    key = node.wine()
    node.version(2, shift=1.0)
    arms = (
        Arm(1, ArmRole.PRIMARY, ((0.0, 0.5),)),
        Arm(2, ArmRole.CANDIDATE, ((0.5, 1.0),)),
    )
    node.endpoint(answering(*arms, number=2), aliases={"challenger": 2})
    assert said(call(key, query="version=2"))["version"] == 2
    assert said(call(key, query="alias=challenger"))["version"] == 2
    assert problem(call(key, query="alias=nobody"))[:2] == (409, "not_released")


def test_another_version_is_409_for_whoever_may_only_predict(node: ServingNode) -> None:
    key = node.wine()
    node.version(2)
    assert problem(call(key, query="version=2"))[:2] == (409, "not_released")


def test_another_version_is_a_try_for_a_contributor_with_models_read(node: ServingNode) -> None:
    node.wine()
    node.version(2, shift=1.0)
    key = node.key(scopes=("predict", "models:read"))
    assert said(call(key, query="version=2"))["version"] == 2
    (record,) = node.records()
    assert (record["source"], record["arm"]) == ("try", "try")


def test_a_viewers_key_tries_nothing(node: ServingNode) -> None:
    node.wine()
    node.version(2)
    node.person(Role.VIEWER)
    key = node.key(scopes=("predict", "models:read"))
    assert problem(call(key, query="version=2"))[:2] == (409, "not_released")


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b"{", "invalid_json", ""),
        (b" ", "invalid_json", ""),
        (b"[]", "invalid", ""),
        (b"3", "invalid", ""),
        (b'"text"', "invalid", ""),
        (b"\xff\xfe", "invalid_json", ""),
        (b'{"instances": [["\xff"]]}', "invalid_json", ""),
        (b'{"instances": [["\\ud800", 1, 1, 1]]}', "invalid_json", ""),
        (b'{"instances": [[NaN, 1, 1, 1]]}', "invalid_json", "/instances/0/0"),
        (b'{"instances": [[1, 1, -Infinity, 1]]}', "invalid_json", "/instances/0/2"),
        (b'{"instances": [[1e999, 1, 1, 1]]}', "invalid_json", ""),
        (b'{"instances": [], "instances": []}', "invalid_json", "/instances"),
        (b'{"instances": [{"x": 1, "x": 2}]}', "invalid_json", "/instances/0/x"),
        (b'{"instances": ' + b"[" * 40 + b"]" * 40 + b"}", "invalid_json", ""),
        (b"[" * 100_000, "invalid_json", ""),
        (b"{}", "invalid", "/instances"),
        (b'{"instances": [], "inputs": {}}', "invalid", "/inputs"),
        (b'{"instances": {}}', "invalid", "/instances"),
        (b'{"instances": null}', "invalid", "/instances"),
        (b'{"inputs": []}', "invalid", "/inputs"),
        (b'{"instances": [[1,1,1,1]], "a/b~c": 1}', "invalid", "/a~1b~0c"),
        (b'{"instances": [[1,1,1,1]], "unit": 5}', "invalid", "/unit"),
        (b'{"instances": [[1,1,1,1]], "unit": ""}', "invalid", "/unit"),
        (b'{"instances": [[1,1,1,1]], "unit": "' + b"u" * 201 + b'"}', "invalid", "/unit"),
        (b'{"instances": [[1,1,1,1]], "id": "' + b"i" * 201 + b'"}', "invalid", "/id"),
        (b'{"instances": [[1,1,1,1]], "parameters": []}', "invalid", "/parameters"),
        (b'{"instances": []}', "signature_mismatch", "/instances"),
        (b'{"instances": [[1,1,1]]}', "signature_mismatch", "/instances/0"),
        (b'{"instances": [[1,1,1,"x"]]}', "signature_mismatch", "/instances/0/3"),
        (b'{"instances": [[1,1,1,true]]}', "signature_mismatch", "/instances/0/3"),
        (b'{"instances": [[1,1,1,null]]}', "signature_mismatch", "/instances/0/3"),
        (b'{"instances": [[1,1,1,1],[1,1,1,1e300]]}', "signature_mismatch", "/instances/1/3"),
        (b'{"instances": [{"x": [1,1,1,1], "y": 2}]}', "signature_mismatch", "/instances/0/y"),
        (b'{"instances": [{}]}', "signature_mismatch", "/instances/0/x"),
        (b'{"inputs": {}}', "signature_mismatch", "/inputs/x"),
        (b'{"inputs": {"x": [[1,1,1,1]], "y": []}}', "signature_mismatch", "/inputs/y"),
        (b'{"inputs": {"x": [[1,1,1,1],[1]]}}', "signature_mismatch", "/inputs/x/1"),
    ],
)
def test_a_body_that_is_wrong_is_400_with_the_place(
    node: ServingNode, body: bytes, code: str, pointer: str
) -> None:
    assert problem(call(node.wine(), body)) == (400, code, [pointer])


def test_a_hundred_rows_are_answered_and_one_more_is_400(node: ServingNode) -> None:
    key = node.wine()
    assert len(said(call(key, ask([ROW] * 100)))["predictions"]) == 100
    assert problem(call(key, ask([ROW] * 101))) == (400, "too_many_rows", ["/instances"])
    columns = orjson.dumps({"inputs": {"x": [ROW] * 101}})
    assert problem(call(key, columns))[:2] == (400, "too_many_rows")


def test_a_body_over_the_limit_is_413_also_when_only_its_header_says_so(node: ServingNode) -> None:
    key = node.wine()
    assert problem(call(key, b" " * (10 * 1024**2 + 1)))[:2] == (413, "too_large")
    assert problem(call(key, content_length="10485761"))[:2] == (413, "too_large")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_another_method_is_405_and_names_the_right_one(node: ServingNode, method: str) -> None:
    reply = call(node.wine(), method=method)
    assert problem(reply)[:2] == (405, "method_not_allowed")
    assert reply.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": ""},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "application/json; charset=latin-1"},
        {"content_encoding": "gzip"},
    ],
)
def test_a_body_of_another_kind_is_415(node: ServingNode, headers: dict[str, Any]) -> None:
    reply = call(node.wine(), **headers)
    assert problem(reply)[:2] == (415, "unsupported_media_type")


def test_a_charset_of_utf8_is_taken(node: ServingNode) -> None:
    assert call(node.wine(), content_type='application/json; charset="UTF-8"').status == 200


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "", "9" * 40])
def test_a_timeout_that_is_no_number_is_400(node: ServingNode, value: str) -> None:
    assert problem(call(node.wine(), x_request_timeout_ms=value))[:2] == (400, "invalid")


def test_a_caller_whose_time_is_over_gets_504(node: ServingNode) -> None:
    key = node.wine()
    late = DoorRequest(
        "POST",
        "/api/v1/predict/wine",
        "",
        {**JSON, "x-api-key": key, "x-request-timeout-ms": "1"},
        ask([ROW]),
        received=time.monotonic() - 5,
    )
    context.begin("request-1", None)
    assert problem(door.answer(late))[:2] == (504, "deadline")


def test_a_full_spool_refuses_the_answer(node: ServingNode, settings: Any) -> None:
    settings.SPOOL_BYTES = 10
    reply = call(node.wine())
    assert problem(reply)[:2] == (503, "spool_full")
    assert "Retry-After" in reply.headers


def test_a_bug_of_ours_says_nothing_of_itself(
    node: ServingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = node.wine()

    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(door, "reply_of", broken)
    reply = call(key)
    assert problem(reply)[:2] == (500, "internal")
    assert b"secret" not in reply.body


def test_no_more_is_told_than_a_request_deserves(node: ServingNode) -> None:
    reply = call(node.wine())
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-store"

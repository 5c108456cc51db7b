"""The API's doors: what they give, and what they say when something is wrong."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncRequestFactory, Client
from pytest_django import Settings

from apps.accounts.models import Team
from apps.accounts.policies import DOWNLOAD
from apps.accounts.selectors import permissions_named
from apps.accounts.snapshot import Role
from apps.core import storage
from apps.core.models import Event
from apps.registry.api.versions import ArtifactView
from apps.registry.models import ModelVersion, RegisteredModel, Release
from tests.factories.accounts import (
    PASSWORD,
    api_key,
    bearer,
    make_key,
    make_member,
    make_team,
)
from tests.factories.registry import make_model, make_release, make_version, tiny_onnx

pytestmark = pytest.mark.django_db
MODELS = "/api/v1/models"


@pytest.fixture
def team() -> Team:
    return make_team("blue")


class Api:
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        return Client().generic(
            method,
            f"{MODELS}{path}",
            data=b"" if body is None else orjson.dumps(body),
            content_type="application/json",
            headers=self.headers,
        )


@pytest.fixture
def api(team: Team) -> Api:
    return Api(bearer(make_member(team, Role.MAINTAINER, "mara")))


@pytest.fixture
def wine(team: Team) -> RegisteredModel:
    model = make_model("wine", team=team)
    make_version(model)
    make_version(model)
    return model


def test_a_model_is_made_read_changed_and_deleted(api: Api, team: Team) -> None:
    made = api("POST", "", {"name": "wine", "description": "# Card", "tags": ["demo"]})
    assert (made.status_code, made.json()["team"]) == (201, "blue")
    changed = api("PATCH", "/wine", {"cache_seconds": 30, "redact": {"age": "drop"}})
    assert (changed.status_code, changed.json()["cache_seconds"]) == (200, 30)
    assert api("GET", "/wine").json()["redact"] == {"age": "drop"}
    assert api("DELETE", "/wine").status_code == 204
    assert api("GET", "/wine").status_code == 404


def test_wrong_fields_are_named(api: Api, wine: RegisteredModel) -> None:
    for method, path, body, pointer in (
        ("POST", "", {"name": "Bad Name"}, "/name"),
        ("POST", "", {}, "/name"),
        ("PATCH", "/wine", {"sample_share": 2}, "/sample_share"),
        ("PATCH", "/wine", {"team": "red"}, "/team"),
        ("PATCH", "/wine", {"sha256": "x"}, "/sha256"),
        ("POST", "/wine/endpoints/staging/releases", {"version": 1}, "/reason"),
        ("POST", "/wine/endpoints/staging/releases", {"reason": "x"}, "/version"),
        ("PUT", "/wine/aliases/champion", {}, "/version"),
        ("PUT", "/wine/aliases/Bad%20One", {"version": 1}, "/alias"),
    ):
        reply = api(method, path, body)
        assert reply.status_code == 400, (path, reply.content)
        assert reply.json()["errors"][0]["pointer"] == pointer


def test_lists_come_in_pages_newest_first(api: Api, wine: RegisteredModel) -> None:
    body = api("GET", "/wine/versions?page_size=1").json()
    assert [one["number"] for one in body["results"]] == [2]
    assert body["next"]
    rest = Client().get(body["next"], headers=api.headers).json()
    assert [one["number"] for one in rest["results"]] == [1]
    assert rest["next"] is None


def test_lists_show_own_things_only_and_can_be_narrowed(api: Api, team: Team) -> None:
    for name in ("wine", "tea"):
        make_model(name, team=team)
    make_model("secret", team=make_team("red"))
    names = {one["name"] for one in api("GET", "").json()["results"]}
    assert names == {"wine", "tea"}
    found = api("GET", "?search=win").json()["results"]
    assert [one["name"] for one in found] == ["wine"]
    assert api("GET", "?team=red").json()["results"] == []


def test_a_key_bound_to_a_model_sees_that_model(team: Team, wine: RegisteredModel) -> None:
    make_model("tea", team=team)
    owner = make_member(team, Role.MAINTAINER)
    _, text = make_key(team, owner, scopes=["models:read"], models=["wine"])
    bound = Api(api_key(text))
    assert [one["name"] for one in bound("GET", "").json()["results"]] == ["wine"]
    assert bound("GET", "/tea").status_code == 403
    assert bound("GET", "/wine").status_code == 200


@pytest.mark.parametrize(
    "path", ["/wine/versions", "/wine/endpoints/production/releases", ""], ids=str
)
def test_a_list_costs_the_same_however_long_it_is(
    path: str, api: Api, team: Team, wine: RegisteredModel, django_assert_max_num_queries: Any
) -> None:
    for number in range(4):
        version = make_version(wine)
        make_release(version)
        make_model(f"more-{number}", team=team)
    with django_assert_max_num_queries(9):
        assert api("GET", path).status_code == 200


def test_a_version_says_all_that_clients_rely_on(api: Api, wine: RegisteredModel) -> None:
    body = api("GET", "/wine/versions/2").json()
    wanted = [
        "model",
        "number",
        "state",
        "format",
        "size",
        "sha256",
        "signature",
        "metrics",
        "report",
        "urls",
    ]
    assert all(name in body for name in wanted)
    assert (body["parent"], body["state"], body["report"]["verdict"]) == (1, "ready", "ready")
    assert set(body["urls"]) == {"self", "status", "predict", "artifact"}


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/wine/versions/99",
        f"/wine/versions/{10**30}",
        "/wine/versions/99/artifact",
        "/wine/aliases/nobody",
        "/wine/aliases/%00",
        "/wine%00",
        "/wine/endpoints/moon",
        "/wine/endpoints/%00",
        "/wine/endpoints/production/releases/9/approve",
    ],
)
def test_what_is_not_there_is_a_404(path: str, api: Api, wine: RegisteredModel) -> None:
    method = "POST" if path.endswith("approve") else "GET"
    reply = api(method, path)
    assert (reply.status_code, reply["Content-Type"]) == (404, "application/problem+json")


def test_another_teams_model_looks_like_none(api: Api) -> None:
    make_model("secret", team=make_team("red"))
    mine, none = api("GET", "/secret").json(), api("GET", "/nothing").json()
    assert mine["detail"].replace("secret", "nothing") == none["detail"]


def test_downloading_gives_the_uploaded_bytes_as_an_attachment(
    api: Api, wine: RegisteredModel
) -> None:
    reply = api("GET", "/wine/versions/1/artifact")
    assert b"".join(reply.streaming_content) == tiny_onnx()
    assert reply["Content-Disposition"] == 'attachment; filename="wine-1.onnx"'
    assert reply["Content-Type"] == "application/octet-stream"
    assert reply["ETag"] == f'"{hashlib.sha256(tiny_onnx()).hexdigest()}"'
    event = Event.objects.get(verb="version.downloaded")
    assert (event.actor_name, event.facts["role"]) == ("mara", "original")
    assert (event.facts["bytes"], event.address) == (len(tiny_onnx()), "127.0.0.1")
    assert event.facts["sha256"] == hashlib.sha256(tiny_onnx()).hexdigest()
    metadata = api("GET", "/wine/versions/1/artifact?role=metadata")
    assert b'"sha256"' in b"".join(metadata.streaming_content)


def test_the_download_is_written_before_its_first_byte(api: Api, wine: RegisteredModel) -> None:
    reply = api("GET", "/wine/versions/1/artifact")
    assert Event.objects.filter(verb="version.downloaded").count() == 1
    assert b"".join(reply.streaming_content)


def test_a_contributor_downloads_only_with_the_permission_and_a_viewer_never(
    wine: RegisteredModel,
) -> None:
    path = "/api/v1/models/wine/versions/1/artifact"
    carl = make_member(wine.team, Role.CONTRIBUTOR, "carl")
    viv = make_member(wine.team, Role.VIEWER, "viv")
    assert Client().get(path, headers=bearer(carl)).status_code == 403
    for one in (carl, viv):
        one.user_permissions.add(*permissions_named([DOWNLOAD]))
    assert Client().get(path, headers=bearer(carl)).status_code == 200
    assert Client().get(path, headers=bearer(viv)).status_code == 403
    assert Event.objects.filter(verb="version.downloaded").count() == 1


def test_below_asgi_a_download_is_streamed_and_not_gathered(
    api: Api, wine: RegisteredModel
) -> None:
    request = AsyncRequestFactory().get("/x", headers=api.headers)
    reply: Any = ArtifactView.as_view()(request, model="wine", number=1)
    assert reply.is_async

    async def read() -> bytes:
        return b"".join([part async for part in reply.streaming_content])

    assert async_to_sync(read)() == tiny_onnx()


def test_a_file_missing_from_the_store_is_said(
    api: Api, wine: RegisteredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = ModelVersion.objects.get(number=1)
    storage.delete(version.artifacts.get(role="original").key)
    assert api("GET", "/wine/versions/1/artifact").status_code == 503


def test_a_version_is_deprecated_archived_and_restored_with_a_reason(
    api: Api, wine: RegisteredModel
) -> None:
    for move, state in (("deprecate", "deprecated"), ("archive", "archived"), ("restore", "ready")):
        reply = api("POST", f"/wine/versions/1/{move}", {"reason": f"{move} it"})
        assert (reply.status_code, reply.json()["state"]) == (200, state)
    reasons = Event.objects.filter(verb__startswith="version.", reason__endswith=" it")
    assert reasons.count() == 3
    assert api("POST", "/wine/versions/1/restore").status_code == 409


def test_an_alias_is_set_read_and_removed(api: Api, wine: RegisteredModel) -> None:
    assert api("PUT", "/wine/aliases/champion", {"version": 2}).json() == {
        "alias": "champion",
        "model": "wine",
        "version": 2,
    }
    assert api("GET", "/wine/aliases/champion").json()["version"] == 2
    assert api("GET", "/wine/versions/2").json()["aliases"] == ["champion"]
    assert api("DELETE", "/wine/aliases/champion").status_code == 204
    assert api("GET", "/wine/aliases/champion").status_code == 404


def test_a_release_goes_live_and_its_endpoint_tells_the_history(
    api: Api, wine: RegisteredModel
) -> None:
    here = "/wine/endpoints/production"
    first = api("POST", f"{here}/releases", {"version": 1, "reason": "first"})
    assert first.status_code == 201
    body = first.json()
    assert (body["number"], body["state"], body["actor"]) == (1, "live", "mara")
    assert body["arms"] == [{"version": 1, "share": 1.0, "role": "primary", "variant": None}]
    split = {
        "arms": [{"version": 1, "share": 0.9}, {"version": 2, "share": 0.1, "role": "candidate"}],
        "reason": "canary",
        "expected_release": 1,
    }
    assert api("POST", f"{here}/releases", split).status_code == 201
    assert api("POST", f"{here}/releases", split).status_code == 409
    back = api("POST", f"{here}/rollback", {"reason": "worse"})
    assert (back.status_code, back.json()["rolled_back_to"]) == (201, 1)
    endpoint = api("GET", here).json()
    assert endpoint["release"]["number"] == 3
    assert [one["state"] for one in endpoint["releases"]] == ["live", "replaced", "replaced"]
    assert [one["reason"] for one in endpoint["history"]] == ["worse", "canary", "first"]


def test_where_approval_is_asked_a_contributor_asks_and_a_maintainer_approves(
    api: Api, team: Team, wine: RegisteredModel, settings: Settings
) -> None:
    settings.REQUIRE_APPROVAL = True
    here = "/wine/endpoints/production"
    asker = Api(bearer(make_member(team, Role.CONTRIBUTOR)))
    asked = asker("POST", f"{here}/releases", {"version": 1, "reason": "please"})
    assert (asked.status_code, asked.json()["state"]) == (202, "awaiting_approval")
    assert asker("POST", f"{here}/releases/1/approve").status_code == 403
    assert api("GET", here).json()["release"] is None
    approved = api("POST", f"{here}/releases/1/approve", {"reason": "fine"})
    assert (approved.status_code, approved.json()["approver"]) == (200, "mara")
    assert api("POST", f"{here}/releases/1/reject", {"reason": "x"}).status_code == 409


def test_nobody_approves_by_key_what_they_asked_for_in_person(
    team: Team, wine: RegisteredModel, settings: Settings
) -> None:
    settings.REQUIRE_APPROVAL = True
    boss = make_member(team, Role.MAINTAINER)
    here = "/wine/endpoints/production"
    asked = Api(bearer(boss))("POST", f"{here}/releases", {"version": 1, "reason": "x"})
    assert asked.status_code == 202
    _, text = make_key(team, boss, scopes=["deploy"])
    assert Api(api_key(text))("POST", f"{here}/releases/1/approve").status_code == 403


def test_a_key_releases_only_in_its_environments(team: Team, wine: RegisteredModel) -> None:
    boss = make_member(team, Role.MAINTAINER)
    _, text = make_key(team, boss, scopes=["deploy"], environments=["staging"])
    body = {"version": 1, "reason": "x"}
    key = Api(api_key(text))
    assert key("POST", "/wine/endpoints/staging/releases", body).status_code == 201
    assert key("POST", "/wine/endpoints/production/releases", body).status_code == 403


def test_a_session_needs_the_csrf_token_to_change_anything(
    team: Team, wine: RegisteredModel
) -> None:
    make_member(team, Role.MAINTAINER, "web")
    client = Client(enforce_csrf_checks=True)
    assert client.login(username="web", password=PASSWORD)
    assert client.get(f"{MODELS}/wine").status_code == 200
    assert client.delete(f"{MODELS}/wine").status_code == 403


def test_without_the_lean_door_in_front_an_upload_is_told_so(api: Api) -> None:
    reply = api("POST", "/upload", {})
    assert reply.status_code == 503
    assert "make run" in reply.json()["detail"]


@pytest.mark.parametrize("position", [b"p=abc", b"p=a%00", b"p=2020-13-45", b"\xff"])
@pytest.mark.parametrize("path", ["/models", "/models/wine/versions", "/keys", "/teams"])
def test_a_made_up_cursor_is_400(
    api: Api, wine: RegisteredModel, path: str, position: bytes
) -> None:
    cursor = quote(base64.b64encode(position))
    reply = Client().get(f"/api/v1{path}?cursor={cursor}", headers=api.headers)
    assert (reply.status_code, reply.json()["errors"][0]["pointer"]) == (400, "/cursor")


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("POST", "/wine/endpoints/staging/releases", {"version": "9" * 30}, "/version"),
        ("POST", "/wine/endpoints/staging/releases", {"arms": [{"version": "9" * 30}]}, "/arms"),
        ("POST", "/wine/endpoints/staging/rollback", {"to": "9" * 30}, "/to"),
        ("PUT", "/wine/aliases/champion", {"version": "9" * 30}, "/version"),
        ("PATCH", "/wine", {"redact": {"a\x00": "drop"}}, "/redact"),
    ],
)
def test_what_no_column_can_hold_is_400_at_its_place(
    api: Api, wine: RegisteredModel, *, method: str, path: str, body: Any, pointer: str
) -> None:
    reason = {} if method == "PATCH" else {"reason": "why"}
    reply = api(method, path, body | reason)
    assert reply.status_code == 400, reply.content
    assert reply.json()["errors"][0]["pointer"].startswith(pointer)


def test_an_endpoint_says_what_served_at_a_moment(api: Api, wine: RegisteredModel) -> None:
    here = "/wine/endpoints/production"
    for number in (1, 2):
        api("POST", f"{here}/releases", {"version": number, "reason": "x"})
    rows = Release.objects.filter(endpoint__model=wine)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    rows.filter(number=1).update(decided=noon)
    rows.filter(number=2).update(decided=noon + timedelta(hours=1))

    def served(at: str) -> Any:
        return api("GET", f"{here}?at={at}").json()["served_at"]

    found = served("2026-03-01T12:30:00Z")
    assert found["release"]["number"] == 1
    assert found["since"] == "2026-03-01T12:00:00Z"
    assert found["until"] == "2026-03-01T13:00:00Z"
    assert served("2026-03-01T13:00:00")["release"]["number"] == 2
    assert served("2026-03-01T13:00:00")["until"] is None
    assert served("2026-03-01T11:59:59Z")["release"] is None
    assert api("GET", here).json()["served_at"] is None
    refused = api("GET", f"{here}?at=yesterday")
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["pointer"] == "/at"

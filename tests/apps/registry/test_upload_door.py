"""The upload door: it takes what is whole and allowed, says why not otherwise, leaves no file."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import time_machine
from django.core.cache import cache
from django.test import Client
from moto.server import ThreadedMotoServer
from pytest_django import Settings

from apps.accounts.models import Team
from apps.accounts.snapshot import Role
from apps.core import storage, work
from apps.core.errors import Invalid
from apps.core.models import Event, Work
from apps.registry.api import upload as door
from apps.registry.models import ModelVersion, RegisteredModel
from apps.registry.services import uploads
from apps.registry.services.uploads import About
from tests.apps.registry.conftest import Files, forget_store
from tests.factories.accounts import (
    PASSWORD,
    api_key,
    bearer,
    make_key,
    make_member,
    make_team,
    make_user,
)
from tests.factories.registry import make_model, tiny_onnx
from tests.fakes.asgi import HANG, HANG_UP, Reply, call, form, part, pieces

pytestmark = pytest.mark.django_db
PATH = "/api/v1/models/upload"
ONNX = tiny_onnx()
GOOD = form(part("name", "wine"), part("file", ONNX, "wine.onnx"))
PICKLE = b"\x80\x05\x95" + b"\0" * 100


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def headers(team: Team) -> dict[str, str]:
    return bearer(make_member(team, Role.CONTRIBUTOR, "mara"))


Send = Callable[..., Reply]


@pytest.fixture
def send(headers: dict[str, str]) -> Send:
    def post(body: Any, *, path: str = PATH, more: dict[str, str] | None = None) -> Reply:
        return call(door.upload, path, body, headers={**headers, **(more or {})})

    return post


def pointer(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/problem+json"
    return str(reply.json()["errors"][0]["pointer"])


def test_a_whole_form_becomes_a_version_with_its_work(send: Send, files: Files) -> None:
    reply = send(GOOD)
    assert reply.status == 202, reply.body
    body = reply.json()
    assert (body["model"], body["number"], body["state"]) == ("wine", 1, "uploaded")
    assert (body["sha256"], body["size"]) == (hashlib.sha256(ONNX).hexdigest(), len(ONNX))
    assert body["urls"] == {
        "self": "http://localhost/api/v1/models/wine/versions/1",
        "status": "http://localhost/api/v1/models/wine/versions/1",
        "predict": "http://localhost/api/v1/predict/wine",
        "artifact": "http://localhost/api/v1/models/wine/versions/1/artifact",
    }
    assert reply.headers["location"] == body["urls"]["self"]
    version = ModelVersion.objects.get()
    with storage.opened(version.incoming_key) as file:
        assert file.read() == ONNX
    assert Work.objects.get().args == {"version_id": version.pk}
    event = Event.objects.get(verb="version.uploaded")
    assert (event.actor_name, event.address) == ("mara", "127.0.0.1")
    assert files.names() == {f"artifacts/{version.incoming_key}"}


def test_the_next_upload_is_the_next_number_and_knows_its_parent(send: Send) -> None:
    assert [send(GOOD).json()["number"] for _ in range(3)] == [1, 2, 3]
    assert ModelVersion.objects.get(number=3).parent == ModelVersion.objects.get(number=2)
    assert RegisteredModel.objects.count() == 1


@pytest.mark.parametrize("size", [1, 6, 1000])
def test_the_pieces_in_which_a_body_comes_do_not_matter(send: Send, size: int) -> None:
    reply = send(pieces(GOOD, size))
    assert reply.json()["sha256"] == hashlib.sha256(ONNX).hexdigest()


def test_fields_may_come_after_the_file(send: Send) -> None:
    late = form(part("file", ONNX, "x"), part("name", "wine"), part("metrics", '{"f1": 0.9}'))
    assert send(late).json()["metrics"] == {"f1": 0.9}


def test_what_the_uploader_says_is_kept(send: Send) -> None:
    fields = {
        "description": "A card",
        "format": "onnx",
        "metrics": '{"f1": 0.9}',
        "params": '{"depth": 3}',
        "tags": '{"use": "demo"}',
        "lineage": '{"commit": "abc"}',
        "example": '{"instances": [[1, 2, 3, 4]]}',
    }
    sent = [part(name, value) for name, value in fields.items()]
    body = send(form(part("name", "wine"), *sent, part("file", ONNX, "w.onnx"))).json()
    assert (body["metrics"], body["lineage"]) == ({"f1": 0.9}, {"commit": "abc"})
    assert (body["params"], body["tags"]) == ({"depth": 3}, {"use": "demo"})
    assert body["example"] == {"instances": [[1, 2, 3, 4]]}
    assert body["description"] == "A card"


def test_a_large_file_is_never_whole_in_memory(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "WRITE_BYTES", 4096)
    written: list[int] = []
    plain = door.Incoming._write

    def spy(self: door.Incoming, data: bytes) -> None:
        written.append(len(data))
        plain(self, data)

    monkeypatch.setattr(door.Incoming, "_write", spy)
    data = os.urandom(200_000)
    body = form(part("name", "wine"), part("file", data, "w"))
    assert send(pieces(body, 1500)).json()["sha256"] == hashlib.sha256(data).hexdigest()
    assert len(written) > 40
    assert max(written) < 8192


def test_the_files_name_is_shown_and_never_a_path(send: Send, files: Files) -> None:
    evil = form(part("name", "wine"), part("file", ONNX, "../../etc/cron.d/x\x01.onnx"))
    assert send(evil).json()["filename"] == "x?.onnx"
    assert all(name.startswith("artifacts/incoming/") for name in files.names())


@pytest.mark.parametrize("path", [PATH, f"{PATH}/", "/api/models/upload", "/api/models/upload/"])
def test_both_forms_of_both_addresses_are_this_doors(path: str) -> None:
    assert door.is_upload({"type": "http", "method": "POST", "path": path})
    assert not door.is_upload({"type": "http", "method": "GET", "path": path})
    assert not door.is_upload({"type": "http", "method": "POST", "path": f"{path}x"})


# -- bad bodies ----------------------------------------------------------------------------------


def cut(body: bytes, by: int) -> bytes:
    return body[:-by]


BAD = {
    "empty file": (form(part("name", "wine"), part("file", b"", "w")), "/file"),
    "no file": (form(part("name", "wine")), "/file"),
    "two files": (
        form(part("name", "wine"), part("file", ONNX, "a"), part("file", ONNX, "b")),
        "/file",
    ),
    "file in another field": (form(part("name", "w"), part("model", ONNX, "a")), "/model"),
    "no name": (form(part("file", ONNX, "a")), "/name"),
    "bad name": (form(part("name", "../x"), part("file", ONNX, "a")), "/name"),
    "reserved name": (form(part("name", "upload"), part("file", ONNX, "a")), "/name"),
    "unknown field": (form(part("nmae", "wine"), part("file", ONNX, "a")), "/nmae"),
    "field twice": (form(part("name", "a"), part("name", "b"), part("file", ONNX, "a")), "/name"),
    "bad json": (form(part("metrics", "{"), part("file", ONNX, "a")), "/metrics"),
    "metric no number": (
        form(part("metrics", '{"f1": "good"}'), part("file", ONNX, "a")),
        "/metrics/f1",
    ),
    "metrics no object": (form(part("metrics", "[1]"), part("file", ONNX, "a")), "/metrics"),
    "bad signature": (form(part("signature", "{}"), part("file", ONNX, "a")), "/signature/inputs"),
    "unknown format": (form(part("format", "keras"), part("file", ONNX, "a")), "/format"),
    "parent no number": (form(part("parent", "x"), part("file", ONNX, "a")), "/parent"),
    "no such parent": (
        form(part("name", "wine"), part("parent", "7"), part("file", ONNX, "a")),
        "/parent",
    ),
    "long field": (form(part("metrics", "x" * 70_000), part("file", ONNX, "a")), "/metrics"),
    "field not utf-8": (form(part("name", b"\xff\xfe"), part("file", ONNX, "a")), "/name"),
    "field with NUL": (form(part("name", b"a\0b"), part("file", ONNX, "a")), "/name"),
    "escaped NUL": (form(part("tags", r'{"a": ["\u0000"]}'), part("file", ONNX, "a")), "/tags"),
    "escaped NUL in the example": (
        form(part("example", r'{"instances": [["\\\u0000"]]}'), part("file", ONNX, "a")),
        "/example",
    ),
    "no team": (form(part("name", "w"), part("team", ""), part("file", b"", "a")), "/file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_form_is_refused_at_its_place_and_leaves_nothing(
    case: str, send: Send, files: Files
) -> None:
    body, place = BAD[case]
    reply = send(body)
    assert (reply.status, pointer(reply)) == (400, place), reply.body
    assert files.names() == set()
    assert not ModelVersion.objects.exists()
    assert not RegisteredModel.objects.exists()


MALFORMED = {
    "empty body": b"",
    "truncated in the file": GOOD[:-200],
    "truncated in the boundary": cut(GOOD, 6),
    "no boundary in it": b"just some bytes",
    "another boundary": GOOD.replace(b"frontier", b"border"),
    "huge part header": form(part("name", "w", more=b"X-Long: " + b"x" * 70_000 + b"\r\n")),
    "many part headers": form(part("name", "w", more=b"X-A: b\r\n" * 40)),
    "many fields": form(*(part(f"f{n}", "x") for n in range(40))),
    "part without a name": form(
        b"--frontier\r\nContent-Disposition: form-data\r\n\r\nx\r\n", part("file", ONNX, "a")
    ),
    "encoded part": form(
        part("file", ONNX, "a", more=b"Content-Transfer-Encoding: base64\r\n"), part("name", "w")
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("size", [7, 100_000])
def test_a_malformed_body_is_a_400_and_leaves_nothing(
    case: str, size: int, send: Send, files: Files
) -> None:
    reply = send(pieces(MALFORMED[case], size))
    assert reply.status == 400, reply.body
    assert reply.json()["code"] == "invalid"
    assert files.names() == set()
    assert not ModelVersion.objects.exists()


def test_a_client_that_hangs_up_leaves_nothing_and_gets_nothing(send: Send, files: Files) -> None:
    for at in (0, 50, 150, len(GOOD) - 3):
        reply = send([GOOD[:at], HANG_UP])
        assert reply.status == 0
    assert files.names() == set()
    assert not ModelVersion.objects.exists()


def test_a_body_that_stops_coming_is_given_up(
    send: Send, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door.Body.next, "__defaults__", (0.05,))
    monkeypatch.setattr(door, "LINGER_SECONDS", 0.05)
    reply = send([GOOD[:150], HANG])
    assert (reply.status, reply.json()["code"]) == (408, "too_slow")
    assert files.names() == set()


def test_a_file_over_the_limit_is_a_413_however_long_it_says_it_is(
    send: Send, files: Files, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MAX_ARTIFACT_BYTES = 10_000
    monkeypatch.setattr(door, "AROUND_BYTES", 1000)
    big = form(part("name", "wine"), part("file", b"x" * 10_001, "w"))
    assert send(pieces(big, 999)).status == 413
    assert send(pieces(big, 999), more={"content-length": "50"}).status == 413
    assert files.names() == set()
    exact = form(part("name", "wine"), part("file", b"x" * 10_000, "w"))
    assert send(exact).status == 202


def test_an_announced_length_over_the_limit_is_refused_unread(
    send: Send, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MAX_ARTIFACT_BYTES = 10_000
    monkeypatch.setattr(door, "LINGER_SECONDS", 0.05)
    reply = send([HANG], more={"content-length": str(10**10)})
    assert (reply.status, reply.json()["code"]) == (413, "too_large")


def test_what_comes_behind_the_form_is_bounded(
    send: Send, settings: Settings, monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    settings.MAX_ARTIFACT_BYTES = 10_000
    monkeypatch.setattr(door, "AROUND_BYTES", 1000)
    assert send([GOOD, *[b"x" * 5000] * 4]).status == 413
    assert files.names() == set()


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", "", "multipart/mixed; boundary=x"]
)
def test_another_media_type_is_a_415(headers: dict[str, str], kind: str) -> None:
    reply = call(door.upload, PATH, GOOD, headers=headers, content_type=kind)
    assert (reply.status, reply.json()["code"]) == (415, "unsupported_media_type")


def test_a_full_disk_is_a_507_and_leaves_nothing(
    send: Send, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(door.Incoming, "_write", full)
    assert send(GOOD).status == 507
    monkeypatch.undo()
    assert files.names() == set()


def test_a_store_that_fails_leaves_no_version_and_no_file(
    send: Send, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads, "store_incoming", full)
    assert send(GOOD).status == 507
    assert files.names() == set()
    assert not ModelVersion.objects.exists()


def test_a_version_that_cannot_be_written_leaves_no_file(
    send: Send, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, **_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(work, "enqueue", broken)
    reply = send(GOOD)
    assert reply.status == 500
    assert b"secret detail" not in reply.body
    assert files.names() == set()
    assert not ModelVersion.objects.exists()
    assert not RegisteredModel.objects.exists()


# -- who ------------------------------------------------------------------------------------------


class Untouched:
    """A body that must not be read before the caller is known."""

    def __iter__(self) -> Iterator[Any]:
        return iter([HANG])


def test_nobody_is_refused_before_the_body_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LINGER_SECONDS", 0.05)
    reply = call(door.upload, PATH, Untouched())
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert call(door.upload, PATH, Untouched(), headers=api_key("mlp_live_x")).status == 403
    bad = {"Authorization": "Bearer nonsense"}
    assert call(door.upload, PATH, Untouched(), headers=bad).status == 401


def test_each_role_gets_what_it_may(team: Team) -> None:
    make_model("wine", team=team)
    found = {}
    for role in Role:
        user = make_member(team, role)
        found[role.value] = call(door.upload, PATH, GOOD, headers=bearer(user)).status
    stranger = make_member(make_team("red"), Role.MAINTAINER)
    found["stranger"] = call(door.upload, PATH, GOOD, headers=bearer(stranger)).status
    admin = make_user(is_admin=True)
    found["admin"] = call(door.upload, PATH, GOOD, headers=bearer(admin)).status
    assert found == {
        "viewer": 403,
        "contributor": 202,
        "maintainer": 202,
        "stranger": 404,
        "admin": 202,
    }


def test_a_key_needs_its_scope_and_its_model(team: Team) -> None:
    owner = make_member(team, Role.MAINTAINER)
    found = []
    for scopes, names in ((["models:write"], []), (["predict"], []), (["models:write"], ["beer"])):
        _, text = make_key(team, owner, scopes=scopes, models=names)
        found.append(call(door.upload, PATH, GOOD, headers=api_key(text)).status)
    assert found == [202, 403, 403]


def test_a_refusal_by_name_comes_before_the_files_bytes(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "LINGER_SECONDS", 0.05)
    viewer = make_member(team, Role.VIEWER)
    begun = part("name", "wine") + part("file", b"x" * 100, "w")[:-50]
    assert call(door.upload, PATH, [begun, HANG], headers=bearer(viewer)).status == 403


def test_the_team_is_named_by_those_who_have_several(team: Team) -> None:
    user = make_member(team, Role.CONTRIBUTOR)
    from apps.accounts.services import teams as team_services
    from tests.factories.accounts import SYSTEM

    team_services.add_member(make_team("green"), user, role=Role.CONTRIBUTOR, actor=SYSTEM)
    reply = call(door.upload, PATH, GOOD, headers=bearer(user))
    assert (reply.status, pointer(reply)) == (400, "/team")
    named = form(part("name", "wine"), part("team", "green"), part("file", ONNX, "w"))
    assert call(door.upload, PATH, named, headers=bearer(user)).status == 202
    assert RegisteredModel.objects.get().team.slug == "green"
    other = form(part("name", "wine"), part("team", "blue"), part("file", ONNX, "w"))
    assert pointer(call(door.upload, PATH, other, headers=bearer(user))) == "/team"
    foreign = form(part("name", "tea"), part("team", "red"), part("file", ONNX, "w"))
    assert call(door.upload, PATH, foreign, headers=bearer(user)).status == 404


def test_code_needs_its_permission_and_is_refused_at_its_first_bytes(
    send: Send, team: Team, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "LINGER_SECONDS", 0.05)
    begun = part("name", "wine") + part("file", PICKLE, "w.pkl")[:-60]
    reply = send([begun, HANG])
    assert (reply.status, reply.json()["code"]) == (403, "not_allowed")
    late = form(part("file", PICKLE, "w.pkl"), part("name", "wine"))
    assert send(late).status == 403
    assert files.names() == set()
    boss = make_member(team, Role.MAINTAINER)
    whole = form(part("name", "wine"), part("file", PICKLE, "w.pkl"))
    assert call(door.upload, PATH, whole, headers=bearer(boss)).status == 202
    assert ModelVersion.objects.get().may_carry_code


# -- a browser -------------------------------------------------------------------------------------


@pytest.fixture
def browser(team: Team) -> tuple[str, str]:
    """The cookies of a signed-in contributor, and the CSRF token that belongs to them."""
    make_member(team, Role.CONTRIBUTOR, "web")
    client = Client(enforce_csrf_checks=True)
    assert client.login(username="web", password=PASSWORD)
    token = "a" * 32
    session = client.cookies["sessionid"].value
    return f"sessionid={session}; csrftoken={token}", token


def test_a_session_needs_the_csrf_token_in_header_or_field(browser: tuple[str, str]) -> None:
    cookies, token = browser
    signed_in = {"cookie": cookies}
    assert call(door.upload, PATH, GOOD, headers=signed_in).status == 403
    wrong = {**signed_in, "x-csrftoken": "b" * 32}
    assert call(door.upload, PATH, GOOD, headers=wrong).status == 403
    right = {**signed_in, "x-csrftoken": token}
    assert call(door.upload, PATH, GOOD, headers=right).status == 202
    field = part("csrfmiddlewaretoken", token)
    before = form(field, part("name", "wine"), part("file", ONNX, "w"))
    assert call(door.upload, PATH, before, headers=signed_in).status == 202
    behind = form(part("name", "wine"), part("file", ONNX, "w"), field)
    assert call(door.upload, PATH, behind, headers=signed_in).status == 403


def test_a_session_from_another_origin_is_refused(browser: tuple[str, str]) -> None:
    cookies, token = browser
    sent = {"cookie": cookies, "x-csrftoken": token, "origin": "https://evil.example"}
    assert call(door.upload, PATH, GOOD, headers=sent).status == 403


# -- the reply -------------------------------------------------------------------------------------


def test_the_reply_carries_the_request_id_and_the_security_headers(send: Send) -> None:
    reply = send(GOOD, more={"x-request-id": "mine-1"})
    assert reply.headers["x-request-id"] == "mine-1"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-frame-options"] == "DENY"
    assert Event.objects.get(verb="version.uploaded").request_id == "mine-1"
    bad = send(b"", more={"x-request-id": "mine-2"})
    assert bad.json()["request_id"] == "mine-2"
    assert bad.headers["x-content-type-options"] == "nosniff"


def test_a_foreign_host_is_refused(send: Send) -> None:
    assert send(GOOD, more={"host": "evil.example"}).status == 400


def test_another_models_uploads_are_not_disturbed_by_a_failure(send: Send) -> None:
    assert send(GOOD[:-100]).status == 400
    assert send(GOOD).status == 202


# -- S3 --------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _host, port = server.get_host_and_port()
    url = f"http://127.0.0.1:{port}"
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    for old in keys_in(client) if has_bucket(client) else ():
        client.delete_object(Bucket="models", Key=old)
    client.create_bucket(Bucket="models")
    s3 = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": "models",
            "endpoint_url": url,
            "region_name": "us-east-1",
            "location": "artifacts",
            "file_overwrite": True,
            "default_acl": None,
        },
    }
    settings.STORAGES = {**settings.STORAGES, "artifacts": s3}
    forget_store()
    yield client
    forget_store()
    server.stop()


def has_bucket(client: Any) -> bool:
    return any(one["Name"] == "models" for one in client.list_buckets()["Buckets"])


def keys_in(bucket: Any) -> list[str]:
    return [one["Key"] for one in bucket.list_objects_v2(Bucket="models").get("Contents", [])]


def test_with_a_bucket_the_file_goes_there_over_http(
    bucket: Any, send: Send, files: Files, data_dir: Path
) -> None:
    reply = send(GOOD)
    assert reply.status == 202, reply.body
    version = ModelVersion.objects.get()
    assert keys_in(bucket) == [f"artifacts/{version.incoming_key}"]
    with storage.opened(version.incoming_key) as file:
        assert file.read() == ONNX
    assert files.names() == set()


def test_a_bucket_that_is_gone_is_a_503_and_leaves_nothing(
    bucket: Any, send: Send, files: Files
) -> None:
    bucket.delete_bucket(Bucket="models")
    reply = send(GOOD)
    assert (reply.status, reply.json()["code"]) == (503, "unavailable")
    assert files.names() == set()
    assert not ModelVersion.objects.exists()


def test_the_about_of_an_upload_has_limits() -> None:
    with pytest.raises(Invalid):
        uploads.check_about(About(params={"x": "y" * 70_000}))
    with pytest.raises(Invalid):
        uploads.check_about(About(metrics={"x": float("nan")}))


# -- how often -------------------------------------------------------------------------------------


def test_uploads_are_throttled_by_person_before_a_byte_is_read(
    send: Send, files: Files, settings: Settings
) -> None:
    cache.clear()
    settings.THROTTLE_UPLOAD = "1/d"
    assert send(GOOD).status == 202
    refused = send([HANG])
    assert (refused.status, refused.json()["code"]) == (429, "too_many_requests")
    assert int(refused.headers["retry-after"]) > 0
    event = Event.objects.get(verb="user.throttled")
    assert (event.facts["door"], event.facts["by"]) == ("upload", "person")
    cache.clear()


def test_a_browser_that_was_idle_too_long_uploads_nothing(team: Team, files: Files) -> None:
    mara = make_member(team, Role.CONTRIBUTOR, "mara")
    with time_machine.travel("2026-06-01T00:00:00Z", tick=False) as clock:
        client = Client()
        client.force_login(mara)
        cookies = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}
        clock.shift(timedelta(minutes=31))
        assert call(door.upload, PATH, GOOD, headers=cookies).status == 401


def test_the_client_is_found_where_each_proxy_writes_a_line_of_its_own(
    headers: dict[str, str], files: Files, settings: Settings
) -> None:
    settings.TRUSTED_PROXIES = 2

    async def behind_two(scope: Any, receive: Any, send: Any) -> None:
        lines = [(b"x-forwarded-for", one) for one in (b"192.0.2.7", b"10.0.0.1")]
        await door.upload({**scope, "headers": [*scope["headers"], *lines]}, receive, send)

    assert call(behind_two, PATH, GOOD, headers=headers).status == 202
    assert Event.objects.get(verb="version.uploaded").address == "192.0.2.7"

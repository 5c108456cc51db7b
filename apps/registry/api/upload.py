"""POST models/upload: a lean ASGI callable that streams the file and holds none of it in memory.

Django's ASGI handler takes in a whole body before a view sees it and drops it on a disconnect, so
this door stands in front of Django. It authenticates before it reads, refuses as early as it can,
hashes and writes as the bytes come, and leaves no file behind however it ends.
"""

import asyncio
import errno
import functools
import hashlib
import io
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.db import InterfaceError, OperationalError, connections
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from rest_framework.authentication import CSRFCheck

from apps.accounts.callers import Caller, caller_of
from apps.accounts.models import Team, User
from apps.accounts.policies import Action, Thing, may, require
from apps.accounts.selectors import (
    DatabaseDirectory,
    actor_of,
    caller_of_user,
    token_verifier,
)
from apps.accounts.services import browsers, key_uses, mfa
from apps.accounts.services.throttles import throttle_upload
from apps.core import context, ids, storage
from apps.core.addresses import client_address
from apps.core.api.exceptions import platform_error_of, problem_of
from apps.core.errors import (
    FieldProblem,
    Invalid,
    NotAllowed,
    PlatformError,
    StorageFull,
    TooLarge,
    Unavailable,
)
from apps.core.middleware import ACCESS, finished, request_id_of
from apps.registry import selectors
from apps.registry.api.multipart import (
    FieldSent,
    FileBegun,
    FilePiece,
    Happening,
    MultipartReader,
    boundary_of,
)
from apps.registry.api.reach import team_for
from apps.registry.api.serializers import VersionSerializer
from apps.registry.services import models, uploads
from apps.registry.services.uploads import About, StoredFile

LOG = logging.getLogger(__name__)
PATHS = frozenset({"/api/v1/models/upload", "/api/models/upload"})
TEXTS = frozenset({"name", "team", "format", "description"})
JSONS = frozenset({"signature", "metrics", "params", "tags", "lineage", "example"})
NUMBERS = frozenset({"parent"})
CSRF_FIELD = "csrfmiddlewaretoken"
# Seconds without a byte after which a body counts as given up.
IDLE_SECONDS = 60.0
# What a form may have around the file: fields, headers, boundaries.
AROUND_BYTES = 4 * 1024 * 1024
# Bytes that are gathered before they are hashed and written, off the event loop.
WRITE_BYTES = 1024 * 1024
# What is still read of a body after a refusal, so that the client gets to read the reply.
LINGER_BYTES = 8 * 1024 * 1024
LINGER_SECONDS = 2.0
HEAD_BYTES = 16

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Any], Awaitable[None]]


class UnsupportedMedia(PlatformError):
    """The body is of a media type that is not taken here."""

    code = "unsupported_media_type"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class TooSlow(PlatformError):
    """The body stopped coming."""

    code = "too_slow"
    status = HTTPStatus.REQUEST_TIMEOUT
    retryable = True


class ClientGone(Exception):
    """The client hung up; there is nobody to answer."""


def is_upload(scope: Scope) -> bool:
    """Whether a request belongs to this door; other methods are left to Django to refuse."""
    path = str(scope.get("path", ""))
    return (
        scope["type"] == "http" and scope["method"] == "POST" and (path.removesuffix("/") in PATHS)
    )


async def upload(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one upload."""
    started = time.perf_counter()
    headers = _headers(scope)
    client = scope.get("client")
    address = client_address(
        client[0] if client else None,
        _forwarded(scope),
        proxies=settings.TRUSTED_PROXIES,
    )
    about = context.begin(request_id_of(headers.get("x-request-id")), address)
    body = Body(receive)
    async with ThreadSensitiveContext():
        try:
            reply = await _answer(scope, headers, body)
        except ClientGone:
            LOG.info("the client of an upload hung up")
            return
        finally:
            await sync_to_async(_let_go_of_database)()
    reply["X-Request-ID"] = about.request_id
    facts = {
        "endpoint": scope["path"],
        "method": scope["method"],
        "status_code": reply.status_code,
        "response_time_ms": round((time.perf_counter() - started) * 1000, 2),
        **about.facts,
    }
    ACCESS.info("request", extra={"facts": facts})
    await _send(reply, send)
    await body.linger()


def _let_go_of_database() -> None:
    """Do what Django does at a request's end; inside a test's transaction it is not ours to end."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


async def _answer(scope: Scope, headers: dict[str, str], body: "Body") -> HttpResponse:
    request: HttpRequest = HttpRequest()
    try:
        request = asgi = _request(scope)
        asgi.get_host()
        reply = await _Upload(asgi, headers, body).run()
    except (ClientGone, asyncio.CancelledError):
        raise
    except Exception as error:  # noqa: BLE001 - this door has no Django handler above it
        reply = problem_of(_platform_error(error))
    request.path_info = scope["path"]  # also of a request that could not be read
    return finished(request, reply)


def _platform_error(error: Exception) -> PlatformError:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        LOG.error("there is no room for an upload")
        return StorageFull("There is no room for the file at present. Tell your operator.")
    if isinstance(error, BotoCoreError | ClientError):
        LOG.warning("the artifact store does not answer: %s", error)
        return Unavailable("The artifact store does not answer at present. Try again later.")
    if isinstance(error, DisallowedHost):
        return Invalid("This host name is not one of ours.")
    return platform_error_of(error)


def _forwarded(scope: Scope) -> str:
    """Return all lines of the header: a proxy may write what it adds into a line of its own."""
    lines = (value for name, value in scope["headers"] if name.lower() == b"x-forwarded-for")
    return b",".join(lines).decode("latin-1")


def _headers(scope: Scope) -> dict[str, str]:
    lines = scope["headers"]
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in lines}


def _request(scope: Scope) -> ASGIRequest:
    """Return Django's view of the request without its body: host, cookies, address."""
    body = {b"content-type", b"content-length"}
    kept = [(name, value) for name, value in scope["headers"] if name.lower() not in body]
    try:
        return ASGIRequest({**scope, "headers": kept}, io.BytesIO())
    except UnicodeDecodeError as error:
        raise Invalid("The address of this request is not UTF-8.") from error


async def _send(reply: HttpResponse, send: Send) -> None:
    lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.items()]
    lines.append((b"content-length", str(len(reply.content)).encode()))
    await send({"type": "http.response.start", "status": reply.status_code, "headers": lines})
    await send({"type": "http.response.body", "body": reply.content})


class Body:
    """The request's body as it comes in."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_over = False

    async def next(self, seconds: float = IDLE_SECONDS) -> bytes | None:
        """Return some bytes, or None at the end.

        Raises:
            ClientGone: The client hung up.
            TooSlow: Nothing came for so many seconds.
        """
        until = time.monotonic() + seconds
        while not self._is_over:
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    message = await self._receive()
            except TimeoutError as error:
                raise TooSlow(f"No byte came for {seconds:.0f} s. Send the file again.") from error
            if message["type"] == "http.disconnect":
                self._is_over = True
                raise ClientGone
            self._is_over = not message.get("more_body", False)
            if data := message.get("body", b""):
                return bytes(data)
        return None

    async def linger(self) -> None:
        """Read a little of what a refused client still sends: it reads the reply only then."""
        left, until = LINGER_BYTES, time.monotonic() + LINGER_SECONDS
        try:
            while left > 0 and time.monotonic() < until:
                data = await self.next(max(0.0, until - time.monotonic()))
                if data is None:
                    return
                left -= len(data)
        except (ClientGone, TooSlow):
            return


@dataclass(frozen=True, slots=True)
class Target:
    """Where an upload goes, and what its uploader may send there."""

    team: Team
    model: str
    may_carry_code: bool


@dataclass(slots=True)
class Incoming:
    """The file while its bytes come in: a private local file under a name of ours."""

    path: Path
    filename: str = ""
    size: int = 0
    head: bytes = b""
    _digest: Any = field(default_factory=hashlib.sha256)
    _pending: list[bytes] = field(default_factory=list)
    _pending_bytes: int = 0
    _handle: int = -1

    @classmethod
    def begin(cls, filename: str) -> "Incoming":
        path = uploads.temp_folder() / ids.new_id()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return cls(path, filename, _handle=handle)

    async def add(self, data: bytes) -> None:
        """Take some bytes.

        Raises:
            TooLarge: The file is over the limit.
        """
        self.size += len(data)
        if self.size > settings.MAX_ARTIFACT_BYTES:
            raise _too_large()
        if len(self.head) < HEAD_BYTES:
            self.head = (self.head + data)[:HEAD_BYTES]
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= WRITE_BYTES:
            await self._flush()

    async def end(self) -> str:
        """Bring the last bytes to disk for good; return the SHA-256, hex."""
        await self._flush()
        await asyncio.to_thread(os.fsync, self._handle)
        return str(self._digest.hexdigest())

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def discard(self) -> None:
        """Remove the file, if it is still ours."""
        self.close()
        self.path.unlink(missing_ok=True)

    async def _flush(self) -> None:
        data, self._pending, self._pending_bytes = b"".join(self._pending), [], 0
        if data:
            await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]


class _Upload:
    """One upload on its way in."""

    def __init__(self, request: ASGIRequest, headers: dict[str, str], body: Body) -> None:
        self.request = request
        self.headers = headers
        self.body = body
        self.fields: dict[str, str] = {}
        self.file: Incoming | None = None
        self.target: Target | None = None
        self.needs_csrf = False
        self.head_is_judged = False

    async def run(self) -> HttpResponse:
        self.who: Caller = await sync_to_async(self._authenticate)()
        reader = MultipartReader(self._announced())
        try:
            await self._read(reader)
            return await self._finish()
        finally:
            if self.file is not None:
                self.file.discard()

    def _authenticate(self) -> Caller:
        """Find out who is asking before a byte of the body is read."""
        has_credential = "x-api-key" in self.headers or "authorization" in self.headers
        user = None if has_credential else self._user_of_session()
        if user is None:
            who = caller_of(
                self.headers,
                directory=DatabaseDirectory(),
                verifier=token_verifier(),
                now=timezone.now().timestamp(),
                address=context.current().address,
            )
            if who.key is not None:
                agent = self.headers.get("user-agent", "")
                key_uses.note_door(who.key.id, address=context.current().address, agent=agent)
        else:
            mfa.require_enrolled(user)
            who = caller_of_user(user)
            self.needs_csrf = True
            if "x-csrftoken" in self.headers:
                self._check_csrf()
        context.note(user_id=who.user_id, key=who.key.id if who.key else None)
        throttle_upload(who.user_id)
        return who

    def _user_of_session(self) -> User | None:
        SessionMiddleware(_no_reply).process_request(self.request)
        AuthenticationMiddleware(_no_reply).process_request(self.request)
        user = self.request.user
        is_over = browsers.end_of(self.request.session, timezone.now())
        return user if user.is_authenticated and user.is_active and not is_over else None

    def _check_csrf(self) -> None:
        check = CSRFCheck(_no_reply)
        check.process_request(self.request)
        if check.process_view(self.request, _no_reply, (), {}) is not None:
            raise NotAllowed(
                "The CSRF token is missing or wrong. Send it in the header `X-CSRFToken`, or in "
                f"the field `{CSRF_FIELD}` before the file."
            )
        self.needs_csrf = False

    def _announced(self) -> bytes:
        """Refuse by the headers what can be refused by them; return the boundary."""
        boundary = boundary_of(self.headers.get("content-type", ""))
        if not boundary:
            raise UnsupportedMedia("Send the file as multipart/form-data with a boundary.")
        length = self.headers.get("content-length", "")[:20]
        most = settings.MAX_ARTIFACT_BYTES + AROUND_BYTES
        if length.isascii() and length.isdigit() and int(length) > most:
            raise _too_large()
        return boundary

    async def _read(self, reader: MultipartReader) -> None:
        total = 0
        while (data := await self.body.next()) is not None:
            total += len(data)
            if total > settings.MAX_ARTIFACT_BYTES + AROUND_BYTES:
                raise _too_large()
            for one in reader.feed(data):
                await self._take(one)
        reader.finish()

    async def _take(self, one: Happening) -> None:
        if isinstance(one, FieldSent):
            self._take_field(one)
        elif isinstance(one, FileBegun):
            await self._begin_file(one)
        else:
            await self._take_piece(one)

    def _take_field(self, one: FieldSent) -> None:
        if one.name not in TEXTS | JSONS | NUMBERS | {CSRF_FIELD}:
            raise _wrong(one.name[:50], "There is no such field.")
        self.fields[one.name] = one.value

    async def _begin_file(self, one: FileBegun) -> None:
        """Refuse by the fields that came before the file, before its bytes come."""
        if self.needs_csrf:
            self.request.META["HTTP_X_CSRFTOKEN"] = self.fields.get(CSRF_FIELD, "")
            await sync_to_async(self._check_csrf)()
        uploads.check_about(_about(self.fields))
        if "name" in self.fields:
            self.target = await sync_to_async(self._find_target)()
        self.file = await asyncio.to_thread(Incoming.begin, one.filename)

    async def _take_piece(self, one: FilePiece) -> None:
        assert self.file is not None
        await self.file.add(one.data)
        if self.target is not None and len(self.file.head) >= HEAD_BYTES:
            self._judge_head(self.target, self.file)

    def _judge_head(self, target: Target, file: Incoming) -> None:
        """Refuse a file that carries code from somebody who may not send one."""
        if not target.may_carry_code and uploads.carries_code(file.head):
            raise NotAllowed(
                "This file can run code when it is opened (pickle, joblib or PyTorch), and you do "
                "not have the permission to upload such files. Export the model to ONNX, or ask "
                "a maintainer of the team to upload it."
            )

    async def _finish(self) -> HttpResponse:
        file = self.file
        if file is None or not file.size:
            detail = "The file is empty." if file else "Send the model's file in the field `file`."
            raise _wrong("file", detail)
        about = _about(self.fields)
        if "name" not in self.fields:
            raise _wrong("name", "Say which model this is a version of.")
        target = self.target or await sync_to_async(self._find_target)()
        self._judge_head(target, file)
        digest = await file.end()
        file.close()
        # From here one thread finishes or undoes everything, whatever becomes of this coroutine.
        self.file = None
        store = functools.partial(self._store, file, digest, about)
        return await asyncio.shield(sync_to_async(store)())

    def _find_target(self) -> Target:
        name = self.fields["name"]
        models.check_name(name)
        slug = self.fields.get("team", "")
        model = selectors.living_models().filter(name=name).first()
        team = team_for(self.who, slug) if model is None else model.team
        require(self.who, Action.VERSION_UPLOAD, Thing(team.pk, name))
        if slug and slug != team.slug:
            raise _wrong("team", f"The model {name} belongs to the team {team.slug}.")
        code = may(self.who, Action.VERSION_UPLOAD_CODE, Thing(team.pk, name))
        return Target(team, name, code)

    def _store(self, file: Incoming, digest: str, about: About) -> HttpResponse:
        """Hand the file to the store and make the version; without a version no file stays."""
        try:
            key = uploads.store_incoming(file.path)
        finally:
            file.discard()
        try:
            target = self._find_target()  # a large file takes hours; rights end in seconds
            version = uploads.receive_version(
                StoredFile(key, digest, file.size, file.filename),
                model_name=target.model,
                team=target.team,
                actor=actor_of(self.who),
                person_id=self.who.user_id,
                may_carry_code=target.may_carry_code,
                about=about,
            )
        except (OperationalError, InterfaceError):
            raise  # the commit may have happened; the sweeper knows which files are wanted
        except BaseException:
            storage.delete(key)
            raise
        body = VersionSerializer(version, context={"request": self.request}).data
        return HttpResponse(
            orjson.dumps(body, default=str),
            status=HTTPStatus.ACCEPTED,
            content_type="application/json",
            headers={"Location": body["urls"]["self"]},
        )


def _no_reply(_: HttpRequest) -> HttpResponse:
    return HttpResponse()


def _too_large() -> TooLarge:
    most = settings.MAX_ARTIFACT_BYTES
    return TooLarge(f"A model's file has at most {most} bytes here (MLP_MAX_ARTIFACT_BYTES).")


def _wrong(name: str, detail: str) -> Invalid:
    error = Invalid(detail)
    error.at([FieldProblem(f"/{name}", detail)])
    return error


def _about(fields: dict[str, str]) -> About:
    """Read what the uploader says of the version."""
    return About(
        format=fields.get("format", ""),
        description=fields.get("description", ""),
        signature=_json(fields, "signature"),
        example=_json(fields, "example"),
        parent=_number(fields, "parent"),
        **{name: _json(fields, name) or {} for name in ("metrics", "params", "tags", "lineage")},
    )


def _json(fields: dict[str, str], name: str) -> Any:
    text = fields.get(name, "").strip()
    if not text:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _wrong(name, f"`{name}` is JSON: {error}") from error


def _number(fields: dict[str, str], name: str) -> int | None:
    text = fields.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _wrong(name, f"`{name}` is the number of a version.")
    return int(text)

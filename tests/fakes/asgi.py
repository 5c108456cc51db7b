"""Drives an ASGI callable by hand: every message of the body, and every trouble, is the test's."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from asgiref.sync import async_to_sync

Message = MutableMapping[str, Any]
Application = Callable[..., Awaitable[None]]
BOUNDARY = b"frontier"
HANG, HANG_UP = object(), object()


@dataclass
class Reply:
    """What came back; status 0 when nothing did."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return orjson.loads(self.body)


def part(name: str, value: bytes | str, filename: str | None = None, more: bytes = b"") -> bytes:
    """One part of a multipart form."""
    text = value.encode() if isinstance(value, str) else value
    head = f'Content-Disposition: form-data; name="{name}"'.encode()
    if filename is not None:
        head += b'; filename="' + filename.encode() + b'"'
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n" + more + b"\r\n" + text + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A whole multipart form."""
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def pieces(body: bytes, size: int) -> list[bytes]:
    """A body in pieces of some bytes."""
    return [body[at : at + size] for at in range(0, len(body), size)]


def call(
    application: Application,
    path: str,
    body: bytes | Iterable[Any],
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    content_type: str = f"multipart/form-data; boundary={BOUNDARY.decode()}",
    seen: list[Message] | None = None,
) -> Reply:
    """Make one request; the body may be pieces, ``HANG`` (nothing comes) or ``HANG_UP``."""
    lines = {"host": "localhost", "content-type": content_type} | {
        name.lower(): value for name, value in (headers or {}).items()
    }
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in lines.items()],
        "client": ("127.0.0.1", 4711),
        "server": ("localhost", 80),
    }
    queue: list[Any] = [body] if isinstance(body, bytes) else list(body)
    reply = Reply()

    async def receive() -> Message:
        if not queue:
            return {"type": "http.request", "body": b"", "more_body": False}
        one = queue.pop(0)
        if one is HANG:
            await asyncio.Event().wait()
        if one is HANG_UP:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": one, "more_body": bool(queue)}

    async def send(message: Message) -> None:
        if seen is not None:
            seen.append(message)
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            reply.body += message.get("body", b"")

    async_to_sync(application)(scope, receive, send)
    return reply

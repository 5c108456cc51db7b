"""The ASGI entry: lean doors by address, Django for everything else."""

import io
import os
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mlplatform.settings.dev")

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Any], Awaitable[None]]

django_application = get_asgi_application()

from apps.core import context  # noqa: E402 - all of these need Django set up
from apps.core.api.exceptions import problem_of  # noqa: E402
from apps.core.errors import TooLarge  # noqa: E402
from apps.core.middleware import finished, request_id_of  # noqa: E402
from apps.registry.api.upload import is_upload, upload  # noqa: E402


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Answer one connection."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif is_upload(scope):
        await upload(scope, receive, send)
    else:
        await _django(scope, receive, send)


async def _django(scope: Message, receive: Receive, send: Send) -> None:
    """Hand a request to Django, whose handler takes in any body whole before a view may refuse it.

    A body that grows too large looks to Django as if its sender had hung up; the reply is ours.
    """
    left = int(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        return message if left >= 0 else {"type": "http.disconnect"}

    await django_application(scope, bounded, send)
    if left < 0:
        await _refuse(scope, send)


async def _refuse(scope: Message, send: Send) -> None:
    presented = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    about = context.begin(request_id_of(presented), None)
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    reply = problem_of(TooLarge(f"The body is larger than the {most} bytes that are taken here."))
    reply = finished(_plain_request(scope), reply)
    reply["X-Request-ID"] = about.request_id
    lines = [(name.lower().encode(), value.encode()) for name, value in reply.items()]
    await send({"type": "http.response.start", "status": reply.status_code, "headers": lines})
    await send({"type": "http.response.body", "body": reply.content})


def _plain_request(scope: Message) -> HttpRequest:
    """Return Django's view of a request without its body; an address it cannot read stays out."""
    try:
        return ASGIRequest(scope, io.BytesIO())
    except UnicodeDecodeError:
        request = HttpRequest()
        request.path_info = str(scope["path"])
        return request


async def _lifespan(receive: Receive, send: Send) -> None:
    """Say yes to start and end; what needs both is built lazily by its owner."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return

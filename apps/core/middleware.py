"""The request id, the access log, and the headers of every reply."""

import logging
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.middleware.security import SecurityMiddleware

from apps.core import context, ids
from apps.core.addresses import client_address
from apps.core.headers import headers_for

ACCESS = logging.getLogger("mlplatform.access")
# Parts of an address that say who somebody is.
PERSONAL = ("username", "email")
REQUEST_ID = re.compile(r"[0-9A-Za-z._:-]{1,128}")


def request_id_of(presented: str | None) -> str:
    """Echo a well-formed request id, else make one."""
    if presented and REQUEST_ID.fullmatch(presented):
        return presented
    return ids.new_id()


class HeadersMiddleware:
    """Says with every reply what a browser may do with it; what a view says stays."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        for name, value in headers_for(request.path_info).items():
            response.headers.setdefault(name, value)
        return response


def finished(request: HttpRequest, reply: HttpResponse) -> HttpResponse:
    """Give a reply that was made in front of Django what Django's middleware would have added."""

    def made(_: HttpRequest) -> HttpResponse:
        return reply

    SecurityMiddleware(made).process_response(request, reply)
    CorsMiddleware(made).add_response_headers(request, reply)
    HeadersMiddleware(made)(request)
    return reply


class RequestIdMiddleware:
    """Names each request, and writes one access line for it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        address = client_address(
            request.META.get("REMOTE_ADDR"),
            request.headers.get("X-Forwarded-For"),
            proxies=settings.TRUSTED_PROXIES,
        )
        about = context.begin(request_id_of(request.headers.get("X-Request-ID")), address)
        response = self.get_response(request)
        response["X-Request-ID"] = about.request_id
        ACCESS.info(
            "request",
            extra={
                "facts": {
                    "endpoint": _endpoint(request),
                    "method": request.method,
                    "status_code": response.status_code,
                    "response_time_ms": round((time.perf_counter() - started) * 1000, 2),
                    **_user(request),
                    **about.facts,
                }
            },
        )
        return response


def _endpoint(request: HttpRequest) -> str:
    """Return the path, without what in it names a person."""
    kwargs = request.resolver_match.kwargs if request.resolver_match else {}
    path = request.path
    for name in PERSONAL:
        if value := kwargs.get(name):
            path = path.replace(quote(str(value)), "-").replace(str(value), "-")
    return path


def _user(request: HttpRequest) -> dict[str, Any]:
    """Return who uses a page, if the page asked: a log line causes no query."""
    user = getattr(request, "_cached_user", None)
    return {"user_id": user.pk} if user is not None and user.pk is not None else {}

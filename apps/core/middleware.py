"""The request id and the access log."""

import logging
import re
import time
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from apps.core import context, ids
from apps.core.addresses import client_address

ACCESS = logging.getLogger("mlplatform.access")
REQUEST_ID = re.compile(r"[0-9A-Za-z._:-]{1,128}")


def request_id_of(presented: str | None) -> str:
    """Echo a well-formed request id, else make one."""
    if presented and REQUEST_ID.fullmatch(presented):
        return presented
    return ids.new_id()


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
                    "endpoint": request.path,
                    "method": request.method,
                    "status_code": response.status_code,
                    "response_time_ms": round((time.perf_counter() - started) * 1000, 2),
                    **about.facts,
                }
            },
        )
        return response

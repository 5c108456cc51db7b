"""The error tree as problem+json (RFC 9457), in one place."""

import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import orjson
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from rest_framework import exceptions as drf

from apps.core import context, metrics
from apps.core.errors import (
    FieldProblem,
    Invalid,
    InvalidToken,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    PlatformError,
    TooLarge,
    Unavailable,
)

LOG = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
REFUSALS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}


def problem_body(error: PlatformError) -> dict[str, Any]:
    """Return the problem document of an error; a refusal for who asks is counted with it."""
    if error.status in REFUSALS:
        metrics.REFUSED.labels(error.code).inc()
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": error.status.phrase,
        "status": int(error.status),
        "code": error.code,
        "detail": error.message,
        "request_id": context.current().request_id,
    }
    if error.problems:
        body["errors"] = [{"pointer": one.pointer, "detail": one.detail} for one in error.problems]
    return body


def problem_headers(error: PlatformError) -> dict[str, str]:
    """Return the headers that belong to an error, its media type included."""
    headers = {"Content-Type": MEDIA_TYPE, **error.headers}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, InvalidToken):
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    elif isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def problem_of(error: PlatformError) -> HttpResponse:
    """Return the reply that says an error."""
    return HttpResponse(
        orjson.dumps(problem_body(error)), status=error.status, headers=problem_headers(error)
    )


def problem_response(error: Exception, _context: dict[str, Any]) -> HttpResponse:
    """Turn whatever DRF caught into a problem; our own bugs say nothing of themselves."""
    return problem_of(platform_error_of(error))


def platform_error_of(error: Exception) -> PlatformError:
    """Translate whatever a view raised into the error tree."""
    if isinstance(error, PlatformError):
        return error
    if isinstance(error, drf.ValidationError):
        problems = list(_field_problems(error.detail, ""))
        return Invalid("Some fields are wrong; `errors` says which.").at(problems)
    if isinstance(error, OperationalError | InterfaceError):
        LOG.warning("the database does not answer: %s", error)
        return Unavailable("The database does not answer at present. Try again in a moment.")
    return _known(error) or _bug(error)


def _known(error: Exception) -> PlatformError | None:
    if isinstance(error, Http404):
        return NotFound("There is nothing at this address.")
    if isinstance(error, PermissionDenied):
        return NotAllowed("You may not do this.")
    if isinstance(error, RequestDataTooBig):
        return TooLarge("The body is larger than this address takes.")
    if isinstance(error, drf.APIException):
        return _of_status(HTTPStatus(error.status_code), str(error.detail))
    return None


def _of_status(status: HTTPStatus, message: str) -> PlatformError:
    """Make an error of a framework's own refusal (method, media type, parse)."""
    codes = {HTTPStatus.BAD_REQUEST: "invalid", HTTPStatus.NOT_FOUND: "not_found"}
    kind = type(
        "Refused",
        (PlatformError,),
        {"code": codes.get(status, status.name.lower()), "status": status},
    )
    refused: PlatformError = kind(message)
    return refused


def _bug(error: Exception) -> PlatformError:
    LOG.error("unexpected error", exc_info=error)
    return PlatformError(
        "Something went wrong on our side. Tell your operator the request id if it happens again."
    )


def _field_problems(detail: Any, at: str) -> Iterator[FieldProblem]:
    if isinstance(detail, dict):
        for name, inner in detail.items():
            place = at if name == "non_field_errors" else f"{at}/{_escaped(str(name))}"
            yield from _field_problems(inner, place)
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            deeper = isinstance(inner, dict)
            yield from _field_problems(inner, f"{at}/{index}" if deeper else at)
    else:
        yield FieldProblem(at, str(detail))


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's 404 handler: a problem below the API's addresses, a plain page elsewhere."""
    if _is_api(request):
        return problem_of(NotFound("There is nothing at this address."))
    return _page(request, "404.html", HTTPStatus.NOT_FOUND)


def not_allowed(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's 403 handler: a problem below the API's addresses, a plain page elsewhere."""
    if _is_api(request):
        return problem_of(NotAllowed("You may not do this."))
    return _page(request, "403.html", HTTPStatus.FORBIDDEN)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's 500 handler: a problem below the API's addresses, a plain page elsewhere."""
    if _is_api(request):
        return problem_of(PlatformError("Something went wrong on our side."))
    return _page(request, "500.html", HTTPStatus.INTERNAL_SERVER_ERROR)


def _page(request: HttpRequest, template: str, status: HTTPStatus) -> HttpResponse:
    """Draw a page that asks nothing of the database, which may be what failed."""
    words = {"request_id": context.current().request_id}
    return HttpResponse(render_to_string(template, words), status=status)


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith(("/api/", "/v2", "/health", "/metrics"))

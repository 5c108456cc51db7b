"""A browser's refresh token: a cookie that scripts cannot read, with a CSRF token beside it."""

from django.conf import settings
from django.middleware.csrf import get_token
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.api.authentication import require_csrf_token
from apps.accounts.services.sessions import TokenPair

NAME = "mlp_refresh"
# Doors answer below /api/v1 and below /api.
PATH = "/api"


def answer(request: Request, pair: TokenPair, *, as_cookie: bool) -> Response:
    """Answer with a pair of tokens; as a cookie, the refresh token is not in the body."""
    if not as_cookie:
        return Response({"access": pair.access, "refresh": pair.refresh})
    csrf = get_token(request._request)  # noqa: SLF001 - DRF's name for Django's request
    reply = Response({"access": pair.access, "csrf": csrf})
    reply.set_cookie(
        NAME,
        pair.refresh,
        max_age=settings.JWT_REFRESH_SECONDS,
        path=PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Strict",
    )
    return reply


def presented(request: Request) -> str | None:
    """Return the refresh token of a browser's cookie, or None without one.

    Raises:
        NotAllowed: The CSRF token is missing: another site may have made the browser call.
    """
    text = request.COOKIES.get(NAME)
    if not text:
        return None
    require_csrf_token(request)
    return text


def forget(reply: Response) -> None:
    """Take the cookie away."""
    reply.delete_cookie(NAME, path=PATH, samesite="Strict")

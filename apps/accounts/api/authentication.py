"""DRF's skin over ``callers``: credentials in the headers, else the session of a browser."""

from typing import Any

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from apps.accounts.callers import Caller, caller_of
from apps.accounts.models import User
from apps.accounts.selectors import DatabaseDirectory, caller_of_user, token_verifier
from apps.core import context
from apps.core.errors import NotAllowed, NotAuthenticated


class CallerAuthentication(BaseAuthentication):
    """``request.auth`` is the ``Caller``; ``request.user`` is a user only for a session."""

    def authenticate(self, request: Request) -> tuple[Any, Caller] | None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if "x-api-key" in headers or "authorization" in headers:
            found = caller_of(
                headers,
                directory=DatabaseDirectory(),
                verifier=token_verifier(),
                now=timezone.now().timestamp(),
                address=context.current().address,
            )
            return None, _noted(found)
        user = getattr(request._request, "user", None)  # noqa: SLF001 - DRF's name for Django's
        if isinstance(user, User) and user.is_active:
            _require_csrf_token(request)
            return user, _noted(caller_of_user(user))
        return None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def caller(request: Request) -> Caller:
    """Return who is asking.

    Raises:
        NotAuthenticated: Nobody is.
    """
    if isinstance(request.auth, Caller):
        return request.auth
    raise NotAuthenticated(
        "Present a credential: an API key in `X-API-Key`, or `Authorization: Bearer <token>`."
    )


def _noted(found: Caller) -> Caller:
    """Name the caller in the access log: the key's id, never the key."""
    context.note(user=found.username, key=found.key.id if found.key else None)
    return found


def _require_csrf_token(request: Request) -> None:
    """Refuse an unsafe method that another site may have made the browser send."""
    try:
        SessionAuthentication().enforce_csrf(request)
    except PermissionDenied as error:
        raise NotAllowed(
            "The CSRF token is missing or wrong. Send it in the header `X-CSRFToken`."
        ) from error

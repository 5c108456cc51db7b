"""DRF's skin over ``callers``: credentials in the headers, else the session of a browser."""

from collections.abc import Mapping
from typing import Any

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from apps.accounts.callers import Caller, caller_of
from apps.accounts.limits import credential_of
from apps.accounts.models import User
from apps.accounts.selectors import DatabaseDirectory, caller_of_user, token_verifier
from apps.accounts.services import key_uses
from apps.accounts.wiring import limiter
from apps.core import context
from apps.core.errors import NotAllowed, NotAuthenticated, PlatformError


class CallerAuthentication(BaseAuthentication):
    """``request.auth`` is the ``Caller``; ``request.user`` is a user only for a session."""

    def authenticate(self, request: Request) -> tuple[Any, Caller] | None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if "x-api-key" in headers or "authorization" in headers:
            found = _presented(headers)
            if found.key is not None:
                key_uses.note_door(
                    found.key.id,
                    address=context.current().address,
                    agent=headers.get("user-agent", ""),
                )
            return None, _noted(found)
        user = getattr(request._request, "user", None)  # noqa: SLF001 - DRF's name for Django's
        if isinstance(user, User) and user.is_active:
            require_csrf_token(request)
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


def _presented(headers: Mapping[str, str]) -> Caller:
    """Read the credential, unless this address presented too many bad ones."""
    address = context.current().address
    credential = credential_of(headers)
    limiter().guard(address, credential)
    try:
        found = caller_of(
            headers,
            directory=DatabaseDirectory(),
            verifier=token_verifier(),
            now=timezone.now().timestamp(),
            address=address,
        )
    except PlatformError:
        limiter().note_refused(address, credential)
        raise
    limiter().note_good(credential)
    return found


def _noted(found: Caller) -> Caller:
    """Name the caller in the access log: the key's id, never the key."""
    context.note(user_id=found.user_id, key=found.key.id if found.key else None)
    return found


def require_csrf_token(request: Request) -> None:
    """Refuse an unsafe method that another site may have made the browser send."""
    try:
        SessionAuthentication().enforce_csrf(request)
    except PermissionDenied as error:
        raise NotAllowed(
            "The CSRF token is missing or wrong. Send it in the header `X-CSRFToken`."
        ) from error

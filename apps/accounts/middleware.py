"""Ends a browser's session some hours after the sign-in, and earlier when nobody uses it."""

from collections.abc import Callable

from django.contrib.auth import SESSION_KEY, logout
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from apps.accounts.services import browsers


class SessionLifeMiddleware:
    """Stands after the middleware that says whose session it is."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if _names_somebody(request):
            now = timezone.now()
            why = browsers.end_of(request.session, now)
            if why:
                request.session_end = why  # type: ignore[attr-defined]  # read by the sign-out
                logout(request)
            elif _is_use(request):
                browsers.seen(request.session, now)
        return self.get_response(request)


def _names_somebody(request: HttpRequest) -> bool:
    """Whether there is a session with somebody in it; a request without the cookie reads none."""
    return bool(request.session.session_key) and SESSION_KEY in request.session


def _is_use(request: HttpRequest) -> bool:
    """Whether a person did something: parts that a page loads again by itself are no use.

    Browsers say how a request came about; what says nothing is taken for a person.
    """
    mode = request.headers.get("Sec-Fetch-Mode", "navigate")
    return mode == "navigate" or request.method not in {"GET", "HEAD"}

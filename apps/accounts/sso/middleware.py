"""Leads whoever must have a second factor, and has none yet, to where it is set up."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.services import mfa
from apps.core.api.exceptions import problem_of
from apps.core.errors import NotAllowed

# Setting one up, and leaving; the look of both.
OPEN = ("/account/", "/admin/login/", "/admin/logout/", "/static/", "/health")


class SecondFactorMiddleware:
    """Stands after the middleware that says whose session it is; costs nothing unless required."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if settings.MFA == mfa.REQUIRED and not request.path.startswith(OPEN) and _wants(request):
            return _led(request)
        return self.get_response(request)


def _led(request: HttpRequest) -> HttpResponse:
    """Say it to a program that uses the browser's session; show the page to a person."""
    if not request.path.startswith("/api/"):
        return HttpResponseRedirect(reverse("mfa_index"))
    return problem_of(NotAllowed("Set up a second factor first, at /account/2fa/."))


def _wants(request: HttpRequest) -> bool:
    user = request.user
    return isinstance(user, User) and mfa.is_wanted_of(user)

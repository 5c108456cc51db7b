"""What the screens of accounts share: who asks, and errors said on the page they belong to."""

from typing import Any

from django.http import HttpRequest

from apps.accounts.callers import Caller
from apps.accounts.models import User
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import caller_of_user, teams_of
from apps.core.admin import PlatformAdmin
from apps.core.errors import NotAuthenticated


def caller_of_request(request: HttpRequest) -> Caller:
    """Return who uses the page."""
    user = request.user
    if not isinstance(user, User):
        raise NotAuthenticated("Sign in first.")
    known = getattr(request, "platform_caller", None)
    if known is None:
        known = caller_of_user(user)
        request.platform_caller = known  # type: ignore[attr-defined]  # once per request
    found: Caller = known
    return found


def teams_where(caller: Caller, action: Action) -> list[int]:
    """Return the caller's teams in which the caller may do something."""
    ids = caller.roles if not caller.sees_all else teams_of(caller).values_list("pk", flat=True)
    return [team for team in ids if may(caller, action, Thing(team))]


def teams_here(request: HttpRequest, action: Action) -> list[int]:
    """Return the teams in which the one who looks may do something.

    Menu, buttons and rows of a page all ask; the teams of a platform admin are read once for them.
    """
    caller = caller_of_request(request)
    if not caller.sees_all:
        return teams_where(caller, action)
    known = getattr(request, "platform_teams", None)
    if known is None:
        known = list(teams_of(caller).values_list("pk", flat=True))
        request.platform_teams = known  # type: ignore[attr-defined]  # once per request
    return [team for team in known if may(caller, action, Thing(team))]


class AccountsAdmin(PlatformAdmin):
    """A screen over people, teams and keys."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whoever may use the admin has these pages; the rows are those of the own teams."""
        return bool(request.user.is_active and request.user.is_staff)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nothing an audit may ask about is deleted: users are disabled, keys revoked."""
        return False

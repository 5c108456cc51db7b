"""What a person may do on the platform itself: sign in, run it, use up a plan, do granted things.

Roles are given in teams, and not here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from apps.accounts.models import User
from apps.accounts.policies import GRANTABLE
from apps.accounts.selectors import permissions_named
from apps.accounts.services import people, plans
from apps.core import events
from apps.core.errors import FieldProblem, Invalid
from apps.core.events import Actor


@dataclass(frozen=True, slots=True)
class StandingWish:
    """What shall be; None leaves it as it is.

    Attributes:
        is_admin: Runs the platform: may do everything in every team.
        permissions: Granted besides the roles, of those in ``policies.GRANTABLE``.
    """

    is_active: bool | None = None
    is_admin: bool | None = None
    plan: str | None = None
    permissions: tuple[str, ...] | None = None


@transaction.atomic
def change_standing(user: User, wish: StandingWish, *, actor: Actor, reason: str) -> User:
    """Change a person's standing, all of it or nothing; return the person as she is now.

    Raises:
        Invalid: A permission or plan is none that can be given.
        Conflict: Nobody would run the platform any more.
    """
    _check_grantable(wish.permissions or ())
    people.lock_admins()
    people.lock(user)
    if wish.is_admin is not None or wish.permissions is not None:
        _grant(user, wish, actor=actor, reason=reason)
    fresh = User.objects.get(pk=user.pk)
    if wish.is_active is not None and wish.is_active != fresh.is_active:
        people.set_active(fresh, active=wish.is_active, actor=actor, reason=reason)
    if wish.plan is not None:
        plans.give_plan(fresh, name=wish.plan, actor=actor)
    return User.objects.get(pk=user.pk)


def _grant(user: User, wish: StandingWish, *, actor: Actor, reason: str) -> None:
    user = User.objects.get(pk=user.pk)
    before = _standing(user)
    if wish.is_admin is not None:
        user.is_superuser = wish.is_admin
        # Whoever runs the platform uses its pages; who no longer does, keeps them for the teams.
        user.is_staff = user.is_staff or wish.is_admin
        user.save(update_fields=["is_superuser", "is_staff"])
    if wish.permissions is not None:
        ours = permissions_named(GRANTABLE)
        user.user_permissions.remove(*ours)
        user.user_permissions.add(*permissions_named(wish.permissions))
    changes = events.changes(before, _standing(user))
    if not changes:
        return
    people.require_admin_left()
    people.end_tokens(user)
    events.record("user.changed", actor=actor, target=user, reason=reason, changes=changes)
    people.publish(user)


def _standing(user: User) -> dict[str, Any]:
    granted = user.user_permissions.values_list("content_type__app_label", "codename")
    return {
        "is_admin": user.is_superuser,
        "permissions": sorted(f"{app}.{name}" for app, name in granted),
    }


def _check_grantable(names: Iterable[str]) -> None:
    problems = [
        FieldProblem(
            f"/permissions/{index}",
            f"`{name}` is nothing that can be granted; there are {', '.join(GRANTABLE)}.",
        )
        for index, name in enumerate(names)
        if name not in GRANTABLE
    ]
    if problems:
        raise Invalid("Nothing was granted.").at(problems)

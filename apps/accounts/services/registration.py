"""Make an account for oneself: with an invitation, or where anybody may."""

import re
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from apps.accounts.models import Invitation, Team, User
from apps.accounts.policies import TRIAL
from apps.accounts.selectors import actor_of_user
from apps.accounts.services import invitations, people, teams
from apps.accounts.services.people import Profile
from apps.accounts.services.plans import STANDARD
from apps.accounts.snapshot import Role
from apps.core.errors import FieldProblem, Invalid
from apps.core.events import Actor

MOST_SLUG = 64


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What somebody says who registers."""

    username: str
    email: str
    password: str
    first_name: str = ""
    last_name: str = ""
    invitation: str = ""


@dataclass(frozen=True, slots=True)
class Registered:
    """The account that was made, and the teams that it is in."""

    user: User
    teams: tuple[Team, ...]


@transaction.atomic
def register(wish: Newcomer) -> Registered:
    """Make an account with its team: the one of the invitation, else one of its own.

    Raises:
        RegistrationOff: Operators make all accounts here.
        Invalid: A field is wrong, or an invitation is needed.
        InvitationRefused: The invitation opens nothing, or is for another email address.
        Conflict: Somebody has this name or email address.
    """
    invitations.require_on()
    invitation = _invitation(wish)
    user = people.create_user(
        username=wish.username,
        email=wish.email,
        password=wish.password,
        actor=Actor.system(),
        profile=Profile(
            first_name=wish.first_name,
            last_name=wish.last_name,
            plan=STANDARD if invitation else TRIAL,
            uses_pages=True,
            how="invited" if invitation else "registered",
        ),
    )
    return Registered(user, _first_teams(user, invitation))


def _invitation(wish: Newcomer) -> Invitation | None:
    if not wish.invitation:
        if settings.REGISTRATION == "open":
            return None
        problem = FieldProblem("/invitation", "An invitation is needed to register here.")
        raise Invalid("Nobody was registered.").at([problem])
    return invitations.take(wish.invitation, email=wish.email)


def _first_teams(user: User, invitation: Invitation | None) -> tuple[Team, ...]:
    mine = actor_of_user(user)
    if invitation is None:
        team = teams.create_team(slug=free_slug(user.username), name=_name(user), actor=mine)
        teams.add_member(team, user, role=Role.MAINTAINER, actor=mine)
        return (team,)
    invitations.accepted(invitation, user, actor=mine)
    if invitation.team is None:
        return ()
    teams.add_member(invitation.team, user, role=Role(invitation.role), actor=mine)
    return (invitation.team,)


def free_slug(name: str) -> str:
    """Return a slug that sounds like a name and that no team has."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: MOST_SLUG - 6] or "team"
    taken = set(Team.objects.filter(slug__startswith=plain).values_list("slug", flat=True))
    number, slug = 1, plain
    while slug in taken:
        number += 1
        slug = f"{plain}-{number}"
    return slug


def _name(user: User) -> str:
    return f"Team of {user.get_full_name() or user.username}"[:120]

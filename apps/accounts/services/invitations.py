"""Invite somebody to register: a link that is good once, for one email address, for some days."""

import hashlib
import logging
import secrets
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from smtplib import SMTPException

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.mail.message import BadHeaderError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.accounts.models import Invitation, Team, User
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import caller_of_user
from apps.accounts.snapshot import Role
from apps.core import events
from apps.core.errors import Conflict, FieldProblem, Invalid, PlatformError
from apps.core.events import Actor
from apps.core.models import Event

LOG = logging.getLogger(__name__)
PREFIX = "inv_"
# Open ones and those of a day, of one team or of the platform: whoever may invite, and revoke, and
# invite again, cannot make it a mail cannon.
MOST_OPEN = 200


class RegistrationOff(PlatformError):
    """Nobody makes an account here without an operator."""

    code = "registration_off"
    status = HTTPStatus.FORBIDDEN


class InvitationRefused(PlatformError):
    """The invitation is unknown, used, expired or revoked, or meant for somebody else."""

    code = "invitation_refused"
    status = HTTPStatus.FORBIDDEN


def is_on() -> bool:
    """Whether people may register here at all."""
    return settings.REGISTRATION != "off"


def require_on() -> None:
    """Refuse where people are made by operators only.

    Raises:
        RegistrationOff: Says who makes sign-ins here.
    """
    if not is_on():
        raise RegistrationOff(
            "Nobody registers here. Ask a platform admin to make a sign-in for you."
        )


@transaction.atomic
def invite(
    *, email: str, team: Team | None, role: Role | None, actor: Actor
) -> tuple[Invitation, str]:
    """Invite an email address to register; return the row and the text, which is not kept.

    The new person joins ``team`` with ``role``; neither is given for an account alone.

    Raises:
        Invalid: It is no email address, or a team without a role.
        Conflict: Somebody has that address, or too many invitations are open.
    """
    require_on()
    address = _address(email)
    if (team is None) is not (role is None):
        raise Invalid("Nobody was invited.").at([FieldProblem("/role", "Name team and role.")])
    if User.objects.filter(email__iexact=address).exists():
        raise Conflict("Somebody with this email address is here already. Add them to the team.")
    if open_ones(team).count() >= MOST_OPEN:
        raise Conflict(f"{MOST_OPEN} invitations are open. Revoke some of them first.")
    day_ago = timezone.now() - timedelta(days=1)
    if Invitation.objects.filter(team=team, created__gt=day_ago).count() >= MOST_OPEN:
        raise Conflict(f"{MOST_OPEN} invitations were made within a day. Go on tomorrow.")
    text = PREFIX + secrets.token_urlsafe(32)
    made = Invitation.objects.create(
        sha256=_digest(text),
        email=address,
        team=team,
        role=role.value if role else "",
        invited_by=actor.name[:200],
        expires=timezone.now() + timedelta(days=settings.INVITATION_DAYS),
    )
    _record("invitation.made", made, actor=actor)
    if settings.EMAIL_URL:
        transaction.on_commit(partial(_mail, made, text), robust=True)
    return made, text


@transaction.atomic
def revoke(invitation: Invitation, *, actor: Actor) -> None:
    """Take an invitation back.

    Raises:
        Conflict: It was accepted or revoked meanwhile.
    """
    mine = Invitation.objects.filter(
        pk=invitation.pk, accepted_at__isnull=True, revoked_at__isnull=True
    )
    if not mine.update(revoked_at=timezone.now()):
        raise Conflict("The invitation was used or revoked already.")
    _record("invitation.revoked", invitation, actor=actor)


def open_ones(team: Team | None) -> QuerySet[Invitation]:
    """Return a team's invitations that can be accepted, or those without a team; newest first."""
    return Invitation.objects.filter(
        team=team, accepted_at__isnull=True, revoked_at__isnull=True, expires__gt=timezone.now()
    ).order_by("-created", "-pk")


def found(text: str) -> Invitation | None:
    """Return the invitation of a text while it can be accepted, and its maker may still invite."""
    rows = Invitation.objects.select_related("team").filter(
        sha256=_digest(text),
        accepted_at__isnull=True,
        revoked_at__isnull=True,
        expires__gt=timezone.now(),
    )
    invitation = rows.first()
    return invitation if invitation is not None and _stands(invitation) else None


def _stands(invitation: Invitation) -> bool:
    """Whether who invited may still do so: nobody who left comes back by a link of the own."""
    about = Event.objects.filter(
        target_kind=Invitation._meta.label_lower, target_id=str(invitation.pk)
    )
    made = about.filter(verb="invitation.made").first()
    if made is None or made.actor_kind not in {"user", "key"}:
        return made is not None
    if made.actor_kind == "user":
        inviter = User.objects.filter(pk=made.actor_id, is_active=True).first()
    else:
        inviter = User.objects.filter(
            keys__pk=made.actor_id, keys__revoked_at__isnull=True, is_active=True
        ).first()
    action = Action.PERSON_INVITE if invitation.team_id is None else Action.TEAM_MANAGE
    return inviter is not None and may(caller_of_user(inviter), action, Thing(invitation.team_id))


def take(text: str, *, email: str) -> Invitation:
    """Use an invitation up. Call it in the transaction that makes its user (``accepted``).

    Raises:
        InvitationRefused: It opens nothing, or is for another address.
    """
    invitation = found(text)
    if invitation is None:
        raise refused()
    if invitation.email.casefold() != email.strip().casefold():
        raise InvitationRefused(
            "This invitation is for another email address. Register with the address it came to."
        )
    now = timezone.now()
    mine = Invitation.objects.filter(
        pk=invitation.pk, accepted_at__isnull=True, revoked_at__isnull=True, expires__gt=now
    )
    if not mine.update(accepted_at=now):
        raise refused()
    return invitation


def accepted(invitation: Invitation, user: User, *, actor: Actor) -> None:
    """Note who came of an invitation that was taken in this transaction."""
    Invitation.objects.filter(pk=invitation.pk).update(accepted_by=user)
    _record("invitation.accepted", invitation, actor=actor)


def refused() -> InvitationRefused:
    """Return the one answer to every text that opens nothing, so that guesses learn nothing."""
    return InvitationRefused(
        "This invitation is not known, was used, revoked, or has expired. Ask for a new one."
    )


def link(text: str) -> str:
    """Return the address that a person opens."""
    return f"{settings.PUBLIC_URL}/register?invitation={text}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _address(email: str) -> str:
    address = email.strip()
    try:
        validate_email(address)
    except ValidationError as error:
        problem = FieldProblem("/email", "This is no email address.")
        raise Invalid("Nobody was invited.").at([problem]) from error
    return address


def _record(verb: str, invitation: Invitation, *, actor: Actor) -> None:
    """Write an event; whom it is for stands in the target's name, which the audit page shows."""
    events.record(
        verb,
        actor=actor,
        target=invitation,
        team_id=invitation.team_id,
        role=invitation.role,
        expires=invitation.expires.isoformat(),
    )


def _mail(invitation: Invitation, text: str) -> None:
    """Send the link, which was shown already; a mail server that is away undoes nothing."""
    team = f"the team {invitation.team.name} on " if invitation.team else ""
    message = EmailMessage(
        subject=f"{invitation.invited_by} invites you to mlplatform",
        body=f"{invitation.invited_by} invites you to {team}mlplatform. Make your account here; "
        f"the link is good once, until {invitation.expires:%Y-%m-%d %H:%M} UTC:\n\n{link(text)}\n",
        to=[invitation.email],
    )
    try:
        message.send()
    except (OSError, SMTPException, BadHeaderError):
        LOG.warning("the mail of invitation %s was not sent", invitation.pk)

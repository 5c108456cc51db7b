"""How long what sign-ins and keys leave is kept."""

from datetime import timedelta

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import Q
from django.utils import timezone

from apps.accounts.models import ApiKey, Invitation, KeyAddress, RefreshToken
from apps.accounts.services import sessions
from apps.core.events import Actor
from apps.core.retention import Kept, Removed, in_steps, older_than

# What ended by itself is kept no longer than its own time.
AT_ONCE = 0


def _tokens(days: int, dry_run: bool, actor: Actor) -> Removed:
    if dry_run:
        return Removed(RefreshToken.objects.filter(expires__lt=older_than(days)).count())
    return Removed(sessions.drop_expired())


def _sessions(days: int, dry_run: bool, actor: Actor) -> Removed:
    ended = Session.objects.filter(expire_date__lt=timezone.now() - timedelta(days=days))
    return in_steps(ended.order_by("pk"), dry_run=dry_run)


def _addresses(days: int, dry_run: bool, actor: Actor) -> Removed:
    before = older_than(days)
    unseen = KeyAddress.objects.filter(last__lt=before)
    if not dry_run:  # a key that nobody uses any more still says where it was used last
        ApiKey.objects.filter(last_used_at__lt=before).exclude(
            last_used_address="", last_used_agent=""
        ).update(last_used_address="", last_used_agent="")
    return in_steps(unseen.order_by("pk"), dry_run=dry_run)


def _invitations(days: int, dry_run: bool, actor: Actor) -> Removed:
    """Remove invitations that nobody can accept any more: they hold an email address."""
    before = older_than(days)
    over = Q(expires__lt=before) | Q(accepted_at__lt=before) | Q(revoked_at__lt=before)
    return in_steps(Invitation.objects.filter(over).order_by("pk"), dry_run=dry_run)


KEPT = (
    Kept("tokens", lambda: AT_ONCE, _tokens),
    Kept("sessions", lambda: AT_ONCE, _sessions),
    Kept("addresses", lambda: settings.ADDRESS_RETENTION_DAYS, _addresses),
    Kept("invitations", lambda: settings.ADDRESS_RETENTION_DAYS, _invitations),
)

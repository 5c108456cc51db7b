"""Find keys that nobody uses: their holders are told once, and who wishes has them revoked."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.accounts.models import ApiKey
from apps.accounts.services.keys import revoke_key
from apps.core import events
from apps.core.events import Actor

# From the warning until a key may be revoked for want of use.
GRACE = timedelta(days=30)
REASON = "unused"
# Keys of one turn; those beyond follow on the next day.
MOST_KEYS = 1000


def warn_of_unused() -> int:
    """Warn of each key that nobody used for long, once; return of how many."""
    now = timezone.now()
    found = unused_keys(ApiKey.objects.all(), now).filter(warned_at__isnull=True)
    keys = list(found.order_by("pk").values_list("pk", flat=True)[:MOST_KEYS])
    return sum(_warn(key, now) for key in keys)


def revoke_unused() -> int:
    """Revoke what stayed unused after its warning, where the installation wants that."""
    if not settings.KEY_UNUSED_REVOKE:
        return 0
    now = timezone.now()
    found = unused_keys(ApiKey.objects.all(), now).filter(warned_at__lte=now - GRACE)
    keys = list(found.order_by("pk").values_list("pk", flat=True)[:MOST_KEYS])
    return sum(_revoke(key, now) for key in keys)


def unused_keys(keys: QuerySet[ApiKey], now: datetime) -> QuerySet[ApiKey]:
    """Narrow keys to living ones that nobody used for ``MLP_KEY_UNUSED_DAYS``; 0 finds none."""
    if settings.KEY_UNUSED_DAYS <= 0:
        return keys.none()
    since = now - timedelta(days=settings.KEY_UNUSED_DAYS)
    never = Q(last_used_at__isnull=True, created__lte=since)
    living = keys.filter(revoked_at__isnull=True, expires_at__gt=now)
    return living.filter(never | Q(last_used_at__lte=since))


@transaction.atomic
def _warn(key_id: str, now: datetime) -> bool:
    """Warn of one key, unless somebody used or revoked it meanwhile."""
    key = _still_unused(key_id, now)
    if key is None or key.warned_at is not None:
        return False
    ApiKey.objects.filter(pk=key_id).update(warned_at=now)
    events.record(
        "key.unused",
        actor=Actor.system(),
        target=key,
        team_id=key.team_id,
        days=settings.KEY_UNUSED_DAYS,
        owner_id=key.owner_id,
        last_used_at=key.last_used_at.isoformat() if key.last_used_at else None,
    )
    return True


@transaction.atomic
def _revoke(key_id: str, now: datetime) -> bool:
    key = _still_unused(key_id, now)
    if key is None or key.warned_at is None:
        return False
    revoke_key(key, actor=Actor.system(), reason=REASON)
    return True


def _still_unused(key_id: str, now: datetime) -> ApiKey | None:
    """Return the key under its lock, if it is unused still."""
    locked = ApiKey.objects.select_for_update().filter(pk=key_id)
    return unused_keys(locked, now).first()

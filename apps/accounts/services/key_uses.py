"""Keep where and when keys were last used: from the shipped record, and by the API's own doors.

Times only go forward, by the minute. Addresses are personal data of whoever holds a key: where
``MLP_RECORD_ADDRESSES`` is 0, none is kept.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, Q
from django.utils import timezone

from apps.accounts.models import ApiKey, KeyAddress

MOST_ADDRESSES = 20
LONGEST_ADDRESS, LONGEST_AGENT = 64, 200
# Keys whose last minute a process remembers.
MOST_REMEMBERED = 10_000


class KeyUse(NamedTuple):
    """One call with a key; an address that is not known is empty."""

    key_id: str
    at: datetime
    address: str = ""
    agent: str = ""


@dataclass(slots=True)
class _Seen:
    """What some calls from one address come to."""

    first: datetime
    last: datetime
    calls: int


@transaction.atomic
def note_calls(uses: Sequence[KeyUse]) -> None:
    """Add up calls that were recorded; each must be told of once only."""
    told = [_kept(one) for one in uses]
    newest: dict[str, KeyUse] = {}
    for use in told:
        former = newest.get(use.key_id)
        if former is None or use.at > former.at:
            newest[use.key_id] = use
    known = _move_forward(newest)
    _add_addresses(one for one in told if one.key_id in known)


def note_door(key_id: str, *, address: str | None, agent: str) -> None:
    """Say that a key opened a door of the API; written once a minute at the most.

    ``calls`` of an address counts predictions, so this adds none.
    """
    now = timezone.now()
    if not _memory.is_new(key_id, _minute(now)):
        return
    use = _kept(KeyUse(key_id, now, address or "", agent))
    minute = _minute(now)
    behind = Q(last_used_at__isnull=True) | Q(last_used_at__lt=minute)
    ApiKey.objects.filter(behind, pk=key_id).update(
        last_used_at=minute,
        last_used_address=use.address,
        last_used_agent=use.agent,
        warned_at=None,
    )
    if use.address:
        seen = {"first": now, "last": now}
        row, is_new = KeyAddress.objects.get_or_create(
            key_id=key_id, address=use.address, defaults=seen
        )
        if is_new:
            _forget_oldest([key_id])
        elif row.last < now:
            KeyAddress.objects.filter(pk=row.pk, last__lt=now).update(last=now)


class _Memory:
    """The minute in which this process last wrote of each key; bounded, safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minutes: dict[str, datetime] = {}

    def is_new(self, key_id: str, minute: datetime) -> bool:
        """Whether nothing was written of a key in this minute; from now on something was."""
        with self._lock:
            if self._minutes.get(key_id) == minute:
                return False
            if len(self._minutes) >= MOST_REMEMBERED:
                self._minutes.clear()
            self._minutes[key_id] = minute
            return True

    def forget(self) -> None:
        with self._lock:
            self._minutes.clear()


_memory = _Memory()
forget_minutes = _memory.forget


def _kept(use: KeyUse) -> KeyUse:
    """Leave out what is not to be kept, and fit the rest to its columns.

    PostgreSQL takes no NUL in a text, and no prediction is put aside for its caller's words.
    """
    address = use.address if settings.RECORD_ADDRESSES else ""
    return use._replace(
        address=address.replace("\x00", "")[:LONGEST_ADDRESS],
        agent=use.agent.replace("\x00", "")[:LONGEST_AGENT],
    )


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _move_forward(newest: dict[str, KeyUse]) -> set[str]:
    """Write the newest use of each key, if it is newer than what is known; return the keys."""
    if not newest:
        return set()
    # Always in one order, so that two shippers never wait for each other in a circle.
    locked = ApiKey.objects.select_for_update().filter(pk__in=newest).order_by("pk")
    rows = list(locked.only("pk", "last_used_at", "warned_at"))
    moved = []
    for row in rows:
        use = newest[row.pk]
        minute = _minute(use.at)
        if row.last_used_at is not None and row.last_used_at >= minute:
            continue
        row.last_used_at = minute
        row.last_used_address, row.last_used_agent = use.address, use.agent
        if row.warned_at is not None and row.warned_at < use.at:
            row.warned_at = None
        moved.append(row)
    ApiKey.objects.bulk_update(
        moved, ["last_used_at", "last_used_address", "last_used_agent", "warned_at"]
    )
    return {row.pk for row in rows}


def _add_addresses(uses: Iterable[KeyUse]) -> None:
    sums: dict[tuple[str, str], _Seen] = {}
    for use in uses:
        if use.address:
            _sum_up(sums, use)
    if not sums:
        return
    KeyAddress.objects.bulk_create(
        [
            KeyAddress(key_id=key, address=address, first=one.first, last=one.last)
            for (key, address), one in sorted(sums.items())
        ],
        ignore_conflicts=True,
    )
    keys, addresses = {key for key, _ in sums}, {address for _, address in sums}
    found = KeyAddress.objects.select_for_update().filter(key__in=keys, address__in=addresses)
    mine = [row for row in found.order_by("pk") if (row.key_id, row.address) in sums]
    for row in mine:
        one = sums[row.key_id, row.address]
        row.first, row.last = min(row.first, one.first), max(row.last, one.last)
        row.calls += one.calls
    KeyAddress.objects.bulk_update(mine, ["first", "last", "calls"])
    _forget_oldest(keys)


def _sum_up(sums: dict[tuple[str, str], _Seen], use: KeyUse) -> None:
    one = sums.setdefault((use.key_id, use.address), _Seen(use.at, use.at, 0))
    one.first, one.last = min(one.first, use.at), max(one.last, use.at)
    one.calls += 1


def _forget_oldest(keys: Iterable[str]) -> None:
    """Keep the newest addresses of each key; the oldest leave."""
    many = KeyAddress.objects.filter(key__in=list(keys)).values("key").order_by("key")
    for key in many.annotate(n=Count("pk")).filter(n__gt=MOST_ADDRESSES).values_list("key"):
        newest = KeyAddress.objects.filter(key=key[0]).order_by(F("last").desc(), "-pk")
        kept = list(newest.values_list("pk", flat=True)[:MOST_ADDRESSES])
        KeyAddress.objects.filter(key=key[0]).exclude(pk__in=kept).delete()

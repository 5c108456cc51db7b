"""Write events, seal them into the hash chain, and check the chain.

An event is written in the caller's transaction and never updated. Sealing happens afterwards, by
one sealer at a time, so that writers never wait for each other's chain position.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.db import connection, models, transaction
from django.utils import timezone

from apps.core import context
from apps.core.models import Event, EventSeal

GENESIS = "0" * 64
# A transaction that writes an event and commits later than this is still sealed, but only by
# ``verify_audit --seal``; the every-second sealer looks no further back.
LOOK_BACK = timedelta(hours=1)
_ADVISORY_LOCK = 0x6D6C7001


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a signed-in user, a key, the system itself, or an operator at the command line."""

    kind: str
    id: str
    name: str

    @classmethod
    def system(cls) -> "Actor":
        """The platform acting by itself."""
        return cls("system", "", "system")

    @classmethod
    def operator(cls) -> "Actor":
        """Somebody with a shell on the machine."""
        return cls("operator", "", "operator")


def record(
    verb: str,
    *,
    actor: Actor,
    target: models.Model,
    team_id: int | None = None,
    reason: str = "",
    **facts: Any,
) -> Event:
    """Write one event in the caller's transaction.

    Args:
        verb: ``thing.past``, stable for ever.
        actor: Who did it.
        team_id: The team whose matter it is, if one's.
        reason: Why, in the actor's words.
        target: The row acted on; its text is kept, since the row may go.
        facts: What changed, as JSON values; never a secret.
    """
    about = context.current()
    orjson.dumps(facts)  # what cannot be sealed must fail here, and not stop the sealer
    return Event.objects.create(
        at=timezone.now(),
        verb=verb,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        address=about.address or "",
        team_id=team_id,
        target_kind=target._meta.label_lower,
        target_id=str(target.pk),
        target_name=str(target)[:300],
        reason=reason,
        facts=facts,
        request_id=about.request_id,
    )


def digest(prev_hash: str, seq: int, event: Event) -> str:
    """Return the hash of one link: SHA-256 over the former hash and the event's canonical JSON."""
    body = {
        "seq": seq,
        "id": event.pk,
        "at": event.at.isoformat(),
        "verb": event.verb,
        "actor": [event.actor_kind, event.actor_id, event.actor_name, event.address],
        "team": event.team_id,
        "target": [event.target_kind, event.target_id, event.target_name],
        "reason": event.reason,
        "facts": event.facts,
        "request_id": event.request_id,
    }
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(prev_hash.encode() + canonical).hexdigest()


@transaction.atomic
def seal_pending(*, everything: bool = False, limit: int = 1000) -> int:
    """Append unsealed events to the chain; return how many.

    Args:
        everything: Look at all events, not only at those of the last hour.
        limit: At most so many in one transaction.
    """
    if not _alone():
        return 0
    waiting = Event.objects.filter(seal__isnull=True).order_by("id")
    if not everything:
        waiting = waiting.filter(at__gte=timezone.now() - LOOK_BACK)
    last = EventSeal.objects.order_by("-seq").first()
    seq, prev = (last.seq, last.hash) if last else (0, GENESIS)
    seals = []
    for event in waiting[:limit]:
        seq += 1
        link = digest(prev, seq, event)
        seals.append(EventSeal(seq=seq, event=event, prev_hash=prev, hash=link))
        prev = link
    EventSeal.objects.bulk_create(seals)
    return len(seals)


def seal_everything() -> int:
    """Append all unsealed events, however old, some at a time; return how many."""
    total = 0
    while sealed := seal_pending(everything=True):
        total += sealed
    return total


def _alone() -> bool:
    """Whether this transaction is the only sealer; SQLite's IMMEDIATE transaction is, always."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
        return bool(cursor.fetchone()[0])


@dataclass(frozen=True, slots=True)
class Break:
    """A place where the chain does not hold."""

    seq: int
    what: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a walk over the chain found.

    ``oldest_unsealed`` is the time of the oldest event that no seal covers yet, or None.
    """

    sealed: int
    head: str
    first_break: Break | None
    unsealed: int
    oldest_unsealed: datetime | None


def verify_chain() -> ChainReport:
    """Walk the whole chain and name the first link that does not hold."""
    sealed, head, broken = 0, GENESIS, None
    for seal in _seals():
        broken = _fault(seal, sealed + 1, head)
        if broken:
            break
        sealed, head = seal.seq, seal.hash
    waiting = Event.objects.filter(seal__isnull=True)
    facts: Mapping[str, Any] = waiting.aggregate(count=models.Count("id"), oldest=models.Min("at"))
    return ChainReport(sealed, head, broken, facts["count"], facts["oldest"])


def _seals() -> Iterator[EventSeal]:
    return EventSeal.objects.select_related("event").order_by("seq").iterator(chunk_size=2000)


def _fault(seal: EventSeal, seq: int, prev: str) -> Break | None:
    if seal.seq != seq:
        return Break(seq, f"The seal with number {seq} is missing; {seal.seq} follows.")
    if seal.prev_hash != prev:
        return Break(seq, "The seal does not follow from the one before it.")
    if seal.hash != digest(prev, seq, seal.event):
        return Break(seq, f"Event {seal.event_id} was altered after it was sealed.")
    return None

"""Check the chain over all events, and remove its oldest part after its time.

The walk goes link by link, some at a time, whatever the chain's length. What it finds is compared
with the anchors, which lie outside the database: they tell of a tail that was rewritten or cut off
by somebody who computed all hashes anew.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, models, transaction
from django.utils import timezone

from apps.core import anchors, events, roles, write_once
from apps.core.anchors import Anchored
from apps.core.errors import Conflict, Invalid
from apps.core.events import GENESIS, PLAIN, Actor, KeyMissing
from apps.core.models import AuditPurge, Event, EventSeal

_AT_ONCE = 1000
# An unsealed event older than this says that the sealer does not run.
LATE = timedelta(minutes=5)
# Nobody walked the chain for so long: the nightly verification does not run, or does not end.
UNWALKED = timedelta(days=2)
PURGED, VERIFIED, BROKEN, ALARM = "audit.purged", "audit.verified", "audit.broken", "audit.alarm"
# The chain as a subject of work and events: the seal that is before its first.
CHAIN_KIND, CHAIN_ID = "core.eventseal", 0


class NotOwner(Conflict):
    """The role of the application may not remove events."""

    code = "not_owner_of_the_record"


@dataclass(frozen=True, slots=True)
class Break:
    """A place where the chain does not hold.

    Attributes:
        seq: Number of the first link concerned.
        what: What is wrong, in words.
        event_id: The event of that link, where one is known.
    """

    seq: int
    what: str
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a walk over the chain found.

    Attributes:
        sealed: Number of the last link that holds.
        unsealed: Events that no link covers yet; the oldest was written at ``oldest_unsealed``.
        purged: Links that were removed after their time and are told of by a tombstone.
        anchored: Number of the last link that an anchor names; None where anchors are off.
        anchored_at: When that was.
        lost: What restores from a backup cost, told by `anchor_audit --after-restore`.
        alarms: What does not break the chain, but lets somebody break it unseen.
    """

    sealed: int
    head: str
    first_break: Break | None
    unsealed: int
    oldest_unsealed: datetime | None
    purged: int = 0
    anchored: int | None = None
    anchored_at: datetime | None = None
    lost: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PurgedEvents:
    """What a purge removed; ``count`` is 0 when nothing was old enough."""

    count: int
    to_seq: int
    newest_at: datetime | None


@dataclass(slots=True)
class _Walk:
    """How far a walk has come."""

    seq: int = 0
    head: str = GENESIS
    keyed: bool = False
    broken: Break | None = None
    # Digests of the tombstones that sealed events repeat.
    told: set[str] = field(default_factory=set)


def verify_chain() -> ChainReport:
    """Walk the whole chain, compare it with the anchors, and name the first link that fails.

    Raises:
        AnchorUnavailable: The anchors cannot be read.
    """
    anchored = anchors.read() if anchors.is_on() else None
    return _verified(anchored)


def _verified(anchored: Anchored | None) -> ChainReport:
    walk = _Walk()
    tombs = list(AuditPurge.objects.order_by("to_seq"))
    known = anchored.hashes if anchored else {}
    _pass_tombstones(walk, tombs, known)
    _follow(walk, known)
    if walk.broken is None:
        walk.broken = _untold(walk, tombs) or _too_young(tombs, anchored) or _cut(walk, anchored)
    if anchored and anchored.faults and walk.broken is None:
        walk.broken = Break(walk.seq, anchored.faults[0])
    return _report(walk, tombs, anchored)


def _report(walk: _Walk, tombs: Sequence[AuditPurge], anchored: Anchored | None) -> ChainReport:
    waiting = Event.objects.filter(seal__isnull=True)
    facts: Mapping[str, Any] = waiting.aggregate(count=models.Count("id"), oldest=models.Min("at"))
    newest = anchored.newest if anchored else None
    return ChainReport(
        sealed=walk.seq,
        head=walk.head,
        first_break=walk.broken,
        unsealed=facts["count"],
        oldest_unsealed=facts["oldest"],
        purged=sum(one.count for one in tombs),
        anchored=newest.seq if newest else None,
        anchored_at=datetime.fromisoformat(newest.at) if newest else None,
        lost=anchored.lost if anchored else (),
        alarms=(*_late_anchor(newest, anchored), *_late_tail(facts["oldest"]), *_unguarded()),
    )


def alarms() -> tuple[str, ...]:
    """Return what lets somebody change the record unseen, at one glance and without a walk."""
    note = anchors.newest_note()
    stale = (_stale_words(note.at if note else None),) if anchors.is_stale(note) else ()
    oldest = Event.objects.filter(seal__isnull=True).aggregate(oldest=models.Min("at"))["oldest"]
    return (*stale, *_late_tail(oldest), *_late_walk(), *_unguarded())


def _late_anchor(newest: anchors.Anchor | None, anchored: Anchored | None) -> Iterator[str]:
    if anchored is None:
        return
    at = datetime.fromisoformat(newest.at) if newest else None
    if at is None:
        if anchors.is_stale(None):
            yield _stale_words(None)
    elif timezone.now() - at > timedelta(seconds=2 * settings.AUDIT_ANCHOR_SECONDS):
        yield _stale_words(at)


def _stale_words(at: datetime | None) -> str:
    last = f"the last one is of {at:%Y-%m-%d %H:%M} UTC" if at else "there is none"
    return f"The chain is not anchored as often as it should be: {last}."


def _late_tail(oldest: datetime | None) -> Iterator[str]:
    if oldest is not None and timezone.now() - oldest > LATE:
        yield f"Events wait for their seal since {oldest:%Y-%m-%d %H:%M} UTC."


def _unguarded() -> Iterator[str]:
    if missing := write_once.missing():
        yield (
            f"Nothing refuses changes of {', '.join(missing)}: somebody removed the triggers. "
            "`manage.py migrate` makes them again."
        )


def _late_walk() -> Iterator[str]:
    walks = Event.objects.filter(verb__in=(VERIFIED, BROKEN)).order_by("-id")
    begun = EventSeal.objects.order_by("seq").values_list("sealed_at", flat=True)
    since = walks.values_list("at", flat=True).first() or begun.first()
    if since is not None and timezone.now() - since > UNWALKED:
        yield f"The chain was not verified as a whole since {since:%Y-%m-%d %H:%M} UTC."


# -- the walk ----------------------------------------------------------------------------------


def _pass_tombstones(walk: _Walk, tombs: Sequence[AuditPurge], known: Mapping[int, str]) -> None:
    """Begin behind what was purged; each tombstone must follow from the one before."""
    former = GENESIS
    for tomb in tombs:
        if tomb.from_seq != walk.seq + 1 or tomb.prev_hash != walk.head:
            walk.broken = Break(tomb.from_seq, f"The tombstone of {_range(tomb)} fits nowhere.")
        elif tomb.digest != tombstone_digest(tomb, former) or tomb.count != _length(tomb):
            walk.broken = Break(tomb.from_seq, f"The tombstone of {_range(tomb)} was altered.")
        elif known.get(tomb.to_seq, tomb.last_hash) != tomb.last_hash:
            walk.broken = Break(tomb.to_seq, f"The tombstone of {_range(tomb)} is forged.")
        if walk.broken:
            return
        walk.seq, walk.head, former = tomb.to_seq, tomb.last_hash, tomb.digest


def _follow(walk: _Walk, known: Mapping[int, str]) -> None:
    for seal, event in _links(walk.seq):
        if walk.broken:
            return
        walk.broken = _fault(seal, event, walk) or _unlike_anchor(seal, walk, known)
        if walk.broken or event is None:
            return
        walk.keyed = walk.keyed or seal.scheme not in ("", PLAIN)
        if event.verb == PURGED:
            walk.told.add(str(event.facts.get("tombstone")))
        walk.seq, walk.head = seal.seq, seal.hash


def _links(after: int) -> Iterator[tuple[EventSeal, Event | None]]:
    """Yield the links with their events, some at a time; an event that is gone is None."""
    while True:
        seals = list(EventSeal.objects.filter(seq__gt=after).order_by("seq")[:_AT_ONCE])
        rows = Event.objects.in_bulk([one.event_id for one in seals])
        for seal in seals:
            yield seal, rows.get(seal.event_id)
        if len(seals) < _AT_ONCE:
            return
        after = seals[-1].seq


def _fault(seal: EventSeal, event: Event | None, walk: _Walk) -> Break | None:
    seq, number = walk.seq + 1, seal.event_id
    if seal.seq != seq:
        gone = f"The link {seq} is missing" if seal.seq > seq else "A link was inserted"
        return Break(seq, f"{gone}; {seal.seq} follows, of event {number}.", None)
    if event is None:
        return Break(seq, f"Event {number} was deleted after it was sealed.", number)
    if seal.prev_hash != walk.head:
        return Break(seq, f"The link of event {number} does not follow the one before it.", number)
    if walk.keyed and seal.scheme in ("", PLAIN):
        return Break(seq, f"Event {number} was sealed without the key that was in use.", number)
    return _altered(seal, event, walk)


def _altered(seal: EventSeal, event: Event, walk: _Walk) -> Break | None:
    try:
        expected = events.digest(walk.head, seal.seq, event, seal.scheme)
    except KeyMissing:
        what = f"Event {event.pk} was sealed with a key that is not set here."
        return Break(seal.seq, what, event.pk)
    if seal.hash == expected:
        return None
    return Break(seal.seq, f"Event {event.pk} was altered after it was sealed.", event.pk)


def _unlike_anchor(seal: EventSeal, walk: _Walk, known: Mapping[int, str]) -> Break | None:
    """Whether the chain was computed anew since an anchor saw it."""
    if known.get(seal.seq, seal.hash) == seal.hash:
        return None
    before = max((one for one in known if one < seal.seq), default=0)
    what = (
        f"The chain was rewritten between {before + 1} and {seal.seq}: "
        f"at {seal.seq} an anchor saw another hash."
    )
    return Break(max(before + 1, 1), what, None)


def _cut(walk: _Walk, anchored: Anchored | None) -> Break | None:
    last = anchored.newest if anchored else None
    if last is None or last.seq <= walk.seq:
        return None
    gone = f"{walk.seq + 1} to {last.seq}" if last.seq > walk.seq + 1 else f"{last.seq}"
    what = f"The end of the chain was cut off: an anchor saw {last.seq} links, {gone} missing."
    return Break(walk.seq + 1, what)


# -- tombstones --------------------------------------------------------------------------------


def tombstone_digest(tomb: AuditPurge, former: str) -> str:
    """Return the digest of a tombstone, which holds that of the one before."""
    body = [
        former,
        tomb.from_seq,
        tomb.to_seq,
        tomb.count,
        tomb.prev_hash,
        tomb.last_hash,
        tomb.range_digest,
        tomb.newest_at.isoformat(),
        tomb.purged_at.isoformat(),
        tomb.actor_name,
    ]
    return hashlib.sha256(events.canonical(body)).hexdigest()


def _untold(walk: _Walk, tombs: Sequence[AuditPurge]) -> Break | None:
    """A tombstone that no event tells of was not set by the platform."""
    if not tombs or tombs[-1].digest in walk.told:
        return None
    for event in Event.objects.filter(verb=PURGED, seal__isnull=True):
        if event.facts.get("tombstone") == tombs[-1].digest:
            return None
    last = tombs[-1]
    return Break(last.from_seq, f"The tombstone of {_range(last)} is forged: no event tells of it.")


def _too_young(tombs: Sequence[AuditPurge], anchored: Anchored | None) -> Break | None:
    """An anchor knows when a link existed at the latest; what was young then may not be gone."""
    for tomb in tombs:
        if tomb.purged_at > timezone.now() + LATE:
            what = f"The tombstone of {_range(tomb)} is forged: its day has not come."
            return Break(tomb.from_seq, what)
        longest = tomb.purged_at - _kept_at(tomb.purged_at, anchored)
        for seq, at in anchored.times.items() if anchored else ():
            if tomb.from_seq <= seq <= tomb.to_seq and at > longest:
                what = f"The tombstone of {_range(tomb)} is forged: an anchor saw {seq} at {at}."
                return Break(tomb.from_seq, what)
    return None


def _kept_at(at: datetime, anchored: Anchored | None) -> timedelta:
    """Return for how long events were kept at a time, as the anchor before it says."""
    rules = [days for since, days in anchored.rules if since <= at] if anchored else []
    return timedelta(days=max([1, *rules[-1:]]))


def _range(tomb: AuditPurge) -> str:
    return f"{tomb.from_seq} to {tomb.to_seq}"


def _length(tomb: AuditPurge) -> int:
    return tomb.to_seq - tomb.from_seq + 1


def count_purgeable(older_than: timedelta) -> int:
    """Count the events that a purge would remove: the oldest sealed part that is past its time."""
    before = timezone.now() - older_than
    sealed = EventSeal.objects.order_by("seq")
    young = sealed.filter(event__at__gte=before).values_list("seq", flat=True).first()
    return (sealed if young is None else sealed.filter(seq__lt=young)).count()


def purge_events(older_than: timedelta, *, actor: Actor, most: int = 5000) -> PurgedEvents:
    """Remove the oldest sealed events, and set a tombstone by which the chain still holds.

    Call it until ``count`` is 0; each call is one transaction of at most ``most`` events. Only the
    oldest part goes: an old event behind a younger one stays until that one's time has come.

    Args:
        older_than: Age that events must have; at least a day, and never below
            ``MLP_AUDIT_RETENTION_DAYS``.
        actor: Who is named by the tombstone and the event.
        most: Events in one transaction.

    Raises:
        NotOwner: This role may not remove events; run the command with MLP_MIGRATE_DATABASE_URL.
        Invalid: The age is too small.
        Conflict: The part that would go does not hold, or no anchor covers it yet.
    """
    least = timedelta(days=max(1, settings.AUDIT_RETENTION_DAYS))
    if older_than < least:
        raise Invalid(
            f"Events are kept for {least.days} days (MLP_AUDIT_RETENTION_DAYS). Name that or more."
        )
    _require_owner()
    if not _has_old(older_than):
        return PurgedEvents(0, 0, None)
    anchored = anchors.read() if anchors.is_on() else None
    now = timezone.now()
    before = now - max(older_than, _kept_at(now, anchored))
    with write_once.suspended():
        _lock()
        return _purge(before, anchored, actor, most)


def _has_old(age: timedelta) -> bool:
    """Whether the oldest sealed event is past its time; one behind a younger one stays."""
    first = EventSeal.objects.order_by("seq").values_list("event__at", flat=True).first()
    return first is not None and first < timezone.now() - age


def _purge(before: datetime, anchored: Anchored | None, actor: Actor, most: int) -> PurgedEvents:
    known, times = (anchored.hashes, anchored.times) if anchored else ({}, {})
    former = AuditPurge.objects.order_by("-to_seq").first()
    walk = _Walk(former.to_seq, former.last_hash) if former else _Walk()
    first, spine = walk.seq + 1, hashlib.sha256()
    going: list[int] = []
    prev, newest = walk.head, None
    for seal, event in _links(walk.seq):
        broken = _fault(seal, event, walk) or _unlike_anchor(seal, walk, known)
        if broken:
            raise Conflict(f"The chain breaks at {broken.seq}, so nothing is removed.")
        if event is None or event.at >= before or len(going) >= most:
            break
        if times.get(seal.seq, event.at) >= before:  # nobody could tell that it was not younger
            break
        spine.update(seal.hash.encode())
        going.append(event.pk)
        newest = max(newest or event.at, event.at)
        walk.seq, walk.head = seal.seq, seal.hash
        walk.keyed = walk.keyed or seal.scheme not in ("", PLAIN)
    if not going or newest is None:
        return PurgedEvents(0, walk.seq, None)
    _require_anchor(walk.seq, anchored)
    tomb = AuditPurge(
        from_seq=first,
        to_seq=walk.seq,
        count=len(going),
        prev_hash=prev,
        last_hash=walk.head,
        range_digest=spine.hexdigest(),
        newest_at=newest,
        purged_at=timezone.now(),
        actor_name=actor.name,
    )
    tomb.digest = tombstone_digest(tomb, former.digest if former else GENESIS)
    _remove(going)
    tomb.save(force_insert=True)
    events.record(
        PURGED,
        actor=actor,
        target=tomb,
        rows=tomb.count,
        from_seq=first,
        to_seq=tomb.to_seq,
        newest_at=newest.isoformat(),
        last_hash=tomb.last_hash,
        range_digest=tomb.range_digest,
        tombstone=tomb.digest,
    )
    return PurgedEvents(tomb.count, tomb.to_seq, newest)


def _remove(ids: Sequence[int]) -> None:
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        EventSeal.objects.filter(event_id__in=some).delete()
        Event.objects.filter(pk__in=some).delete()


def _require_anchor(seq: int, anchored: Anchored | None) -> None:
    if anchored is None:
        return
    if anchored.newest is None or anchored.newest.seq < seq:
        raise Conflict(
            "No anchor covers what would be removed. Run `manage.py anchor_audit` first."
        )


def _require_owner() -> None:
    if not roles.owns_the_record():
        raise NotOwner(
            "The role of the application may not remove events. Set MLP_MIGRATE_DATABASE_URL to "
            "the address of the tables' owner for this command."
        )


def _lock() -> None:
    """Let no sealer and no other purge work beside this one."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [events.ADVISORY_LOCK])


@transaction.atomic
def record_verdict(report: ChainReport, *, actor: Actor) -> Event:
    """Write down what a whole verification found."""
    facts: dict[str, Any] = {
        "sealed": report.sealed,
        "head": report.head,
        "unsealed": report.unsealed,
        "purged": report.purged,
        "anchored": report.anchored,
    }
    if report.alarms:
        facts["alarms"] = list(report.alarms)
    if report.lost:
        facts["lost"] = list(report.lost)
    broken = report.first_break
    if broken is not None:
        facts |= {"broken_at": broken.seq, "what": broken.what, "event": broken.event_id}
    return events.record(
        BROKEN if broken else VERIFIED,
        actor=actor,
        target=EventSeal(seq=report.sealed),
        **facts,
    )


def anchor_after_restore(reason: str, *, actor: Actor) -> Event | None:
    """Tell the anchors that the database comes from a backup; None when nothing was lost.

    The loss stays told for ever, by a sealed event and by the anchor itself: whoever would hide a
    deletion like this shows it to everybody who verifies.

    Raises:
        Invalid: Anchors are off, or there is no reason.
        AnchorUnavailable: The place does not answer.
    """
    if not anchors.is_on() or not reason.strip():
        raise Invalid("This needs MLP_AUDIT_ANCHOR, and a reason in words.")
    known = anchors.read().hashes
    here = dict(EventSeal.objects.filter(seq__in=known).values_list("seq", "hash"))
    kept = max((seq for seq, one in here.items() if known[seq] == one), default=0)
    last = max(known, default=0)
    if last <= kept:
        return None
    event = events.record(
        "audit.restored",
        actor=actor,
        target=EventSeal(seq=kept),
        reason=reason,
        lost_from=kept + 1,
        lost_to=last,
    )
    events.seal_everything()
    anchors.write(kept=kept)
    return event


@transaction.atomic
def record_alarm(found: Sequence[str]) -> Event | None:
    """Write an alarm down, unless the same was told within the last day."""
    what = " ".join(found)
    last = Event.objects.filter(verb=ALARM).order_by("-id").first()
    is_same = last is not None and last.facts.get("what") == what
    if is_same and last is not None and timezone.now() - last.at < timedelta(days=1):
        return None
    return events.record(
        ALARM, actor=Actor.system(), target=EventSeal(seq=CHAIN_ID), what=what, kinds=len(found)
    )

"""What was shipped, as evidence: sums by writer in an event every few minutes, never one per file.

A segment is sealed every second, so an event for each would be most of the audit record. Instead
the shipper adds up: how many records of which writer, from which number to which, and one digest
over all its files. Numbers of a writer have no gaps, so that rows which somebody removed later are
missed when they are counted (``manage.py verify_predictions``).

The sums of the last minutes stand in memory: when the shipper is killed, they are lost, which a gap
between two events shows. The records themselves are not concerned.
"""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, Q
from django.utils import timezone

from apps.core import events
from apps.core.events import Actor
from apps.core.models import Event
from apps.inference.engine.spool import Segment, record_from
from apps.inference.models import Prediction, PredictionDay

SHIPPED = "predictions.shipped"
# Writers in one event; with more of them it is written before its time.
MOST_WRITERS = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Sum:
    """What one writer's segments held.

    Attributes:
        first_segment: Number of the first file, up to ``last_segment``.
        first_seq: Number of the first record, up to ``last_seq``.
        rows: Records that became rows, or had before.
        left_out: Records that were refused, or erased before they arrived.
        since: Time of the first record, Unix milliseconds; a minute either way, since several
            threads write; up to ``until``.
        sha256: Digest over the digests of the files, in their order.
    """

    writer: str
    first_segment: int
    last_segment: int
    first_seq: int
    last_seq: int
    rows: int
    left_out: int
    since: int
    until: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A stretch of one writer's records of which fewer rows are there than were shipped."""

    event_id: int
    writer: str
    first_seq: int
    last_seq: int
    shipped: int
    there: int


@dataclass(slots=True)
class _Tally:
    sums: dict[str, Sum] = field(default_factory=dict)
    since: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


_tally = _Tally()


def note(segment: Segment, payloads: Sequence[bytes], *, rows: int) -> None:
    """Add a segment whose records are committed, before its file goes."""
    first, last = _ends(payloads)
    if first is None or last is None:
        return
    digest = hashlib.sha256(segment.path.read_bytes()).digest()
    with _tally.lock:
        if not _tally.sums:
            _tally.since = time.monotonic()
        known = _tally.sums.get(segment.writer)
        before = bytes.fromhex(known.sha256) if known else b""
        _tally.sums[segment.writer] = Sum(
            writer=segment.writer,
            first_segment=known.first_segment if known else segment.number,
            last_segment=segment.number,
            first_seq=known.first_seq if known else first["seq"],
            last_seq=last["seq"],
            rows=rows + (known.rows if known else 0),
            left_out=len(payloads) - rows + (known.left_out if known else 0),
            since=min(first["ts_ms"], known.since if known else first["ts_ms"]),
            until=max(last["ts_ms"], known.until if known else last["ts_ms"]),
            sha256=hashlib.sha256(before + digest).hexdigest(),
        )


def write_due() -> Event | None:
    """Write the event when its time has come, or when it would grow too long."""
    late = time.monotonic() - _tally.since >= settings.SHIPPED_EVENT_SECONDS
    return write() if late or len(_tally.sums) >= MOST_WRITERS else None


def write() -> Event | None:
    """Write what was added up since the last event; None when that is nothing."""
    with _tally.lock:
        sums = list(_tally.sums.values())
        if not sums:
            return None
        event = events.record(
            SHIPPED,
            actor=Actor.system(),
            target=PredictionDay(day=timezone.now().astimezone(UTC).date()),
            node=settings.NODE_NAME or socket.gethostname(),
            rows=sum(one.rows for one in sums),
            writers=[asdict(one) for one in sums],
        )
        _tally.sums.clear()  # only what is written; a database that refuses leaves all of it here
    return event


def verify() -> tuple[int, tuple[Missing, ...]]:
    """Count the rows of every shipped stretch that retention keeps; return stretches, and gaps."""
    oldest = timezone.now() - timedelta(days=settings.PREDICTION_RETENTION_DAYS)
    checked, missing = 0, []
    rows = Event.objects.filter(verb=SHIPPED, at__gte=oldest).order_by("id")
    for event in rows.iterator(chunk_size=100):
        for one in _sums_of(event):
            since = _EPOCH + timedelta(milliseconds=one.since)
            if since < oldest:  # its day may be purged already
                continue
            checked += 1
            there = _count(one, since)
            if there < one.rows:
                span = (one.writer, one.first_seq, one.last_seq)
                missing.append(Missing(event.pk, *span, one.rows, there))
    return checked, tuple(missing)


def _sums_of(event: Event) -> Iterator[Sum]:
    for one in event.facts.get("writers", ()):
        yield Sum(**one)


def _count(one: Sum, since: datetime) -> int:
    slack = timedelta(minutes=1)
    until = _EPOCH + timedelta(milliseconds=one.until)
    among = Q(ts__gte=since - slack, ts__lte=until + slack)
    numbered = Q(writer=one.writer, seq__gte=one.first_seq, seq__lte=one.last_seq)
    found: dict[str, int] = Prediction.objects.filter(among & numbered).aggregate(rows=Count("id"))
    return found["rows"]


def _ends(payloads: Sequence[bytes]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Read the first and the last record that can be read."""
    return _first_of(payloads), _first_of(payloads[::-1])


def _first_of(payloads: Sequence[bytes]) -> dict[str, Any] | None:
    for payload in payloads:
        try:
            record = record_from(payload)
        except ValueError:
            continue
        if isinstance(record.get("seq"), int) and isinstance(record.get("ts_ms"), int):
            return record
    return None

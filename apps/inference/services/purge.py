"""Days of the record made ahead, and days that are past retention removed.

A purge goes in steps, each committed with the event that says exactly what it removed. It may be
ended at any moment and started again.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, timedelta
from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.db.models import Count, F, Func, QuerySet, Sum
from django.db.models.functions import Cast, Coalesce, TruncDate
from django.utils import timezone

from apps.core import events
from apps.core.errors import Invalid
from apps.core.events import Actor
from apps.core.retention import in_steps
from apps.inference import partitions, windows
from apps.inference.engine.buckets import SPAN_SECONDS
from apps.inference.models import (
    KeyHour,
    Prediction,
    PredictionDay,
    PredictionMinute,
    PredictionRejected,
    PredictionSpan,
)
from apps.inference.partitions import Partition, PartitionBusy

LOG = logging.getLogger(__name__)
ROLLUP_DAYS = 400
# Spans of five minutes are read as far back as ``windows.FINE_DAYS``, and as long again before.
FINE_KEPT_DAYS = windows.FINE_DAYS + 5
STEP_ROWS = 2000


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge removed, or would remove.

    Attributes:
        days: Days of which predictions were removed.
        rows: Predictions, counted exactly.
        bytes: Of whole days as they stood on disk; of single rows their inputs and outputs.
        counts: Rollup rows past their own retention.
        rejected: Refused records past theirs.
        days_left: Days that were in use and have to wait for the next run.
    """

    days: int = 0
    rows: int = 0
    bytes: int = 0
    counts: int = 0
    rejected: int = 0
    days_left: int = 0


@dataclass(frozen=True, slots=True)
class _Removed:
    day: date
    rows: int
    bytes: int


def make_partitions() -> tuple[date, ...]:
    """Make the days ahead that the settings ask for; return those that were missing."""
    made = partitions.make_partitions(days_ahead=settings.PARTITION_DAYS_AHEAD)
    if made:
        LOG.info("made %d days of the prediction record, to %s", len(made), made[-1])
    return made


def purge_predictions(*, keep_days: int, dry_run: bool, actor: Actor) -> PurgeReport:
    """Remove what is past retention.

    Args:
        keep_days: Whole UTC days before today that stay.
        dry_run: Count, and change nothing.
        actor: Who is named in the events.

    Raises:
        Invalid: Not even one day would be kept.
    """
    record = purge_record(keep_days=keep_days, dry_run=dry_run, actor=actor)
    return replace(
        record,
        counts=purge_counts(dry_run=dry_run),
        rejected=purge_rejected(keep_days=settings.REJECTED_RETENTION_DAYS, dry_run=dry_run),
    )


def purge_record(*, keep_days: int, dry_run: bool, actor: Actor) -> PurgeReport:
    """Remove predictions alone; rollups and refused records have retention of their own."""
    if keep_days < 1:
        raise Invalid("Keep at least one day: `--days 1` or more.")
    oldest_kept = _today() - timedelta(days=keep_days)
    if dry_run:
        removed, left = list(_would_remove(oldest_kept)), frozenset[date]()
    else:
        removed, left = _purge_days(oldest_kept, actor)
        removed += list(_purge_rows(oldest_kept, left, actor))
    return PurgeReport(
        days=len({one.day for one in removed}),
        rows=sum(one.rows for one in removed),
        bytes=sum(one.bytes for one in removed),
        days_left=len(left),
    )


def purge_counts(*, dry_run: bool) -> int:
    """Remove rollup rows past their time; return how many."""
    return sum(in_steps(rows, dry_run=dry_run).rows for rows in _old_counts(_today()))


def purge_rejected(*, keep_days: int, dry_run: bool) -> int:
    """Remove records that the database had refused, past their time; return how many."""
    before = partitions.start_of(_today() - timedelta(days=keep_days))
    old = PredictionRejected.objects.filter(at__lt=before).order_by("at")
    return in_steps(old, dry_run=dry_run).rows


def _today() -> date:
    return timezone.now().astimezone(UTC).date()


def _old_partitions(oldest_kept: date) -> list[Partition]:
    there = partitions.list_partitions()
    return [one for one in there if one.day is not None and one.day < oldest_kept]


def _purge_days(oldest_kept: date, actor: Actor) -> tuple[list[_Removed], frozenset[date]]:
    """Drop whole days; one that is in use is left for the next run and does not stop the others."""
    removed, left = [], set()
    for one in _old_partitions(oldest_kept):
        assert one.day is not None
        try:
            gone = _purge_day(one.day, one.bytes, actor)
        except PartitionBusy:
            LOG.warning("%s is in use; it is purged by the next run", one.name)
            left.add(one.day)
            continue
        removed += [gone] if gone else []
    return removed, frozenset(left)


def _purge_day(day: date, size: int, actor: Actor) -> _Removed | None:
    # Out first, in a transaction of an instant; then count and drop what nobody writes to any more.
    partitions.detach_partition(day)
    with transaction.atomic():
        rows = partitions.drop_detached(day)
        if rows is None:  # somebody else was quicker, and counted it
            return None
        gone = _Removed(day, rows, size)
        _say(gone, actor)
    return gone


def _purge_rows(oldest_kept: date, left: frozenset[date], actor: Actor) -> Iterator[_Removed]:
    """Delete old rows that stand in no day's partition, some at a time."""
    while True:
        with transaction.atomic():
            gone = _purge_some(_loose_rows(oldest_kept, left))
            if gone is None:
                return
            if gone.rows:  # else another purge deleted the same rows, and said so
                _say(gone, actor)
        yield gone


def _purge_some(rows: QuerySet[Prediction]) -> _Removed | None:
    rows = rows.order_by("ts", "id")
    oldest = rows.values_list("ts", flat=True).first()
    if oldest is None:
        return None
    day = oldest.astimezone(UTC).date()
    of_day = rows.filter(ts__lt=partitions.start_of(day + timedelta(days=1)))
    chosen = list(of_day.values_list("ts", "pk")[:STEP_ROWS])
    # The span of time beside the ids lets the database look into one partition only.
    batch = Prediction.objects.filter(
        ts__gte=chosen[0][0], ts__lte=chosen[-1][0], pk__in=[pk for _, pk in chosen]
    )
    size = batch.aggregate(size=_stored_bytes())["size"]
    count, _ = batch.delete()
    return _Removed(day, count, size)


def _loose_rows(oldest_kept: date, but: Iterable[date]) -> QuerySet[Prediction]:
    """Return old rows outside some days."""
    rows = Prediction.objects.filter(ts__lt=partitions.start_of(oldest_kept))
    for day in but:
        low, high = partitions.start_of(day), partitions.start_of(day + timedelta(days=1))
        rows = rows.exclude(ts__gte=low, ts__lt=high)
    return rows


def _would_remove(oldest_kept: date) -> Iterator[_Removed]:
    counted = set()
    for one in _old_partitions(oldest_kept):
        assert one.day is not None
        counted.add(one.day)
        yield _Removed(one.day, partitions.count_rows(one.day), one.bytes)
    days = _loose_rows(oldest_kept, counted).annotate(day=TruncDate("ts", tzinfo=UTC))
    totals = days.values("day").annotate(count=Count("pk"), size=_stored_bytes())
    for day, count, size in totals.order_by("day").values_list("day", "count", "size"):
        yield _Removed(day, count, size)


class _Octets(Func):
    """Bytes of a text."""

    function = "OCTET_LENGTH"
    output_field = models.BigIntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **given: Any) -> Any:
        # Older SQLite has no OCTET_LENGTH; a blob's LENGTH is the same.
        template = "LENGTH(CAST(%(expressions)s AS BLOB))"
        return self.as_sql(compiler, connection, template=template, **given)


def _stored_bytes() -> Any:
    texts = [
        Coalesce(_Octets(Cast(F(name), models.TextField())), 0) for name in ("inputs", "outputs")
    ]
    return Coalesce(Sum(texts[0] + texts[1]), 0)


def _say(gone: _Removed, actor: Actor) -> None:
    events.record(
        "predictions.purged",
        actor=actor,
        target=PredictionDay(day=gone.day),
        rows=gone.rows,
        bytes=gone.bytes,
    )


def _old_counts(today: date) -> tuple[QuerySet[Any], ...]:
    before = partitions.start_of(today - timedelta(days=ROLLUP_DAYS))
    fine = partitions.start_of(today - timedelta(days=FINE_KEPT_DAYS))
    spans = PredictionSpan.objects.order_by("start")
    return (
        spans.filter(seconds=SPAN_SECONDS[0], start__lt=fine),
        spans.filter(start__lt=before),
        PredictionMinute.objects.filter(minute__lt=before).order_by("minute"),
        KeyHour.objects.filter(hour__lt=before).order_by("hour"),
    )

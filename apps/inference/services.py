"""Changes to the record: days made ahead, and days that are past retention removed.

A purge goes in steps, each committed with the event that says exactly what it removed. It may be
ended at any moment and started again.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
REJECTED_DAYS = 7
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
    if keep_days < 1:
        raise Invalid("Keep at least one day: `--days 1` or more.")
    today = timezone.now().astimezone(UTC).date()
    oldest_kept = today - timedelta(days=keep_days)
    if dry_run:
        removed, left = list(_would_remove(oldest_kept)), frozenset[date]()
    else:
        removed, left = _purge_days(oldest_kept, actor)
        removed += list(_purge_rows(oldest_kept, left, actor))
    remove = _count if dry_run else _delete_in_steps
    return PurgeReport(
        days=len({one.day for one in removed}),
        rows=sum(one.rows for one in removed),
        bytes=sum(one.bytes for one in removed),
        counts=sum(remove(rows) for rows in _old_counts(today)),
        rejected=remove(_old_rejected(today)),
        days_left=len(left),
    )


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


def _old_rejected(today: date) -> QuerySet[Any]:
    before = partitions.start_of(today - timedelta(days=REJECTED_DAYS))
    return PredictionRejected.objects.filter(at__lt=before).order_by("at")


def _count(rows: QuerySet[Any]) -> int:
    return rows.count()


def _delete_in_steps(rows: QuerySet[Any]) -> int:
    total = 0
    while some := list(rows.values_list("pk", flat=True)[:STEP_ROWS]):
        total += rows.model.objects.filter(pk__in=some).delete()[0]
    return total

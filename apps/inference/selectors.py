"""Reads of the record: predictions page by page, one by its id, and the counts.

Nobody counts the table: lists go by cursor, and pages that show numbers read the rollups. Rows of
``Prediction`` leave this app only through its own doors; other apps get counts.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from django.db.models import Q, QuerySet

from apps.accounts.callers import Caller
from apps.accounts.policies import Action, Thing, may, unseen
from apps.core import ids
from apps.core.errors import Invalid
from apps.inference.engine.buckets import (
    OK,
    Counted,
    HourKey,
    MinuteKey,
    SpanKey,
    Tally,
    hour_tallies,
    merge,
    minute_tallies,
    percentile_ms,
    span_tallies,
)
from apps.inference.engine.redact import CLIENT_ID, NOT_TOLD, UNIT, may_hold_another
from apps.inference.models import KeyHour, Prediction, PredictionMinute, PredictionSpan
from apps.inference.record_keys import digests_of
from apps.inference.veils import REDACTED, veiled
from apps.registry.models import ModelVersion, RegisteredModel
from apps.registry.signature import signature_from_json

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Stands for every status but "ok".
ANY_ERROR = "error"
HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which predictions; what is None does not narrow. ``start`` bounds what has to be read.

    Attributes:
        start: Accepted at or after.
        end: Accepted before.
        status: ``ok``, an error's code, or ``error`` for all of them.
    """

    start: datetime
    end: datetime | None = None
    model: str | None = None
    version: int | None = None
    environment: str | None = None
    key_id: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some predictions, and the cursor that leads to older ones (None at the end)."""

    items: tuple[Prediction, ...]
    next_cursor: str | None


def readable_by(caller: Caller) -> QuerySet[Prediction]:
    """Return the predictions that a caller may read, newest first."""
    rows = Prediction.objects.order_by("-ts", "-id")
    key = caller.key
    if key is not None:
        rows = rows.filter(environment__in=key.environments)
        rows = rows.filter(model__in=key.models) if key.models else rows
    if caller.sees_all:
        return rows
    candidates = caller.roles if key is None else (key.team_id,)
    teams = [team for team in candidates if may(caller, Action.PREDICTION_READ, Thing(team))]
    return rows.filter(team_id__in=teams)


def predictions(wanted: Wanted, *, caller: Caller) -> QuerySet[Prediction]:
    """Return the wanted predictions that a caller may read, newest first."""
    rows = readable_by(caller)
    bounds = {"ts__gte": wanted.start, "ts__lt": wanted.end}
    exact = {name: getattr(wanted, name) for name in ("model", "version", "environment", "key_id")}
    given = {name: value for name, value in (bounds | exact).items() if value is not None}
    return with_status(rows.filter(**given), wanted.status)


def with_status(rows: QuerySet[Prediction], status: str | None) -> QuerySet[Prediction]:
    """Narrow predictions to one status, or to all errors."""
    if status is None:
        return rows
    return rows.exclude(status=OK) if status == ANY_ERROR else rows.filter(status=status)


def page_of(rows: QuerySet[Prediction], *, cursor: str | None, size: int) -> Page:
    """Return one page of a list that is ordered newest first, without counting it.

    Args:
        rows: From ``predictions``.
        cursor: The former page's ``next_cursor``; None for the first page.
        size: Predictions on the page.

    Raises:
        Invalid: The cursor is none of ours.
    """
    if cursor is not None:
        ts = _time_in_cursor(cursor)
        # The first condition alone bounds the read; the second settles the same millisecond.
        rows = rows.filter(ts__lte=ts).filter(Q(ts__lt=ts) | Q(id__lt=cursor))
    found = tuple(rows[: size + 1])
    more = len(found) > size
    return Page(found[:size], str(found[size - 1].pk) if more else None)


@dataclass(frozen=True, slots=True)
class Slice:
    """Some predictions, newest first, and the ids behind which newer and older ones are.

    Attributes:
        newer: Of the first one shown; empty when nothing newer matches.
        older: Of the last one shown; empty when nothing older matches.
    """

    items: tuple[Prediction, ...]
    newer: str
    older: str


def slice_of(
    rows: QuerySet[Prediction], *, before: str | None, after: str | None, size: int
) -> Slice:
    """Return one page of a list, going back (``before``) or forth (``after``) from a prediction.

    A cursor that is none of ours begins at the newest: an address that somebody cut short still
    leads to a list.
    """
    forth = after is not None and _is_id(after) and before is None
    back = before is not None and _is_id(before)
    found: tuple[Prediction, ...]
    if forth:
        ts = time_of_id(str(after))
        beyond = rows.filter(ts__gte=ts).filter(Q(ts__gt=ts) | Q(id__gt=after))
        newest = tuple(beyond.order_by("ts", "id")[: size + 1])
        found, more = tuple(reversed(newest[:size])), len(newest) > size
    else:
        if back:
            ts = time_of_id(str(before))
            rows = rows.filter(ts__lte=ts).filter(Q(ts__lt=ts) | Q(id__lt=before))
        found = tuple(rows.order_by("-ts", "-id")[: size + 1])
        found, more = found[:size], len(found) > size
    if not found:
        return Slice((), "", "")
    # Whoever went back came from newer ones, and whoever went forth from older ones.
    newer = str(found[0].pk) if (more if forth else back) else ""
    older = str(found[-1].pk) if (forth or more) else ""
    return Slice(found, newer, older)


def _is_id(text: str) -> bool:
    try:
        time_of_id(text)
    except ValueError:
        return False
    return True


def prediction(identifier: str, *, caller: Caller) -> Prediction:
    """Return one prediction; its id says in which partition it lies.

    Raises:
        NotFound: There is none, it is another team's, or it is past retention.
    """
    found = by_id(readable_by(caller), identifier).first()
    if found is None:
        raise unseen(identifier)
    return found


def by_id(rows: QuerySet[Prediction], identifier: str) -> QuerySet[Prediction]:
    """Narrow predictions to one id; to none when the text is not one of our ids."""
    try:
        ts = time_of_id(identifier)
    except ValueError:
        return rows.none()
    return rows.filter(id=identifier, ts=ts)


def time_of_id(identifier: str) -> datetime:
    """Return when the prediction with this id was accepted; ``ValueError`` if it is no such id."""
    try:
        return EPOCH + timedelta(milliseconds=ids.milliseconds_of(identifier))
    except OverflowError as error:
        raise ValueError(f"{identifier} carries no time.") from error


def _time_in_cursor(cursor: str) -> datetime:
    try:
        return time_of_id(cursor)
    except ValueError as error:
        raise Invalid(
            "This `cursor` is not one of ours. Follow `next` of the page before."
        ) from error


# --- redacted fields --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Veil:
    """What is hidden of a prediction: the fields of its model that have a rule now.

    Attributes:
        columns: Name of each tensor of its version to the names of its columns; None when
            nobody can tell where a field stands.
    """

    fields: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]] | None

    def over(self, found: Prediction) -> Prediction:
        """Return a copy that may be shown; the row itself is untouched."""
        shown = copy(found)
        shown.inputs, shown.outputs = self._values(found.inputs), self._values(found.outputs)
        # From before the rule it may quote a value.
        if self.fields and found.error and found.error != NOT_TOLD:
            shown.error = REDACTED
        return self.over_line(shown)

    def over_line(self, found: Prediction) -> Prediction:
        """Hide what a list shows."""
        shown = copy(found)
        shown.unit = REDACTED if UNIT in self.fields and found.unit else found.unit
        shown.client_id = (
            REDACTED if CLIENT_ID in self.fields and found.client_id else found.client_id
        )
        return shown

    def _values(self, recorded: Any) -> Any:
        if self.columns is None:
            return None if recorded is None else REDACTED
        # Inputs and outputs may happen to be called like the unit or the caller's id.
        known = {*self.columns, *(one for names in self.columns.values() for one in names)}
        hidden = frozenset(self.fields) - ({UNIT, CLIENT_ID} - known)
        return veiled(recorded, hidden, self.columns)


def veil_of(found: Prediction) -> Veil:
    """Return what of a prediction is not for everybody."""
    fields = tuple(sorted(_rules([found.model]).get(found.model, {})))
    return Veil(fields, _columns_of(found, fields) if fields else {})


def veiled_lines(rows: Iterable[Prediction]) -> list[Prediction]:
    """Return predictions as a list may show them, with one look at their models' rules."""
    rows = list(rows)
    rules = _rules({one.model for one in rows})
    return [Veil(tuple(rules.get(one.model, ())), {}).over_line(one) for one in rows]


def of_unit(rows: QuerySet[Prediction], unit: str, *, caller: Caller) -> QuerySet[Prediction]:
    """Narrow predictions to a unit; where it is hidden, only for those who may read what is kept.

    They find it also by its keyed hash. To all others a hidden unit is not to be guessed, either.
    """
    may_read = [
        team
        for team in _teams_of(caller)
        if may(caller, Action.PREDICTION_READ_REDACTED, Thing(team))
    ]
    hiding = [name for name, rules in _rules(None).items() if UNIT in rules]
    plain = Q(unit=unit) & ~Q(model__in=hiding) & ~Q(unit__startswith="hmac:")
    kept = Q(unit__in=[unit, *digests_of(unit)])
    allowed = kept if caller.sees_all and caller.key is None else kept & Q(team_id__in=may_read)
    # The last two are for the index.
    return rows.filter(plain | allowed, unit__in=[unit, *digests_of(unit)], unit__gt="")


def may_search_kept(caller: Caller) -> bool:
    """Whether a search by unit of this caller looks also at what is kept of hidden units."""
    if caller.sees_all and caller.key is None:
        return True
    return any(
        may(caller, Action.PREDICTION_READ_REDACTED, Thing(team)) for team in _teams_of(caller)
    )


def _teams_of(caller: Caller) -> Iterable[int]:
    return (caller.key.team_id,) if caller.key is not None else caller.roles


def _rules(models: Iterable[str] | None) -> dict[str, dict[str, str]]:
    """Return the rules of models by name; also of deleted ones, whose record is still here."""
    rows = RegisteredModel.objects.all()
    rows = rows if models is None else rows.filter(name__in=list(models))
    found: dict[str, dict[str, str]] = {}
    for name, rules in rows.exclude(redact={}).values_list("name", "redact"):
        found[name] = {**found.get(name, {}), **rules}
    return found


def _columns_of(
    found: Prediction, fields: Collection[str]
) -> dict[str, tuple[str, ...]] | None:  # fmt: skip
    """Return the columns of a prediction's tensors; None when they do not tell where fields are."""
    version = ModelVersion.objects.filter(model__name=found.model, number=found.version)
    try:
        signature = signature_from_json(version.values_list("signature", flat=True).first())
    except Invalid:  # there is none, or it was written by another release of the platform
        return None
    specs = (*signature.inputs, *signature.outputs)
    if may_hold_another(fields, signature, specs):
        return None
    return {spec.name: spec.columns for spec in specs}


# --- counts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MinuteCounts:
    """Counts of one minute by endpoint, version, arm and status."""

    minute: datetime
    model: str
    environment: str
    version: int
    arm: str
    status: str
    count: int
    rows: int
    errors: int
    cache_hits: int
    latency_us: int
    histogram: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counts of any number of minutes put together.

    Attributes:
        mean_ms: Exact; None when there was nothing.
        p50_ms: Read from the merged histogram, off by less than 9.1 %; the same for the others.
    """

    count: int
    rows: int
    errors: int
    cache_hits: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """Usage of one hour by API key and version; calls without a key have the empty one."""

    hour: datetime
    key_id: str
    model: str
    version: int
    count: int
    rows: int
    cache_hits: int
    latency_us: int
    errors: Mapping[str, int]
    histogram: Mapping[int, int]


def minute_counts(
    *,
    start: datetime,
    end: datetime,
    model: str | None = None,
    environment: str | None = None,
    version: int | None = None,
) -> tuple[MinuteCounts, ...]:
    """Return the counts of the minutes in [start, end), oldest first."""
    exact = {"model": model, "environment": environment, "version": version}
    given = {name: value for name, value in exact.items() if value is not None}
    found = PredictionMinute.objects.filter(minute__gte=start, minute__lt=end, **given)
    return tuple(
        MinuteCounts(
            *row.key(),
            row.count,
            row.rows,
            row.errors,
            row.cache_hits,
            row.latency_us,
            row.buckets(),
        )
        for row in found.order_by("minute", "id")
    )


def traffic_of(minutes: Iterable[MinuteCounts]) -> Traffic:
    """Put minutes together; percentiles come from the merged histogram, never from an average."""
    minutes = tuple(minutes)
    count = sum(one.count for one in minutes)
    histogram = merge(one.histogram for one in minutes)
    return Traffic(
        count=count,
        rows=sum(one.rows for one in minutes),
        errors=sum(one.errors for one in minutes),
        cache_hits=sum(one.cache_hits for one in minutes),
        mean_ms=sum(one.latency_us for one in minutes) / count / 1000 if count else None,
        p50_ms=percentile_ms(histogram, 0.50),
        p95_ms=percentile_ms(histogram, 0.95),
        p99_ms=percentile_ms(histogram, 0.99),
    )


def key_usage(*, start: datetime, end: datetime, key_id: str | None = None) -> tuple[KeyUsage, ...]:
    """Return the usage of the hours in [start, end), oldest first."""
    found = KeyHour.objects.filter(hour__gte=start, hour__lt=end)
    if key_id is not None:
        found = found.filter(key_id=key_id)
    return tuple(
        KeyUsage(
            *row.key(),
            row.count,
            row.rows,
            row.cache_hits,
            row.latency_us,
            dict(row.errors),
            row.buckets(),
        )
        for row in found.order_by("hour", "id")
    )


@dataclass(frozen=True, slots=True)
class RollupCheck:
    """Whether the rollups say what the rows say.

    Attributes:
        predictions: Rows that were read.
        differences: One sentence for each rollup that is wrong, missing or too many.
    """

    predictions: int
    differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def rollups_equal_scan(start: datetime, end: datetime) -> RollupCheck:
    """Compare the rollups of whole hours with a full scan of their predictions, exactly.

    This reads every row of the span: it is for tests and operators, not for a page.
    """
    start = start.replace(minute=0, second=0, microsecond=0)
    end = (end + timedelta(hours=1, microseconds=-1)).replace(minute=0, second=0, microsecond=0)
    rows = tuple(_scanned(start, end))
    minutes = PredictionMinute.objects.filter(minute__gte=start, minute__lt=end)
    hours = KeyHour.objects.filter(hour__gte=start, hour__lt=end)
    differences = [
        *_differences({row.key(): _facts(row) for row in minutes}, minute_tallies(rows)),
        *_differences({row.key(): _facts(row) for row in hours}, hour_tallies(rows)),
        *_span_differences(start, end, rows),
    ]
    return RollupCheck(len(rows), tuple(differences))


def _span_differences(start: datetime, end: datetime, rows: Iterable[Counted]) -> Iterator[str]:
    """Compare the spans that lie whole between two hours: none longer than that."""
    expected = {key: one for key, one in span_tallies(rows).items() if key.seconds <= HOUR_SECONDS}
    spans = PredictionSpan.objects.filter(
        start__gte=start, start__lt=end, seconds__lte=HOUR_SECONDS
    )
    yield from _differences({row.key(): _facts(row) for row in spans}, expected)


_COUNTED = (
    "ts", "model", "environment", "team_id", "version", "arm", "key_id", "status", "rows", "cached",
    "total_ms",
)  # fmt: skip
_Facts = tuple[int, int, int, int, Mapping[str, int] | int, Mapping[int, int]]


def _scanned(start: datetime, end: datetime) -> Iterator[Counted]:
    rows = Prediction.objects.filter(ts__gte=start, ts__lt=end).values_list(*_COUNTED, named=True)
    return cast("Iterator[Counted]", rows.iterator(chunk_size=2000))


def _facts(row: PredictionMinute | KeyHour | PredictionSpan) -> _Facts:
    errors = 0 if isinstance(row, PredictionSpan) else row.errors
    return (row.count, row.rows, row.cache_hits, row.latency_us, errors, row.buckets())


def _expected(key: MinuteKey | HourKey | SpanKey, tally: Tally) -> _Facts:
    errors: Mapping[str, int] | int = tally.errors
    if not isinstance(key, HourKey):  # the status tells them apart; a span repeats nothing
        errors = sum(tally.errors.values()) if isinstance(key, MinuteKey) else 0
    return (tally.count, tally.rows, tally.cache_hits, tally.latency_us, errors, tally.histogram)


def _differences(stored: Mapping[Any, _Facts], scanned: Mapping[Any, Tally]) -> Iterator[str]:
    for key in sorted({*stored, *scanned}):
        expected = _expected(key, scanned[key]) if key in scanned else None
        if stored.get(key) != expected:
            yield f"{key}: stored {stored.get(key)}, scanned {expected}"

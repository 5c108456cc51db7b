"""Traffic over a window, from the counts kept beforehand; no page reads predictions to count them.

Whose traffic a caller may see is decided by ``scope_of``; everything else takes that scope. Sums of
one window add up exactly to those of its steps. A percentile comes from merged histograms, never
from an average of percentiles.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from django.db.models import Q, QuerySet, Sum, TextField
from django.db.models.functions import Cast

from apps.accounts.callers import Caller
from apps.accounts.models import ApiKey
from apps.accounts.policies import Action, Thing, may, require, unseen
from apps.core.errors import Invalid, NotAllowed
from apps.inference.engine.buckets import (
    ALL_MODELS,
    ALL_TEAMS,
    NOT_TRAFFIC,
    OK,
    SPAN_SECONDS,
    Tally,
    percentile_ms,
    span_start,
)
from apps.inference.models import KeyHour, PredictionMinute, PredictionSpan
from apps.inference.selectors import Traffic
from apps.inference.windows import DAY, HOUR, MINUTE, Window, pieces
from apps.registry.models import RegisteredModel

MOST_MODELS = 25


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose traffic it is about; what is None does not narrow.

    Attributes:
        teams: Teams whose traffic the caller may see.
        models: The only models that an API key may see.
        environments: The only environments that an API key may see.
    """

    teams: frozenset[int] | None = None
    model: str | None = None
    version: int | None = None
    environment: str | None = None
    key_id: str | None = None
    models: tuple[str, ...] | None = None
    environments: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Traffic of a window, whole and step by step.

    Attributes:
        steps: One for each of the window's times.
        versions: Requests by step, by version; empty where all models are added up.
        codes: Errors by step, by code.
    """

    window: Window
    total: Traffic
    steps: tuple[Traffic, ...]
    versions: Mapping[int, tuple[int, ...]]
    codes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class ModelSeen:
    """Traffic of one model among others; ``points`` are its requests over the time."""

    model: str
    total: Traffic
    points: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KeySeen:
    """Usage of one API key among others."""

    key_id: str
    count: int
    rows: int
    errors: int


class _Cell(NamedTuple):
    """Counts of one row of a rollup, however it was kept."""

    at: datetime
    version: int
    calls: int
    rows: int
    cache_hits: int
    latency_us: int
    histogram: str
    errors: Mapping[str, int]


def scope_of(
    caller: Caller,
    *,
    model: str | None = None,
    version: int | None = None,
    environment: str | None = None,
    key_id: str | None = None,
    team_id: int | None = None,
) -> Scope:
    """Return whose traffic a caller sees, narrowed to what is asked about.

    Raises:
        NotFound: The model, key or team is not there, or it is another team's.
        NotAllowed: An API key asks for more than it is bound to.
        Invalid: The filters exclude each other.
    """
    teams = _teams(caller, team_id)
    if model is not None:
        _require_model(caller, model)
    elif version is not None:
        raise Invalid("A version is one of a model. Name the model, too.")
    if key_id is not None:
        _require_key(caller, key_id, environment)
    bound = caller.key
    return Scope(
        teams=teams,
        model=model,
        version=version,
        environment=environment,
        key_id=key_id,
        models=bound.models or None if bound else None,
        environments=bound.environments if bound else None,
    )


def look(scope: Scope, window: Window) -> Seen:
    """Return the traffic of a window."""
    cells = _key_cells(scope, window) if scope.key_id is not None else _cells(scope, window)
    steps = len(window.times)
    gathered = _Gathered(steps)
    for cell in cells:
        gathered.add(cell, window.place(cell.at))
    keeps_versions = scope.model is not None or scope.key_id is None
    return Seen(
        window=window,
        total=traffic_of(gathered.total),
        steps=tuple(traffic_of(one) for one in gathered.steps),
        versions=_frozen(gathered.versions) if keeps_versions else {},
        codes=_frozen(gathered.codes),
    )


def by_model(
    scope: Scope, window: Window, *, most: int = MOST_MODELS
) -> tuple[tuple[ModelSeen, ...], int]:
    """Return the models with most requests in a window, and how many models had any."""
    rows = _model_rows(scope, window)
    ranked = list(
        rows.values("model").annotate(requests=Sum("count")).order_by("-requests", "model")
    )
    names = [one["model"] for one in ranked[:most]]
    if not names:
        return (), 0
    tallies, points = _tallies(rows.filter(model__in=names), window)
    seen = tuple(ModelSeen(name, traffic_of(tallies[name]), points[name]) for name in names)
    return seen, len(ranked)


def by_key(scope: Scope, window: Window, key_ids: Sequence[str]) -> tuple[KeySeen, ...]:
    """Return the usage of some keys in the hours of a window, the most used first."""
    found = KeyHour.objects.filter(key_id__in=key_ids, hour__gte=window.start, hour__lt=window.end)
    if scope.model is not None:
        found = found.filter(model=scope.model)
    sums = list(found.values("key_id").annotate(n=Sum("count"), r=Sum("rows")).order_by("-n"))
    failed: dict[str, int] = {}
    for key_id, errors in found.exclude(errors={}).values_list("key_id", "errors"):
        failed[key_id] = failed.get(key_id, 0) + sum(errors.values())
    return tuple(
        KeySeen(one["key_id"], one["n"], one["r"], failed.get(one["key_id"], 0)) for one in sums
    )


def calls_of_keys(key_ids: Iterable[str], *, since: datetime) -> dict[str, int]:
    """Count the calls of keys since the beginning of an hour."""
    found = KeyHour.objects.filter(key_id__in=list(key_ids), hour__gte=since)
    return dict(found.values_list("key_id").annotate(n=Sum("count")))


def calls_of_models(
    models: Iterable[str], *, since: datetime, environment: str | None = None
) -> dict[str, int]:
    """Count the requests of models since a minute."""
    found = PredictionMinute.objects.filter(model__in=list(models), minute__gte=since)
    if environment is not None:
        found = found.filter(environment=environment)
    found = found.exclude(arm__in=NOT_TRAFFIC)
    return dict(found.values_list("model").annotate(n=Sum("count")))


def traffic_of(tally: Tally) -> Traffic:
    """Say what was counted; without calls there is no latency."""
    count = tally.count
    return Traffic(
        count=count,
        rows=tally.rows,
        errors=sum(tally.errors.values()),
        cache_hits=tally.cache_hits,
        mean_ms=tally.latency_us / count / 1000 if count else None,
        p50_ms=percentile_ms(tally.histogram, 0.50) if count else None,
        p95_ms=percentile_ms(tally.histogram, 0.95) if count else None,
        p99_ms=percentile_ms(tally.histogram, 0.99) if count else None,
    )


# --- who may see what -------------------------------------------------------------------------


def _teams(caller: Caller, team_id: int | None) -> frozenset[int] | None:
    if team_id is not None:
        if not may(caller, Action.PREDICTION_READ, Thing(team_id)):
            raise unseen()
        return frozenset({team_id})
    if caller.sees_all:
        return None
    candidates = caller.roles if caller.key is None else (caller.key.team_id,)
    readable = (team for team in candidates if may(caller, Action.PREDICTION_READ, Thing(team)))
    return frozenset(readable)


def _require_model(caller: Caller, name: str) -> None:
    team = RegisteredModel.objects.filter(name=name).values_list("team_id", flat=True).first()
    if team is None:
        raise unseen(name)
    require(caller, Action.PREDICTION_READ, Thing(team, name))


def _require_key(caller: Caller, key_id: str, environment: str | None) -> None:
    key = ApiKey.objects.filter(pk=key_id).first()
    if key is None or not may(caller, Action.PREDICTION_READ, Thing(key.team_id)):
        raise unseen(key_id)
    if environment is not None:
        raise Invalid(
            "Usage of a key is counted by model and version, not by environment. Leave out one."
        )
    if caller.key is not None and not set(key.environments) <= set(caller.key.environments):
        raise NotAllowed("Usage of that key covers environments that this API key is not bound to.")


# --- reading ----------------------------------------------------------------------------------


class _Gathered:
    """Adds rows up by step, version and code."""

    def __init__(self, steps: int) -> None:
        self.steps = [Tally() for _ in range(steps)]
        self.versions: dict[int, list[int]] = {}
        self.codes: dict[str, list[int]] = {}

    def add(self, cell: _Cell, place: int) -> None:
        tally = self.steps[place]
        tally.count += cell.calls
        tally.rows += cell.rows
        tally.cache_hits += cell.cache_hits
        tally.latency_us += cell.latency_us
        buckets = tally.histogram
        for name, count in orjson.loads(cell.histogram).items():
            bucket = int(name)
            buckets[bucket] = buckets.get(bucket, 0) + count
        empty = len(self.steps)
        if cell.version:
            self.versions.setdefault(cell.version, [0] * empty)[place] += cell.calls
        for code, count in cell.errors.items():
            tally.errors[code] = tally.errors.get(code, 0) + count
            self.codes.setdefault(code, [0] * empty)[place] += count

    @property
    def total(self) -> Tally:
        whole = Tally()
        for step in self.steps:
            whole.absorb(step)
        return whole


def _frozen(counts: Mapping[Any, list[int]]) -> dict[Any, tuple[int, ...]]:
    return {name: tuple(counts[name]) for name in sorted(counts)}


def _cells(scope: Scope, window: Window) -> Iterator[_Cell]:
    if window.step_seconds == MINUTE:
        rows: QuerySet[Any] = _minutes(scope, window)
        at = "minute"
    else:
        rows, at = _spans(scope, window), "start"
    values = rows.values_list(
        at, "version", "count", "rows", "cache_hits", "latency_us",
        Cast("histogram", TextField()), "status",
    )  # fmt: skip
    for *counts, status in values.iterator(chunk_size=2000):
        yield _Cell._make([*counts, {} if status == OK else {status: counts[2]}])


def _minutes(scope: Scope, window: Window) -> "QuerySet[PredictionMinute]":
    found = PredictionMinute.objects.filter(minute__gte=window.start, minute__lt=window.end)
    found = found.exclude(arm__in=NOT_TRAFFIC)
    if scope.teams is not None and scope.model is None:
        theirs = RegisteredModel.objects.filter(team_id__in=scope.teams)
        found = found.filter(model__in=theirs.values("name"))
    narrowed: QuerySet[PredictionMinute] = _narrowed(found, scope)
    return narrowed


def _spans(scope: Scope, window: Window) -> "QuerySet[PredictionSpan]":
    kept = next(one for one in _KEPT if window.step_seconds % one == 0)
    found = PredictionSpan.objects.filter(
        seconds=kept, start__gte=window.start, start__lt=window.end
    )
    if scope.model is None and scope.models is None:
        # Those of whole teams; of all teams there is one more row, so that nobody adds up many.
        teams = [ALL_TEAMS] if scope.teams is None else list(scope.teams)
        found = found.filter(model=ALL_MODELS, team_id__in=teams)
        return _in_environment(found, scope)
    if scope.teams is not None:
        found = found.filter(team_id__in=scope.teams)
    narrowed: QuerySet[PredictionSpan] = _narrowed(found.exclude(model=ALL_MODELS), scope)
    return narrowed


_KEPT = tuple(reversed(SPAN_SECONDS))


def _narrowed(found: "QuerySet[Any]", scope: Scope) -> "QuerySet[Any]":
    if scope.model is not None:
        found = found.filter(model=scope.model)
    if scope.models is not None:
        found = found.filter(model__in=scope.models)
    if scope.version is not None:
        found = found.filter(version=scope.version)
    return _in_environment(found, scope)


def _in_environment(found: "QuerySet[Any]", scope: Scope) -> "QuerySet[Any]":
    if scope.environment is not None:
        found = found.filter(environment=scope.environment)
    if scope.environments is not None:
        found = found.filter(environment__in=scope.environments)
    return found


def _key_cells(scope: Scope, window: Window) -> Iterator[_Cell]:
    found = KeyHour.objects.filter(key_id=scope.key_id, hour__gte=window.start, hour__lt=window.end)
    for name in ("model", "version"):
        if getattr(scope, name) is not None:
            found = found.filter(**{name: getattr(scope, name)})
    if scope.models is not None:
        found = found.filter(model__in=scope.models)
    values = found.values_list(
        "hour", "version", "count", "rows", "cache_hits", "latency_us",
        Cast("histogram", TextField()), Cast("errors", TextField()),
    )  # fmt: skip
    for *counts, errors in values.iterator(chunk_size=2000):
        yield _Cell._make([*counts, orjson.loads(errors)])


# --- models side by side ----------------------------------------------------------------------


def _model_rows(scope: Scope, window: Window) -> "QuerySet[Any]":
    """Rows that add up to the window, by model: the longest spans that fill it exactly."""
    if window.step_seconds == MINUTE:
        return _minutes(scope, window)
    there = Q()
    for piece in pieces(window):
        there |= Q(seconds=piece.seconds, start__gte=piece.start, start__lt=piece.end)
    found = PredictionSpan.objects.filter(there).exclude(model=ALL_MODELS)
    if scope.teams is not None:
        found = found.filter(team_id__in=scope.teams)
    narrowed: QuerySet[PredictionSpan] = _narrowed(found, scope)
    return narrowed


def _tallies(
    rows: "QuerySet[Any]", window: Window
) -> tuple[dict[str, Tally], dict[str, tuple[int, ...]]]:
    """Add rows up by model; also count the requests of each in even parts of the window."""
    part = _part_of(window)
    first = span_start(window.start, part)
    parts = int((window.end - first).total_seconds() - 1) // part + 1
    tallies: dict[str, Tally] = {}
    points: dict[str, list[int]] = {}
    values = rows.values_list(
        "minute" if window.step_seconds == MINUTE else "start",
        "model", "count", "rows", "cache_hits", "latency_us",
        Cast("histogram", TextField()), "status",
    )  # fmt: skip
    for at, name, count, sent, hits, latency, histogram, status in values.iterator(chunk_size=2000):
        errors = {} if status == OK else {status: count}
        buckets = {int(n): many for n, many in orjson.loads(histogram).items()}
        tally = Tally(count, sent, hits, latency, errors, buckets)
        tallies.setdefault(name, Tally()).absorb(tally)
        place = int((at - first).total_seconds()) // part
        points.setdefault(name, [0] * parts)[place] += count
    return tallies, {name: tuple(counts) for name, counts in points.items()}


def _part_of(window: Window) -> int:
    """Return how long a point of a small line is: no shorter than a row that is added to it."""
    if window.step_seconds == MINUTE:
        return MINUTE
    return HOUR if window.seconds < 2 * DAY else DAY

"""A company's estate in the database: teams, models, versions, releases, keys, a year of events.

Rows are made in bulk, past the actions, because a thousand models are not uploaded in a minute. The
counts are made of the predictions by the shipper's own rules, so that they agree.
"""

import hashlib
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from django.db import connection, transaction
from django.db.models import Model
from django.utils import timezone

from apps.accounts.keys import KeyKind, make
from apps.accounts.models import ApiKey, Membership, Team, User
from apps.accounts.services import people
from apps.accounts.snapshot import Role
from apps.core import ids
from apps.core.events import Actor
from apps.core.models import Event
from apps.inference import partitions
from apps.inference.engine.buckets import (
    HourKey,
    MinuteKey,
    SpanKey,
    Tally,
    hour_tallies,
    minute_tallies,
    span_tallies,
)
from apps.inference.journal_db.rows import Row
from apps.inference.models import KeyHour, Prediction, PredictionMinute, PredictionSpan
from apps.registry.models import Endpoint, ModelVersion, RegisteredModel, Release
from apps.registry.states import Environment, ReleaseState, VersionState

DAYS = 90
BATCH = 20_000
# Calls come in bursts: so many of one model and key in the same minute.
BURST = 5
SOON = timedelta(milliseconds=7)
COUNTS = ("count", "rows", "cache_hits", "latency_us", "histogram", "errors")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PASSWORD = "a-long-enough-passphrase-27"
SIGNATURE = {
    "inputs": [
        {"name": "x", "dtype": "float32", "shape": [-1, 4], "columns": ["a", "b", "c", "d"]}
    ],
    "outputs": [{"name": "scores", "dtype": "float32", "shape": [-1, 3]}],
    "batchable": True,
}
REPORT = {
    "verdict": "ready",
    "reason": None,
    "checks": [
        {"name": name, "title": title, "state": "passed", "message": "As it should be.",
         "remedy": "", "seconds": 0.1}
        for name, title in (
            ("recognised", "The file is a model"),
            ("graph", "The graph is sound"),
            ("dry-run", "The model answers a trial run"),
            ("rows", "A row's answer does not depend on its neighbours"),
            ("latency", "One row is answered quickly"),
        )
    ],
    "measurements": {
        "load_seconds": 0.12,
        "resident_bytes": 3_000_000,
        "latency_ms": {"p50": 0.2, "p99": 0.9},
    },
    "scanners": [],
    "conversion": None,
}  # fmt: skip
STATES = (*[VersionState.READY] * 8, VersionState.REJECTED, VersionState.DEPRECATED)
CODES = ("ok",) * 48 + ("model_failed", "deadline_passed")


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    teams: int = 20
    people: int = 100
    models: int = 1_000
    versions_per_model: int = 10
    keys: int = 500
    predictions: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Estate:
    """What a visit needs of it."""

    admin: User
    member: User
    teams: list[Team]
    models: list[RegisteredModel]
    keys: list[ApiKey]


def fill(size: Size, *, seed: int = 7) -> Estate:
    """Make everything; the same seed makes the same names and numbers."""
    dice = random.Random(seed)
    admin = people.create_user(
        username="operator",
        email="operator@example.org",
        password=PASSWORD,
        actor=Actor.system(),
        is_admin=True,
    )
    with transaction.atomic():
        teams = Team.objects.bulk_create(
            Team(slug=f"team-{number:03}", name=f"Team {number}") for number in range(size.teams)
        )
        members = _people(size, teams)
        models = _models(size, teams, dice)
        _versions(size, models, members, dice)
        _releases(models, members, dice)
        keys = _keys(size, teams, members, dice)
    _predictions(size, models, keys, dice)
    return Estate(admin, members[0], teams, models, keys)


def _people(size: Size, teams: list[Team]) -> list[User]:
    users = User.objects.bulk_create(
        User(username=f"person{number}", email=f"person{number}@example.org", is_staff=True)
        for number in range(size.people)
    )
    roles = (Role.MAINTAINER, Role.CONTRIBUTOR, Role.VIEWER)
    Membership.objects.bulk_create(
        Membership(team=teams[number % len(teams)], user=user, role=roles[number % 3].value)
        for number, user in enumerate(users)
    )
    return users


def _models(size: Size, teams: list[Team], dice: random.Random) -> list[RegisteredModel]:
    words = ("churn", "fraud", "price", "demand", "risk", "route", "score", "match")
    models = RegisteredModel.objects.bulk_create(
        RegisteredModel(
            name=f"{words[number % len(words)]}-{number:04}",
            team=teams[number % len(teams)],
            description="# Card\n\nWhat it is **for**, and what not.",
            tags=dice.sample(["eu", "us", "batch", "critical", "trial"], 2),
        )
        for number in range(size.models)
    )
    Endpoint.objects.bulk_create(
        Endpoint(
            model=model,
            environment=environment.value,
            required=environment is Environment.PRODUCTION,
        )
        for model in models
        for environment in Environment
    )
    return models


def _versions(
    size: Size, models: list[RegisteredModel], users: list[User], dice: random.Random
) -> None:
    rows = (
        _version(model, number, dice.choice(users), dice)
        for model in models
        for number in range(1, size.versions_per_model + 1)
    )
    for some in _batches(rows):
        made = ModelVersion.objects.bulk_create(some)
        Event.objects.bulk_create(
            event for version in made for event in _events_of(version, version.uploaded_by)
        )


def _version(
    model: RegisteredModel, number: int, person: User, dice: random.Random
) -> ModelVersion:
    state = VersionState.READY if number == 1 else dice.choice(STATES)
    sha256 = hashlib.sha256(f"{model.name}/{number}".encode()).hexdigest()
    is_good = state is not VersionState.REJECTED
    return ModelVersion(
        model=model,
        number=number,
        state=state.value,
        filename="model.onnx",
        size=dice.randrange(10_000, 80_000_000),
        sha256=sha256,
        format="onnx",
        container="onnx",
        runtime="onnx" if is_good else "",
        served_key=f"x/{sha256}" if is_good else "",
        served_sha256=sha256 if is_good else "",
        served_size=1_000,
        resident_bytes=3_000_000,
        signature=SIGNATURE if is_good else None,
        example={"instances": [[1, 2, 3, 4]]} if is_good else None,
        report=REPORT if is_good else {**REPORT, "verdict": "rejected", "reason": "It is cut off."},
        metrics={"accuracy": round(dice.uniform(0.7, 0.99), 4), "auc": round(dice.random(), 4)},
        params={"depth": dice.randrange(2, 12)},
        lineage={"dataset": "orders-2026-10", "commit": sha256[:7]},
        uploaded_by=person,
        decided=timezone.now(),
    )


def _events_of(version: ModelVersion, person: User | None) -> Iterator[Event]:
    name = person.username if person else "system"
    for verb in ("version.uploaded", "version.validating", f"version.{version.state}"):
        yield Event(
            at=timezone.now() - timedelta(days=(version.pk * 7) % DAYS),
            verb=verb,
            actor_kind="user",
            actor_id=str(person.pk) if person else "",
            actor_name=name,
            team_id=version.model.team_id,
            target_kind="registry.modelversion",
            target_id=str(version.pk),
            target_name=str(version),
        )


def _releases(models: list[RegisteredModel], users: list[User], dice: random.Random) -> None:
    endpoints = Endpoint.objects.filter(model__in=models).select_related("model")
    rows = []
    for endpoint in endpoints:
        for number in (1, 2, 3):
            state = ReleaseState.LIVE if number == 3 else ReleaseState.REPLACED
            rows.append(_release(endpoint, number, state, dice.choice(users)))
        if endpoint.pk % 50 == 0:
            rows.append(_release(endpoint, 4, ReleaseState.AWAITING_APPROVAL, dice.choice(users)))
    Release.objects.bulk_create(rows, batch_size=2_000)


def _release(endpoint: Endpoint, number: int, state: ReleaseState, person: User) -> Release:
    return Release(
        endpoint=endpoint,
        number=number,
        state=state.value,
        arms=[{"version": 1, "role": "primary", "ranges": [[0.0, 1.0]], "variant": None}],
        salt=str(endpoint),
        reason="Better on the holdout of October",
        actor_kind="user",
        actor_id=str(person.pk),
        actor_name=person.username,
        requested_by=person,
        decided=timezone.now() - timedelta(days=10 * (4 - number)),
        rolled_out_at=timezone.now(),
    )


def _keys(size: Size, teams: list[Team], users: list[User], dice: random.Random) -> list[ApiKey]:
    texts = [make(KeyKind.LIVE) for _ in range(size.keys)]
    return ApiKey.objects.bulk_create(
        ApiKey(
            id=text.id,
            sha256=text.sha256,
            last4=text.last4,
            name=f"shop {number}",
            team=teams[number % len(teams)],
            owner=users[number % len(users)],
            created_by="operator",
            scopes=["predict"],
            expires_at=timezone.now() + timedelta(days=dice.randrange(1, 400)),
        )
        for number, text in enumerate(texts)
    )


def _predictions(
    size: Size, models: list[RegisteredModel], keys: list[ApiKey], dice: random.Random
) -> None:
    """Spread calls over the days; few models get most of them, as everywhere."""
    now = timezone.now()
    if partitions.has_partitions():
        for day in range(DAYS + 1):
            partitions.make_partition((now - timedelta(days=day)).date())
    weights = [1 / (rank + 1) for rank in range(len(models))]
    chosen = _chosen(models, weights, size.predictions, dice)
    per_day = -(-size.predictions // DAYS)
    start = (now - timedelta(days=DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)
    for day in range(DAYS):
        first = start + timedelta(days=day + 1)
        last = min(first + timedelta(days=1), now)
        step = (last - first) / per_day
        some = list(itertools.islice(chosen, -(-per_day // BURST)))
        _write_day(
            [
                _row(first + step * BURST * burst + SOON * call, model, key_id, dice)
                for burst, model in enumerate(some)
                for key_id in (dice.choice(keys).pk,)
                for call in range(BURST)
            ]
        )


def _write_day(rows: list[Row]) -> None:
    """Write one day and its counts; nothing of it is there yet."""
    with transaction.atomic():
        _copy(Prediction, Row._fields, rows)
        _copy(PredictionMinute, (*MinuteKey._fields, *COUNTS), _counts(minute_tallies(rows)))
        _copy(KeyHour, (*HourKey._fields, *COUNTS), _hour_counts(hour_tallies(rows)))
        _copy(PredictionSpan, (*SpanKey._fields, *COUNTS[:-1]), _span_counts(span_tallies(rows)))


def _counts(tallies: Mapping[Any, Tally]) -> Iterator[tuple[Any, ...]]:
    for key, one in tallies.items():
        errors = sum(one.errors.values())
        yield (*key, one.count, one.rows, 0, one.latency_us, dict(one.histogram), errors)


def _hour_counts(tallies: Mapping[Any, Tally]) -> Iterator[tuple[Any, ...]]:
    for key, one in tallies.items():
        errors = dict(one.errors)
        yield (*key, one.count, one.rows, 0, one.latency_us, dict(one.histogram), errors)


def _span_counts(tallies: Mapping[Any, Tally]) -> Iterator[tuple[Any, ...]]:
    for key, one in tallies.items():
        yield (*key, one.count, one.rows, 0, one.latency_us, dict(one.histogram))


def _copy(table: type[Model], columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as fast as the database takes them: Django's own way is ten times slower."""
    name, names = table._meta.db_table, ", ".join(f'"{one}"' for one in columns)
    plain = ([_plain(value) for value in row] for row in rows)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f'COPY "{name}" ({names}) FROM STDIN') as copy:
                for row in plain:
                    copy.write_row(row)
            return
        marks = ", ".join(["%s"] * len(columns))
        cursor.executemany(f'INSERT INTO "{name}" ({names}) VALUES ({marks})', list(plain))


def _plain(value: Any) -> Any:
    if isinstance(value, dict | list):
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    if connection.vendor == "postgresql":
        return value
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(sep=" ")
    is_id = isinstance(value, str) and len(value) == 36 and value.count("-") == 4
    return value.replace("-", "") if is_id else value


def _chosen(
    models: list[RegisteredModel], weights: list[float], count: int, dice: random.Random
) -> Iterator[RegisteredModel]:
    totals = list(itertools.accumulate(weights))
    while count > 0:
        yield from dice.choices(models, cum_weights=totals, k=min(count, BATCH))
        count -= BATCH


def _row(at: datetime, model: RegisteredModel, key_id: str, dice: random.Random) -> Row:
    ts_ms = (at - EPOCH) // timedelta(milliseconds=1)
    status = dice.choice(CODES)
    inference = dice.lognormvariate(-1, 0.6)
    return Row(
        id=ids.new_id(ts_ms),
        ts=EPOCH + timedelta(milliseconds=ts_ms),
        model=model.name,
        environment="production",
        team_id=model.team_id,
        version=1,
        release=3,
        arm="primary",
        variant="",
        experiment="",
        unit="",
        key_id=key_id,
        user_id=None,
        source="api",
        status=status,
        rows=dice.choice((1, 1, 1, 8, 50)),
        cached=False,
        total_ms=inference + 0.4,
        queue_ms=0.05,
        inference_ms=inference,
        error="" if status == "ok" else "The model raised an error on this input.",
        request_id="r",
        client_id="",
        seq=1,
        writer="w",
        inputs=[[1, 2, 3, 4]],
        outputs=[[0.1, 0.2, 0.7]],
    )


def _batches(rows: Iterable[Any], size: int = 2_000) -> Iterator[list[Any]]:
    taken = iter(rows)
    while some := list(itertools.islice(taken, size)):
        yield some

"""Remove all that one unit left: what is recorded now, and what arrives later from before.

An erasure is asked for in an instant and worked off in steps, each committed with its count, so
that it may be ended at any moment and goes on where it was. Rollups are sums over many units; they
hold none, and they stay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.core import events, work
from apps.core.errors import FieldProblem, Invalid
from apps.core.events import Actor
from apps.inference.engine.redact import UNIT
from apps.inference.engine.spool import record_from
from apps.inference.journal_db.erased import hold_off_writers, time_in
from apps.inference.models import Erasure, Prediction, PredictionRejected
from apps.inference.record_keys import digests_of
from apps.registry.models import RegisteredModel
from apps.registry.snapshot import Redaction

ERASE = "inference.erase_unit"
MAX_UNIT = 200
MAX_REASON = 2000
STEP_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Scope:
    """What an erasure looks for.

    Attributes:
        recorded: The unit in every form that can be found again: as it is, and its keyed hashes.
        team_id: The only team whose records are touched; None for all.
        model: The only model; empty for all.
        before: Records of calls accepted before this time.
    """

    recorded: tuple[str, ...]
    team_id: int | None
    model: str
    before: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """Some records of one kind, and the span of time they are from."""

    rows: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Eraser:
    """One kind of record that may hold a unit.

    Attributes:
        name: The records in words, in the plural.
        count: Counts them.
        remove: Removes some thousands at the most, in the caller's transaction; none are left
            when it found none.
    """

    name: str
    count: Callable[[Scope], Found]
    remove: Callable[[Scope], Found]


_ERASERS: dict[str, Eraser] = {}


def plug_in(eraser: Eraser) -> None:
    """Make a kind of record part of every erasure; the app that owns its table says how."""
    _ERASERS[eraser.name] = eraser


def erasers() -> tuple[Eraser, ...]:
    """Return every kind of record that erasures look through."""
    return tuple(_ERASERS.values())


@transaction.atomic
def ask_erasure(
    unit: str, *, team_id: int | None, model: str = "", reason: str, actor: Actor
) -> Erasure:
    """Ask that all is removed that a unit left until now.

    Args:
        unit: As callers sent it.
        team_id: The team whose records are meant; None for all teams.
        model: The name of the only model that is meant; empty for all.
        reason: Why, for the audit.
        actor: Who asks.

    Raises:
        Invalid: There is no unit, or no reason.
    """
    _check(unit)
    if not reason.strip() or len(reason) > MAX_REASON:
        raise _wrong("/reason", f"Say why, in at most {MAX_REASON} characters.")
    hold_off_writers()
    erasure = Erasure.objects.create(
        digests=digests_of(unit),
        unit=unit,
        team_id=team_id,
        model=model,
        before=timezone.now(),
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        reason=reason.strip(),
    )
    events.record(
        "privacy.erasure_asked",
        actor=actor,
        target=erasure,
        team_id=team_id,
        reason=erasure.reason,
        model=model,
    )
    work.enqueue(ERASE, subject=erasure, erasure_id=erasure.pk)
    return erasure


def erase_now(
    unit: str, *, team_id: int | None, model: str = "", reason: str, actor: Actor
) -> Erasure:
    """Do the same at once, for somebody who waits for it; a worker goes on if they leave."""
    erasure = ask_erasure(unit, team_id=team_id, model=model, reason=reason, actor=actor)
    erase(erasure.pk)
    return Erasure.objects.get(pk=erasure.pk)


def would_erase(unit: str, *, team_id: int | None, model: str = "") -> dict[str, Found]:
    """Count what an erasure would remove now, by kind; nothing is changed."""
    _check(unit)
    scope = Scope((unit, *digests_of(unit)), team_id, model, timezone.now())
    return {one.name: one.count(scope) for one in erasers()}


def erase(erasure_id: int) -> None:
    """Work an erasure off, from wherever it stands; one that is over is left alone."""
    done = 0
    while True:
        removed = _step(erasure_id)
        if removed is None:
            return
        done += removed
        work.report("Erasing", done)


def unfindable(*, team_id: int | None, model: str = "") -> list[str]:
    """Name the models whose records hold no unit that could be found: it is dropped or masked."""
    rows = RegisteredModel.objects.order_by("name")
    rows = rows if team_id is None else rows.filter(team_id=team_id)
    rows = rows.filter(name=model) if model else rows
    lost = {Redaction.DROP.value, Redaction.MASK.value}
    rules = rows.values_list("name", "redact")
    return [name for name, redact in rules if redact.get(UNIT) in lost]


def _check(unit: str) -> None:
    if not 1 <= len(unit) <= MAX_UNIT or "\x00" in unit:
        raise _wrong("/unit", f"A unit is a text of 1 to {MAX_UNIT} characters.")


def _wrong(pointer: str, detail: str) -> Invalid:
    error = Invalid(detail)
    error.at([FieldProblem(pointer, detail)])
    return error


@transaction.atomic
def _step(erasure_id: int) -> int | None:
    """Remove some records; return how many, or None when the erasure is over."""
    erasure = Erasure.objects.select_for_update().get(pk=erasure_id)
    if erasure.finished is not None:
        return None
    scope = Scope((erasure.unit, *erasure.digests), erasure.team_id, erasure.model, erasure.before)
    for eraser in erasers():
        found = eraser.remove(scope)
        if found.rows:
            _count(erasure, eraser.name, found)
            return found.rows
    _finish(erasure)
    return None


def _count(erasure: Erasure, name: str, found: Found) -> None:
    erasure.counts[name] = erasure.counts.get(name, 0) + found.rows
    erasure.oldest = min(filter(None, (erasure.oldest, found.oldest)), default=None)
    erasure.newest = max(filter(None, (erasure.newest, found.newest)), default=None)
    erasure.save(update_fields=["counts", "oldest", "newest"])


def _finish(erasure: Erasure) -> None:
    erasure.counts = {one.name: erasure.counts.get(one.name, 0) for one in erasers()}
    erasure.unit, erasure.finished = "", timezone.now()
    erasure.save(update_fields=["counts", "unit", "finished"])
    events.record(
        "privacy.erased",
        actor=Actor(erasure.actor_kind, erasure.actor_id, erasure.actor_name),
        target=erasure,
        team_id=erasure.team_id,
        reason=erasure.reason,
        model=erasure.model,
        counts=erasure.counts,
        rows=sum(erasure.counts.values()),
        oldest=_said(erasure.oldest),
        newest=_said(erasure.newest),
    )


def _said(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


# --- the record itself --------------------------------------------------------------------------


def _predictions(scope: Scope) -> QuerySet[Prediction]:
    # The second condition is the index' own: rows without a unit are not in it.
    rows = Prediction.objects.filter(unit__in=scope.recorded, unit__gt="", ts__lt=scope.before)
    rows = rows if scope.team_id is None else rows.filter(team_id=scope.team_id)
    return rows.filter(model=scope.model) if scope.model else rows


def _count_predictions(scope: Scope) -> Found:
    times = _predictions(scope).order_by("ts").values_list("ts", flat=True)
    oldest, newest = times.first(), times.last()
    return Found(times.count(), oldest, newest)


def _remove_predictions(scope: Scope) -> Found:
    while chosen := list(
        _predictions(scope).order_by("ts", "id").values_list("ts", "pk")[:STEP_ROWS]
    ):
        oldest, newest = chosen[0][0], chosen[-1][0]
        # The span of time beside the ids lets the database look into few partitions only.
        batch = Prediction.objects.filter(
            ts__gte=oldest, ts__lte=newest, pk__in=[pk for _, pk in chosen]
        )
        gone = batch.delete()[0]
        if gone:
            return Found(gone, oldest, newest)
        # A purge took exactly these meanwhile; there may be more.
    return Found()


def _rejected(scope: Scope) -> dict[str, datetime]:
    """Find refused records of the unit; there are few, and they are kept for some days only."""
    found: dict[str, datetime] = {}
    for pk, payload in PredictionRejected.objects.values_list("pk", "payload").iterator():
        try:
            fields = record_from(bytes(payload))
        except ValueError:
            continue
        ts = time_in(fields)
        is_meant = (
            fields.get("unit") in scope.recorded
            and (ts is None or ts < scope.before)
            and scope.team_id in (None, fields.get("team_id"))
            and scope.model in ("", fields.get("model"))
        )
        if is_meant:
            found[pk] = ts or scope.before
        if len(found) == STEP_ROWS:
            break
    return found


def _count_rejected(scope: Scope) -> Found:
    found = _rejected(scope)
    times = sorted(found.values())
    return Found(len(found), times[0], times[-1]) if times else Found()


def _remove_rejected(scope: Scope) -> Found:
    found = _rejected(scope)
    times = sorted(found.values())
    gone = PredictionRejected.objects.filter(pk__in=list(found)).delete()[0]
    return Found(gone, times[0], times[-1]) if gone else Found()


plug_in(Eraser("predictions", _count_predictions, _remove_predictions))
plug_in(Eraser("refused records", _count_rejected, _remove_rejected))

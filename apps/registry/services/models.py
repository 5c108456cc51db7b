"""Models: make, change, delete."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.accounts.models import Team
from apps.core import events
from apps.core.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.core.events import Actor
from apps.registry.models import Endpoint, RegisteredModel
from apps.registry.models.version import NAME, NAME_LENGTH, RESERVED_NAMES
from apps.registry.services import entries
from apps.registry.snapshot import FullSpool, RecordMode, Redaction
from apps.registry.states import Environment

MAX_TAGS = 50
MAX_TAG = 100
MAX_DEADLINE_SECONDS = 300.0
MAX_CACHE_SECONDS = 30 * 24 * 3600
MAX_REDACTED = 200


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What shall be different about a model; None leaves a field as it is."""

    description: str | None = None
    tags: Sequence[str] | None = None
    cache_seconds: int | None = None
    record: str | None = None
    sample_share: float | None = None
    full_spool: str | None = None
    redact: Mapping[str, str] | None = None
    deadline_seconds: float | None = None

    def given(self) -> dict[str, object]:
        """The fields that shall change."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def check_name(name: str) -> None:
    """Refuse a name that cannot stand in URLs."""
    if not NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        raise _wrong(
            "/name",
            "A model's name begins with a-z or 0-9, goes on with a-z, 0-9, dot, dash or "
            f"underscore, and has at most {NAME_LENGTH} characters.",
        )
    if name in RESERVED_NAMES:
        raise _wrong("/name", f"The name {name} is reserved. Choose another.")


@transaction.atomic
def create_model(
    name: str,
    *,
    team: Team,
    actor: Actor,
    description: str = "",
    tags: Sequence[str] = (),
) -> RegisteredModel:
    """Make a model with its endpoints; nothing is released yet.

    Raises:
        Invalid: The name or a tag breaks a rule.
        Conflict: The name is taken, perhaps by a deleted model or another team.
    """
    check_name(name)
    check_tags(tags)
    try:
        with transaction.atomic():
            model = RegisteredModel.objects.create(
                name=name, team=team, description=description, tags=list(tags)
            )
    except IntegrityError as error:
        raise Conflict(f"The name {name} is taken. Choose another.") from error
    for environment in Environment:
        Endpoint.objects.create(
            model=model,
            environment=environment,
            required=environment is Environment.PRODUCTION,
        )
    events.record("model.created", actor=actor, target=model, team_id=team.pk)
    entries.put_endpoints(model)
    return model


@transaction.atomic
def change_model(
    model: RegisteredModel, change: ModelChange, *, actor: Actor, reason: str = ""
) -> RegisteredModel:
    """Change what a model says of itself and its rules for caching and recording."""
    given = change.given()
    check_change(change)
    model = locked(model)
    before = {name: getattr(model, name) for name in given}
    for name, value in given.items():
        setattr(model, name, list(change.tags or ()) if name == "tags" else value)
    after = {name: getattr(model, name) for name in given}
    if before == after:
        return model
    model.save(update_fields=list(given))
    events.record(
        "model.changed",
        actor=actor,
        target=model,
        team_id=model.team_id,
        reason=reason,
        changes=events.changes(before, after),
    )
    entries.put_endpoints(model)
    return model


@transaction.atomic
def delete_model(model: RegisteredModel, *, actor: Actor, reason: str = "") -> None:
    """Take a model out of service; its rows and files stay for those who audit, its name too."""
    model = locked(model)
    model.deleted_at = timezone.now()
    model.save(update_fields=["deleted_at"])
    events.record(
        "model.deleted",
        actor=actor,
        target=model,
        team_id=model.team_id,
        reason=reason,
        changes=events.changes({}, {"deleted_at": model.deleted_at}),
    )
    entries.drop_model(model)


def locked(model: RegisteredModel) -> RegisteredModel:
    """Take the model's row lock and return it as it is now."""
    RegisteredModel.objects.select_for_update().filter(pk=model.pk).first()
    fresh = RegisteredModel.objects.select_related("team").get(pk=model.pk)
    if fresh.deleted_at is not None:
        raise NotFound("There is no model of this name.")
    return fresh


def check_tags(tags: Sequence[str]) -> None:
    """Refuse tags that no list could show."""
    if len(tags) > MAX_TAGS:
        raise _wrong("/tags", f"A model has at most {MAX_TAGS} tags.")
    for at, tag in enumerate(tags):
        if not isinstance(tag, str) or not 0 < len(tag) <= MAX_TAG:
            raise _wrong(f"/tags/{at}", f"A tag is a text of 1 to {MAX_TAG} characters.")


def check_change(change: ModelChange) -> None:
    check_tags(change.tags or ())
    if change.cache_seconds is not None and not 0 <= change.cache_seconds <= MAX_CACHE_SECONDS:
        raise _wrong("/cache_seconds", f"0 (off) to {MAX_CACHE_SECONDS} seconds.")
    if change.record is not None and change.record not in frozenset(RecordMode):
        raise _wrong("/record", f"One of {', '.join(RecordMode)}.")
    if change.full_spool is not None and change.full_spool not in frozenset(FullSpool):
        raise _wrong("/full_spool", f"One of {', '.join(FullSpool)}.")
    _check_numbers(change)
    _check_redaction(change.redact or {})


def _check_numbers(change: ModelChange) -> None:
    share, deadline = change.sample_share, change.deadline_seconds
    if share is not None and not (math.isfinite(share) and 0 <= share <= 1):
        raise _wrong("/sample_share", "A share lies between 0 and 1.")
    if deadline is not None and not (
        math.isfinite(deadline) and 0 < deadline <= MAX_DEADLINE_SECONDS
    ):
        raise _wrong("/deadline_seconds", f"Above 0 and at most {MAX_DEADLINE_SECONDS:.0f} s.")


def _check_redaction(redact: Mapping[str, str]) -> None:
    if len(redact) > MAX_REDACTED:
        raise _wrong("/redact", f"At most {MAX_REDACTED} fields can be redacted.")
    for name, how in redact.items():
        if "\x00" in name:
            raise _wrong("/redact", "A field's name holds no NUL.")
        if how not in frozenset(Redaction):
            raise _wrong(f"/redact/{name}", f"One of {', '.join(Redaction)}.")


def _wrong(pointer: str, detail: str) -> Invalid:
    error = Invalid(detail)
    error.at([FieldProblem(pointer, detail)])
    return error

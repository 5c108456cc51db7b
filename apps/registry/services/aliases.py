"""Aliases: movable names for versions, known to serving processes at once."""

from django.db import transaction

from apps.core import events
from apps.core.errors import Conflict, FieldProblem, Invalid
from apps.core.events import Actor
from apps.registry import selectors
from apps.registry.models import Alias, ModelVersion, RegisteredModel
from apps.registry.models.version import NAME, NAME_LENGTH
from apps.registry.services import entries, models
from apps.registry.states import RELEASABLE


@transaction.atomic
def set_alias(
    model: RegisteredModel, name: str, *, version: int, actor: Actor, reason: str = ""
) -> Alias:
    """Point a name at a version, newly or anew.

    Raises:
        Invalid: The name cannot stand in URLs.
        Conflict: The version is not one that may serve.
    """
    if not NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        detail = "An alias begins with a-z or 0-9 and goes on with those, dot, dash, underscore."
        raise Invalid(detail).at([FieldProblem("/alias", detail)])
    model = models.locked(model)
    target = selectors.find_version(model, version)
    ModelVersion.objects.select_for_update().get(pk=target.pk)
    target.refresh_from_db(fields=["state"])
    if target.state not in RELEASABLE:
        raise Conflict(f"{target} is {target.state}; an alias points to a ready version.")
    before = Alias.objects.select_related("version").filter(model=model, name=name).first()
    alias, _ = Alias.objects.update_or_create(model=model, name=name, defaults={"version": target})
    events.record(
        "alias.set",
        actor=actor,
        target=model,
        team_id=model.team_id,
        reason=reason,
        alias=name,
        version=version,
        was=before.version.number if before else None,
        changes=events.changes(
            {"version": before.version.number if before else None}, {"version": version}
        ),
    )
    entries.put_endpoints(model)
    return alias


@transaction.atomic
def remove_alias(alias: Alias, *, actor: Actor, reason: str = "") -> None:
    """Forget a name; the version stays."""
    model = models.locked(alias.model)
    name, number = alias.name, alias.version.number
    gone, _ = Alias.objects.filter(pk=alias.pk).delete()
    if not gone:
        raise Conflict(f"The alias {name} is gone already.")
    events.record(
        "alias.removed",
        actor=actor,
        target=model,
        team_id=model.team_id,
        reason=reason,
        alias=name,
        version=number,
        changes=events.changes({"version": number}, {}),
    )
    entries.put_endpoints(model)

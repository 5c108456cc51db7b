"""The later life of a version: deprecate, archive, restore."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from apps.core import events
from apps.core.errors import Conflict
from apps.core.events import Actor
from apps.registry import selectors
from apps.registry.models import Alias, ModelVersion, Release
from apps.registry.services import entries
from apps.registry.states import ReleaseState, VersionState, may_move


def move_version(
    version: ModelVersion,
    to: VersionState,
    *,
    actor: Actor,
    reason: str = "",
    columns: Mapping[str, Any] | None = None,
) -> None:
    """Move a version from the state it was seen in, with its event; inside a transaction.

    ``columns`` are what else of the row becomes true by this move, such as the verdict.

    Raises:
        Conflict: The table of moves, or somebody who was quicker, forbids it.
    """
    here = VersionState(version.state)
    if not may_move(here, to):
        raise Conflict(f"{version} is {here}; from there it cannot become {to}.")
    moved = ModelVersion.objects.filter(pk=version.pk, state=here).update(
        state=to, **(columns or {})
    )
    if not moved:
        raise Conflict(f"{version} is no longer {here}. Look at what changed.")
    version.state = to.value
    events.record(
        f"version.{to.value}",
        actor=actor,
        target=version,
        team_id=version.model.team_id,
        reason=reason,
        model=version.model.name,
        number=version.number,
        was=here.value,
        changes=events.changes({"state": here.value}, {"state": to.value}),
    )


@transaction.atomic
def deprecate(version: ModelVersion, *, actor: Actor, reason: str = "") -> ModelVersion:
    """Warn people off a version; what it serves it goes on serving."""
    version = _locked(version)
    move_version(version, VersionState.DEPRECATED, actor=actor, reason=reason)
    return version


@transaction.atomic
def archive(version: ModelVersion, *, actor: Actor, reason: str = "") -> ModelVersion:
    """Take a version out of use; its files stay.

    Raises:
        Conflict: It serves somewhere, or an alias points to it.
    """
    version = _locked(version)
    _check_unused(version)
    was_loadable = version.was_judged_good
    move_version(version, VersionState.ARCHIVED, actor=actor, reason=reason)
    if was_loadable:
        entries.drop_version(version)
    return version


@transaction.atomic
def restore(version: ModelVersion, *, actor: Actor, reason: str = "") -> ModelVersion:
    """Bring a deprecated or archived version back to ready.

    Raises:
        Conflict: Validation never found it good.
    """
    version = _locked(version)
    if not version.was_judged_good:
        raise Conflict(
            f"{version} never passed validation, so it cannot be restored. Upload a new version."
        )
    move_version(version, VersionState.READY, actor=actor, reason=reason)
    entries.put_version(version)
    return version


def _locked(version: ModelVersion) -> ModelVersion:
    """Take the version's row lock: a release that wants it at this moment waits, or came first."""
    ModelVersion.objects.select_for_update().get(pk=version.pk)
    return selectors.find_version(version.model, version.number)


def _check_unused(version: ModelVersion) -> None:
    serving = selectors.environments_serving(version)
    if serving:
        raise Conflict(
            f"{version} serves in {', '.join(serving)}. Release another version there first."
        )
    waiting = Release.objects.filter(
        endpoint__model_id=version.model_id, state=ReleaseState.AWAITING_APPROVAL
    )
    if any(version.number in release.version_numbers for release in waiting):
        raise Conflict(f"A release of {version} awaits approval. Decide on that first.")
    alias = Alias.objects.filter(version=version).first()
    if alias is not None:
        raise Conflict(f"The alias {alias.name} points to {version}. Move it first.")

"""Releases: what serves at an endpoint, decided by compare-and-set under the endpoint's lock.

Each action writes the release, its event and the endpoint's snapshot entry in one transaction.
Lock order everywhere: endpoint, versions, snapshot clock.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from apps.core import events
from apps.core.errors import Conflict, FieldProblem, Invalid, NotAllowed, NotFound
from apps.core.events import Actor
from apps.registry import selectors
from apps.registry.models import Endpoint, ModelVersion, Release
from apps.registry.release_checks import with_share
from apps.registry.services import entries
from apps.registry.snapshot import Arm, ArmRole, arm_to_json
from apps.registry.states import RELEASABLE, Environment, ReleaseState, may_decide

MAX_ARMS = 20
MAX_REASON = 2000
SHARE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Plan:
    """How a release divides its traffic, beside its arms; experiments fill it in.

    ``parameters`` are the deployment parameters that belong to the release.
    """

    salt: str = ""
    coverage: float = 1.0
    namespace: str = ""
    experiment: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


def primary(version: int) -> tuple[Arm, ...]:
    """One version that takes everything."""
    return (Arm(version=version, role=ArmRole.PRIMARY, ranges=((0.0, 1.0),)),)


def arms_by_share(shares: Sequence[tuple[int, ArmRole, float, str | None]]) -> tuple[Arm, ...]:
    """Lay shares side by side on [0, 1): version, role, share (0 to 1), variant.

    A shadow answers nobody, so its share lies beside the others and starts at 0.
    """
    arms: list[Arm] = []
    at = 0.0
    for version, role, share, variant in shares:
        low = 0.0 if role is ArmRole.SHADOW else at
        high = low + share
        if abs(high - 1.0) < SHARE_TOLERANCE:
            high = 1.0
        arms.append(Arm(version, role, ((low, high),) if share > 0 else (), variant))
        if role is not ArmRole.SHADOW:
            at = high
    return tuple(arms)


@transaction.atomic
def make_release(
    endpoint: Endpoint,
    *,
    reason: str,
    actor: Actor,
    person_id: int | None = None,
    version: int | None = None,
    arms: Sequence[Arm] = (),
    expected_release: int | None = None,
    plan: Plan | None = None,
) -> Release:
    """Release one version, or several as arms, to an endpoint.

    Args:
        endpoint: What clients call.
        reason: Why, in the actor's words.
        actor: Who asks.
        person_id: The user behind the actor, who may not approve this release; None for the
            system and for an operator at the command line.
        version: Number of the version that takes everything; or else ``arms``.
        arms: Several versions with their parts of the traffic.
        expected_release: Number of the live release the actor saw, 0 for none; None does not
            look.
        plan: Salt, coverage and what else an experiment decides.

    Returns:
        The release: live, or awaiting approval where production asks for a second person.

    Raises:
        Invalid: The arms or the reason break a rule.
        Conflict: Another release is live than expected, or a version may not be released.
    """
    _check_reason(reason)
    wanted = _checked_arms(version, arms)
    endpoint = _locked(endpoint)
    live = selectors.live_release(endpoint)
    _check_expected(live, expected_release)
    _check_versions(endpoint, wanted)
    return _write(
        endpoint,
        live,
        waits=needs_approval(endpoint.environment),
        row=Release(
            **_planned(endpoint, plan or Plan()),
            arms=[arm_to_json(arm) for arm in wanted],
            reason=reason.strip(),
            requested_by_id=person_id,
        ),
        actor=actor,
    )


@transaction.atomic
def approve(
    release: Release,
    *,
    actor: Actor,
    person_id: int,
    reason: str = "",
    expected_release: int | None = None,
) -> Release:
    """Let a waiting release go live; only another person than the one who asked may.

    ``expected_release`` is the number of the live release the person saw, 0 for none; None does
    not look.

    Raises:
        NotAllowed: The person asked for it.
        Conflict: It no longer waits, something newer went live in between, or another release is
            live than expected.
    """
    endpoint = _locked(release.endpoint)
    release = selectors.find_release(endpoint, release.number)
    _check_decision(release, ReleaseState.LIVE)
    if release.requested_by_id == person_id:
        raise NotAllowed("You asked for this release; another person approves it.")
    live = selectors.live_release(endpoint)
    if live is not None and live.number > release.number:
        raise Conflict(
            f"Release {live.number} went live after release {release.number} was asked for. "
            "Ask for a new release."
        )
    _check_expected(live, expected_release)
    _check_versions(endpoint, release.typed_arms())
    _replace(live)
    _decide(release, ReleaseState.LIVE, actor=actor, person_id=person_id, reason=reason)
    _announce(release, "release.live", actor, reason, live)
    entries.put_endpoint(endpoint)
    return release


@transaction.atomic
def reject(release: Release, *, actor: Actor, person_id: int | None, reason: str) -> Release:
    """Refuse a waiting release."""
    _check_reason(reason)
    endpoint = _locked(release.endpoint)
    release = selectors.find_release(endpoint, release.number)
    _check_decision(release, ReleaseState.REJECTED)
    _decide(release, ReleaseState.REJECTED, actor=actor, person_id=person_id, reason=reason)
    _announce(release, "release.rejected", actor, reason, None)
    return release


@transaction.atomic
def roll_back(
    endpoint: Endpoint,
    *,
    actor: Actor,
    person_id: int | None = None,
    reason: str = "",
    to: int | None = None,
    expected_release: int | None = None,
) -> Release:
    """Make a new live release with the arms of an older one.

    It never waits for approval: what it brings back has been live here before. ``to`` is the
    number of the release to go back to; None takes the newest one before the live one that served
    something else.

    Raises:
        Conflict: Another release is live than expected, or there is nothing to go back to.
    """
    endpoint = _locked(endpoint)
    live = selectors.live_release(endpoint)
    _check_expected(live, expected_release)
    target = _before(endpoint, live) if to is None else _served_once(endpoint, to)
    _check_versions(endpoint, target.typed_arms())
    return _write(
        endpoint,
        live,
        waits=False,
        row=Release(
            salt=target.salt,
            coverage=target.coverage,
            namespace=target.namespace,
            experiment=target.experiment,
            parameters=target.parameters,
            arms=target.arms,
            reason=reason.strip(),
            requested_by_id=person_id,
            rolled_back_to=target,
        ),
        actor=actor,
    )


def mark_rolled_out(model: str, environment: str, number: int) -> bool:
    """Note that every serving process runs a release; return whether that was news.

    It is asked again and again, so without news it only reads.
    """
    release = (
        Release.objects.select_related("endpoint__model", "rolled_back_to")
        .filter(
            endpoint__model__name=model,
            endpoint__environment=environment,
            number=number,
            rolled_out_at__isnull=True,
        )
        .first()
    )
    if release is None:
        return False
    with transaction.atomic():
        news = Release.objects.filter(pk=release.pk, rolled_out_at__isnull=True)
        if not news.update(rolled_out_at=timezone.now()):
            return False
        _announce(release, "release.rolled_out", Actor.system(), "", None)
    return True


def _locked(endpoint: Endpoint) -> Endpoint:
    """Take the endpoint's row lock: its releases are made one after the other."""
    Endpoint.objects.select_for_update().get(pk=endpoint.pk)
    fresh = Endpoint.objects.select_related("model__team").get(pk=endpoint.pk)
    if fresh.model.deleted_at is not None:
        raise NotFound("There is no model of this name.")
    return fresh


def needs_approval(environment: str) -> bool:
    """Whether releases there wait for a second person."""
    return environment == Environment.PRODUCTION and bool(settings.REQUIRE_APPROVAL)


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise Invalid("Say why; the reason stays in the history.").at(
            [FieldProblem("/reason", "A reason is needed.")]
        )
    if len(reason) > MAX_REASON:
        raise Invalid(f"A reason has at most {MAX_REASON} characters.").at(
            [FieldProblem("/reason", f"At most {MAX_REASON} characters.")]
        )


def _wrong_arms(detail: str) -> Invalid:
    error = Invalid(detail)
    error.at([FieldProblem("/arms", detail)])
    return error


def _checked_arms(version: int | None, arms: Sequence[Arm]) -> tuple[Arm, ...]:
    if (version is None) == (not arms):
        raise Invalid("Name either one `version` or the `arms`.").at(
            [FieldProblem("/version", "Either `version` or `arms`.")]
        )
    wanted = primary(version) if version is not None else tuple(arms)
    if len(wanted) > MAX_ARMS:
        raise _wrong_arms(f"A release has at most {MAX_ARMS} arms.")
    answering = [arm for arm in wanted if arm.role is not ArmRole.SHADOW]
    if sum(arm.role is ArmRole.PRIMARY for arm in answering) != 1:
        raise _wrong_arms("Exactly one arm has the role primary.")
    for arm in wanted:
        _check_ranges(arm.ranges)
    _check_ranges([piece for arm in answering for piece in arm.ranges])
    if not math.isclose(sum(arm.share for arm in answering), 1.0, abs_tol=1e-6):
        raise _wrong_arms("The shares of the arms that answer add up to 1.")
    return wanted


def _check_ranges(ranges: Sequence[tuple[float, float]]) -> None:
    end = 0.0
    for low, high in sorted(ranges):
        if not (math.isfinite(low) and math.isfinite(high) and 0 <= low < high <= 1):
            raise _wrong_arms("A range lies in [0, 1) and its end is above its start.")
        if low < end - SHARE_TOLERANCE:
            raise _wrong_arms("The ranges of the arms do not overlap.")
        end = high


def _check_expected(live: Release | None, expected: int | None) -> None:
    number = 0 if live is None else live.number
    if expected is not None and expected != number:
        now = f"Release {number} is live now" if number else "Nothing is live now"
        raise Conflict(
            f"{now}, you expected {expected or 'nothing'}. Look at what changed and ask again."
        )


def _check_versions(endpoint: Endpoint, arms: Sequence[Arm]) -> None:
    """Refuse versions that may not serve; their row locks keep them so until the commit."""
    numbers = sorted({arm.version for arm in arms})
    found = {
        one.number: one
        for one in ModelVersion.objects.select_for_update()
        .filter(model_id=endpoint.model_id, number__in=numbers)
        .order_by("number")
    }
    name = endpoint.model.name
    for number in numbers:
        version = found.get(number)
        if version is None:
            raise Conflict(f"{name} has no version {number}.")
        if version.state not in RELEASABLE:
            raise Conflict(
                f"{name} {number} is {version.state}; only a version that is ready or deprecated "
                "can be released."
            )
        if version.runtime != "onnx" and version.runtime not in settings.NATIVE_FORMATS:
            raise Conflict(
                f"{name} {number} is served natively by {version.runtime}, which this "
                "installation does not allow (MLP_NATIVE_FORMATS)."
            )
    if endpoint.required:
        _check_memory(endpoint, found.values())


def _check_memory(endpoint: Endpoint, versions: Iterable[ModelVersion]) -> None:
    """Refuse what would never fit: required versions stay loaded in every serving process."""
    needed = memory_needed(endpoint, versions)
    if needed > settings.POOL_BYTES:
        raise Conflict(
            f"With this release the models that must stay loaded need {needed // 1024**2} MB; "
            f"a serving process has {settings.POOL_BYTES // 1024**2} MB (MLP_POOL_MB)."
        )


def memory_needed(endpoint: Endpoint, versions: Iterable[ModelVersion]) -> int:
    """Return the bytes that all required models take when these versions serve at an endpoint."""
    others = Release.objects.filter(
        state=ReleaseState.LIVE,
        endpoint__required=True,
        endpoint__model__deleted_at__isnull=True,
    ).exclude(endpoint=endpoint)
    wanted: dict[int, set[int]] = {}
    for model_id, arms in others.values_list("endpoint__model_id", "arms"):
        wanted.setdefault(model_id, set()).update(int(arm["version"]) for arm in arms)
    rows = ModelVersion.objects.filter(model_id__in=wanted).values_list(
        "model_id", "number", "resident_bytes"
    )
    taken = sum(size for model_id, number, size in rows if number in wanted[model_id])
    return taken + sum(version.resident_bytes for version in versions)


def _planned(endpoint: Endpoint, plan: Plan) -> dict[str, Any]:
    # One salt for all releases of an endpoint keeps a unit in its arm while a canary grows.
    return {
        "salt": plan.salt or f"{endpoint.environment}/{endpoint.model.name}",
        "coverage": plan.coverage,
        "namespace": plan.namespace,
        "experiment": plan.experiment,
        "parameters": dict(plan.parameters),
    }


def _write(
    endpoint: Endpoint, live: Release | None, *, waits: bool, row: Release, actor: Actor
) -> Release:
    newest = Release.objects.filter(endpoint=endpoint).aggregate(number=Max("number"))["number"]
    row.endpoint = endpoint
    row.number = (newest or 0) + 1
    row.state = ReleaseState.AWAITING_APPROVAL if waits else ReleaseState.LIVE
    row.decided = None if waits else timezone.now()
    row.actor_kind, row.actor_id, row.actor_name = actor.kind, actor.id, actor.name
    if not waits:
        _replace(live)
    row.save(force_insert=True)
    if waits:
        _announce(row, "release.requested", actor, row.reason, None)
        return row
    _announce(row, "release.live", actor, row.reason, live)
    entries.put_endpoint(endpoint)
    return row


def _replace(live: Release | None) -> None:
    if live is None:
        return
    moved = Release.objects.filter(pk=live.pk, state=ReleaseState.LIVE).update(
        state=ReleaseState.REPLACED
    )
    if not moved:
        raise Conflict(f"Release {live.number} is no longer live. Look at what changed.")


def _check_decision(release: Release, to: ReleaseState) -> None:
    if not may_decide(ReleaseState(release.state), to):
        raise Conflict(f"Release {release.number} no longer waits for approval: {release.state}.")


def _decide(
    release: Release, to: ReleaseState, *, actor: Actor, person_id: int | None, reason: str
) -> None:
    decided = timezone.now()
    moved = Release.objects.filter(pk=release.pk, state=ReleaseState.AWAITING_APPROVAL).update(
        state=to,
        decided=decided,
        approver_id=person_id,
        approver_name=actor.name,
        decision_reason=reason.strip()[:MAX_REASON],
    )
    if not moved:
        raise Conflict(f"Release {release.number} no longer waits for approval.")
    release.refresh_from_db()


def _arms_of(release: Release) -> list[dict[str, Any]]:
    return [
        {"version": arm.version, "role": arm.role.value, "share": round(arm.share, 9)}
        for arm in release.typed_arms()
    ]


def _announce(
    release: Release, verb: str, actor: Actor, reason: str, replaces: Release | None
) -> None:
    facts: dict[str, Any] = {
        "model": release.endpoint.model.name,
        "environment": release.endpoint.environment,
        "number": release.number,
        "arms": _arms_of(release),
    }
    if replaces is not None:
        facts["replaces"] = replaces.number
        facts["replaced_versions"] = sorted(replaces.version_numbers)
    if verb == "release.live":
        before = {"release": replaces.number, "arms": _arms_of(replaces)} if replaces else {}
        after = {"release": release.number, "arms": _arms_of(release)}
        facts["changes"] = events.changes(before, after)
    if release.rolled_back_to is not None:
        facts["rolled_back_to"] = release.rolled_back_to.number
    if release.approver_name and verb == "release.live":
        facts |= {"asked_by": release.actor_name, "asked_because": release.reason}
    events.record(
        verb,
        actor=actor,
        target=release,
        team_id=release.endpoint.model.team_id,
        reason=reason.strip(),
        **facts,
    )


def _served_once(endpoint: Endpoint, number: int) -> Release:
    target = selectors.find_release(endpoint, number)
    if target.state == ReleaseState.LIVE:
        raise Conflict(f"Release {number} is live already.")
    if target.state != ReleaseState.REPLACED:
        raise Conflict(f"Release {number} never served, so there is nothing to go back to.")
    return target


def arms_with(live: Release | None, version: int, percent: int) -> tuple[Arm, ...]:
    """Return arms in which a version has so many percent and the live ones share the rest.

    Raises:
        Invalid: Less than all was asked for where nothing else serves.
    """
    if percent == 100:
        return primary(version)
    now = live.typed_arms() if live else ()
    return arms_by_share(with_share(now, version, percent / 100))


def rollback_target(endpoint: Endpoint) -> Release | None:
    """Return what a roll-back without a number goes back to, if anything."""
    try:
        return _before(endpoint, selectors.live_release(endpoint))
    except Conflict:
        return None


def _before(endpoint: Endpoint, live: Release | None) -> Release:
    """Find the newest release before the live one that served something else.

    Going back twice goes further back: a roll-back stands where the release it brought back stood.
    """
    if live is None:
        raise Conflict(f"Nothing is live at {endpoint}, so there is nothing to roll back.")
    origin = live
    while origin.rolled_back_to is not None:
        origin = origin.rolled_back_to
    older = selectors.releases_of(endpoint).filter(
        number__lt=origin.number, state=ReleaseState.REPLACED
    )
    target = next((one for one in older.iterator() if one.arms != live.arms), None)
    if target is None:
        raise Conflict(f"Nothing else was ever live at {endpoint} before release {origin.number}.")
    return target

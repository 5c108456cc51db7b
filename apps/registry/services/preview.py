"""What a release would change, and what is looked at before: for those who ask and who decide.

Reads only. The action looks again under its locks: what a preview says is true for its moment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from apps.accounts.callers import Caller
from apps.accounts.models import Membership
from apps.accounts.policies import Action, Thing, may
from apps.accounts.snapshot import Role
from apps.core.errors import Invalid
from apps.registry import release_checks as checks
from apps.registry import selectors
from apps.registry.models import Endpoint, ModelVersion, Release
from apps.registry.release_checks import Check, Move
from apps.registry.services import releases
from apps.registry.signature import signature_from_json
from apps.registry.snapshot import Arm, ArmRole
from apps.registry.states import Environment


@dataclass(frozen=True, slots=True)
class Preview:
    """A release before it is made or decided.

    Attributes:
        live: What serves now, if anything.
        after: The arms that would serve.
        waits: Whether a second person must approve it.
    """

    endpoint: Endpoint
    live: Release | None
    after: tuple[Arm, ...]
    waits: bool
    checks: tuple[Check, ...]

    @property
    def before(self) -> tuple[Arm, ...]:
        """The arms that serve now."""
        return self.live.typed_arms() if self.live else ()

    @property
    def move(self) -> Move:
        """How the traffic moves."""
        return checks.move_between(self.before, self.after)

    @property
    def blocking(self) -> tuple[Check, ...]:
        """The checks that make it impossible."""
        return tuple(one for one in self.checks if one.blocks)


def of_wish(endpoint: Endpoint, version: ModelVersion, percent: int, *, caller: Caller) -> Preview:
    """Preview the release of one version with so many percent of the traffic."""
    live = selectors.live_release(endpoint)
    waits = releases.needs_approval(endpoint.environment)
    after, wrong = releases.primary(version.number), None
    try:
        after = releases.arms_with(live, version.number, percent)
    except Invalid as error:
        wrong = checks.refused("Share", error.message)
    asked = Action.RELEASE_ASK if waits else Action.RELEASE_MAKE
    found = _checks(endpoint, live, after, waits=waits, action=asked, caller=caller)
    return Preview(endpoint, live, after, waits, (*([wrong] if wrong else ()), *found))


def of_waiting(release: Release, *, caller: Caller) -> Preview:
    """Preview a release that waits for a decision."""
    endpoint = release.endpoint
    live = selectors.live_release(endpoint)
    found = _checks(
        endpoint,
        live,
        release.typed_arms(),
        waits=True,
        action=Action.RELEASE_APPROVE,
        caller=caller,
        waiting=release,
    )
    return Preview(endpoint, live, release.typed_arms(), True, found)


def of_rollback(target: Release, *, caller: Caller) -> Preview:
    """Preview going back to what a release served; it never waits."""
    endpoint = target.endpoint
    live = selectors.live_release(endpoint)
    after = target.typed_arms()
    action = Action.RELEASE_ROLL_BACK
    found = _checks(endpoint, live, after, waits=False, action=action, caller=caller)
    return Preview(endpoint, live, after, False, found)


def deciders_of(endpoint: Endpoint, action: Action, *, but: int | None) -> list[str]:
    """Return the names of the team's members, one left out, who may do something there."""
    team, thing = endpoint.model.team_id, _thing(endpoint)
    members = Membership.objects.filter(team_id=team, user__is_active=True)
    if but is not None:
        members = members.exclude(user_id=but)
    rows = members.order_by("user__username").values_list("user_id", "user__username", "role")
    return [
        name
        for user_id, name, role in rows
        if may(Caller(user_id, name, False, {team: Role(role)}, frozenset()), action, thing)
    ]


def _thing(endpoint: Endpoint) -> Thing:
    return Thing(endpoint.model.team_id, endpoint.model.name, endpoint.environment)


def _checks(
    endpoint: Endpoint,
    live: Release | None,
    after: Sequence[Arm],
    *,
    waits: bool,
    action: Action,
    caller: Caller,
    waiting: Release | None = None,
) -> tuple[Check, ...]:
    production = live if endpoint.environment == Environment.PRODUCTION else _production(endpoint)
    known = _versions(endpoint, after, live, production)
    serving = {arm.version: known[arm.version] for arm in after if arm.version in known}
    found = [
        checks.validation_check({number: one.state for number, one in serving.items()}),
        checks.runtime_check(_natives(serving), settings.NATIVE_FORMATS),
        _memory(endpoint, serving),
        *_signatures(known, live, after),
        *_metrics(known, production, after),
        _order(endpoint, live, waiting),
        _who_decides(endpoint, waits=waits, action=action, caller=caller, waiting=waiting),
    ]
    return tuple(one for one in found if one is not None)


def _production(endpoint: Endpoint) -> Release | None:
    return selectors.live_release(
        selectors.find_endpoint(endpoint.model, Environment.PRODUCTION.value)
    )


def _versions(
    endpoint: Endpoint, after: Sequence[Arm], *others: Release | None
) -> Mapping[int, ModelVersion]:
    numbers = {arm.version for arm in after}
    for one in others:
        numbers |= one.version_numbers if one else frozenset()
    rows = ModelVersion.objects.filter(model_id=endpoint.model_id, number__in=numbers)
    shown = rows.only("number", "state", "runtime", "resident_bytes", "signature", "metrics")
    return {one.number: one for one in shown.order_by("number")}


def _natives(serving: Mapping[int, ModelVersion]) -> dict[int, str]:
    return {
        number: one.runtime
        for number, one in serving.items()
        if one.runtime and one.runtime != "onnx"
    }


def _memory(endpoint: Endpoint, serving: Mapping[int, ModelVersion]) -> Check:
    if endpoint.required:
        needed = releases.memory_needed(endpoint, serving.values())
    else:
        needed = max((one.resident_bytes for one in serving.values()), default=0)
    return checks.memory_check(needed, settings.POOL_BYTES, required=endpoint.required)


def _main(arms: Sequence[Arm]) -> int | None:
    """Return the version that answers most."""
    return next((arm.version for arm in arms if arm.role is ArmRole.PRIMARY), None)


def _main_of(release: Release | None) -> int | None:
    return _main(release.typed_arms()) if release else None


def _new(after: Sequence[Arm], known: int | None) -> list[int]:
    """Return the versions that would answer and are not the one they are compared with."""
    return [number for number in checks.shares_of(after) if number != known]


def _signatures(
    known: Mapping[int, ModelVersion], live: Release | None, after: Sequence[Arm]
) -> list[Check]:
    number = _main_of(live)
    old = known.get(number) if number is not None else None
    before = signature_from_json(old.signature) if old and old.signature else None
    return [
        checks.signature_check(before, signature_from_json(one.signature), live=number)
        for one in (known.get(new) for new in _new(after, number))
        if one is not None and one.signature
    ][:1]


def _metrics(
    known: Mapping[int, ModelVersion], production: Release | None, after: Sequence[Arm]
) -> list[Check]:
    number = _main_of(production)
    live = known.get(number) if number is not None else None
    old: dict[str, Any] = live.metrics if live else {}
    return [
        checks.metrics_check(old, known[new].metrics, live=number)
        for new in _new(after, number)
        if new in known
    ][:1]


def _order(endpoint: Endpoint, live: Release | None, waiting: Release | None) -> Check | None:
    rows = selectors.awaiting_approval(selectors.releases_of(endpoint))
    numbers = list(rows.order_by("number").values_list("number", flat=True)[:10])
    mine = waiting.number if waiting else None
    return checks.newest_check(mine, numbers, live.number if live else None)


def _who_decides(
    endpoint: Endpoint, *, waits: bool, action: Action, caller: Caller, waiting: Release | None
) -> Check:
    asker = waiting.requested_by_id if waiting else caller.user_id
    decision = Action.RELEASE_APPROVE if waits else action
    names = deciders_of(endpoint, decision, but=asker)
    allowed = may(caller, action, _thing(endpoint))
    return checks.approval_check(
        endpoint.environment, waits=waits, may_release=allowed, deciders=names
    )

"""Which version answers a call: from the snapshot's bodies and a salted hash, without any state.

The hash is GrowthBook's version 2, so that their SDKs, given the same seed, agree with us. Nothing
is remembered per unit: the same unit gets the same arm because it hashes to the same place.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from apps.core.errors import FieldProblem, Invalid
from apps.inference.engine.errors import NotReleased, UnknownModel
from apps.inference.engine.types import PredictCall, Source
from apps.registry.snapshot import Arm, ArmRole, EndpointBody, ReleaseBody, VersionBody

TRY_ARM = "try"


@dataclass(frozen=True, slots=True)
class Routes:
    """Everything a process may route to; replaced as a whole, never changed.

    Attributes:
        endpoints: Endpoint bodies by (environment, model).
        versions: Version bodies by (model, number).
        models: Names that stand in either; an unknown name is told apart from an unreleased one.
    """

    endpoints: Mapping[tuple[str, str], EndpointBody] = field(default_factory=dict)
    versions: Mapping[tuple[str, int], VersionBody] = field(default_factory=dict)
    models: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = {model for _, model in self.endpoints} | {model for model, _ in self.versions}
        object.__setattr__(self, "models", frozenset(names))

    @classmethod
    def of(cls, endpoints: Iterable[EndpointBody], versions: Iterable[VersionBody]) -> "Routes":
        """Build routes from the bodies of the snapshot's entries."""
        return cls(
            {(one.environment, one.model): one for one in endpoints},
            {(one.model, one.number): one for one in versions},
        )

    def endpoint(self, environment: str, model: str) -> EndpointBody | None:
        """Find the endpoint a caller means, for the team check before a call is submitted."""
        return self.endpoints.get((environment, model))

    def known(self, model: str) -> bool:
        """Whether the name stands anywhere in the snapshot."""
        return model in self.models

    def required(self) -> tuple[VersionBody, ...]:
        """List the versions that must be warm before this process is ready."""
        wanted = {
            (one.model, arm.version)
            for one in self.endpoints.values()
            if one.settings.required and one.release is not None
            for arm in one.release.arms
        }
        return tuple(self.versions[key] for key in sorted(wanted) if key in self.versions)


@dataclass(frozen=True, slots=True)
class Route:
    """Where one call goes.

    Attributes:
        arm: Role of the chosen arm, or ``try``.
        variant: Set only when the call counts for the experiment.
        experiment: The same.
    """

    endpoint: EndpointBody
    version: VersionBody
    arm: str
    variant: str | None
    release: int | None
    experiment: str | None


def fnv1a32(text: str) -> int:
    """Hash a text as GrowthBook's JavaScript does: one step per UTF-16 unit, not per byte.

    Source:
        FNV-1a, 32 bits (Fowler, Noll, Vo); units as ``String.charCodeAt`` gives them, so that ids
        outside ASCII land in the same place as in a browser.
    """
    hashed = 0x811C9DC5
    units = memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")
    for unit in units:
        hashed = ((hashed ^ unit) * 0x01000193) & 0xFFFFFFFF
    return hashed


def position(salt: str, unit: str) -> float:
    """Place a unit in [0, 1), in steps of 1/10000.

    Source:
        GrowthBook SDK specification, hash version 2.
    """
    return fnv1a32(str(fnv1a32(salt + unit))) % 10000 / 10000


def choose(
    release: ReleaseBody, *, unit: str | None, prediction_id: str
) -> tuple[Arm, bool] | None:
    """Pick the arm that answers, and say whether the call counts for the experiment.

    An experiment between variants needs a unit: without one the primary answers and nothing is
    counted. A plain split or canary falls back on the prediction id. Coverage trims every range
    from its top, so raising it never moves a unit from one arm to another.

    Returns:
        The arm and whether it was drawn; None when no arm may answer.
    """
    answering = [arm for arm in release.arms if arm.role is not ArmRole.SHADOW]
    primary = next((arm for arm in answering if arm.role is ArmRole.PRIMARY), None)
    if len(answering) == 1 and release.experiment is None:
        return answering[0], True
    if unit is None and any(arm.variant is not None for arm in answering):
        return None if primary is None else (primary, False)
    here = position(release.salt, prediction_id if unit is None else unit)
    drawn = next((arm for arm in answering if _covers(arm, here, release.coverage)), None)
    if drawn is not None:
        return drawn, True
    return None if primary is None else (primary, False)


def _covers(arm: Arm, here: float, coverage: float) -> bool:
    return any(low <= here < low + (high - low) * coverage for low, high in arm.ranges)


def resolve(routes: Routes, call: PredictCall, prediction_id: str) -> Route:
    """Find the version that answers a call.

    Raises:
        UnknownModel: The snapshot has no model of this name.
        NotReleased: Nothing, or not the version asked for, is released where it was asked.
        Invalid: Both a version and an alias were asked for.
    """
    if call.version is not None and call.alias is not None:
        raise Invalid("Ask for a version or for an alias, not for both.").at(
            [FieldProblem("/alias", "Leave out `version` or `alias`.")]
        )
    if call.source is Source.TRY:
        return _tried(routes, call, prediction_id)
    endpoint = routes.endpoint(call.environment, call.model)
    if endpoint is None and not routes.known(call.model):
        raise _unknown(call)
    if endpoint is None or endpoint.release is None:
        raise _unreleased(call)
    arm, counted = _arm_of(endpoint, endpoint.release, call, prediction_id)
    return Route(
        endpoint=endpoint,
        version=_version(routes, call, arm.version),
        arm=arm.role.value,
        variant=arm.variant if counted else None,
        release=endpoint.release.number,
        experiment=endpoint.release.experiment if counted else None,
    )


def _arm_of(
    endpoint: EndpointBody, release: ReleaseBody, call: PredictCall, prediction_id: str
) -> tuple[Arm, bool]:
    number = _number_asked(endpoint, call)
    if number is None:
        chosen = choose(release, unit=call.unit, prediction_id=prediction_id)
        if chosen is None:
            raise _unreleased(call)
        return chosen
    for arm in release.arms:
        if arm.version == number and arm.role is not ArmRole.SHADOW:
            return arm, False  # asked for by name, so nobody drew it: it must not count
    raise NotReleased(
        f"Version {number} of `{call.model}` is not part of the live release in "
        f"{call.environment}. Release it there, or leave out the version.",
        model=call.model,
        version=number,
    )


def _number_asked(endpoint: EndpointBody, call: PredictCall) -> int | None:
    if call.alias is None:
        return call.version
    number = endpoint.aliases.get(call.alias)
    if number is None:
        raise NotReleased(
            f"`{call.model}` has no alias of this name. Set it on the model's page, or leave it "
            "out to get what is released.",
            model=call.model,
        )
    return number


def _tried(routes: Routes, call: PredictCall, prediction_id: str) -> Route:
    """Route a try: any version of the snapshot may answer, and it never counts for anything."""
    endpoint = routes.endpoint(call.environment, call.model) or next(
        (one for one in routes.endpoints.values() if one.model == call.model), None
    )
    if endpoint is None:
        raise _unknown(call)
    number = _number_asked(endpoint, call)
    release = endpoint.release if endpoint.environment == call.environment else None
    if number is None:
        if release is None:
            raise _unreleased(call)
        number = _arm_of(endpoint, release, call, prediction_id)[0].version
    return Route(
        endpoint=endpoint,
        version=_version(routes, call, number),
        arm=TRY_ARM,
        variant=None,
        release=release.number if release else None,
        experiment=None,
    )


def _version(routes: Routes, call: PredictCall, number: int) -> VersionBody:
    body = routes.versions.get((call.model, number))
    if body is None:
        raise NotReleased(
            f"Version {number} of `{call.model}` is not ready to serve. Choose a version in state "
            "ready.",
            model=call.model,
            version=number,
        )
    return body


def _unknown(call: PredictCall) -> UnknownModel:
    return UnknownModel(f"There is no model `{call.model[:100]}`. Check the name in the address.")


def _unreleased(call: PredictCall) -> NotReleased:
    return NotReleased(
        f"`{call.model}` has no live release in {call.environment}. Release a ready version there "
        "first.",
        model=call.model,
    )

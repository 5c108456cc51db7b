"""Typed bodies of the snapshot entries `endpoint` and `version`; plain Python.

The registry writes these bodies in the transaction of a change; serving processes read them from
their local file and nothing else. An entry that cannot be read raises ``ValueError``: the reader
keeps its last good one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from apps.core.errors import Invalid
from apps.registry.signature import Signature, signature_from_json, signature_to_json

ENDPOINT = "endpoint"
VERSION = "version"


class ArmRole(StrEnum):
    """What an arm of a release is for."""

    PRIMARY = "primary"
    CANDIDATE = "candidate"
    SHADOW = "shadow"


class RecordMode(StrEnum):
    """How much of a prediction's inputs and outputs the log keeps."""

    FULL = "full"
    DIGEST = "digest"
    SAMPLE = "sample"


class FullSpool(StrEnum):
    """What a model does when its answers can no longer be recorded."""

    REQUIRED = "required"
    BEST_EFFORT = "best_effort"


class Redaction(StrEnum):
    """What happens to a field before it is recorded."""

    DROP = "drop"
    HASH = "hash"
    MASK = "mask"


@dataclass(frozen=True, slots=True)
class VersionBody:
    """One version that may be loaded.

    Attributes:
        runtime: Name in the runtimes' table: ``onnx``, or a native one that runs in a runner.
        sha256: Digest of the served file, hex; the address in the local artifact cache.
        size: Bytes of the served file.
        storage_key: Name of the served file in the artifact store.
        resident_bytes: Memory measured at validation; what the pool plans with before loading.
    """

    model: str
    number: int
    runtime: str
    sha256: str
    size: int
    storage_key: str
    resident_bytes: int
    signature: Signature


@dataclass(frozen=True, slots=True)
class Arm:
    """One version's part of an endpoint's traffic: half-open ranges of [0, 1)."""

    version: int
    role: ArmRole
    ranges: tuple[tuple[float, float], ...] = ()
    variant: str | None = None

    @property
    def share(self) -> float:
        """Part of the traffic, 0 to 1."""
        return sum(high - low for low, high in self.ranges)


@dataclass(frozen=True, slots=True)
class ReleaseBody:
    """The live release of an endpoint."""

    number: int
    arms: tuple[Arm, ...]
    salt: str = ""
    coverage: float = 1.0
    namespace: str | None = None
    experiment: str | None = None


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The model's own rules for caching and recording, the same in every environment.

    Attributes:
        cache_seconds: How long an equal question gets the stored answer; 0 is off.
        sample_share: With ``record = sample``: part of the calls kept in full, 0 to 1.
        redact: Name of an input, of a column or of an output, or ``unit``, or ``id`` (the
            caller's own id), to what is done to it before the record.
        deadline_seconds: How long a caller waits at the most.
        required: Whether a serving process is ready only with a warm version of this endpoint.
    """

    cache_seconds: int = 0
    record: RecordMode = RecordMode.FULL
    sample_share: float = 1.0
    full_spool: FullSpool = FullSpool.REQUIRED
    redact: Mapping[str, Redaction] = field(default_factory=dict)
    deadline_seconds: float = 10.0
    required: bool = False


@dataclass(frozen=True, slots=True)
class EndpointBody:
    """One model in one environment: who owns it and what serves."""

    model: str
    environment: str
    team_id: int
    release: ReleaseBody | None
    aliases: Mapping[str, int]
    settings: ModelSettings


def endpoint_key(environment: str, model: str) -> str:
    """Key of an `endpoint` entry."""
    return f"{environment}/{model}"


def version_key(model: str, number: int) -> str:
    """Key of a `version` entry."""
    return f"{model}/{number}"


def version_to_json(body: VersionBody) -> dict[str, Any]:
    """Write the body of a `version` entry."""
    return {
        "model": body.model,
        "number": body.number,
        "runtime": body.runtime,
        "sha256": body.sha256,
        "size": body.size,
        "storage_key": body.storage_key,
        "resident_bytes": body.resident_bytes,
        "signature": signature_to_json(body.signature),
    }


def version_from_json(body: Mapping[str, Any]) -> VersionBody:
    """Read the body of a `version` entry; ``ValueError`` when it is damaged."""
    try:
        return VersionBody(
            **{**body, "signature": signature_from_json(body["signature"])},
        )
    except (KeyError, TypeError, Invalid) as error:
        raise ValueError(f"The version entry cannot be read: {error}") from error


def endpoint_to_json(body: EndpointBody) -> dict[str, Any]:
    """Write the body of an `endpoint` entry."""
    return asdict(body)


def endpoint_from_json(body: Mapping[str, Any]) -> EndpointBody:
    """Read the body of an `endpoint` entry; ``ValueError`` when it is damaged."""
    try:
        release = body["release"]
        return EndpointBody(
            model=body["model"],
            environment=body["environment"],
            team_id=body["team_id"],
            release=None if release is None else _release(release),
            aliases=dict(body["aliases"]),
            settings=_settings(body["settings"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"The endpoint entry cannot be read: {error}") from error


def arm_from_json(body: Mapping[str, Any]) -> Arm:
    """Read one arm as a release stores it."""
    return Arm(
        version=body["version"],
        role=ArmRole(body["role"]),
        ranges=tuple((float(low), float(high)) for low, high in body["ranges"]),
        variant=body.get("variant"),
    )


def arm_to_json(arm: Arm) -> dict[str, Any]:
    """Write one arm as a release stores it."""
    return asdict(arm)


def _release(body: Mapping[str, Any]) -> ReleaseBody:
    return ReleaseBody(**{**body, "arms": tuple(arm_from_json(arm) for arm in body["arms"])})


def _settings(body: Mapping[str, Any]) -> ModelSettings:
    return ModelSettings(
        **{
            **body,
            "record": RecordMode(body["record"]),
            "full_spool": FullSpool(body["full_spool"]),
            "redact": {name: Redaction(how) for name, how in body["redact"].items()},
        }
    )

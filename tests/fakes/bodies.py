"""Valid minimal bodies of the snapshot for engine tests; a test states what matters to it."""

import time
from typing import Any

from apps.inference.engine.types import Inputs, PredictCall, RowInputs
from apps.registry.signature import Dtype, Signature, TensorSpec
from apps.registry.snapshot import (
    Arm,
    ArmRole,
    EndpointBody,
    ModelSettings,
    ReleaseBody,
    VersionBody,
)

FOUR_FLOATS = Signature(
    inputs=(TensorSpec("x", Dtype.FLOAT32, (-1, 4)),),
    outputs=(TensorSpec("y", Dtype.FLOAT32, (-1, 1)),),
)


def version_body(number: int = 1, **changes: Any) -> VersionBody:
    fields: dict[str, Any] = {
        "model": "wine",
        "number": number,
        "runtime": "onnx",
        "sha256": f"{number:064x}",
        "size": 10,
        "storage_key": f"wine/{number}",
        "resident_bytes": 1000,
        "signature": FOUR_FLOATS,
    }
    return VersionBody(**{**fields, **changes})


def primary(version: int = 1) -> Arm:
    return Arm(version=version, role=ArmRole.PRIMARY, ranges=((0.0, 1.0),))


def release_body(*arms: Arm, **changes: Any) -> ReleaseBody:
    return ReleaseBody(**{"number": 1, "arms": arms or (primary(),), "salt": "salt", **changes})


def endpoint_body(release: ReleaseBody | None = None, **changes: Any) -> EndpointBody:
    fields: dict[str, Any] = {
        "model": "wine",
        "environment": "production",
        "team_id": 7,
        "release": release or release_body(),
        "aliases": {},
        "settings": ModelSettings(),
    }
    return EndpointBody(**{**fields, **changes})


def predict_call(inputs: Inputs | None = None, **changes: Any) -> PredictCall:
    fields: dict[str, Any] = {
        "model": "wine",
        "environment": "production",
        "inputs": inputs or RowInputs([[1.0, 2.0, 3.0, 4.0]]),
        "deadline": time.monotonic() + 20,
    }
    return PredictCall(**{**fields, **changes})

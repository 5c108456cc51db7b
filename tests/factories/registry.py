"""Models, versions and releases as the services make them, with a real file in the store."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from apps.accounts.models import Team
from apps.core import ids, storage
from apps.core.events import Actor
from apps.registry.clients.sandbox import Policy, Verdict
from apps.registry.models import Endpoint, ModelVersion, RegisteredModel, Release
from apps.registry.services import models, releases, uploads, validation
from apps.registry.services.uploads import About, StoredFile
from apps.registry.signature import Dtype, Signature, TensorSpec, signature_to_json
from apps.registry.states import Environment
from tests.factories.accounts import make_team

SYSTEM = Actor.system()
_number = itertools.count(1)
FEATURES = 4


def tiny_onnx(weight: float = 1.0) -> bytes:
    """A real model: y = x @ w, four features in, one number out."""
    w = numpy_helper.from_array(np.full((FEATURES, 1), weight, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [w],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


TINY_SIGNATURE = Signature(
    inputs=(TensorSpec("x", Dtype.FLOAT32, (-1, FEATURES)),),
    outputs=(TensorSpec("y", Dtype.FLOAT32, (-1, 1)),),
)


class FakeSandbox:
    """Stands in for the sandbox where the verdict, not the looking, is what a test is about."""

    def __init__(self, reason: str | None = None, *, served: bytes | None = None) -> None:
        self.reason = reason
        self.served = served
        self.runtime = "onnx"
        self.resident_bytes = 1 << 20
        self.asked: list[Mapping[str, Any]] = []
        self.error: BaseException | None = None

    @contextmanager
    def __call__(self, file: Path, *, policy: Policy, **facts: Any) -> Iterator[Verdict]:
        self.asked.append({"policy": policy, **facts, "bytes": file.read_bytes()})
        if self.error is not None:
            raise self.error
        path = file
        if self.served is not None:
            path = file.with_name("served")
            path.write_bytes(self.served)
        good = self.reason is None
        report: dict[str, Any] = {
            "verdict": "ready" if good else "rejected",
            "reason": self.reason,
            "format": "onnx",
            "container": "onnx",
            "checks": [],
            "signature": signature_to_json(TINY_SIGNATURE) if good else None,
            "served": {"runtime": self.runtime} if good else None,
            "measurements": {"resident_bytes": self.resident_bytes} if good else None,
            "example": {"instances": [[1, 2, 3, 4]]} if good else None,
        }
        yield Verdict(report, path if good else None, TINY_SIGNATURE if good else None)


def make_model(name: str = "", *, team: Team | None = None) -> RegisteredModel:
    return models.create_model(
        name or f"model-{next(_number)}", team=team or make_team(), actor=SYSTEM
    )


def stored(data: bytes, filename: str = "model.onnx") -> StoredFile:
    key = f"{uploads.INCOMING}/{ids.new_id()}"
    storage.put_bytes(key, data)
    return StoredFile(key, hashlib.sha256(data).hexdigest(), len(data), filename)


def make_upload(
    model: RegisteredModel | None = None,
    *,
    data: bytes | None = None,
    about: About | None = None,
    may_carry_code: bool = False,
    person_id: int | None = None,
) -> ModelVersion:
    model = model or make_model()
    return uploads.receive_version(
        stored(tiny_onnx() if data is None else data),
        model_name=model.name,
        team=model.team,
        actor=SYSTEM,
        person_id=person_id,
        may_carry_code=may_carry_code,
        about=about,
    )


def make_version(model: RegisteredModel | None = None, **upload: Any) -> ModelVersion:
    """A ready version; the sandbox did not really look."""
    version = make_upload(model, **upload)
    validation.validate_version(version.pk, inspect=FakeSandbox())
    version.refresh_from_db()
    return version


def endpoint_of(
    model: RegisteredModel, environment: Environment = Environment.PRODUCTION
) -> Endpoint:
    return Endpoint.objects.select_related("model__team").get(model=model, environment=environment)


def make_release(
    version: ModelVersion, environment: Environment = Environment.PRODUCTION
) -> Release:
    return releases.make_release(
        endpoint_of(version.model, environment),
        version=version.number,
        reason="because",
        actor=SYSTEM,
    )

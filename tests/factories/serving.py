"""A serving node of its own: a snapshot file and artifacts written by hand, without a database."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from onnx import TensorProto, helper, numpy_helper

from apps.accounts.keys import KeyKind, make
from apps.accounts.snapshot import (
    KEY,
    PERSON,
    KeyBody,
    PersonBody,
    Role,
    key_to_json,
    person_to_json,
)
from apps.core.snapshot_file import Entry, SnapshotWriter
from apps.inference import wiring
from apps.inference.engine.spool import frames, record_from, sealed_segments
from apps.inference.node import Node
from apps.registry.signature import Dtype, Signature, TensorSpec
from apps.registry.snapshot import (
    ENDPOINT,
    VERSION,
    Arm,
    ArmRole,
    EndpointBody,
    ModelSettings,
    ReleaseBody,
    VersionBody,
    endpoint_key,
    endpoint_to_json,
    version_key,
    version_to_json,
)

TEAM = 7
PERSON_ID = 70
TWO_OUTPUTS = Signature(
    inputs=(TensorSpec("x", Dtype.FLOAT32, (-1, 4)),),
    outputs=(
        TensorSpec("total", Dtype.FLOAT32, (-1,)),
        TensorSpec("scores", Dtype.FLOAT32, (-1, 3)),
    ),
)
ONE_OUTPUT = Signature(inputs=TWO_OUTPUTS.inputs, outputs=TWO_OUTPUTS.outputs[1:])


def onnx_bytes(shift: float = 0.0, *, outputs: Sequence[str] = ("scores",)) -> bytes:
    """Make a real model of four numbers: ``scores = x @ w + shift`` and ``total = sum(x)``."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "shift"], ["scores"]),
        helper.make_node("ReduceSum", ["x", "axis"], ["total"], keepdims=0),
    ]
    infos = {
        "scores": helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 3]),
        "total": helper.make_tensor_value_info("total", TensorProto.FLOAT, [None]),
    }
    graph = helper.make_graph(
        [one for one in nodes if one.output[0] in {"product", *outputs}],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [infos[name] for name in outputs],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.full(3, shift, dtype=np.float32), "shift"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def scores(row: Sequence[float], shift: float = 0.0) -> list[float]:
    """Return what the tiny model says of a row, computed without it."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    return [float(one) for one in np.array(row, dtype=np.float32) @ weights + np.float32(shift)]


def answering(*arms: Arm, number: int = 1, **more: Any) -> ReleaseBody:
    return ReleaseBody(number=number, arms=arms, salt="salt", **more)


def primary(version: int) -> Arm:
    return Arm(version=version, role=ArmRole.PRIMARY, ranges=((0.0, 1.0),))


class ServingNode:
    """Writes what an agent would: entries with growing generations, and artifacts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = Node(folder / "serving")
        self.spool = folder / "spool"
        self.writer = SnapshotWriter(self.node.folder)
        self.writer.replace("epoch-1", [], 0)

    def put(self, kind: str, key: str, body: Mapping[str, Any] | None) -> None:
        entry = Entry(kind, key, self.writer.generation + 1, body)
        self.writer.append([entry])

    def version(
        self,
        number: int,
        *,
        model: str = "wine",
        shift: float = 0.0,
        with_file: bool = True,
        **changes: Any,
    ) -> VersionBody:
        """Write a version and, unless told otherwise, its artifact."""
        signature = changes.pop("signature", ONE_OUTPUT)
        data = changes.pop("data", None)
        if data is None:
            data = onnx_bytes(shift, outputs=[spec.name for spec in signature.outputs])
        fields: dict[str, Any] = {
            "model": model,
            "number": number,
            "runtime": "onnx",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "storage_key": f"teams/blue/{model}/v{number}/served.onnx",
            "resident_bytes": len(data),
            "signature": signature,
        }
        body = VersionBody(**{**fields, **changes})
        if with_file:
            self.artifact(body, data)
        self.put(VERSION, version_key(model, number), version_to_json(body))
        return body

    def artifact(self, body: VersionBody, data: bytes) -> Path:
        path = self.node.artifact(body.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def endpoint(
        self,
        release: ReleaseBody | None,
        *,
        model: str = "wine",
        environment: str = "production",
        team_id: int = TEAM,
        aliases: Mapping[str, int] | None = None,
        **settings: Any,
    ) -> EndpointBody:
        body = EndpointBody(
            model, environment, team_id, release, aliases or {}, ModelSettings(**settings)
        )
        self.put(ENDPOINT, endpoint_key(environment, model), endpoint_to_json(body))
        return body

    def person(self, role: Role | None = Role.CONTRIBUTOR, **changes: Any) -> PersonBody:
        fields: dict[str, Any] = {
            "id": PERSON_ID,
            "username": "ada",
            "is_admin": False,
            "is_active": True,
            "token_version": 1,
            "roles": {TEAM: role} if role else {},
        }
        body = PersonBody(**{**fields, **changes})
        self.put(PERSON, str(body.id), person_to_json(body))
        return body

    def key(self, **changes: Any) -> str:
        """Write a key and return its text."""
        text = make(KeyKind.LIVE)
        fields: dict[str, Any] = {
            "id": text.id,
            "sha256": text.sha256,
            "team_id": TEAM,
            "owner_id": PERSON_ID,
            "scopes": ("predict",),
            "models": (),
            "environments": ("production",),
            "expires": int(time.time()) + 3600,
        }
        body = KeyBody(**{**fields, **changes})
        self.put(KEY, body.id, key_to_json(body))
        return str(text)

    def records(self) -> list[dict[str, Any]]:
        """Seal and read what was recorded."""
        wiring.serving().spool.seal()
        return [
            record_from(payload)
            for segment in sealed_segments(self.spool)
            for payload in frames(segment.path.read_bytes())
        ]

    def wine(self, shift: float = 0.0, **settings: Any) -> str:
        """Write one released model, a person and a key; return the key."""
        self.version(1, shift=shift)
        self.endpoint(answering(primary(1)), **settings)
        self.person()
        return self.key()


@contextmanager
def serving_node(folder: Path, settings: Any) -> Iterator[ServingNode]:
    """Let this process serve from a folder of its own."""
    wiring.reset()
    made = ServingNode(folder)
    settings.SERVING_DIR = made.node.folder
    settings.SPOOL_DIR = made.spool
    settings.FOLLOW_POLL_SECONDS = 0.02
    try:
        yield made
    finally:
        wiring.reset()


def ask(instances: Any, **more: Any) -> bytes:
    return orjson.dumps({"instances": instances, **more})

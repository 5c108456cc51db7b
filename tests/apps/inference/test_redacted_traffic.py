"""Real predictions with values that must not be kept: no file, row or log line holds them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from onnx import TensorProto, helper, numpy_helper

from apps.core import context
from apps.core.logs import ContextFilter, JsonFormatter
from apps.inference import wiring
from apps.inference.api import door
from apps.inference.api.door import DoorReply, DoorRequest
from apps.inference.engine.redact import hashed
from apps.inference.journal_db import ship, tables
from apps.inference.models import Prediction, PredictionRejected
from apps.inference.record_keys import record_rules
from apps.registry.signature import Dtype, Signature, TensorSpec
from tests.factories.serving import ServingNode, answering, primary

SIGNATURE = Signature(
    inputs=(
        TensorSpec("name", Dtype.STRING, (-1, 1)),
        TensorSpec("x", Dtype.FLOAT32, (-1, 4), columns=("age", "tax", "pay", "zip")),
    ),
    outputs=(
        TensorSpec("echo", Dtype.STRING, (-1, 1)),
        TensorSpec("y", Dtype.FLOAT32, (-1, 1)),
    ),
)
NAME, TAX, UNIT, CLIENT = "Lovelace-Byron", 918273.0, "patient-4711-xyz", "order-Lovelace-77"
SECRETS = (NAME, "918273", UNIT, CLIENT)
RULES = {"name": "mask", "tax": "drop", "echo": "hash", "unit": "hash", "id": "mask"}


def model_file() -> bytes:
    """A real model that answers the name it was given."""
    weights = numpy_helper.from_array(np.full((4, 1), 0.5, dtype=np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["name"], ["echo"]),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ],
        "echo",
        [
            helper.make_tensor_value_info("name", TensorProto.STRING, [None, 1]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4]),
        ],
        [
            helper.make_tensor_value_info("echo", TensorProto.STRING, [None, 1]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1]),
        ],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@contextmanager
def log_lines() -> Iterator[StringIO]:
    """Collect every line as the platform writes it."""
    written, root = StringIO(), logging.getLogger()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(ContextFilter())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield written
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def serving(node: ServingNode, **settings: Any) -> str:
    node.version(1, signature=SIGNATURE, data=model_file())
    node.endpoint(answering(primary(1)), redact=RULES, **settings)
    node.person()
    key = node.key()
    wiring.serving().follower.look()
    return key


def call(key: str, **body: Any) -> DoorReply:
    context.begin("request-1", "192.0.2.7")
    headers = {"content-type": "application/json", "x-api-key": key}
    request = DoorRequest("POST", "/api/v1/predict/wine", "", headers, orjson.dumps(body))
    return door.answer(request)


GOOD: list[dict[str, Any]] = [
    {"instances": [{"name": NAME, "x": [41, TAX, 3, 4]}] * 2},
    {"inputs": {"name": [[NAME]], "x": [[41, TAX, 3, 4]]}},
]
BAD: list[dict[str, Any]] = [
    {"instances": [[NAME, [41, TAX, 3, 4]]]},
    {"instances": [{"name": NAME, "x": [41, TAX, NAME, 4]}]},
    {"instances": [{"name": NAME, NAME: TAX}]},
    {"instances": [NAME]},
    {"inputs": {"name": [[NAME]], "x": [[TAX]]}},
]


def everything_in(folder: Path) -> bytes:
    return b"".join(one.read_bytes() for one in folder.rglob("*") if one.is_file())


@pytest.mark.django_db(transaction=True)
def test_what_must_not_be_kept_is_in_no_file_row_or_log_line(
    node: ServingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with log_lines() as lines:
        key = serving(node)
        replies = [call(key, **body, unit=UNIT, id=CLIENT) for body in (*GOOD, *BAD)]
        assert [one.status for one in replies] == [200] * len(GOOD) + [400] * len(BAD)
        assert NAME.encode() in replies[0].body, "the caller gets the whole answer"
        records = node.records()
        assert len(records) == len(replies)
        spooled = everything_in(node.spool)
        _refuse_one(monkeypatch, records[0]["id"])
        shipped = ship(node.spool)
    assert (shipped.rows, shipped.rejected) == (len(replies) - 1, 1)
    refused = [bytes(one.payload) + one.error.encode() for one in PredictionRejected.objects.all()]
    kept = {
        "spool": spooled,
        "refused": b"".join(refused),
        "rows": repr(list(Prediction.objects.values())).encode(),
        "log": lines.getvalue().encode(),
    }
    found = [
        (place, one) for place, text in kept.items() for one in SECRETS if one.encode() in text
    ]
    assert found == []


def _refuse_one(monkeypatch: pytest.MonkeyPatch, identifier: str) -> None:
    """Let the database refuse one record, with a message that quotes it."""
    write = tables.write

    def refusing(rows: Any, *more: Any) -> tables.Written:
        for row in rows:
            if row.id == identifier:
                raise OverflowError(f"too large: {row}")
        return write(rows, *more)

    monkeypatch.setattr(tables, "write", refusing)


def test_what_is_kept_in_the_place_of_each_field(node: ServingNode) -> None:
    key = serving(node)
    assert call(key, **GOOD[0], unit=UNIT, id=CLIENT).status == 200
    (record,) = node.records()
    secret = record_rules().hmac_key
    assert record["inputs"] == {
        "name": [["Lo***"], ["Lo***"]],
        "age": [41.0, 41.0],
        "pay": [3.0, 3.0],
        "zip": [4.0, 4.0],
    }
    assert record["outputs"]["echo"] == [hashed([NAME], secret)] * 2
    assert list(record["outputs"]) == ["y", "echo"]
    assert record["unit"] == hashed(UNIT, secret)
    assert record["client_id"] == "or***"


def test_digests_hold_no_hidden_value_either(node: ServingNode) -> None:
    key = serving(node, record="digest")
    assert call(key, **GOOD[0], unit=UNIT, id=CLIENT).status == 200
    node.records()
    spooled = everything_in(node.spool)
    assert [one for one in SECRETS if one.encode() in spooled] == []

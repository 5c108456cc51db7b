"""What the log may hold of an image: what it was, never its bytes."""

import hashlib
from dataclasses import replace
from typing import Any

import orjson
import pytest

from apps.inference.engine.errors import SignatureMismatch
from apps.inference.engine.redact import RecordRules, hashed, recorded_inputs
from apps.inference.engine.types import ColumnInputs, ImageInputs, Inputs, RowInputs
from apps.inference.engine.validate import tensors_of
from apps.registry.image_spec import PNG, ColourMode, ImageSpec
from apps.registry.signature import Dtype, Signature, TensorSpec
from apps.registry.snapshot import ModelSettings, Redaction
from tests.factories.images import b64, file_of, image_signature, noise

RULES = RecordRules(hmac_key=b"k" * 32, limit_bytes=2000)
ONE = image_signature()
FIXED = image_signature(rows=1)
WITH_AGE = Signature(
    (
        TensorSpec(
            "face", Dtype.FLOAT32, (-1, 1, 90, 90), image=ImageSpec(90, 90, ColourMode.GREY)
        ),
        TensorSpec("age", Dtype.INT64, (-1,)),
    ),
    ONE.outputs,
)
FILE = file_of(noise(30, 20))
FACTS = {
    "content_type": PNG,
    "size": len(FILE),
    "sha256": hashlib.sha256(FILE).hexdigest(),
    "width": 20,
    "height": 30,
}
SENT = b64(FILE)


def kept(
    inputs: Inputs, signature: Signature = ONE, *, whole: bool = True, **redact: Redaction
) -> Any:
    try:
        checked = tensors_of(inputs, signature, max_rows=100)
    except SignatureMismatch:
        checked = None
    value = recorded_inputs(
        inputs,
        checked.tensors if checked else None,
        signature,
        settings=ModelSettings(redact=redact),
        rules=RULES,
        whole=whole,
        images=checked.images if checked else {},
    )
    assert SENT["b64"][:40] not in orjson.dumps(value).decode()
    return value


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        (RowInputs([{"image": SENT}]), [{"image": FACTS}]),
        (RowInputs([SENT]), [FACTS]),
        (ColumnInputs({"image": [SENT, SENT]}), {"image": [FACTS, FACTS]}),
        (ImageInputs(FILE, PNG), [FACTS]),
    ],
    ids=["field", "bare row", "column", "alone"],
)
def test_what_an_image_was_stands_in_its_place(inputs: Inputs, wanted: Any) -> None:
    assert kept(inputs) == wanted


def test_an_input_may_have_the_name_of_a_field_of_its_image() -> None:
    (spec,) = ONE.inputs
    for name in ("content_type", "b64"):
        named = Signature((replace(spec, name=name),), ONE.outputs)
        assert kept(RowInputs([{name: SENT}]), named) == [{name: FACTS}]
    named = Signature((replace(spec, name="content_type"),), ONE.outputs)
    assert kept(RowInputs([{**SENT, "content_type": PNG}]), named) == [FACTS]


def test_one_image_as_a_whole_tensor_is_recorded_as_one() -> None:
    assert kept(ColumnInputs({"image": SENT}), FIXED) == {"image": FACTS}


def test_values_beside_an_image_are_kept_however_large_its_tensor_is() -> None:
    rows = RowInputs([{"face": SENT, "age": 41}])
    assert kept(rows, WITH_AGE) == [{"face": FACTS, "age": 41}]


def test_a_digest_says_what_the_image_was_too() -> None:
    digest = kept(RowInputs([SENT]), whole=False)["digest"]["image"]
    assert digest["images"] == [FACTS]
    assert digest["shape"] == [1, 1, 2, 2]


def test_a_dropped_image_leaves_nothing() -> None:
    rows = RowInputs([{"face": SENT, "age": 41}])
    assert kept(rows, WITH_AGE, face=Redaction.DROP) == {"age": [41]}


def test_a_hashed_image_can_be_joined_on_by_its_file() -> None:
    rows = RowInputs([{"face": SENT, "age": 41}])
    wanted = hashed(FACTS["sha256"], RULES.hmac_key)
    assert kept(rows, WITH_AGE, face=Redaction.HASH) == {"age": [41], "face": [wanted]}


def test_a_hidden_field_beside_an_image_is_hidden() -> None:
    rows = RowInputs([{"face": SENT, "age": 41}])
    assert kept(rows, WITH_AGE, age=Redaction.DROP) == {"face": [FACTS]}


@pytest.mark.parametrize(
    "inputs",
    [
        RowInputs([{"image": {**SENT, "x": 1}}]),
        RowInputs([{"picture": SENT}]),
        RowInputs([SENT["b64"]]),
        RowInputs([{SENT["b64"]: 1}]),
        ColumnInputs({"image": [SENT, {"b64": SENT["b64"][:-4]}]}),
        ImageInputs(FILE[:-20], PNG),
    ],
    ids=["more fields", "another field", "bare text", "as a name", "cut off", "alone, cut off"],
)
def test_a_question_that_did_not_fit_is_kept_without_the_file(inputs: Inputs) -> None:
    text = orjson.dumps(kept(inputs)).decode()
    assert "sha256" in text or isinstance(inputs, RowInputs)

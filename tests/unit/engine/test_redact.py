"""What the log may hold of a prediction."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.inference.engine.redact import (
    RecordRules,
    hashed,
    keeps_whole,
    masked,
    recorded_client_id,
    recorded_inputs,
    recorded_outputs,
    recorded_unit,
)
from apps.inference.engine.types import ColumnInputs, Inputs, RowInputs, TensorInputs
from apps.inference.engine.validate import tensors_of
from apps.registry.signature import Dtype, Signature, TensorSpec
from apps.registry.snapshot import ModelSettings, RecordMode, Redaction
from tests.fakes.bodies import FOUR_FLOATS

RULES = RecordRules(hmac_key=b"k" * 32, limit_bytes=2000)
OUT = FOUR_FLOATS.outputs
NAMED = Signature((TensorSpec("x", Dtype.FLOAT32, (-1, 3), columns=("age", "tax", "pay")),), OUT)
PERSON = Signature(
    (TensorSpec("age", Dtype.INT64, (-1,)), TensorSpec("name", Dtype.STRING, (-1, 1))), OUT
)


def kept(inputs: Inputs, signature: Signature, *, whole: bool = True, **redact: Redaction) -> Any:
    tensors = tensors_of(inputs, signature, max_rows=10_000).tensors
    return recorded_inputs(
        inputs,
        tensors,
        signature,
        settings=ModelSettings(redact=redact),
        rules=RULES,
        whole=whole,
    )


def test_small_inputs_are_kept_as_they_were_sent() -> None:
    assert kept(RowInputs([[1, 2, 3]]), NAMED) == [[1, 2, 3]]
    assert kept(ColumnInputs({"x": [[1, 2, 3]]}), NAMED) == {"x": [[1, 2, 3]]}
    ready = TensorInputs({"x": np.array([[1, 2, 3]], dtype=np.float32)})
    assert kept(ready, NAMED) == {"x": [[1.0, 2.0, 3.0]]}


def test_inputs_over_the_limit_are_kept_as_a_digest() -> None:
    body = kept(RowInputs([[1.5, 2.5, 3.5]] * 200), NAMED)
    digest = body["digest"]["x"]
    assert (digest["dtype"], digest["shape"]) == ("float32", [200, 3])
    assert len(digest["sha256"]) == 64
    assert digest["first"] == ([1.5, 2.5, 3.5] * 6)[:16]


def test_the_limit_is_counted_in_bytes_of_json() -> None:
    rules = RecordRules(b"k", limit_bytes=len(b'{"y":[[1.5]]}'))
    whole = {"y": np.array([[1.5]])}
    longer = {"y": np.array([[1.25]])}
    assert recorded_outputs(whole, rules=rules, whole=True) == {"y": [[1.5]]}
    assert "digest" in recorded_outputs(longer, rules=rules, whole=True)


def test_long_names_count_for_the_limit_too() -> None:
    names = tuple(f"{'n' * 400}{at}" for at in range(3))
    long = Signature((TensorSpec("x", Dtype.FLOAT32, (-1, 3), columns=names),), OUT)
    assert isinstance(kept(RowInputs([dict.fromkeys(names, 1)]), long), list)
    assert "digest" in kept(RowInputs([dict.fromkeys(names, 1)] * 2), long)


def test_a_digest_is_kept_when_the_call_is_not_to_be_kept_whole() -> None:
    assert "digest" in kept(RowInputs([[1, 2, 3]]), NAMED, whole=False)
    assert "digest" in recorded_outputs({"y": np.zeros(1)}, rules=RULES, whole=False)


def test_equal_texts_have_equal_digests_and_others_have_not() -> None:
    def digest(*texts: str) -> str:
        array = np.array(texts, dtype=object)
        body = recorded_outputs({"y": array}, rules=RULES, whole=False)
        return str(body["digest"]["y"]["sha256"])

    assert digest("ab", "c") == digest("ab", "c")
    assert digest("ab", "c") != digest("a", "bc")


@pytest.mark.parametrize(
    "inputs",
    [
        RowInputs([{"age": 41, "name": "Ann"}, {"age": 7, "name": "Bo"}]),
        RowInputs([[41, "Ann"], [7, "Bo"]]),
        ColumnInputs({"age": [41, 7], "name": [["Ann"], ["Bo"]]}),
    ],
)
def test_a_dropped_field_is_nowhere_in_the_record_whatever_the_form(inputs: Inputs) -> None:
    for whole in (True, False):
        body = kept(inputs, PERSON, whole=whole, name=Redaction.DROP)
        assert "Ann" not in repr(body)
        assert "name" not in repr(body)
    assert kept(inputs, PERSON, name=Redaction.DROP) == {"age": [41, 7]}


def test_a_hashed_field_can_be_joined_on_and_not_read() -> None:
    inputs = RowInputs([[41, "Ann"], [7, "Bo"], [9, "Ann"]])
    body = kept(inputs, PERSON, name=Redaction.HASH)
    assert body["name"][0] == body["name"][2] != body["name"][1]
    assert "Ann" not in repr(body)
    other = RecordRules(hmac_key=b"other" * 8)
    assert hashed("Ann", RULES.hmac_key) != hashed("Ann", other.hmac_key)


def test_redaction_reaches_a_column_of_an_input() -> None:
    for inputs in (RowInputs([[1, 777, 3]]), RowInputs([{"age": 1, "tax": 777, "pay": 3}])):
        assert kept(inputs, NAMED, tax=Redaction.DROP) == {"age": [1.0], "pay": [3.0]}
        digest = kept(inputs, NAMED, whole=False, tax=Redaction.DROP)
        assert "777" not in repr(digest)
        assert set(digest["digest"]) == {"age", "pay"}


def test_a_column_that_cannot_be_found_takes_its_whole_input_with_it() -> None:
    odd = Signature((TensorSpec("x", Dtype.FLOAT32, (-1, 2), columns=("age", "tax", "pay")),), OUT)
    assert kept(RowInputs([[1, 777]]), odd, tax=Redaction.DROP) == {}


def test_nothing_is_kept_when_a_hidden_field_may_stand_among_unnamed_columns() -> None:
    unnamed = Signature((TensorSpec("x", Dtype.FLOAT32, (-1, 2)),), OUT)
    assert kept(RowInputs([[1, 777]]), unnamed, tax=Redaction.DROP) is None
    assert kept(RowInputs([[1, 777]]), unnamed, unit=Redaction.DROP) == [[1, 777]]
    assert kept(RowInputs([[41, "Ann"]]), PERSON, tax=Redaction.DROP) == [[41, "Ann"]]


def test_inputs_that_did_not_fit_are_kept_only_when_nothing_is_to_be_hidden() -> None:
    def unread(**redact: Redaction) -> Any:
        settings = ModelSettings(redact=redact)
        return recorded_inputs(
            RowInputs([["old"]]), None, PERSON, settings=settings, rules=RULES, whole=True
        )

    assert unread() == [["old"]]
    assert unread(name=Redaction.DROP) is None


def test_inputs_that_did_not_fit_and_are_too_large_leave_no_trace_of_their_values() -> None:
    body = recorded_inputs(
        RowInputs(["x" * 5000]), None, PERSON, settings=ModelSettings(), rules=RULES, whole=True
    )
    assert "xxx" not in repr(body)


def test_the_unit_is_redacted_too() -> None:
    def unit(**redact: Redaction) -> str | None:
        return recorded_unit("u-1", ModelSettings(redact=redact), RULES)

    assert unit() == "u-1"
    assert unit(unit=Redaction.DROP) is None
    assert unit(unit=Redaction.HASH) == hashed("u-1", RULES.hmac_key)
    assert recorded_unit(None, ModelSettings(redact={"unit": Redaction.HASH}), RULES) is None


def test_a_sample_is_drawn_by_the_id_with_the_models_share() -> None:
    sample = ModelSettings(record=RecordMode.SAMPLE, sample_share=0.25)
    ids = [f"{n * 2654435761 % 2**32:08x}" for n in range(10_000)]
    share = sum(keeps_whole(sample, one) for one in ids) / len(ids)
    assert share == pytest.approx(0.25, abs=0.02)
    assert keeps_whole(ModelSettings(), ids[0])
    assert not keeps_whole(ModelSettings(record=RecordMode.DIGEST), ids[0])


# --- masks, outputs and the caller's id ---------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("marta@example.org", "ma***"),
        ("Anna", "A***"),
        ("Ann", "***"),
        ("", "***"),
        (41, None),
        (True, None),
        (None, None),
        ([["marta@example.org"], [3.5]], [["ma***"], [None]]),
    ],
)
def test_a_mask_keeps_the_form_and_hides_the_content(value: Any, shown: Any) -> None:
    assert masked(value) == shown


@given(st.text(max_size=40))
def test_a_mask_shows_two_characters_at_most_and_never_more_than_a_quarter(text: str) -> None:
    shown = masked(text).removesuffix("***")
    assert text.startswith(shown)
    assert len(shown) <= min(2, len(text) / 4)


@pytest.mark.parametrize("how", list(Redaction))
def test_a_unit_and_the_callers_own_id_follow_their_rules(how: Redaction) -> None:
    settings = ModelSettings(redact={"unit": how, "id": how})
    for kept_of in (recorded_unit, recorded_client_id):
        assert kept_of(None, settings, RULES) is None
        assert "patient" not in str(kept_of("patient-4711", settings, RULES))
        assert kept_of("patient-4711", ModelSettings(), RULES) == "patient-4711"


def outputs_kept(redact: dict[str, Redaction], *, whole: bool = True) -> Any:
    signature = Signature(
        FOUR_FLOATS.inputs,
        (
            TensorSpec("label", Dtype.STRING, (-1,)),
            TensorSpec("s", Dtype.FLOAT32, (-1, 2), columns=("low", "high")),
        ),
    )
    outputs = {"label": np.array(["secret"], dtype=object), "s": np.array([[777.0, 2.0]])}
    return recorded_outputs(
        outputs,
        rules=RULES,
        whole=whole,
        settings=ModelSettings(redact=redact),
        signature=signature,
    )


def test_an_output_and_a_column_of_one_may_be_hidden() -> None:
    assert outputs_kept({"label": Redaction.MASK}) == {"s": [[777.0, 2.0]], "label": ["s***"]}
    assert outputs_kept({"low": Redaction.DROP}) == {"label": ["secret"], "high": [2.0]}
    for whole in (True, False):
        hidden = {"label": Redaction.HASH, "low": Redaction.MASK}
        assert "secret" not in repr(outputs_kept(hidden, whole=whole))
        assert "777" not in repr(outputs_kept(hidden, whole=whole))


def test_outputs_in_which_a_hidden_field_may_stand_unnamed_are_not_kept() -> None:
    outputs = {"scores": np.array([[777.0, 2.0]])}
    signature = Signature(FOUR_FLOATS.inputs, (TensorSpec("scores", Dtype.FLOAT32, (-1, 2)),))
    settings = ModelSettings(redact={"risk": Redaction.DROP})
    kept_of = recorded_outputs(
        outputs, rules=RULES, whole=True, settings=settings, signature=signature
    )
    assert kept_of is None


TEXTS = st.text(alphabet="SECRTX", min_size=6, max_size=12).map(lambda text: f"SECRET{text}")


@given(rows=st.lists(st.tuples(st.integers(0, 99), TEXTS), min_size=1, max_size=5), data=st.data())
def test_no_form_of_a_question_brings_a_hidden_text_into_the_record(
    rows: list[tuple[int, str]], data: st.DataObject
) -> None:
    how = data.draw(st.sampled_from(list(Redaction)))
    whole = data.draw(st.booleans())
    forms: list[Inputs] = [
        RowInputs([{"age": age, "name": name} for age, name in rows]),
        RowInputs([[age, name] for age, name in rows]),
        ColumnInputs({"age": [age for age, _ in rows], "name": [[name] for _, name in rows]}),
        TensorInputs(
            {
                "age": np.array([age for age, _ in rows]),
                "name": np.array([[name] for _, name in rows], dtype=object),
            }
        ),
    ]
    for inputs in forms:
        assert "SECRET" not in repr(kept(inputs, PERSON, whole=whole, name=how))

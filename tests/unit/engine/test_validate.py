"""Rows against a signature."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.errors import PlatformError
from apps.inference.engine.errors import SignatureMismatch, TooManyRows
from apps.inference.engine.problems import MOST_PROBLEMS
from apps.inference.engine.types import ColumnInputs, Inputs, RowInputs, TensorInputs
from apps.inference.engine.validate import Checked, tensors_of
from apps.registry.signature import Dtype, Signature, TensorSpec
from tests.fakes.bodies import FOUR_FLOATS


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, (TensorSpec("y", Dtype.FLOAT32, (-1, 1)),))


PERSON = signature(
    TensorSpec("age", Dtype.INT64, (-1, 1), minimum=0, maximum=150),
    TensorSpec("plan", Dtype.STRING, (-1, 1), categories=("free", "pro")),
    TensorSpec("score", Dtype.FLOAT32, (-1,)),
)
NAMED = signature(TensorSpec("x", Dtype.FLOAT32, (-1, 3), columns=("age", "a/b", "pay")))
ANN = {"age": 41, "plan": "pro", "score": 0.5}


def rows(*values: Any, of: Signature = FOUR_FLOATS, max_rows: int = 100) -> Checked:
    return tensors_of(RowInputs(list(values)), of, max_rows=max_rows)


def columns(of: Signature = FOUR_FLOATS, **values: Any) -> Checked:
    return tensors_of(ColumnInputs(values), of, max_rows=100)


def pointers(inputs: Inputs, of: Signature) -> list[str]:
    with pytest.raises(SignatureMismatch) as caught:
        tensors_of(inputs, of, max_rows=100)
    assert caught.value.problems
    assert all(one.detail.endswith(".") for one in caught.value.problems)
    return [one.pointer for one in caught.value.problems]


def test_list_rows_become_one_array() -> None:
    checked = rows([1, 2.5, 3, 4], [5, 6, 7, 8])
    assert checked.tensors["x"].dtype == np.float32
    assert checked.tensors["x"].tolist() == [[1, 2.5, 3, 4], [5, 6, 7, 8]]
    assert (checked.rows, checked.by_rows) == (2, True)


def test_object_rows_become_an_array_per_input() -> None:
    checked = rows(ANN, {"plan": "free", "score": 1, "age": 3}, of=PERSON)
    assert list(checked.tensors) == ["age", "plan", "score"]
    assert checked.tensors["age"].tolist() == [[41], [3]]
    assert checked.tensors["plan"].dtype == object
    assert checked.tensors["plan"].tolist() == [["pro"], ["free"]]
    assert checked.tensors["score"].shape == (2,)


def test_rows_may_be_keyed_by_the_columns_of_a_single_input() -> None:
    checked = rows({"pay": 3, "age": 1, "a/b": 2}, of=NAMED)
    assert checked.tensors["x"].tolist() == [[1, 2, 3]]
    assert rows({"x": [1, 2, 3]}, of=NAMED).tensors["x"].tolist() == [[1, 2, 3]]


def test_positional_rows_give_one_value_per_input() -> None:
    checked = rows([41, "pro", 0.5], [3, "free", 1], of=PERSON)
    assert checked.tensors["age"].tolist() == [[41], [3]]
    assert checked.tensors["score"].tolist() == [0.5, 1]


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_bare_value_is_a_row_of_one(shape: tuple[int, ...]) -> None:
    single = signature(TensorSpec("x", Dtype.FLOAT32, shape))
    for sent in ([1, 2.5], [[1], [2.5]]):
        array = rows(*sent, of=single).tensors["x"]
        assert array.ravel().tolist() == [1, 2.5]
        assert array.shape == (2, *shape[1:])


def test_columns_go_by_input_name() -> None:
    checked = columns(PERSON, age=[41, 3], plan=[["pro"], ["free"]], score=[0.5, 1])
    assert checked.tensors["age"].tolist() == [[41], [3]]
    assert (checked.rows, checked.by_rows) == (2, False)


def test_deep_tensors_keep_their_shape() -> None:
    image = signature(TensorSpec("x", Dtype.UINT8, (-1, 2, -1, 3)))
    one = [[[1, 2, 3]] * 4] * 2
    assert rows(one, one, one, of=image).tensors["x"].shape == (3, 2, 4, 3)


def test_a_signature_without_batch_takes_one_row_that_is_the_whole_tensor() -> None:
    whole = signature(TensorSpec("x", Dtype.FLOAT32, (2, 2)))
    assert rows([[1, 2], [3, 4]], of=whole).tensors["x"].shape == (2, 2)
    assert columns(whole, x=[[1, 2], [3, 4]]).tensors["x"].shape == (2, 2)
    ready = TensorInputs({"x": np.zeros((2, 2), dtype=np.float32)})
    assert tensors_of(ready, whole, max_rows=1).rows == 1
    assert pointers(RowInputs([[[1, 2], [3, 4]]] * 2), whole) == ["/instances"]
    assert pointers(ColumnInputs({"x": [[1, 2], [3, None]]}), whole) == ["/inputs/x/1/1"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("age", "old"),
        ("age", True),
        ("age", 1.5),
        ("age", None),
        ("age", 2**63),
        ("age", -1),
        ("age", 151),
        ("age", [1, 2]),
        ("age", {}),
        ("plan", "gold"),
        ("plan", 1),
        ("plan", "\ud800"),
        ("score", "1"),
        ("score", True),
        ("score", 1e300),
        ("score", 10**400),
        ("score", float("nan")),
        ("score", float("inf")),
        ("score", [1]),
    ],
)
def test_a_wrong_value_is_pointed_at_in_rows_and_columns(field: str, value: Any) -> None:
    place = f"/instances/3/{field}"
    sent = [ANN, ANN, ANN, {**ANN, field: value}]
    found = pointers(RowInputs(sent), PERSON)
    assert found
    assert all(one.startswith(place) for one in found)
    by_column = {name: [row[name] for row in sent] for name in ANN}
    found = pointers(ColumnInputs(by_column), PERSON)
    assert all(one.startswith(f"/inputs/{field}/3") for one in found)


def test_every_wrong_place_is_named_and_the_right_ones_are_not() -> None:
    sent = [[1, 2, 3, 4], [1, "x", 3, 4], [1, 2, 3], [1, 2, None, True]]
    assert pointers(RowInputs(sent), FOUR_FLOATS) == [
        "/instances/1/1",
        "/instances/2",
        "/instances/3/2",
        "/instances/3/3",
    ]


def test_pointers_into_named_columns_use_the_column_and_are_escaped() -> None:
    sent = [{"age": 1, "a/b": "x", "pay": 3}]
    assert pointers(RowInputs(sent), NAMED) == ["/instances/0/a~1b"]


def test_unknown_and_missing_fields_are_both_named() -> None:
    sent = [ANN, {"age": 1, "plan": "pro", "colour~": 1}]
    assert pointers(RowInputs(sent), PERSON) == ["/instances/1/colour~0", "/instances/1/score"]
    assert pointers(ColumnInputs({"x": [], "z": []}), NAMED) == ["/inputs/z"]
    assert pointers(ColumnInputs({"z": []}), NAMED) == ["/inputs/z", "/inputs/x"]


def test_the_number_of_named_places_is_bounded() -> None:
    assert len(pointers(RowInputs([["a"] * 4] * 100), FOUR_FLOATS)) == MOST_PROBLEMS
    assert len(pointers(RowInputs([{}] * 100), PERSON)) == MOST_PROBLEMS
    strange = {f"f{n}": 1 for n in range(1000)}
    assert len(pointers(ColumnInputs(strange), PERSON)) == MOST_PROBLEMS


def test_forms_of_rows_must_not_be_mixed() -> None:
    assert pointers(RowInputs([[1, 2, 3], {"x": [1, 2, 3]}]), NAMED) == ["/instances/1"]
    assert pointers(RowInputs([ANN, [41, "pro", 1]]), PERSON) == ["/instances/1"]
    single = signature(TensorSpec("x", Dtype.FLOAT32, (-1, 1)))
    assert pointers(RowInputs([1, [2]]), single) == ["/instances/1"]


def test_ragged_rows_are_pointed_at() -> None:
    free = signature(TensorSpec("x", Dtype.FLOAT32, (-1, -1)))
    assert pointers(RowInputs([[1, 2], [1, 2, 3], [1, 2]]), free) == ["/instances/1"]
    assert pointers(RowInputs([[]]), free) == ["/instances/0"]


def test_columns_of_different_length_are_refused() -> None:
    sent = ColumnInputs({"age": [1, 2], "plan": ["pro"], "score": [1, 2]})
    assert pointers(sent, PERSON) == ["/inputs/plan"]


def test_more_rows_than_the_caller_may_send_are_refused_before_they_are_read() -> None:
    with pytest.raises(TooManyRows) as caught:
        rows(*[["bad"]] * 101)
    assert [one.pointer for one in caught.value.problems] == ["/instances"]
    with pytest.raises(TooManyRows):
        tensors_of(TensorInputs({"x": np.zeros((5, 4), dtype=np.float32)}), FOUR_FLOATS, max_rows=4)


def test_no_rows_at_all_are_refused() -> None:
    assert pointers(RowInputs([]), FOUR_FLOATS) == ["/instances"]
    assert pointers(ColumnInputs({"x": []}), FOUR_FLOATS) == ["/inputs/x"]
    none = TensorInputs({"x": np.zeros((0, 4), dtype=np.float32)})
    assert pointers(none, FOUR_FLOATS) == ["/inputs/x"]


def test_whole_numbers_written_as_floats_are_whole_numbers() -> None:
    whole = signature(TensorSpec("n", Dtype.INT8, (-1,)))
    assert rows(3.0, 4, of=whole).tensors["n"].tolist() == [3, 4]
    assert pointers(RowInputs([3.0, 4.5]), whole) == ["/instances/1"]
    assert pointers(RowInputs([3.0, 200.0]), whole) == ["/instances/1"]


def test_large_whole_numbers_are_fine_for_floats() -> None:
    wide = signature(TensorSpec("x", Dtype.FLOAT64, (-1,)))
    assert rows(2**60, of=wide).tensors["x"].tolist() == [float(2**60)]


def test_a_bound_is_judged_on_the_number_that_was_sent() -> None:
    tenth = signature(TensorSpec("x", Dtype.FLOAT32, (-1,), maximum=0.1))
    assert rows(0.1, of=tenth).rows == 1
    ready = TensorInputs({"x": np.array([0.1], dtype=np.float32)})
    assert tensors_of(ready, tenth, max_rows=1).rows == 1
    assert pointers(RowInputs([0.10001]), tenth) == ["/instances/0"]
    over = TensorInputs({"x": np.array([0.2], dtype=np.float32)})
    assert pointers(over, tenth) == ["/inputs/x"]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), dtype=np.float32),
        np.zeros((2, 4), dtype=np.float64),
        np.zeros((2, 4), dtype=np.bool_),
        np.full((2, 4), np.nan, dtype=np.float32),
        np.full((2, 4), np.inf, dtype=np.float32),
        np.array([["a"] * 4] * 2, dtype=object),
        np.float32(1).reshape(()),
    ],
)
def test_ready_arrays_are_checked_too(array: np.ndarray) -> None:
    assert pointers(TensorInputs({"x": array}), FOUR_FLOATS) == ["/inputs/x"]


def test_ready_arrays_are_widened_only_without_loss_and_not_copied_otherwise() -> None:
    small = TensorInputs({"x": np.ones((2, 4), dtype=np.int8)})
    assert tensors_of(small, FOUR_FLOATS, max_rows=2).tensors["x"].dtype == np.float32
    exact = np.ones((2, 4), dtype=np.float32)
    checked = tensors_of(TensorInputs({"x": exact}), FOUR_FLOATS, max_rows=2)
    assert np.shares_memory(checked.tensors["x"], exact)


def test_ready_texts_must_be_known_categories() -> None:
    plan = signature(TensorSpec("plan", Dtype.STRING, (-1,), categories=("free", "pro")))
    good = TensorInputs({"plan": np.array(["free", "pro"], dtype=object)})
    assert tensors_of(good, plan, max_rows=5).rows == 2
    bad = TensorInputs({"plan": np.array(["gold"], dtype=object)})
    assert pointers(bad, plan) == ["/inputs/plan"]
    undecoded = TensorInputs({"plan": np.array([b"free"], dtype=object)})
    assert pointers(undecoded, plan) == ["/inputs/plan"]


def test_long_values_are_shortened_in_messages() -> None:
    with pytest.raises(SignatureMismatch) as caught:
        rows(["x" * 10_000, 1, 2, 3])
    assert len(caught.value.message) < 200


def test_deep_nesting_is_refused_without_walking_down() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    found = pointers(RowInputs([[deep, 1, 2, 3]]), FOUR_FLOATS)
    assert found == ["/instances/0/0"]
    while isinstance(deep, list):  # taken apart by hand: freeing it at once would recurse
        deep = deep.pop()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([2**63, -(2**70), 10**400, "\ud800", "\x00", 1e999, "x", "pro"]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["x", "age", "plan", "score", "a/b", "pay", "~", "\ud800"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
SIGNATURES = [
    FOUR_FLOATS,
    PERSON,
    NAMED,
    signature(TensorSpec("x", Dtype.FLOAT16, (-1, -1))),
    signature(TensorSpec("x", Dtype.STRING, (-1, 1))),
    signature(TensorSpec("x", Dtype.BOOL, ())),
    signature(TensorSpec("x", Dtype.UINT64, (2,)), TensorSpec("age", Dtype.INT8, (-1,))),
    signature(TensorSpec("x", Dtype.INT32, (-1,), categories=(1, 2.0, True, "pro"), minimum=1e300)),
]


@settings(max_examples=400, deadline=None)
@given(JSON, st.sampled_from(SIGNATURES), st.booleans())
def test_arbitrary_json_is_read_or_refused_with_a_place(
    value: Any, of: Signature, by_rows: bool
) -> None:
    if by_rows:
        inputs: Inputs = RowInputs(value if isinstance(value, list) else [value])
    else:
        inputs = ColumnInputs(value if isinstance(value, dict) else {"x": value})
    refused: PlatformError | None = None
    try:
        checked = tensors_of(inputs, of, max_rows=4)
    except PlatformError as error:
        refused = error
    if refused is not None:
        assert refused.problems
        json.dumps([one.pointer for one in refused.problems]).encode()
        return
    for spec in of.inputs:
        tensor = checked.tensors[spec.name]
        assert tensor.dtype == (object if spec.dtype is Dtype.STRING else spec.dtype.value)
        assert len(tensor.shape) == len(spec.shape)
        if tensor.dtype.kind == "f":
            assert np.isfinite(tensor).all()

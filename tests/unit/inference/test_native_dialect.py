"""The native dialect: the form of the answer follows the form of the question."""

from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from apps.inference.api.dialects import native
from apps.inference.engine.types import ColumnInputs, PredictAnswer, RowInputs, Timing
from apps.registry.signature import Dtype, Signature, TensorSpec

X = (TensorSpec("x", Dtype.FLOAT32, (-1, 1)),)


def written(
    outputs: dict[str, NDArray[Any]],
    *,
    rows: int = 2,
    by_rows: bool = True,
    signature: Signature | None = None,
) -> Any:
    answer = PredictAnswer(
        prediction_id="id",
        model="wine",
        version=3,
        variant="b",
        outputs=outputs,
        rows=rows,
        by_rows=by_rows,
        cached=False,
        timing=Timing(1.23456, 0.1, 0.2),
    )
    return orjson.loads(native.body_of(answer, signature))["predictions"]


def test_one_output_is_a_plain_value_per_row() -> None:
    assert written({"y": np.array([1.5, 2.5], dtype=np.float32)}) == [1.5, 2.5]
    assert written({"y": np.array([[1], [2]])}) == [[1], [2]]


def test_several_outputs_are_an_object_per_row() -> None:
    outputs = {
        "label": np.array(["red", "white"], dtype=object),
        "probabilities": np.array([[0.1, 0.9], [0.25, 0.75]], dtype=np.float32),
    }
    assert written(outputs) == [
        {"label": "red", "probabilities": [0.1, 0.9]},
        {"label": "white", "probabilities": [0.25, 0.75]},
    ]


def test_columns_keep_their_names_also_when_there_is_one() -> None:
    assert written({"y": np.array([1, 2])}, by_rows=False) == {"y": [1, 2]}


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int64", "uint64", "float16", "float32", "float64"]
)
def test_every_dtype_can_be_written(dtype: str) -> None:
    assert written({"y": np.array([0, 1]).astype(dtype)}) == [0, 1]


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize("more", [{}, {"label": np.array([1, 2])}])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_no_number_is_null(by_rows: bool, more: dict[str, Any], dtype: str) -> None:
    bad = np.array([np.nan, np.inf]).astype(dtype)
    said = written({"y": bad, **more}, by_rows=by_rows)
    values = said["y"] if not by_rows else [one["y"] if more else one for one in said]
    assert values == [None, None]


def test_parts_of_a_larger_array_can_be_written() -> None:
    joined = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert written({"y": joined[1:3]}) == [[3, 4, 5], [6, 7, 8]]
    assert written({"y": joined.T[:, :2]}, rows=3) == [[0, 3], [1, 4], [2, 5]]


def test_an_output_of_the_whole_call_stands_in_each_row() -> None:
    signature = Signature(
        X, (TensorSpec("y", Dtype.FLOAT32, (-1,)), TensorSpec("t", Dtype.FLOAT32, (2,)))
    )
    outputs = {"y": np.array([1.0, 2.0]), "t": np.array([7.0, 8.0])}
    assert written(outputs, signature=signature) == [
        {"y": 1.0, "t": [7.0, 8.0]},
        {"y": 2.0, "t": [7.0, 8.0]},
    ]


def test_a_model_without_rows_answers_one_whole_tensor() -> None:
    signature = Signature(
        (TensorSpec("x", Dtype.FLOAT32, (3,)),), (TensorSpec("y", Dtype.FLOAT32, (1, 2)),), False
    )
    whole = {"y": np.array([[1.0, 2.0]])}
    assert written(whole, rows=1, signature=signature) == [[[1.0, 2.0]]]
    assert written({"y": np.array(5.0)}, rows=1) == [5.0]


def test_null_is_as_good_as_left_out() -> None:
    question = native.question_of(
        b'{"instances": [1], "unit": null, "id": null, "parameters": null}'
    )
    assert question == native.Question(RowInputs([1]))


def test_a_question_by_columns_is_taken_as_it_stands() -> None:
    question = native.question_of(b'{"inputs": {"x": [1]}, "parameters": {"k": 2}}')
    assert question.inputs == ColumnInputs({"x": [1]})
    assert question.parameters == {"k": 2}


def test_an_output_of_any_length_stands_whole_in_the_one_row_of_a_call() -> None:
    outputs = {"boxes": np.array([[1, 2], [3, 4], [5, 6]]), "count": np.array([3])}
    signature = Signature(
        (TensorSpec("image", Dtype.FLOAT32, (1, 4)),),
        (TensorSpec("boxes", Dtype.INT64, (-1, 2)), TensorSpec("count", Dtype.INT64, (1,))),
        batchable=False,
    )
    found = written(outputs, rows=1, signature=signature)
    assert found == [{"boxes": [[1, 2], [3, 4], [5, 6]], "count": [3]}]


# --- classes --------------------------------------------------------------------------------------

CLASSES = ("cat", "dog", "owl")


def classed(dtype: Dtype = Dtype.FLOAT32, shape: tuple[int, ...] = (-1, 3)) -> Signature:
    return Signature(X, (TensorSpec("y", dtype, shape, classes=CLASSES),))


def test_a_row_of_scores_is_answered_by_the_names_of_its_classes() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], dtype=np.float32)
    wanted = [
        {"class": "dog", "score": 0.7, "scores": {"cat": 0.1, "dog": 0.7, "owl": 0.2}},
        {"class": "cat", "score": 0.5, "scores": {"cat": 0.5, "dog": 0.25, "owl": 0.25}},
    ]
    assert written({"y": scores}, signature=classed()) == wanted
    assert written({"y": scores}, by_rows=False, signature=classed()) == {"y": wanted}


def test_labels_are_answered_by_their_names_and_an_unknown_one_by_its_number() -> None:
    labels = classed(Dtype.INT64, (-1,))
    assert written({"y": np.array([2, 0])}, signature=labels) == ["owl", "cat"]
    assert written({"y": np.array([3, -1])}, signature=labels) == [3, -1]
    assert written({"y": np.array([[1], [0]])}, signature=labels) == [["dog"], ["cat"]]


def test_classes_stand_beside_other_outputs_of_a_row() -> None:
    y = TensorSpec("y", Dtype.INT64, (-1,), classes=CLASSES)
    p = TensorSpec("p", Dtype.FLOAT32, (-1, 3), classes=CLASSES)
    outputs = {"y": np.array([1]), "p": np.array([[0.0, 1.0, 0.0]], dtype=np.float32)}
    (row,) = written(outputs, rows=1, signature=Signature(X, (y, p)))
    assert row["y"] == row["p"]["class"] == "dog"


def test_a_score_that_is_no_number_is_null_and_never_the_best() -> None:
    scores = np.array([[np.nan, 0.2, np.inf], [np.nan] * 3], dtype=np.float64)
    first, second = written({"y": scores}, signature=classed())
    assert first == {"class": "dog", "score": 0.2, "scores": {"cat": None, "dog": 0.2, "owl": None}}
    assert (second["class"], second["score"]) == (None, None)


def test_scores_of_another_number_than_the_classes_stay_numbers() -> None:
    assert written({"y": np.array([[1.0, 2.0]])}, rows=1, signature=classed()) == [[1.0, 2.0]]


def test_scores_of_a_call_without_rows_are_named_too() -> None:
    fixed = classed(shape=(3,))
    said = written({"y": np.array([0.0, 1.0, 0.0])}, rows=1, signature=fixed)
    assert said[0]["class"] == "dog"

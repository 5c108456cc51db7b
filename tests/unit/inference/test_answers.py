"""An answer as people look at it."""

from typing import Any

import pytest

from apps.inference.answers import asked, drawn, recorded, stages_of


def test_shares_of_classes_are_bars_of_percent_with_the_largest_first() -> None:
    (part,) = drawn([[0.1, 0.7, 0.2]], single="probabilities").parts
    assert [(bar.name, bar.words) for bar in part.bars] == [
        ("1", "70.0 %"), ("2", "20.0 %"), ("0", "10.0 %"),
    ]  # fmt: skip
    assert part.bars[0].width == 70.0


def test_named_classes_show_the_best_name_and_every_score() -> None:
    said = {"class": "cat", "score": 0.9, "scores": {"cat": 0.9, "dog": 0.1}}
    (part,) = drawn([said], single="kind").parts
    assert (part.name, part.value) == ("kind", "cat")
    assert [bar.name for bar in part.bars] == ["cat", "dog"]


def test_scores_that_are_no_shares_are_no_percent() -> None:
    (part,) = drawn([[-3.0, 1.5]]).parts
    assert [bar.words for bar in part.bars] == ["1.5", "-3"]
    assert [bar.width for bar in part.bars] == [50.0, 100.0]


def test_only_the_highest_scores_are_drawn_and_the_rest_is_counted() -> None:
    (part,) = drawn([[1 / 1000] * 1000]).parts
    assert (len(part.bars), part.left_out) == (12, 988)


def test_several_outputs_are_several_parts() -> None:
    parts = drawn([{"label": 1, "probabilities": [0.25, 0.75]}]).parts
    assert [one.name for one in parts] == ["label", "probabilities"]
    assert parts[0].value == "1"


def test_several_rows_are_a_table() -> None:
    said = drawn([{"label": n, "note": None} for n in range(150)])
    assert said.rows is not None
    assert said.rows["headers"] == ["Row", "label", "note"]
    assert said.rows["rows"][0] == ["1", "0", "none (not a number)"]
    assert (len(said.rows["rows"]), said.more_rows) == (100, 50)


@pytest.mark.parametrize(
    ("value", "words"),
    [(12.345678, "12.346"), ([7], "7"), (None, "none (not a number)"), (True, "true"), ("a", "a")],
)
def test_a_plain_value_is_said_plainly(value: Any, words: str) -> None:
    assert drawn([value]).parts[0].value == words


def test_what_has_no_drawing_is_json() -> None:
    (part,) = drawn([[[1, 2], [3, 4]]]).parts
    assert part.plain.startswith("[")


def test_an_answer_by_columns_is_drawn_by_column() -> None:
    assert [one.name for one in drawn({"a": [1], "b": [0.5, 0.5]}).parts] == ["a", "b"]


def test_recorded_columns_are_read_back_as_rows() -> None:
    said = recorded({"label": [1, 2], "score": [0.5, 0.25]}, rows=2)
    assert said.rows is not None
    assert said.rows["rows"] == [["1", "1", "0.5"], ["2", "2", "0.25"]]
    assert recorded({"x": {"dtype": "float32", "sha256": "ab"}}, rows=1).parts[0].plain


def test_the_numbers_of_a_question_are_no_scores_and_keep_their_order() -> None:
    plain = asked([[14.2, 1065, 0.3]], 1)
    assert plain.is_plain
    assert [(one.name, one.value) for one in plain.parts] == [
        ("value 1", "14.2"), ("value 2", "1065"), ("value 3", "0.3"),
    ]  # fmt: skip
    named = asked([[14.2, 1065, 0.3]], 1, ("alcohol", "proline", "hue"))
    assert [one.name for one in named.parts] == ["alcohol", "proline", "hue"]
    assert asked([[1.0, 2.0]], 1, ("one",)).parts[1].name == "value 2"


def test_a_question_of_named_or_many_rows_is_drawn_as_recorded() -> None:
    assert asked([{"age": 41, "bmi": 32.1}], 1) == recorded([{"age": 41, "bmi": 32.1}], 1)
    assert asked([[1, 2], [3, 4]], 2) == recorded([[1, 2], [3, 4]], 2)


def test_stages_follow_each_other_and_fill_the_whole() -> None:
    stages = stages_of(total_ms=10, queue_ms=2, inference_ms=5, load_ms=90)
    assert stages[0].name == "Loading the model"
    assert [(one.left, one.width) for one in stages] == [(0, 90), (90, 2), (92, 5), (97, 3)]
    assert stages[-1].words == "3 ms"


def test_stages_of_nothing_do_not_divide_by_it() -> None:
    assert all(one.left == 0 for one in stages_of(total_ms=0, queue_ms=0, inference_ms=0))

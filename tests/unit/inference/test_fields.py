"""A signature as a form, and a filled-in form as a question."""

import base64
from typing import Any

import pytest

from apps.inference.pages.fields import fields_of, question_from, with_problems
from apps.registry.image_spec import ColourMode, ImageSpec
from apps.registry.signature import Dtype, Signature, TensorSpec

OUT = (TensorSpec("y", Dtype.FLOAT32, (-1, 1)),)
COLUMNS = Signature((TensorSpec("x", Dtype.FLOAT32, (-1, 2), columns=("age", "a/b")),), OUT)
PLAIN = Signature((TensorSpec("x", Dtype.FLOAT32, (-1, 3)),), OUT)
MIXED = Signature(
    (
        TensorSpec("age", Dtype.INT64, (-1, 1), minimum=0, maximum=120),
        TensorSpec("plan", Dtype.STRING, (-1, 1), categories=("free", "pro")),
        TensorSpec("note", Dtype.STRING, (-1,)),
        TensorSpec("on", Dtype.BOOL, (-1,)),
        TensorSpec("grid", Dtype.FLOAT32, (-1, 2, 2)),
    ),
    OUT,
)
IMAGE = Signature(
    (TensorSpec("picture", Dtype.FLOAT32, (-1, 1, 8, 8), image=ImageSpec(8, 8, ColourMode.GREY)),),
    OUT,
)


def asked(signature: Signature, typed: dict[str, str], example: Any = None, **images: bytes) -> Any:
    return question_from(fields_of(signature, example), typed, images)


@pytest.mark.parametrize(
    "example",
    [
        {"instances": [{"age": 41, "a/b": 2.5}]},
        {"instances": [[41, 2.5], [1, 2]]},
        {"inputs": {"x": [[41, 2.5]]}},
    ],
)
def test_columns_are_fields_filled_from_an_example_of_any_form(example: Any) -> None:
    fields = fields_of(COLUMNS, example)
    assert [(one.label, one.kind, one.value) for one in fields] == [
        ("age", "number", "41"), ("a/b", "number", "2.5"),
    ]  # fmt: skip
    assert [one.pointer for one in fields] == ["/instances/0/age", "/instances/0/a~1b"]


@pytest.mark.parametrize("example", [None, 3, {}, {"instances": []}, {"instances": [None]}])
def test_without_a_good_example_the_fields_are_empty(example: Any) -> None:
    assert {one.value for one in fields_of(COLUMNS, example)} == {""}


def test_numbers_without_names_are_one_field_with_commas() -> None:
    (field,) = fields_of(PLAIN, {"instances": [[1, 2.5, 3]]})
    assert (field.kind, field.value, field.help) == (
        "list",
        "1, 2.5, 3",
        "float32, 3 numbers, by comma",
    )
    question, _ = asked(PLAIN, {"f0": " 4, 5,6 "})
    assert question == {"instances": [{"x": [4, 5, 6]}]}


def test_every_kind_of_input_has_its_field_with_bounds_and_choices() -> None:
    age, plan, note, on, grid = fields_of(MIXED, None)
    assert age.help == "int64, at least 0, at most 120"
    assert (plan.kind, plan.choices) == ("choice", (('"free"', "free"), ('"pro"', "pro")))
    assert (note.kind, on.kind, grid.kind) == ("text", "text", "json")


def test_a_filled_in_form_is_the_question_it_shows() -> None:
    typed = {"f0": "41", "f1": '"pro"', "f2": "007", "f3": "True", "f4": "[[1,2],[3,4]]"}
    question, fields = asked(MIXED, typed)
    assert question == {
        "instances": [
            {"age": 41, "plan": "pro", "note": "007", "on": True, "grid": [[1, 2], [3, 4]]}
        ]
    }
    assert not any(one.error for one in fields)


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("f0", "", "Fill this in."),
        ("f0", "many", "Write a whole number, as 3."),
        ("f0", "NaN", "Write a whole number, as 3."),
        ("f0", "[1]", "Write a whole number, as 3."),
        ("f3", "maybe", "Write true or false."),
        ("f4", "1, 2", "This is not JSON. Write lists in brackets, as [[1, 2], [3, 4]]."),
    ],
)
def test_what_cannot_be_read_is_said_at_its_field(name: str, typed: str, said: str) -> None:
    good = {"f0": "41", "f1": '"pro"', "f2": "x", "f3": "true", "f4": "[[1,2],[3,4]]"}
    _, fields = asked(MIXED, good | {name: typed})
    assert {one.name: one.error for one in fields if one.error} == {name: said}


def test_an_image_is_sent_as_base64_and_the_example_stands_in_for_none() -> None:
    question, _ = asked(IMAGE, {}, f0=b"\x89PNG")
    assert question == {"instances": [{"picture": {"b64": base64.b64encode(b"\x89PNG").decode()}}]}
    example = {"instances": [{"b64": "aGk="}]}
    (field,) = fields_of(IMAGE, example)
    assert (field.kind, field.preview) == ("image", "data:image/png;base64,aGk=")
    assert asked(IMAGE, {}, example)[0] == {"instances": [{"picture": {"b64": "aGk="}}]}
    assert asked(IMAGE, {})[1][0].error == "Choose an image."


def test_a_problem_goes_to_the_field_that_its_pointer_names_and_no_other() -> None:
    fields, others = with_problems(
        fields_of(MIXED, None),
        {"/instances/0/age": "Too old.", "/instances/0/grid/1/0": "No number.", "/unit": "Odd."},
    )
    assert {one.label: one.error for one in fields if one.error} == {
        "age": "Too old.", "grid": "No number.",
    }  # fmt: skip
    assert others == ["Odd."]


def test_a_form_of_very_many_fields_is_left_to_json() -> None:
    wide = TensorSpec("x", Dtype.FLOAT32, (-1, 300), columns=tuple(f"c{n}" for n in range(300)))
    assert fields_of(Signature((wide,), OUT), None) == ()

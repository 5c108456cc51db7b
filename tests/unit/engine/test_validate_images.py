"""Images in a question: both forms, batches, and where each wrong one stands."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.errors import PlatformError
from apps.inference.engine import validate
from apps.inference.engine.errors import DeadlinePassed, SignatureMismatch, WrongMediaType
from apps.inference.engine.images import Budget, read_image
from apps.inference.engine.types import ColumnInputs, ImageInputs, Inputs, RowInputs
from apps.inference.engine.validate import Checked, tensors_of
from apps.registry.image_spec import PNG, ColourMode, ImageSpec
from apps.registry.signature import Dtype, Signature, TensorSpec
from tests.factories.images import b64, file_of, image_signature, noise

ONE = image_signature()
FIXED = image_signature(rows=1)
TWO = Signature(
    (
        TensorSpec("a/b", Dtype.FLOAT32, (-1, 1, 2, 2), image=ImageSpec(2, 2, ColourMode.GREY)),
        TensorSpec("age", Dtype.INT64, (-1, 1)),
    ),
    (TensorSpec("y", Dtype.FLOAT32, (-1, 1)),),
)
PICTURES = [noise(2, 2, seed=seed) for seed in range(3)]
FILES = [file_of(one) for one in PICTURES]
TENSOR = np.stack(PICTURES).astype(np.float32)[:, np.newaxis] * np.float32(1 / 255)


def check(inputs: Inputs, signature: Signature = ONE) -> Checked:
    return tensors_of(inputs, signature, max_rows=100)


def wrong(inputs: Inputs, signature: Signature = ONE) -> list[str]:
    with pytest.raises(SignatureMismatch) as caught:
        check(inputs, signature)
    assert all(one.detail.endswith(".") for one in caught.value.problems)
    return [one.pointer for one in caught.value.problems]


@pytest.mark.parametrize(
    "inputs", [RowInputs([b64(FILES[0])]), ImageInputs(FILES[0], PNG)], ids=["field", "alone"]
)
def test_no_image_is_read_for_a_call_whose_time_is_over(inputs: Inputs) -> None:
    with pytest.raises(DeadlinePassed):
        tensors_of(inputs, ONE, max_rows=100, seconds=0.0)


def test_time_counts_over_all_images_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now, opened = [100.0], []

    def read(*given: Any, **more: Any) -> Any:
        now[0] += 1.0
        opened.append(1)
        return read_image(*given, **more)

    monkeypatch.setattr("apps.inference.engine.images.time.monotonic", lambda: now[0])
    monkeypatch.setattr(validate, "read_image", read)
    with pytest.raises(DeadlinePassed):
        tensors_of(RowInputs([b64(one) for one in FILES]), ONE, max_rows=100, seconds=1.5)
    assert len(opened) == 2


@pytest.mark.parametrize(
    "inputs",
    [
        RowInputs([{"image": b64(one)} for one in FILES]),
        RowInputs([b64(one, content_type=PNG) for one in FILES]),
        ColumnInputs({"image": [b64(one) for one in FILES]}),
    ],
    ids=["fields", "bare rows", "columns"],
)
def test_a_batch_of_images_becomes_one_tensor_whatever_the_form(inputs: Inputs) -> None:
    checked = check(inputs)
    assert np.array_equal(checked.tensors["image"], TENSOR)
    assert (checked.rows, checked.by_rows) == (3, isinstance(inputs, RowInputs))
    assert [one.size for one in checked.images["image"]] == [len(one) for one in FILES]


def test_an_image_alone_is_one_row() -> None:
    checked = check(ImageInputs(FILES[0], PNG))
    assert np.array_equal(checked.tensors["image"], TENSOR[:1])
    assert (checked.rows, checked.by_rows, len(checked.images["image"])) == (1, True, 1)


@pytest.mark.parametrize(
    "inputs",
    [
        RowInputs([{"image": b64(FILES[0])}]),
        RowInputs([b64(FILES[0])]),
        ColumnInputs({"image": b64(FILES[0])}),
        ImageInputs(FILES[0], PNG),
    ],
    ids=["field", "bare row", "column", "alone"],
)
def test_a_model_of_one_row_takes_one_image_as_its_whole_tensor(inputs: Inputs) -> None:
    assert np.array_equal(check(inputs, FIXED).tensors["image"], TENSOR[:1])


def test_numbers_in_the_models_own_shape_are_taken_as_before() -> None:
    checked = check(RowInputs(TENSOR.tolist()))
    assert np.array_equal(checked.tensors["image"], TENSOR)
    assert not checked.images
    assert check(ColumnInputs({"image": TENSOR.tolist()})).rows == 3


def test_an_image_may_stand_beside_other_inputs() -> None:
    checked = check(RowInputs([{"a/b": b64(FILES[0]), "age": 41}]), TWO)
    assert checked.tensors["a/b"].shape == (1, 1, 2, 2)
    assert checked.tensors["age"].tolist() == [[41]]


def test_every_wrong_image_is_pointed_at_and_the_right_ones_are_not() -> None:
    bad = [b64(FILES[0]), b64(b"GIF89a"), {"b64": "?"}, {"b64": "", "size": 1}, 7]
    assert wrong(ColumnInputs({"image": bad})) == [
        "/inputs/image/1/b64",
        "/inputs/image/2/b64",
        "/inputs/image/3/size",
        "/inputs/image/4",
    ]
    assert wrong(RowInputs([{"image": one} for one in bad]))[0] == "/instances/1/image/b64"
    rows = [{"a/b": b64(b"hello"), "age": "x"}]
    assert wrong(RowInputs(rows), TWO) == ["/instances/0/a~1b/b64", "/instances/0/age"]
    assert wrong(ColumnInputs({"image": b64(b"hello")}), FIXED) == ["/inputs/image/b64"]
    assert wrong(ImageInputs(b"hello", PNG)) == [""]


def test_a_row_in_another_form_than_the_first_is_refused() -> None:
    assert wrong(RowInputs([b64(FILES[0]), {"image": b64(FILES[1])}])) == ["/instances/1"]
    assert wrong(RowInputs([b64(FILES[0]), TENSOR[0].tolist()])) == ["/instances/1"]
    mixed = [TENSOR[0].tolist(), b64(FILES[0])]
    assert wrong(ColumnInputs({"image": mixed})) == ["/inputs/image/1"]


def test_an_image_for_a_model_of_numbers_is_refused() -> None:
    plain = Signature((TensorSpec("x", Dtype.FLOAT32, (-1, 4)),), ONE.outputs)
    assert wrong(RowInputs([{"x": b64(FILES[0])}]), plain) == ["/instances/0/x"]
    for signature in (plain, TWO):
        with pytest.raises(WrongMediaType):
            check(ImageInputs(FILES[0], PNG), signature)


def test_a_call_whose_tensor_would_not_fit_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = image_signature()
    spec = ImageSpec(4096, 4096)
    signature = Signature(
        (TensorSpec("image", Dtype.FLOAT32, (-1, 3, 4096, 4096), image=spec),), large.outputs
    )
    monkeypatch.setattr(validate, "read_image", lambda *_: pytest.fail("read"))
    assert wrong(ColumnInputs({"image": [b64(FILES[0])] * 2}), signature) == ["/inputs/image"]


def test_images_beyond_the_calls_share_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "_Reading", partial(validate._Reading, budget=Budget(5)))
    several = [b64(one) for one in (*FILES, b"hello")]
    assert wrong(ColumnInputs({"image": several})) == ["/inputs/image/1/b64"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["b64", "content_type", "image", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(value=JSON, rows=st.booleans(), signature=st.sampled_from([ONE, FIXED, TWO]))
def test_whatever_stands_in_an_images_place_is_read_or_refused_with_a_place(
    value: Any, rows: bool, signature: Signature
) -> None:
    inputs = RowInputs([value, b64(FILES[0])]) if rows else ColumnInputs({"image": [value]})
    try:
        check(inputs, signature)
    except PlatformError as error:
        places = error.problems
    else:
        return
    assert places

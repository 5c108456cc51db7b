"""Frames carry arrays exactly, and a reader believes nothing."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from apps.inference.runtimes.frames import (
    LENGTHS,
    NUMBERS,
    BadFrame,
    Frame,
    decode_all,
    encode,
)


@given(
    st.sampled_from(sorted(NUMBERS)).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0))
    )
)
def test_numbers_survive_the_trip(array: np.ndarray) -> None:
    back = decode_all(encode(Frame({"a": 1}, {"x": array}))).tensors["x"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.text(), min_size=0, max_size=5))
def test_texts_survive_the_trip(texts: list[str]) -> None:
    array = np.empty((len(texts), 1), dtype=object)
    array[:, 0] = texts
    back = decode_all(encode(Frame({}, {"t": array}))).tensors["t"]
    assert back.tolist() == array.tolist()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_bad_frame(data: bytes) -> None:
    with contextlib.suppress(BadFrame):
        decode_all(data)


def _with_head(head: object, body: bytes = b"") -> bytes:
    written = json.dumps(head).encode()
    return LENGTHS.pack(len(written), len(body)) + written + body


@pytest.mark.parametrize(
    "tensor",
    [
        {"name": "x", "dtype": "float32", "shape": [2], "bytes": 4},
        {"name": "x", "dtype": "float32", "shape": [-1], "bytes": 4},
        {"name": "x", "dtype": "float32", "shape": [True], "bytes": 4},
        {"name": "x", "dtype": "object", "shape": [1], "bytes": 4},
        {"name": "x", "dtype": "float32", "shape": [1], "bytes": -4},
        {"name": "x", "dtype": "float32", "shape": [2**62, 2**62], "bytes": 4},
        {"name": "x", "dtype": "string", "shape": [1], "bytes": 4},
        {"dtype": "float32", "shape": [1], "bytes": 4},
    ],
)
def test_a_lying_head_is_a_bad_frame(tensor: dict[str, object]) -> None:
    with pytest.raises(BadFrame):
        decode_all(_with_head({"facts": {}, "tensors": [tensor]}, b"1234"))


def test_a_frame_that_claims_to_be_huge_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadFrame):
        decode_all(LENGTHS.pack(1 << 31, 0) + b"{}")

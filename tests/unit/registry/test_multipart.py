"""The multipart reader: the same happenings however the bytes are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import Invalid
from apps.registry.api.multipart import (
    FieldSent,
    FileBegun,
    FilePiece,
    Happening,
    MultipartReader,
    boundary_of,
)
from tests.fakes.asgi import BOUNDARY, form, part


def read(body: bytes, cuts: list[int]) -> list[Happening]:
    reader = MultipartReader(BOUNDARY)
    ends = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    found = [one for low, high in itertools.pairwise(ends) for one in reader.feed(body[low:high])]
    reader.finish()
    return found


def joined(happened: list[Happening]) -> tuple[list[Happening], bytes]:
    pieces = b"".join(one.data for one in happened if isinstance(one, FilePiece))
    return [one for one in happened if not isinstance(one, FilePiece)], pieces


@given(
    data=st.binary(max_size=2000) | st.sampled_from([b"\r\n--frontie", b"--frontier-", b"\r\n"]),
    cuts=st.lists(st.integers(0, 2500), max_size=20),
)
def test_cuts_change_nothing(data: bytes, cuts: list[int]) -> None:
    body = form(part("name", "wine"), part("file", data, "w.onnx"), part("team", "blue"))
    others, pieces = joined(read(body, cuts))
    assert others == [FieldSent("name", "wine"), FileBegun("w.onnx"), FieldSent("team", "blue")]
    assert pieces == data


@given(st.binary(max_size=500))
def test_any_bytes_at_all_are_read_or_refused(data: bytes) -> None:
    reader = MultipartReader(BOUNDARY)
    try:
        reader.feed(b"--frontier\r\n" + data)
        reader.finish()
    except Invalid:
        return


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; boundary="a b"; charset=utf-8', b"a b"),
        ("multipart/mixed; boundary=abc", b""),
        ("application/json", b""),
        ("", b""),
    ],
)
def test_the_boundary_is_that_of_a_form(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


def test_a_boundary_that_is_too_long_is_refused() -> None:
    with pytest.raises(Invalid):
        MultipartReader(b"x" * 10_000)

"""Strict JSON: nothing slips through, and whatever is wrong has a place."""

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.core import strict_json
from apps.core.strict_json import MAX_DEPTH, InvalidJson, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def pointer(body: bytes) -> str:
    with pytest.raises(InvalidJson) as caught:
        loads(body)
    return caught.value.problems[0].pointer


# Making a value takes longer on a busy machine, which says nothing about the rule.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(VALUES)
def test_what_is_valid_comes_through_unchanged(value: Any) -> None:
    if depth(value) <= MAX_DEPTH:
        assert loads(orjson.dumps(value)) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_the_one_kind_of_error(body: bytes) -> None:
    with contextlib.suppress(InvalidJson):
        loads(body)


@unhurried
@given(VALUES, st.text(), st.integers(0, 5))
def test_a_name_that_stands_twice_is_found_wherever_it_is(
    value: Any, name: str, levels: int
) -> None:
    inner, quoted = json.dumps(value), json.dumps(name)
    body = f"{{{quoted}: {inner}, {quoted}: 1}}"
    for _ in range(levels):
        body = f'[0, {{"a": {body}}}]'
    if depth(orjson.loads(body)) > MAX_DEPTH:
        return
    steps = "/1/a" * levels
    assert pointer(body.encode()).startswith(steps)


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1, 200])
@pytest.mark.parametrize("padding", ['"', '"x" : "]]]]", "', '"[[[[", "'])
def test_depth_is_counted_whatever_stands_in_texts(levels: int, padding: str) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        for texts in (0, 100):
            filler = ",".join([json.dumps(padding)] * texts)
            core = f"[{filler}]"
            body = (opening * (levels - 1) + core + closing * (levels - 1)).encode()
            if levels <= MAX_DEPTH:
                loads(body)
            else:
                assert pointer(body) == ""


@pytest.mark.parametrize(
    "body",
    [
        b'["]",' * 40 + b"1" + b',"["]' * 40,
        b"[" * 20
        + b'"'
        + b"]" * 20
        + b'",'
        + b"[" * 20
        + b"]" * 20
        + b',"'
        + b"[" * 20
        + b'"'
        + b"]" * 20,
    ],
)
def test_brackets_in_texts_do_not_hide_depth(body: bytes) -> None:
    assert orjson.loads(body)
    assert pointer(body) == ""


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"a": NaN}', "/a"),
        (b"[[1, Infinity], 2]", "/0/1"),
        (b'{"a~b": {"c/d": -Infinity}}', "/a~0b/c~1d"),
        (b'{"a": "NaN", "b": }', ""),
        (b'{"a": "NaN"} x', ""),
    ],
)
def test_a_number_that_is_none_is_pointed_at(body: bytes, place: str) -> None:
    assert pointer(body) == place


def test_a_long_name_is_shortened_in_the_pointer() -> None:
    assert strict_json.step("n" * 1000) == "/" + "n" * 80


def test_a_number_of_ten_thousand_digits_is_no_crash() -> None:
    body = b'{"a": ' + b"9" * 10_000 + b', "b": NaN}'
    assert pointer(body) == "/b"

"""JSON as a public door takes it: strict, bounded, and with a pointer to what is wrong.

``orjson`` is strict about syntax, text and numbers, but takes the last of two equal names and says
only a line and column. Both gaps are closed here without a second parse of a body that is right:
counting is enough to know that no name stands twice and that nothing is nested too deep.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from apps.core.errors import FieldProblem, Invalid

MAX_DEPTH = 32
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_INNERMOST = re.compile(rb"\[\]|\{\}")
_NO_NUMBERS = re.compile(rb"NaN|Infinity")
_NESTS = (dict, list)
_MANY_QUOTES = 64
_SHOWN = 80


class InvalidJson(Invalid):
    """The body is not JSON as this door takes it."""

    code = "invalid_json"


@dataclass(frozen=True, slots=True)
class _Twice:
    """Stands in for an object that has a name twice."""

    name: str


@dataclass(frozen=True, slots=True)
class _NoNumber:
    """Stands in for a literal that JSON does not have."""

    literal: str


def loads(body: bytes) -> Any:
    """Parse a body.

    Raises:
        InvalidJson: It is no JSON, has a name twice, or is nested deeper than ``MAX_DEPTH``.
    """
    if not body:
        raise _wrong("", "The body is empty; send a JSON object.")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _explain(body, error)
    if not _is_shallow(body, value):
        raise _wrong("", f"The body is nested deeper than {MAX_DEPTH} levels.")
    if _names(value) != body.count(b":"):
        _require_single_names(body)
    return value


def wrong_at(pointer: str, detail: str) -> Invalid:
    """Return the error for one wrong place of a body."""
    error = Invalid(detail)
    error.at([FieldProblem(pointer, detail)])
    return error


def step(name: str) -> str:
    """Return a name as one step of a JSON pointer (RFC 6901), shortened."""
    return "/" + name[:_SHOWN].replace("~", "~0").replace("/", "~1")


def _wrong(pointer: str, detail: str) -> InvalidJson:
    error = InvalidJson(detail)
    error.at([FieldProblem(pointer, detail)])
    return error


def _explain(body: bytes, error: orjson.JSONDecodeError) -> NoReturn:
    """Say what is wrong with a body that did not parse, with the place where that is possible."""
    try:
        text = body.decode()
    except UnicodeDecodeError as undecodable:
        raise _wrong("", f"Byte {undecodable.start} of the body is not UTF-8.") from error
    if _NO_NUMBERS.search(body):
        _find_marks(text)
    where = f"line {error.lineno}, column {error.colno}"
    raise _wrong("", f"The body is not JSON ({where}): {error.msg}.") from error


def _is_shallow(body: bytes, value: Any) -> bool:
    """Whether a valid body is nested no deeper than allowed.

    Many numbers are quicker passed over in the text, many names and texts in the parsed value.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return True
    if body.count(b'"') > _MANY_QUOTES:
        return _is_shallow_value(value)
    left = _TEXT.sub(b"", body).translate(None, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        left = _INNERMOST.sub(b"", left)
    return not left


def _is_shallow_value(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, _NESTS)
        ]
    return not level


def _names(value: Any) -> int:
    """Count the names of the objects in the usual places; never more than there are.

    Equal names were merged by the parser and each has a colon of its own, so a count that equals
    the colons of the body proves that no name stands twice.
    """
    if not isinstance(value, dict):
        return 0
    count = len(value)
    for inner in value.values():
        if isinstance(inner, dict):
            count += len(inner)
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
            count += sum(len(one) for one in inner if isinstance(one, dict))
    return count


def _require_single_names(body: bytes) -> None:
    _find_marks(body.decode())


def _find_marks(text: str) -> None:
    """Parse slowly, with marks where something is wrong, and raise for the first one."""
    try:
        marked = json.loads(
            text, object_pairs_hook=_object_of, parse_constant=_NoNumber, parse_int=str
        )
        found = next(_marks(marked, ""), None)
    except (ValueError, RecursionError):  # wrong in yet another way, which the caller says
        return
    if found is None:
        return
    pointer, mark = found
    if isinstance(mark, _Twice):
        detail = f"The name `{mark.name[:_SHOWN]}` stands twice in this object."
        raise _wrong(pointer + step(mark.name), detail)
    raise _wrong(pointer, f"`{mark.literal}` is no JSON number. Leave the value out.")


def _object_of(pairs: list[tuple[str, Any]]) -> Any:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            return _Twice(name)
        found[name] = value
    return found


def _marks(value: Any, at: str) -> Iterator[tuple[str, "_Twice | _NoNumber"]]:
    if isinstance(value, _Twice | _NoNumber):
        yield at, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _marks(inner, at + step(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _marks(inner, f"{at}/{index}")

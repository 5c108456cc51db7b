"""Wrong places of a question in words that may be shown to whoever sent it."""

import math
from collections.abc import Sequence

from apps.core.errors import FieldProblem
from apps.inference.engine.errors import SignatureMismatch

MOST_PROBLEMS = 20
SHOWN_CHARACTERS = 40

_KIND: dict[type, str] = {dict: "an object", list: "a list", bool: "a boolean", str: "the text"}


def shown(value: object) -> str:
    """Describe a value in a few words; it is shown to whoever sent it."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else "a number of more than 64 bits"
    if isinstance(value, float):
        return f"the number {value!r}" if math.isfinite(value) else "NaN or Infinity"
    return _KIND.get(type(value), "something else")


def quoted(text: str) -> str:
    """Shorten a text and put it in quotes."""
    short = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    return '"' + short.encode("utf-8", "replace").decode() + '"'


def escaped(name: str) -> str:
    """Escape one step of a pointer (RFC 6901)."""
    safe = name[:200].encode("utf-8", "replace").decode()
    return safe.replace("~", "~0").replace("/", "~1")


def mismatch(problems: Sequence[FieldProblem]) -> SignatureMismatch:
    """Return the error for wrong places; the first one is its message."""
    error = SignatureMismatch(problems[0].detail, problems=len(problems))
    error.at(problems)
    return error

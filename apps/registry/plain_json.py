"""Reads the plain JSON values of a signature and says which is wrong; plain Python."""

import math
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from apps.core.errors import FieldProblem, Invalid

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
Word = TypeVar("Word", bound=StrEnum)


def wrong(pointer: str, detail: str) -> Invalid:
    error = Invalid("The signature cannot be read: " + detail)
    error.at([FieldProblem(pointer, detail)])
    return error


def bound(value: object, at: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_number(value):
        raise wrong(at, "This value is a number.")
    return float(value)


def word(kind: type[Word], body: Mapping[str, object], name: str, default: Word, at: str) -> Word:
    value = body.get(name)
    if value is None:
        return default
    try:
        return kind(str(value))
    except ValueError as error:
        known = ", ".join(one.value for one in kind)
        raise wrong(f"{at}/{name}", f"`{name}` is one of {known}.") from error


def whole(body: Mapping[str, object], name: str, default: int | None, most: int, at: str) -> int:
    value = body.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise wrong(f"{at}/{name}", f"`{name}` is a whole number from 1 to {most}.")
    return value


def is_text(text: str) -> bool:
    """Whether every database and every writer of JSON takes it: no NUL, no lone surrogate."""
    return UNSTORABLE.search(text) is None


def is_number(value: int | float) -> bool:
    """Whether JSON can say it: finite, and a whole number within 64 bits."""
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)

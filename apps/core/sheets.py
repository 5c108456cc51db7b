"""Rows as CSV that a spreadsheet opens as text and never runs as a formula."""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Any

# What makes a cell a formula in some spreadsheet, the full-width forms included.
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - on purpose
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def safe_cell(value: object) -> str:
    """Write a value so that it stays text: what could be a formula gets an apostrophe."""
    text = "" if value is None else str(value)
    opening = text.lstrip(" \u00a0\u3000")
    if (text.startswith(_STARTS) or opening.startswith(_STARTS)) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def csv_lines(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Write a table line by line, so that a long one is never held whole."""
    writer = csv.writer(_Line())
    yield _written(writer, headers)
    for row in rows:
        yield _written(writer, [safe_cell(cell) for cell in row])


class _Line:
    """A file that hands every line back to whoever wrote it."""

    def write(self, line: str) -> str:
        return line


def _written(writer: Any, cells: Iterable[str]) -> str:
    return str(writer.writerow(list(cells)))

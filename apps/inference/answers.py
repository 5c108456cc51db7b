"""An answer as people look at it: a value, bars of scores, or a table of rows; plain Python.

It is read from the reply that programs get, so that a page never says more or less than the API.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.core.words import milliseconds_words, table

MOST_BARS = 12
MOST_ROWS = 100
MOST_CELL = 120
# Scores that add up to one within this are shares of a whole.
SUM_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Bar:
    """One class and its score; ``width`` is percent of the longest bar's room."""

    name: str
    words: str
    width: float


@dataclass(frozen=True, slots=True)
class Part:
    """What one output says of one row: a value, bars, or plain JSON; empty ones are not drawn."""

    name: str
    value: str = ""
    bars: tuple[Bar, ...] = ()
    left_out: int = 0
    plain: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a prediction's time; ``left`` and ``width`` are percent of the whole."""

    name: str
    words: str
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """A whole answer: the parts of its only row, or a table of its rows."""

    parts: tuple[Part, ...] = ()
    rows: Mapping[str, Any] | None = None
    more_rows: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but names with one value each."""
        return bool(self.parts) and all(one.value and not one.bars for one in self.parts)


def drawn(predictions: Any, *, single: str = "answer") -> Drawn:
    """Draw what stands in ``predictions`` of a reply.

    Args:
        predictions: A list with an entry per row, or an object of columns.
        single: What the only output is called, where the reply does not name it.
    """
    if isinstance(predictions, Mapping):  # the question came by columns, and so does the answer
        return Drawn(tuple(_part(name, value) for name, value in predictions.items()))
    if not isinstance(predictions, list):
        return Drawn((_part(single, predictions),))
    if len(predictions) == 1:
        return Drawn(tuple(_part(name, one) for name, one in _named(predictions[0], single)))
    return _table(predictions, single)


def recorded(value: Any, rows: int) -> Drawn:
    """Draw inputs or outputs as they were recorded: rows, columns by name, or a digest."""
    if isinstance(value, Mapping) and value and rows:
        columns = {str(name): one for name, one in value.items()}
        if all(isinstance(one, list) and len(one) == rows for one in columns.values()):
            names = list(columns)
            value = [
                dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ]
    return drawn(value, single="value")


def asked(value: Any, rows: int, columns: Sequence[str] = ()) -> Drawn:
    """Draw inputs as they were recorded: numbers of a question are no scores, and keep their order.

    Args:
        value: What was recorded.
        rows: How many rows it has.
        columns: Names of the numbers of a row, where the signature knows them.
    """
    row = value[0] if isinstance(value, list) and len(value) == 1 else None
    if not _are_scores(row):
        return recorded(value, rows)
    assert isinstance(row, list)
    named = (
        columns if len(columns) == len(row) else [f"value {at}" for at in range(1, len(row) + 1)]
    )
    return Drawn(tuple(Part(name, _words(one)) for name, one in zip(named, row, strict=True)))


def stages_of(
    *, total_ms: float, queue_ms: float, inference_ms: float, load_ms: float | None = None
) -> tuple[Stage, ...]:
    """Return where the time went, one after the other."""
    rest = max(0.0, total_ms - queue_ms - inference_ms)
    named = [("Loading the model", load_ms or 0.0)] if load_ms is not None else []
    named += [
        ("Waiting in the queue", queue_ms),
        ("Inference", inference_ms),
        ("Checks, routing, record", rest),
    ]
    whole = sum(taken for _, taken in named) or 1.0
    stages, before = [], 0.0
    for name, taken in named:
        left, width = 100 * before / whole, 100 * taken / whole
        stages.append(
            Stage(
                name, milliseconds_words(round(taken, 3)), round(left, 2), round(max(width, 0.4), 2)
            )
        )
        before += taken
    return tuple(stages)


def _named(row: Any, single: str) -> list[tuple[str, Any]]:
    if isinstance(row, Mapping) and not _is_ranked(row):
        return [(str(name), value) for name, value in row.items()]
    return [(single, row)]


def _part(name: str, value: Any) -> Part:
    if _is_ranked(value):
        return _bars(name, value["scores"], best=str(value["class"] or ""))
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, Mapping) and value and all(_is_number(one) for one in value.values()):
        return _bars(name, value)
    if _are_scores(value):
        return _bars(name, {str(at): one for at, one in enumerate(value)})
    if isinstance(value, list | dict):
        return Part(name, plain=json.dumps(value, indent=2, ensure_ascii=False))
    return Part(name, value=_words(value))


def _is_ranked(value: Any) -> bool:
    """Whether it is the form in which named classes answer."""
    return isinstance(value, Mapping) and isinstance(value.get("scores"), Mapping)


def _are_scores(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(_is_number(one) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bars(name: str, scores: Mapping[str, Any], *, best: str = "") -> Part:
    known = {name: float(one) for name, one in scores.items() if _is_number(one)}
    ranked = sorted(known, key=lambda one: -known[one])
    shares = _are_shares(list(known.values()))
    longest = 1.0 if shares else max((abs(one) for one in known.values()), default=1.0) or 1.0
    bars = tuple(
        Bar(
            one,
            f"{known[one] * 100:.1f} %" if shares else _words(known[one]),
            round(100 * abs(known[one]) / longest, 2),
        )
        for one in ranked[:MOST_BARS]
    )
    return Part(name, value=best, bars=bars, left_out=max(0, len(known) - MOST_BARS))


def _are_shares(scores: Sequence[float]) -> bool:
    return all(-1e-6 <= one <= 1 + 1e-6 for one in scores) and abs(sum(scores) - 1) < SUM_TOLERANCE


def _table(predictions: Sequence[Any], single: str) -> Drawn:
    shown = [dict(_named(one, single)) for one in predictions[:MOST_ROWS]]
    names = list(dict.fromkeys(name for row in shown for name in row))
    rows = ((str(at), *(_cell(row.get(name)) for name in names)) for at, row in enumerate(shown, 1))
    return Drawn(rows=table(("Row", *names), rows), more_rows=max(0, len(predictions) - MOST_ROWS))


def _cell(value: Any) -> str:
    if _is_ranked(value):
        score = value.get("score")
        return f"{value['class']} ({_words(score)})"
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, list | dict):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= MOST_CELL else f"{text[:MOST_CELL]}…"
    return _words(value)


def _words(value: Any) -> str:
    if value is None:
        return "none (not a number)"
    if isinstance(value, float):
        return f"{value:.5g}"
    return str(value).lower() if isinstance(value, bool) else str(value)

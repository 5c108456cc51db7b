"""Numbers beside those of the period before: what changed, in words; plain Python."""

from dataclasses import dataclass, replace
from typing import Literal

from apps.core.words import count_words, milliseconds_words, percent_words, rate_words
from apps.inference.selectors import Traffic

Better = Literal["more", "less", "neither"]
# A difference below this part of the former number is none worth a word.
LEAST = 0.005


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its unit, and how it moved.

    Attributes:
        change: "+12 % against the period before"; empty when that period had no requests.
        tone: ``better``, ``worse``, or empty.
    """

    name: str
    value: str
    note: str
    change: str
    tone: str


def change_of(now: float | None, before: float | None) -> float | None:
    """Return the change as a part of the former number; None when that was nothing."""
    if now is None or not before:
        return None
    return now / before - 1


def change_words(now: float | None, before: float | None) -> str:
    """Say how a number moved against the period before."""
    if now is None:
        return "nothing in this time"
    if not before:
        return "" if before is None or not now else "none before"
    change = change_of(now, before)
    assert change is not None
    if abs(change) < LEAST:
        return "as before"
    if change >= 9:
        return f"{now / before:,.0f} times as before"
    return f"{change * 100:+,.{0 if abs(change) >= 0.1 else 1}f} % against the period before"


def tone_of(now: float | None, before: float | None, better: Better) -> str:
    """Say whether a change is for the better; empty when it is neither or too small."""
    change = change_of(now, before)
    if change is None or better == "neither" or abs(change) < LEAST:
        return ""
    return "better" if (change > 0) == (better == "more") else "worse"


def error_rate(one: Traffic) -> float | None:
    """Return the part of requests that failed; None without requests."""
    return one.errors / one.count if one.count else None


def figures_of(now: Traffic, before: Traffic, *, seconds: int, words: str) -> list[Figure]:
    """Return the numbers on top of a page of traffic; without a period before, no changes."""
    share, former = error_rate(now), error_rate(before)
    average = now.count / seconds
    often = f"{rate_words(average)} on average, " if average * 60 >= 1 else ""
    figures = [
        _figure(
            "Requests", now.count, before.count, "neither",
            count_words(now.count), f"{often}{words}",
        ),
        _figure(
            "Errors", share, former, "less",
            "-" if share is None else percent_words(share),
            f"{count_words(now.errors)} of {count_words(now.count)} requests",
        ),
        *(
            _figure(
                f"Latency {name}", getattr(now, f"{name}_ms"), getattr(before, f"{name}_ms"),
                "less", milliseconds_words(getattr(now, f"{name}_ms")), note,
            )
            for name, note in (
                ("p50", "half of the requests are faster"),
                ("p95", "95 of 100 are faster"),
                ("p99", "99 of 100 are faster"),
            )
        ),
        _figure(
            "Rows", now.rows, before.rows, "neither",
            count_words(now.rows), f"{count_words(now.cache_hits)} requests from stored answers",
        ),
    ]  # fmt: skip
    return figures if before.count else [replace(one, change="", tone="") for one in figures]


def _figure(
    name: str, now: float | None, before: float | None, better: Better, *said: str
) -> Figure:
    value, note = said
    return Figure(name, value, note, change_words(now, before), tone_of(now, before, better))

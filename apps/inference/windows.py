"""Spans of time that pages look at: where they begin, how finely they are cut; plain Python.

A window begins and ends on a whole step, in UTC, so that the counts kept beforehand add up to it
exactly. Its last step may still be filling.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apps.core.errors import FieldProblem, Invalid
from apps.inference.engine.buckets import SPAN_SECONDS, span_start

MINUTE, FIVE_MINUTES, HOUR, SIX_HOURS, DAY = 60, 300, 3600, 21_600, 86_400
MOST_DAYS = 400
# Days that spans of five minutes are kept; older time is cut by the hour.
FINE_DAYS = 35
# Name in the address -> words, seconds.
RANGES: Mapping[str, tuple[str, int]] = {
    "hour": ("last hour", HOUR),
    "day": ("last 24 hours", DAY),
    "week": ("last 7 days", 7 * DAY),
    "month": ("last 30 days", 30 * DAY),
    "quarter": ("last 90 days", 90 * DAY),
}
USUAL = "day"
# How long a window may be to be cut into such steps.
_STEPS = (
    (3 * HOUR, MINUTE),
    (2 * DAY, FIVE_MINUTES),
    (14 * DAY, HOUR),
    (60 * DAY, SIX_HOURS),
)
STEP_LENGTHS = {
    MINUTE: "one minute",
    FIVE_MINUTES: "5 minutes",
    HOUR: "one hour",
    SIX_HOURS: "6 hours",
    DAY: "one day (UTC)",
}
STEP_WORDS = {
    MINUTE: "minute",
    FIVE_MINUTES: "5 minutes",
    HOUR: "hour",
    SIX_HOURS: "6 hours",
    DAY: "day (UTC)",
}


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time [start, end) in steps of equal length.

    Attributes:
        words: How a title says it: "last 24 hours".
        name: Its name in the address, or empty for one with a beginning and an end.
    """

    start: datetime
    end: datetime
    step_seconds: int
    words: str = ""
    name: str = ""

    @property
    def seconds(self) -> int:
        """How long it is."""
        return int((self.end - self.start).total_seconds())

    @property
    def times(self) -> tuple[datetime, ...]:
        """When each step begins, oldest first."""
        step = timedelta(seconds=self.step_seconds)
        return tuple(self.start + n * step for n in range(self.seconds // self.step_seconds))

    @property
    def step_words(self) -> str:
        """A step in words, as in "errors per hour"."""
        return STEP_WORDS[self.step_seconds]

    @property
    def step_length(self) -> str:
        """The length of a step in words, as in "steps of one hour"."""
        return STEP_LENGTHS[self.step_seconds]

    @property
    def before(self) -> "Window":
        """The window of the same length that ends where this one begins."""
        length = self.end - self.start
        return Window(self.start - length, self.start, self.step_seconds, "the period before")

    def place(self, moment: datetime) -> int:
        """Return the number of the step that holds a moment."""
        return int((moment - self.start).total_seconds()) // self.step_seconds


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a window that spans of one length fill exactly."""

    seconds: int
    start: datetime
    end: datetime


def named(name: str, *, now: datetime, least_step: int = MINUTE) -> Window:
    """Return one of ``RANGES``, up to the step that holds this moment."""
    words, seconds = RANGES[name]
    step = max(_step(seconds, 0.0), least_step)
    end = span_start(now, step) + timedelta(seconds=step)
    start = end - timedelta(seconds=max(seconds, step))
    return Window(start, end, step, words, name)


def between(start: datetime, end: datetime, *, now: datetime, least_step: int = MINUTE) -> Window:
    """Return the window of whole steps that holds all of [start, end).

    Raises:
        Invalid: It ends before it begins, or is longer than what is kept.
    """
    start, end = start.astimezone(UTC), min(end.astimezone(UTC), now.astimezone(UTC))
    if start >= end:
        raise _wrong(
            "/from", "The time begins after it ends, or lies ahead. Choose an earlier from."
        )
    if end - start > timedelta(days=MOST_DAYS):
        raise _wrong("/from", f"Counts are kept for {MOST_DAYS} days. Choose a shorter time.")
    step = max(
        _step((end - start).total_seconds(), (now - start).total_seconds() / DAY), least_step
    )
    first, last = span_start(start, step), span_start(end, step)
    if last < end:
        last += timedelta(seconds=step)
    words = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    return Window(first, last, step, words)


def asked(query: Mapping[str, str], *, now: datetime, least_step: int = MINUTE) -> Window:
    """Return the window that an address asks for with ``range``, or ``from`` and ``to``.

    Raises:
        Invalid: The words cannot be read; ``problems`` name the parameter.
    """
    since, until = query.get("from", ""), query.get("to", "")
    if since:
        start = moment(since, "from")
        return between(start, moment(until, "to") if until else now, now=now, least_step=least_step)
    if until:
        raise _wrong("/from", "Say from when, too.")
    name = query.get("range", "") or USUAL
    if name not in RANGES:
        raise _wrong("/range", f"There is no range `{name[:40]}`; there are {', '.join(RANGES)}.")
    return named(name, now=now, least_step=least_step)


def pieces(window: Window) -> tuple[Piece, ...]:
    """Cut a window into the fewest spans kept beforehand: days inside, finer ones at its ends."""
    return tuple(_cut(window.start, window.end, tuple(reversed(SPAN_SECONDS))))


def _cut(start: datetime, end: datetime, lengths: tuple[int, ...]) -> list[Piece]:
    if start >= end or not lengths:
        return []
    longest, *shorter = lengths
    if not shorter:
        return [Piece(longest, start, end)]
    first = span_start(start, longest)
    if first < start:
        first += timedelta(seconds=longest)
    last = span_start(end, longest)
    if first >= last:
        return _cut(start, end, tuple(shorter))
    return [
        *_cut(start, first, tuple(shorter)),
        Piece(longest, first, last),
        *_cut(last, end, tuple(shorter)),
    ]


def _step(seconds: float, age_days: float) -> int:
    step = next((step for most, step in _STEPS if seconds <= most), DAY)
    return max(step, HOUR) if age_days > FINE_DAYS else step


def moment(text: str, name: str = "from") -> datetime:
    """Read a time of an address; without a zone it is UTC.

    Raises:
        Invalid: It is none; ``name`` says which parameter was meant.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise _wrong(f"/{name}", f"`{name}` is a time such as 2026-11-21T14:00 (UTC).") from error
    if not 2000 <= found.year <= 9000:
        raise _wrong(f"/{name}", f"`{name}` is a time such as 2026-11-21T14:00 (UTC).")
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _wrong(pointer: str, detail: str) -> Invalid:
    error = Invalid(detail)
    error.at([FieldProblem(pointer, detail)])
    return error

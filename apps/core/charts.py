"""What a chart shows, apart from how it is drawn: ``core/chart.html`` and ``charts.js`` draw it.

Few series, each with a name and a colour that means the same everywhere; the numbers go along as a
table for those who do not see the lines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

MOST_SERIES = 5
# A colour is a CSS variable of platform.css, so that it is right on light and on dark ground.
REQUESTS, ERRORS = "--mp-blue", "--mp-red"
P50, P95, P99 = "--mp-teal", "--mp-amber", "--mp-purple"
ROWS, OTHER, BEFORE = "--mp-green", "--mp-grey", "--mp-grey"
TURNS = ("--mp-blue", "--mp-amber", "--mp-teal", "--mp-purple", "--mp-green", "--mp-pink")

Value = float | None


def colour_of(number: int) -> str:
    """Return the colour of a version; it keeps it on every chart."""
    return TURNS[number % len(TURNS)]


@dataclass(frozen=True, slots=True)
class Series:
    """One line or one colour of the bars; ``values`` has one number per time, None for a gap."""

    name: str
    values: Sequence[Value]
    colour: str = REQUESTS
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment worth a vertical line, such as a release."""

    at: datetime
    words: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart over time.

    Attributes:
        name: Unique on its page; letters, digits, dashes.
        title: What is shown, with its window: "Requests per minute, last 24 hours".
        unit: Of the values: "requests/min", "ms", "%".
        times: Start of each step, oldest first.
        step_seconds: Length of a step.
        kind: ``line``, ``bar``, or ``stacked`` (bars on each other).
    """

    name: str
    title: str
    unit: str
    times: Sequence[datetime]
    series: Sequence[Series]
    step_seconds: int
    kind: Literal["line", "bar", "stacked"] = "line"
    markers: Sequence[Marker] = field(default=())

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(value for one in self.series for value in one.values)

    @property
    def summary(self) -> str:
        """The chart in one sentence, for a screen reader."""
        said = []
        for one in self.series:
            known = [value for value in one.values if value is not None]
            if known:
                said.append(f"{one.name}: last {known[-1]:,.4g}, highest {max(known):,.4g}")
        return f"{self.title} ({self.unit}). " + ("; ".join(said) or "No data") + "."

    @property
    def body(self) -> dict[str, Any]:
        """What ``charts.js`` reads."""
        return {
            "kind": self.kind,
            "unit": self.unit,
            "step": self.step_seconds,
            "times": [int(one.timestamp() * 1000) for one in self.times],
            "series": [
                {
                    "name": one.name,
                    "colour": one.colour,
                    "dashed": one.dashed,
                    "values": list(one.values),
                }
                for one in self.series
            ],
            "markers": [
                {"at": int(one.at.timestamp() * 1000), "words": one.words} for one in self.markers
            ],
        }

    @property
    def numbers(self) -> list[tuple[datetime, list[Value]]]:
        """The rows of the table beside the chart: only steps in which something was."""
        rows = [
            (at, [one.values[index] for one in self.series]) for index, at in enumerate(self.times)
        ]
        return [(at, values) for at, values in rows if any(values)]


def largest(
    named: Mapping[str, Sequence[float]], colours: Mapping[str, str], *, most: int = MOST_SERIES
) -> list[Series]:
    """Return a series per name, the largest first; what is beyond ``most`` becomes *other*."""
    ranked = sorted(named, key=lambda name: (-sum(named[name]), name))
    keep = ranked if len(ranked) <= most else ranked[: most - 1]
    series = [Series(name, named[name], colours.get(name, OTHER)) for name in keep]
    rest = [named[name] for name in ranked[len(keep) :]]
    if rest:
        series.append(Series("other", [sum(step) for step in zip(*rest, strict=True)], OTHER))
    return series


def sparkline(values: Sequence[float], *, width: int = 120, height: int = 28) -> str:
    """Return the points of a small SVG polyline; empty when there is nothing to draw."""
    if len(values) < 2 or not any(values):
        return ""
    top = max(values)
    step = width / (len(values) - 1)
    return " ".join(
        f"{index * step:.1f},{height - 1 - (value / top) * (height - 2):.1f}"
        for index, value in enumerate(values)
    )

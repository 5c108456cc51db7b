"""What a version's metrics say: which way is better, and by how much; plain Python.

The names are the team's own words, so the direction is known by what such names usually mean; a
page says which direction it took.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_SHARED = 4
# Parts of a name that mean: the less, the better.
LESS_IS_BETTER = frozenset(
    {
        *("loss", "logloss", "error", "errors", "err", "rmse", "mae", "mse", "mape", "smape"),
        *("rmsle", "msle", "deviance", "perplexity", "brier", "hinge", "wer", "cer", "eer", "ece"),
        *("latency", "time", "seconds", "duration", "memory", "cost", "regret", "bias"),
        *("fpr", "fnr", "fdr", "misclassification"),
    }
)


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of a version beside the same of another.

    Attributes:
        mine: The version's own value.
        theirs: The other version's, or None when it has none or there is no other.
        change: ``mine - theirs``; None when that means nothing.
        verdict: ``better``, ``worse``, ``equal``, or empty when nothing can be said.
    """

    name: str
    mine: Any
    theirs: Any
    less_is_better: bool
    change: float | None
    verdict: str

    @property
    def change_share(self) -> float | None:
        """The change as a part of the other's value."""
        if self.change is None or not self.theirs:
            return None
        return self.change / abs(float(self.theirs))


def less_is_better(name: str) -> bool:
    """Whether a smaller value of a metric is the better one, by its name."""
    parts = re.split(r"[^a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower())
    return not LESS_IS_BETTER.isdisjoint(parts)


def as_number(value: object) -> float | None:
    """Return a value as a number, or None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def compared(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Compared]:
    """Return every metric of a version beside the other version's, by name."""
    return [_one(name, mine[name], theirs.get(name)) for name in sorted(mine)]


def _one(name: str, mine: Any, theirs: Any) -> Compared:
    less = less_is_better(name)
    here, there = as_number(mine), as_number(theirs)
    if here is None or there is None:
        return Compared(name, mine, theirs, less, None, "")
    change = here - there
    if math.isclose(here, there, rel_tol=1e-12, abs_tol=1e-12):
        return Compared(name, mine, theirs, less, 0.0, "equal")
    return Compared(name, mine, theirs, less, change, "better" if (change < 0) is less else "worse")


def shared_names(versions: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that most versions have as numbers: what a team compares by."""
    measured = [one for one in versions if one]
    counts = Counter(
        name for one in measured for name, value in one.items() if as_number(value) is not None
    )
    shared = [name for name in counts if counts[name] * 2 > len(measured)]
    return sorted(shared, key=lambda name: (-counts[name], name))[:MOST_SHARED]

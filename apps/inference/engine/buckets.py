"""What is counted of predictions, and how counts merge; plain Python.

Every count here is mergeable: the counts of two sets of predictions add up to the counts of both,
exactly and in any order. Latency is therefore summed in whole microseconds, and its distribution
kept as a histogram whose edges never change: ``2**(n/8)`` milliseconds for n from -40 to 136, that
is eight per doubling from 0.031 ms to 131 s. A percentile read from it lies within the bucket of
the true one, so it is off by less than 9.1 %.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import NamedTuple, Protocol, TypeVar

N = TypeVar("N", int, str)
OK = "ok"
# Arms that answer no client: whoever tries a version, and copies of other calls.
NOT_TRAFFIC = frozenset({"try", "shadow"})
# Lengths of the spans in which traffic is summed beforehand, in seconds.
SPAN_SECONDS = (300, 3600, 21_600, 86_400)
ALL_TEAMS, ALL_MODELS, ALL_VERSIONS = 0, "", 0
PER_DOUBLING = 8
EDGES_MS = tuple(2 ** (n / PER_DOUBLING) for n in range(-5 * PER_DOUBLING, 17 * PER_DOUBLING + 1))

# How many latencies fell into each bucket; empty buckets are left out.
Histogram = Mapping[int, int]


def bucket_of(ms: float) -> int:
    """Return the bucket of a latency: ``EDGES_MS[b - 1] <= ms < EDGES_MS[b]``.

    Bucket 0 lies below the first edge, bucket ``len(EDGES_MS)`` from the last one on.
    """
    return bisect_right(EDGES_MS, ms)


def merge(counts: Iterable[Mapping[N, int]]) -> dict[N, int]:
    """Add counts name by name: histograms bucket by bucket, errors code by code."""
    merged: dict[N, int] = {}
    for one in counts:
        for name, count in one.items():
            merged[name] = merged.get(name, 0) + count
    return merged


def percentile_ms(histogram: Histogram, share: float) -> float | None:
    """Estimate the latency that a share of the calls stayed within.

    Args:
        histogram: Counts by bucket.
        share: 0 < share <= 1; 0.95 is the 95th percentile.

    Returns:
        Milliseconds inside the bucket of the nearest-rank percentile, placed by the rank on a
        logarithmic scale; None when nothing was counted.

    Raises:
        ValueError: The share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"A share lies between 0 and 1, and {share} does not.")
    rank = ceil(share * sum(histogram.values()))
    before = 0
    for bucket in sorted(histogram):
        count = histogram[bucket]
        if count and before + count >= rank:
            return _inside(bucket, (rank - before - 0.5) / count)
        before += count
    return None


def _inside(bucket: int, part: float) -> float:
    if bucket == 0:
        return EDGES_MS[0]
    if bucket >= len(EDGES_MS):
        return EDGES_MS[-1]
    low, high = EDGES_MS[bucket - 1], EDGES_MS[bucket]
    return float(low * (high / low) ** part)


class Counted(Protocol):
    """What the counts need of one prediction; a spooled row and a stored one both have it."""

    @property
    def ts(self) -> datetime:
        """When it was accepted."""
        ...

    @property
    def model(self) -> str:
        """Name of the model."""
        ...

    @property
    def environment(self) -> str:
        """Where it was called."""
        ...

    @property
    def team_id(self) -> int:
        """Team that the model belonged to."""
        ...

    @property
    def version(self) -> int:
        """Number of the version that answered."""
        ...

    @property
    def arm(self) -> str:
        """Role of the arm, or ``try``."""
        ...

    @property
    def key_id(self) -> str:
        """API key, or the empty text."""
        ...

    @property
    def status(self) -> str:
        """``ok``, or the code of the error."""
        ...

    @property
    def rows(self) -> int:
        """Rows in the question."""
        ...

    @property
    def cached(self) -> bool:
        """Whether a stored answer was given."""
        ...

    @property
    def total_ms(self) -> float:
        """Milliseconds from acceptance to the record."""
        ...


class MinuteKey(NamedTuple):
    """Whose minute it is; the order of the fields is the order in which rollups are locked."""

    minute: datetime
    model: str
    environment: str
    version: int
    arm: str
    status: str


class HourKey(NamedTuple):
    """Whose hour of usage it is; calls without an API key have the empty key."""

    hour: datetime
    key_id: str
    model: str
    version: int


class SpanKey(NamedTuple):
    """Whose span of traffic it is; what is summed over stands as ``ALL_...``."""

    start: datetime
    seconds: int
    team_id: int
    model: str
    environment: str
    version: int
    status: str


@dataclass(slots=True)
class Tally:
    """Counts of some predictions.

    Attributes:
        errors: Calls by the code of their error; those that were answered are not in it.
        latency_us: Sum over the calls, in whole microseconds each, so that it adds up exactly.
    """

    count: int = 0
    rows: int = 0
    cache_hits: int = 0
    latency_us: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    histogram: dict[int, int] = field(default_factory=dict)

    def add(self, one: Counted) -> None:
        """Count one prediction."""
        self.count += 1
        self.rows += one.rows
        self.cache_hits += one.cached
        self.latency_us += round(one.total_ms * 1000)
        bucket = bucket_of(one.total_ms)
        self.histogram[bucket] = self.histogram.get(bucket, 0) + 1
        if one.status != OK:
            self.errors[one.status] = self.errors.get(one.status, 0) + 1

    def absorb(self, more: "Tally") -> None:
        """Add the counts of other predictions."""
        self.count += more.count
        self.rows += more.rows
        self.cache_hits += more.cache_hits
        self.latency_us += more.latency_us
        self.errors = merge((self.errors, more.errors))
        self.histogram = merge((self.histogram, more.histogram))


def minute_tallies(predictions: Iterable[Counted]) -> dict[MinuteKey, Tally]:
    """Count predictions by minute, endpoint, version, arm and status."""
    tallies: dict[MinuteKey, Tally] = {}
    for one in predictions:
        minute = one.ts.replace(second=0, microsecond=0)
        key = MinuteKey(minute, one.model, one.environment, one.version, one.arm, one.status)
        tallies.setdefault(key, Tally()).add(one)
    return tallies


def hour_tallies(predictions: Iterable[Counted]) -> dict[HourKey, Tally]:
    """Count predictions by hour, API key and version."""
    tallies: dict[HourKey, Tally] = {}
    for one in predictions:
        hour = one.ts.replace(minute=0, second=0, microsecond=0)
        key = HourKey(hour, one.key_id, one.model, one.version)
        tallies.setdefault(key, Tally()).add(one)
    return tallies


def span_tallies(predictions: Iterable[Counted]) -> dict[SpanKey, Tally]:
    """Count traffic by spans of every length, by model and version, by team, and altogether.

    A page over any range reads few of these rows, however many models there are. Tries are left
    out: somebody who looks at a version must not move its endpoint's numbers.
    """
    finest: dict[SpanKey, Tally] = {}
    for one in predictions:
        if one.arm in NOT_TRAFFIC:
            continue
        start = span_start(one.ts, SPAN_SECONDS[0])
        key = SpanKey(
            start, SPAN_SECONDS[0], one.team_id, one.model, one.environment, one.version, one.status
        )
        finest.setdefault(key, Tally()).add(one)
    return rolled_up(finest)


def rolled_up(finest: Mapping[SpanKey, Tally]) -> dict[SpanKey, Tally]:
    """Add the shortest spans of versions up to longer ones, to teams, and to all."""
    tallies: dict[SpanKey, Tally] = {}
    for key, tally in finest.items():
        for wider in _wider(key):
            tallies.setdefault(wider, Tally()).absorb(tally)
    return tallies


def span_start(moment: datetime, seconds: int) -> datetime:
    """Return when the span of this length that holds a moment began; days are days of UTC."""
    since = (moment - _EPOCH) // timedelta(seconds=seconds)
    return _EPOCH + since * timedelta(seconds=seconds)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _wider(key: SpanKey) -> Iterator[SpanKey]:
    whole = key._replace(model=ALL_MODELS, version=ALL_VERSIONS)
    for seconds in SPAN_SECONDS:
        start = span_start(key.start, seconds)
        for one in (key, whole, whole._replace(team_id=ALL_TEAMS)):
            yield one._replace(start=start, seconds=seconds)

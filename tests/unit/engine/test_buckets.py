"""Counts: their edges, their merging, and what a percentile read from them is worth."""

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil

import pytest

from apps.inference.engine.buckets import (
    ALL_MODELS,
    ALL_TEAMS,
    EDGES_MS,
    SPAN_SECONDS,
    HourKey,
    MinuteKey,
    bucket_of,
    hour_tallies,
    merge,
    minute_tallies,
    percentile_ms,
    span_start,
    span_tallies,
)

AT = datetime(2026, 11, 21, 12, 34, 56, 789000, tzinfo=UTC)


@dataclass(frozen=True)
class Call:
    ts: datetime = AT
    model: str = "wine"
    environment: str = "production"
    team_id: int = 7
    version: int = 1
    arm: str = "primary"
    key_id: str = "k"
    status: str = "ok"
    rows: int = 1
    cached: bool = False
    total_ms: float = 1.0


def histogram_of(latencies: list[float]) -> dict[int, int]:
    return merge({bucket_of(ms): 1} for ms in latencies)


def test_edges_are_eight_per_doubling_from_31_us_to_131_s() -> None:
    assert (EDGES_MS[0], EDGES_MS[-1], len(EDGES_MS)) == (2**-5, 2.0**17, 22 * 8 + 1)
    ratios = {round(b / a, 9) for a, b in pairwise(EDGES_MS)}
    assert ratios == {round(2**0.125, 9)}


@pytest.mark.parametrize(
    ("ms", "bucket"),
    [(0, 0), (0.03, 0), (2**-5, 1), (1.0, 41), (2.0**17, len(EDGES_MS)), (1e9, len(EDGES_MS))],
)
def test_a_latency_lies_in_the_bucket_whose_lower_edge_it_reaches(ms: float, bucket: int) -> None:
    assert bucket_of(ms) == bucket


def test_merged_histograms_are_the_histogram_of_all() -> None:
    dice = random.Random(1)
    latencies = [dice.lognormvariate(1, 2) for _ in range(1000)]
    parts = [histogram_of(latencies[start::7]) for start in range(7)]
    assert merge(parts) == merge(reversed(parts)) == histogram_of(latencies)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_percentile_is_off_by_less_than_one_bucket(share: float, seed: int) -> None:
    dice = random.Random(seed)
    latencies = sorted(dice.lognormvariate(2, 1.5) for _ in range(997))
    true = latencies[ceil(share * len(latencies)) - 1]
    found = percentile_ms(histogram_of(latencies), share)
    assert found is not None
    assert abs(found / true - 1) < 2**0.125 - 1 + 1e-9


def test_a_percentile_beyond_the_edges_is_the_edge() -> None:
    assert percentile_ms({0: 1}, 0.5) == EDGES_MS[0]
    assert percentile_ms({len(EDGES_MS): 1}, 0.5) == EDGES_MS[-1]


def test_of_nothing_there_is_no_percentile() -> None:
    assert percentile_ms({}, 0.5) is None


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_share_lies_between_nought_and_one(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile_ms({1: 1}, share)


def test_each_part_of_a_key_makes_counts_of_its_own() -> None:
    calls = [
        Call(),
        Call(),
        Call(status="deadline"),
        Call(version=2),
        Call(arm="candidate"),
        Call(environment="staging"),
        Call(model="churn"),
        replace(Call(), ts=AT.replace(minute=35)),
    ]
    minutes = minute_tallies(calls)
    minute = AT.replace(second=0, microsecond=0)
    assert len(minutes) == 7
    assert minutes[MinuteKey(minute, "wine", "production", 1, "primary", "ok")].count == 2
    hours = hour_tallies(calls)
    assert len(hours) == 3
    wine = hours[HourKey(AT.replace(minute=0, second=0, microsecond=0), "k", "wine", 1)]
    assert (wine.count, wine.errors) == (6, {"deadline": 1})


def test_latencies_add_up_to_the_microsecond_in_any_order() -> None:
    dice = random.Random(3)
    calls = [Call(total_ms=dice.random() * 10) for _ in range(500)]
    (forward,) = hour_tallies(calls).values()
    (backward,) = hour_tallies(calls[::-1]).values()
    assert forward == backward
    assert forward.latency_us == sum(round(one.total_ms * 1000) for one in calls)


# --- spans --------------------------------------------------------------------------------------


def test_every_span_is_counted_for_the_version_for_its_team_and_for_all() -> None:
    tallies = span_tallies([Call(rows=3), Call(model="iris", team_id=8, status="deadline")])
    of_all = [key for key in tallies if key.team_id == ALL_TEAMS]
    of_teams = [key for key in tallies if key.team_id and key.model == ALL_MODELS]
    of_models = [key for key in tallies if key.model != ALL_MODELS]
    assert {len(of_all), len(of_teams), len(of_models)} == {2 * len(SPAN_SECONDS)}
    assert {key.version for key in of_all + of_teams} == {0}
    for keys in (of_all, of_teams, of_models):
        for seconds in SPAN_SECONDS:
            assert sum(tallies[key].count for key in keys if key.seconds == seconds) == 2
            assert sum(tallies[key].rows for key in keys if key.seconds == seconds) == 4


def test_tries_and_shadows_are_no_traffic() -> None:
    assert span_tallies([Call(arm="try"), Call(arm="shadow")]) == {}


def test_longer_spans_hold_exactly_what_their_shorter_ones_hold() -> None:
    calls = [
        Call(ts=AT + timedelta(minutes=7 * n), total_ms=1.5**n, status="ok" if n % 3 else "x")
        for n in range(40)
    ]
    tallies = span_tallies(calls)
    for seconds in SPAN_SECONDS[1:]:
        for key in [one for one in tallies if one.seconds == seconds]:
            inside = [
                tally
                for one, tally in tallies.items()
                if one.seconds == SPAN_SECONDS[0]
                and one[2:] == key[2:]
                and span_start(one.start, seconds) == key.start
            ]
            assert tallies[key].count == sum(one.count for one in inside)
            assert tallies[key].histogram == merge(one.histogram for one in inside)
            assert tallies[key].latency_us == sum(one.latency_us for one in inside)

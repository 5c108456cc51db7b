"""Comparison with the period before: arithmetic and words."""

import pytest

from apps.inference.pages.changes import change_of, change_words, error_rate, figures_of, tone_of
from apps.inference.selectors import Traffic


def traffic(count: int = 0, errors: int = 0, ms: float | None = None) -> Traffic:
    return Traffic(count, count, errors, 0, ms, ms, ms, ms)


@pytest.mark.parametrize(
    ("now", "before", "change"),
    [(150, 100, 0.5), (50, 100, -0.5), (0, 100, -1.0), (5, 0, None), (None, 5, None)],
)
def test_a_change_is_a_part_of_the_former_number(
    now: float | None, before: float | None, change: float | None
) -> None:
    assert change_of(now, before) == change


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (112, 100, "+12 % against the period before"),
        (97.5, 100, "-2.5 % against the period before"),
        (100.1, 100, "as before"),
        (1500, 100, "15 times as before"),
        (5, 0, "none before"),
        (0, 0, ""),
        (None, 3, "nothing in this time"),
        (3, None, ""),
    ],
)
def test_a_change_is_said_in_words(now: float | None, before: float | None, words: str) -> None:
    assert change_words(now, before) == words


def test_fewer_errors_and_shorter_latency_are_better_and_requests_are_neither() -> None:
    assert tone_of(1, 2, "less") == "better"
    assert tone_of(2, 1, "less") == "worse"
    assert tone_of(2, 1, "more") == "better"
    assert tone_of(2, 1, "neither") == tone_of(1, 1, "less") == tone_of(1, 0, "less") == ""


def test_without_requests_there_is_no_error_rate_and_no_latency() -> None:
    assert error_rate(traffic()) is None
    figures = figures_of(traffic(), traffic(10, 1, 2.0), seconds=3600, words="last hour")
    assert [one.value for one in figures] == ["0", "-", "-", "-", "-", "0"]


def test_an_average_is_said_only_where_it_is_at_least_one_a_minute() -> None:
    often, seldom = (
        figures_of(traffic(count), traffic(9), seconds=3600, words="last hour")[0].note
        for count in (60, 59)
    )
    assert (often, seldom) == ("1/min on average, last hour", "last hour")


def test_without_requests_before_no_figure_says_how_it_changed() -> None:
    figures = figures_of(traffic(7, 1, 2.0), traffic(), seconds=3600, words="last hour")
    assert {(one.change, one.tone) for one in figures} == {("", "")}


def test_every_figure_names_its_unit_and_its_time() -> None:
    requests, errors, *latency, _ = figures_of(
        traffic(7200, 72, 12.5), traffic(3600, 72, 25.0), seconds=3600, words="last hour"
    )
    assert (requests.value, requests.note) == ("7,200", "2/s on average, last hour")
    assert (errors.value, errors.change, errors.tone) == (
        "1 %", "-50 % against the period before", "better",
    )  # fmt: skip
    assert {one.value for one in latency} == {"12.5 ms"}
    assert {one.tone for one in latency} == {"better"}

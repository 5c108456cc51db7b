"""Better and worse are told by what a metric's name means."""

import pytest

from apps.registry.metrics import compared, less_is_better, shared_names


@pytest.mark.parametrize(
    "name",
    ["loss", "val_loss", "RMSE", "mean_absolute_error", "p95-latency", "valLoss", "log_loss"],
)
def test_less_is_better_for_what_a_model_gets_wrong(name: str) -> None:
    assert less_is_better(name)


@pytest.mark.parametrize("name", ["accuracy", "f1", "r2", "auc", "lossless", "terror_score_f1"])
def test_more_is_better_for_everything_else(name: str) -> None:
    assert not less_is_better(name)


@pytest.mark.parametrize(
    ("name", "mine", "theirs", "verdict"),
    [
        ("accuracy", 0.98, 0.97, "better"),
        ("accuracy", 0.96, 0.97, "worse"),
        ("rmse", 1.0, 2.0, "better"),
        ("rmse", 3, 2.0, "worse"),
        ("rmse", -1.0, -2.0, "worse"),
        ("f1", 0.1 + 0.2, 0.3, "equal"),
        ("f1", 0.5, None, ""),
        ("f1", True, False, ""),
        ("f1", "high", "low", ""),
        ("f1", float("nan"), 0.5, ""),
    ],
)
def test_a_change_is_judged_by_its_direction(
    name: str, mine: object, theirs: object, verdict: str
) -> None:
    (one,) = compared({name: mine}, {name: theirs})
    assert one.verdict == verdict


def test_a_share_of_nothing_is_not_said() -> None:
    (one,) = compared({"f1": 0.5}, {"f1": 0.0})
    assert (one.change, one.change_share) == (0.5, None)


def test_a_list_shows_the_metrics_that_most_versions_have() -> None:
    versions: list[dict[str, object]] = [
        {"f1": 1, "auc": 1, "odd": 1},
        {"f1": 1, "x": True},
        {"auc": 0.5, "x": "a"},
        {},
    ]
    assert shared_names(versions) == ["auc", "f1"]


def test_a_list_shows_at_most_four_metrics() -> None:
    assert shared_names([dict.fromkeys("edcba", 1)]) == ["a", "b", "c", "d"]

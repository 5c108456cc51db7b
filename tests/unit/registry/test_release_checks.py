"""What is looked at before a release: each rule by itself, without a database."""

from dataclasses import replace

import pytest

from apps.core.errors import Invalid
from apps.registry.release_checks import (
    CheckState,
    Move,
    approval_check,
    compare_signatures,
    memory_check,
    metrics_check,
    move_between,
    newest_check,
    runtime_check,
    shares_of,
    signature_check,
    validation_check,
    versions_words,
    with_share,
)
from apps.registry.services.releases import arms_by_share, primary
from apps.registry.signature import Dtype, Signature, TensorSpec
from apps.registry.snapshot import Arm, ArmRole

X = TensorSpec("x", Dtype.FLOAT32, (-1, 4))
Y = TensorSpec("y", Dtype.FLOAT32, (-1, 1))
KNOWN = Signature(inputs=(X,), outputs=(Y,))
MB = 1024**2


def arms(*parts: tuple[int, ArmRole, float]) -> tuple[Arm, ...]:
    return arms_by_share([(version, role, share, None) for version, role, share in parts])


# -- validated, runtime, memory ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "found", "blocks"),
    [
        ("ready", CheckState.PASSED, False),
        ("deprecated", CheckState.WARNING, False),
        ("uploaded", CheckState.FAILED, True),
        ("validating", CheckState.FAILED, True),
        ("rejected", CheckState.FAILED, True),
        ("archived", CheckState.FAILED, True),
    ],
)
def test_only_what_validation_found_good_can_be_released(
    state: str, found: CheckState, blocks: bool
) -> None:
    check = validation_check({3: "ready", 4: state})
    assert (check.state, check.blocks) == (found, blocks)


def test_a_native_version_needs_the_operators_word() -> None:
    assert runtime_check({}, ()).state == CheckState.PASSED
    assert runtime_check({4: "sklearn"}, {"sklearn"}).state == CheckState.PASSED
    check = runtime_check({4: "sklearn", 5: "torch"}, {"torch"})
    assert check.blocks
    assert "Version 4 is served natively by sklearn" in check.sentence
    assert "MLP_NATIVE_FORMATS" in check.sentence


def test_what_must_stay_loaded_must_fit_and_the_rest_should() -> None:
    assert memory_check(8 * MB, 8 * MB, required=True).state == CheckState.PASSED
    assert memory_check(8 * MB + 1, 8 * MB, required=True).blocks
    check = memory_check(9 * MB, 8 * MB, required=False)
    assert (check.state, check.blocks) == (CheckState.WARNING, False)
    assert "9 MB of the 8 MB" in check.sentence


# -- signature -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (Signature((replace(X, name="z"),), (Y,)), "the input `x` is gone"),
        (Signature((X, replace(X, name="z")), (Y,)), "the input `z` is new"),
        (Signature((replace(X, dtype=Dtype.INT64),), (Y,)), "`x` becomes int64, it was float32"),
        (Signature((replace(X, shape=(-1, 5)),), (Y,)), "becomes any x 5, it was any x 4"),
        (Signature((replace(X, shape=(1, 4)),), (Y,)), "becomes 1 x 4, it was any x 4"),
        (Signature((replace(X, minimum=0.0),), (Y,)), "bounded more narrowly"),
        (Signature((replace(X, categories=(1, 2)),), (Y,)), "takes fewer categories"),
        (Signature((X,), (replace(Y, name="z"),)), "the output `y` is gone"),
        (Signature((X,), (replace(Y, dtype=Dtype.INT64),)), "`y` becomes int64"),
        (Signature((X,), (replace(Y, shape=(-1, 2)),)), "becomes any x 2, it was any x 1"),
        (Signature((X,), (Y, replace(Y, name="z"))), "rows of the answer become objects"),
        (Signature((X,), (Y,), batchable=False), "only one row"),
    ],
)
def test_what_makes_a_working_client_fail_is_breaking(new: Signature, said: str) -> None:
    check = signature_check(KNOWN, new, live=3)
    assert check.state == CheckState.FAILED
    assert said in check.sentence
    assert "version 3" in check.sentence
    assert not check.blocks  # the one who releases may know better


def test_columns_that_are_renamed_or_moved_are_breaking() -> None:
    known = replace(X, columns=("a", "b", "c", "d"))
    moved = replace(X, columns=("b", "a", "c", "d"))
    renamed = replace(X, columns=("a", "b", "c", "e"))
    for new, said in ((moved, "stand in another order"), (renamed, "lose d and gain e")):
        found = compare_signatures(Signature((known,), (Y,)), Signature((new,), (Y,)))
        assert said in found.breaking[0]


def test_what_takes_more_than_before_breaks_nobody() -> None:
    two = Signature((X,), (Y, replace(Y, name="z")))
    three = Signature((X,), (*two.outputs, replace(Y, name="w")))
    found = compare_signatures(two, three)
    assert found.breaking == ()
    assert found.added == ("the output `w` is new",)
    assert signature_check(two, three, live=3).state == CheckState.WARNING
    named = Signature((replace(X, columns=("a", "b", "c", "d")),), (Y,))
    assert compare_signatures(KNOWN, named).breaking == ()
    bounded = Signature((replace(X, minimum=0.0, categories=(1,)),), (Y,))
    wider = Signature((replace(X, minimum=-1.0, categories=(1, 2)),), (Y,))
    assert compare_signatures(bounded, wider).breaking == ()
    fixed = Signature((replace(X, shape=(1, 4)),), (Y,))
    assert compare_signatures(fixed, KNOWN).breaking == ()


def test_equal_signatures_and_first_releases_pass() -> None:
    assert signature_check(KNOWN, KNOWN, live=3).state == CheckState.PASSED
    assert signature_check(None, KNOWN, live=None).state == CheckState.PASSED


# -- metrics -------------------------------------------------------------------------------------


def test_a_worse_metric_is_named_with_both_numbers() -> None:
    check = metrics_check({"f1": 0.9, "rmse": 1.0}, {"f1": 0.85, "rmse": 0.5}, live=3)
    assert check.state == CheckState.WARNING
    assert "f1 0.85 against 0.9" in check.sentence
    assert "rmse" not in check.sentence


def test_where_less_is_better_more_is_worse() -> None:
    check = metrics_check({"val_loss": 0.2}, {"val_loss": 0.3}, live=3)
    assert check.state == CheckState.WARNING
    assert metrics_check({"val_loss": 0.2}, {"val_loss": 0.1}, live=3).state == CheckState.PASSED


def test_metrics_that_cannot_be_compared_are_said_so() -> None:
    assert metrics_check({"f1": 0.9}, {"auc": 0.9}, live=3).state == CheckState.WARNING
    assert metrics_check({"f1": "high"}, {"f1": 0.9}, live=3).state == CheckState.WARNING
    assert metrics_check({}, {"f1": 0.9}, live=None).state == CheckState.PASSED


# -- who decides, and in which order -------------------------------------------------------------


def test_those_who_may_approve_are_named() -> None:
    check = approval_check("production", waits=True, may_release=True, deciders=["ana", "tom"])
    assert "ana or tom" in check.sentence
    assert not check.blocks
    alone = approval_check("production", waits=True, may_release=True, deciders=[])
    assert "a platform admin must" in alone.sentence


def test_who_may_not_release_is_told_who_may() -> None:
    check = approval_check("production", waits=False, may_release=False, deciders=["mara"])
    assert check.blocks
    assert "Ask mara" in check.sentence


def test_a_request_older_than_the_live_release_cannot_be_approved() -> None:
    check = newest_check(4, [4], 5)
    assert check is not None
    assert check.blocks
    assert newest_check(5, [5], 4) is None


def test_another_waiting_request_is_mentioned() -> None:
    check = newest_check(None, [4], 3)
    assert check is not None
    assert (check.state, check.blocks) == (CheckState.WARNING, False)


# -- shares --------------------------------------------------------------------------------------


def test_a_canary_takes_its_share_and_the_others_keep_their_proportions() -> None:
    live = arms((3, ArmRole.PRIMARY, 0.6), (4, ArmRole.CANDIDATE, 0.4))
    found = arms_by_share(with_share(live, 5, 0.5))
    assert [(arm.version, arm.role) for arm in found] == [
        (3, ArmRole.PRIMARY),
        (4, ArmRole.CANDIDATE),
        (5, ArmRole.CANDIDATE),
    ]
    assert [arm.share for arm in found] == pytest.approx([0.3, 0.2, 0.5])
    assert found[-1].ranges[-1][1] == 1.0


def test_a_growing_canary_keeps_the_units_that_it_has() -> None:
    small = arms_by_share(with_share(primary(3), 4, 0.1))
    large = arms_by_share(with_share(small, 4, 0.5))
    (low, high), (lower, higher) = small[-1].ranges[0], large[-1].ranges[0]
    assert lower <= low
    assert higher == high == 1.0
    assert [arm.role for arm in large] == [ArmRole.PRIMARY, ArmRole.CANDIDATE]


def test_the_live_version_itself_can_get_a_smaller_share() -> None:
    live = arms((3, ArmRole.PRIMARY, 0.9), (4, ArmRole.CANDIDATE, 0.1))
    found = arms_by_share(with_share(live, 3, 0.25))
    assert [(arm.version, arm.role) for arm in found] == [
        (3, ArmRole.PRIMARY),
        (4, ArmRole.CANDIDATE),
    ]
    assert [arm.share for arm in found] == pytest.approx([0.25, 0.75])


def test_a_shadow_stays_and_one_that_is_released_stops_to_be_one() -> None:
    live = arms((3, ArmRole.PRIMARY, 1.0), (4, ArmRole.SHADOW, 0.2), (5, ArmRole.SHADOW, 0.5))
    found = arms_by_share(with_share(live, 4, 0.3))
    assert [(arm.version, arm.role, round(arm.share, 9)) for arm in found] == [
        (3, ArmRole.PRIMARY, 0.7),
        (5, ArmRole.SHADOW, 0.5),
        (4, ArmRole.CANDIDATE, 0.3),
    ]


@pytest.mark.parametrize("live", [(), primary(4)])
def test_a_part_of_the_traffic_needs_another_version_for_the_rest(live: tuple[Arm, ...]) -> None:
    with pytest.raises(Invalid, match="choose 100 %"):
        with_share(live, 4, 0.5)


def test_a_move_says_how_much_goes_from_where_to_where() -> None:
    canary = arms((3, ArmRole.PRIMARY, 0.9), (4, ArmRole.CANDIDATE, 0.1))
    move = move_between(primary(3), canary)
    assert (round(move.share, 9), move.losing, move.gaining) == (0.1, (3,), (4,))
    assert move_between(primary(3), primary(4)) == Move(1.0, (3,), (4,))
    assert move_between(canary, canary).share == 0
    assert move_between((), primary(4)) == Move(1.0, (), (4,))


def test_a_shadow_takes_no_traffic() -> None:
    live = arms((3, ArmRole.PRIMARY, 1.0), (4, ArmRole.SHADOW, 0.5))
    assert shares_of(live) == {3: 1.0}


def test_versions_are_said_as_in_a_sentence() -> None:
    assert versions_words([]) == "nothing"
    assert versions_words([3]) == "version 3"
    assert versions_words([3, 4, 5]) == "versions 3, 4 and 5"

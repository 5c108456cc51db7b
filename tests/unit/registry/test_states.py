"""Moves of versions and releases: what is not in the table cannot happen."""

from apps.registry.states import (
    NEXT_OF_RELEASE,
    NEXT_OF_VERSION,
    RELEASABLE,
    ReleaseState,
    VersionState,
    may_decide,
    may_move,
)


def test_every_state_has_its_moves_written_down() -> None:
    assert set(NEXT_OF_VERSION) == set(VersionState)
    assert set(NEXT_OF_RELEASE) == set(ReleaseState)


def test_nothing_becomes_ready_without_validation_or_having_been_ready() -> None:
    before = {here for here in VersionState if may_move(here, VersionState.READY)}
    assert before == {VersionState.VALIDATING, VersionState.DEPRECATED, VersionState.ARCHIVED}


def test_a_rejected_version_never_serves() -> None:
    assert NEXT_OF_VERSION[VersionState.REJECTED] == {VersionState.ARCHIVED}
    assert VersionState.REJECTED not in RELEASABLE


def test_a_release_once_over_never_comes_back() -> None:
    for over in (ReleaseState.REJECTED, ReleaseState.REPLACED):
        assert not any(may_decide(over, there) for there in ReleaseState)

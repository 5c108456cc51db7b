"""States of a version and of a release, and the moves between them; plain Python."""

from collections.abc import Mapping
from enum import StrEnum


class VersionState(StrEnum):
    """Where a version stands between its upload and its end."""

    UPLOADED = "uploaded"
    VALIDATING = "validating"
    READY = "ready"
    REJECTED = "rejected"
    DEPRECATED = "deprecated"
    ARCHIVED = "archived"


class ReleaseState(StrEnum):
    """Where a release stands; the one live release of an endpoint is what serves."""

    AWAITING_APPROVAL = "awaiting_approval"
    LIVE = "live"
    REJECTED = "rejected"
    REPLACED = "replaced"


class Environment(StrEnum):
    """Where a model is served, from the first try to what clients rely on."""

    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


# A rejected version never comes back: its file is not kept, a better one is a new version.
# VALIDATING goes back to UPLOADED when the artifact store, not the file, is at fault.
NEXT_OF_VERSION: Mapping[VersionState, frozenset[VersionState]] = {
    VersionState.UPLOADED: frozenset({VersionState.VALIDATING, VersionState.REJECTED}),
    VersionState.VALIDATING: frozenset(
        {VersionState.READY, VersionState.REJECTED, VersionState.UPLOADED}
    ),
    VersionState.READY: frozenset({VersionState.DEPRECATED, VersionState.ARCHIVED}),
    VersionState.REJECTED: frozenset({VersionState.ARCHIVED}),
    VersionState.DEPRECATED: frozenset({VersionState.READY, VersionState.ARCHIVED}),
    VersionState.ARCHIVED: frozenset({VersionState.READY}),
}

NEXT_OF_RELEASE: Mapping[ReleaseState, frozenset[ReleaseState]] = {
    ReleaseState.AWAITING_APPROVAL: frozenset({ReleaseState.LIVE, ReleaseState.REJECTED}),
    ReleaseState.LIVE: frozenset({ReleaseState.REPLACED}),
    ReleaseState.REJECTED: frozenset(),
    ReleaseState.REPLACED: frozenset(),
}

# What a release may carry, and what serving processes may load.
RELEASABLE = frozenset({VersionState.READY, VersionState.DEPRECATED})
JUDGED_GOOD = frozenset({VersionState.READY, VersionState.DEPRECATED, VersionState.ARCHIVED})
# States of a version whose verdict is still to come.
UNDER_WAY = frozenset({VersionState.UPLOADED, VersionState.VALIDATING})


def may_move(here: VersionState, there: VersionState) -> bool:
    """Whether a version may go from one state to another."""
    return there in NEXT_OF_VERSION[here]


def may_decide(here: ReleaseState, there: ReleaseState) -> bool:
    """Whether a release may go from one state to another."""
    return there in NEXT_OF_RELEASE[here]

"""What serving processes run, in the database: written by the agents of the nodes, read by pages.

A page that follows a release must see the workers of all nodes, and a node's reports are local
files. The agent copies them here when they say something new, and a sign of life in between.
Nothing that serves depends on it: without the database, nobody looks either.
"""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import Max, QuerySet
from django.db.models.functions import Now

from apps.core.models import SnapshotEntry
from apps.inference.models import WorkerStatus
from apps.inference.node import NOT_HERE_YET, WorkerReport
from apps.registry.models import Release
from apps.registry.snapshot import ENDPOINT, endpoint_key, version_key
from apps.registry.states import ReleaseState

HEARTBEAT_SECONDS = 4.0
# An agent whose node said nothing for this long has ended, or lost the database.
SILENT_SECONDS = 15
# After this time any agent removes what the agent of a lost node left.
FORGOTTEN_SECONDS = 600
MOST_FAILURES = 50
MOST_CHARACTERS = 300
NAME_LENGTH = 200
Content = Mapping[str, Any]


def node_name(given: str, folder: Path) -> str:
    """Return the name of a node: the operator's, or the host's with the node's folder.

    Two nodes may share a host, and two hosts have the same folder.
    """
    return (given or f"{socket.gethostname()}:{folder}")[-NAME_LENGTH:]


class Board:
    """Keeps the rows of one node as its workers' reports are; the agent calls it every second."""

    def __init__(self, node: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._written: dict[int, Content] | None = None
        self._beat_at = 0.0

    def show(self, living: Sequence[WorkerReport]) -> None:
        """Write what is new since the last time; at most three statements, mostly none."""
        told = {one.pid: _content(one) for one in living}
        known, self._written = self._written, None  # forgotten unless all of it is written
        now = self._clock()
        with transaction.atomic():
            if known is None or known.keys() - told.keys():
                self._rows().exclude(worker__in=told).delete()
            self._put({pid: one for pid, one in told.items() if (known or {}).get(pid) != one})
            if now >= self._beat_at:
                self._rows().update(seen_at=Now())
                forgotten = Now() - timedelta(seconds=FORGOTTEN_SECONDS)
                WorkerStatus.objects.filter(seen_at__lt=forgotten).delete()
        if now >= self._beat_at:
            self._beat_at = now + HEARTBEAT_SECONDS
        self._written = told

    def routes_elsewhere(self) -> list[Mapping[str, int]]:
        """Return what the workers of all other nodes follow, as those last said."""
        others = _rows(silent=False).exclude(node=self._node)
        return list(others.values_list("routes", flat=True))

    def _rows(self) -> Any:
        return WorkerStatus.objects.filter(node=self._node)

    def _put(self, news: Mapping[int, Content]) -> None:
        if not news:
            return
        WorkerStatus.objects.bulk_create(
            [
                WorkerStatus(node=self._node, worker=pid, seen_at=Now(), **one)
                for pid, one in news.items()
            ],
            update_conflicts=True,
            unique_fields=["node", "worker"],
            update_fields=["generation", "state", "routes", "loaded", "failures", "seen_at"],
        )


def _content(report: WorkerReport) -> Content:
    """Return what a row says of a report; what changes with every call is left out."""
    failures = sorted(report.failures.items())[:MOST_FAILURES]
    return {
        "generation": report.generation,
        "state": report.state[:16],
        "routes": {key: number for key, number in report.routes.items() if number is not None},
        "loaded": sorted(version_key(one.model, one.version) for one in report.loaded),
        "failures": {key: reason[:MOST_CHARACTERS] for key, reason in failures},
    }


# --- what the rows say of a release -------------------------------------------------------------


class Standing(StrEnum):
    """How far a worker is with a release, in one word."""

    WARM = "warm"
    READY = "ready"
    LOADING = "loading"
    WAITING = "waiting"
    BEHIND = "behind"
    FAILED = "failed"
    SILENT = "silent"
    MOVED_ON = "moved on"


SENTENCES: Mapping[Standing, str] = {
    Standing.WARM: "Serves it; the model is in memory.",
    Standing.READY: "Serves it; the model is loaded at the first call.",
    Standing.LOADING: "Loads and warms the model; until then it serves what served before.",
    Standing.WAITING: "Waits for the file of the version.",
    Standing.BEHIND: "Has not heard of it yet.",
    Standing.SILENT: "Its node says nothing; it is not counted. Look at its agent.",
    Standing.MOVED_ON: "Follows another release.",
}
SERVES = frozenset({Standing.WARM, Standing.READY})


@dataclass(frozen=True, slots=True)
class Worker:
    """One serving process and a release."""

    node: str
    process: int
    standing: Standing
    sentence: str

    @property
    def host(self) -> str:
        """The node without the folder that `node_name` puts behind it."""
        return self.node.partition(":/")[0]


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a release is, worker by worker.

    Attributes:
        number: Of the release.
        is_live: Whether it is what should serve.
        seconds: From its decision until every worker had it; None before.
        workers: All that were heard of lately, the silent ones last.
    """

    number: int
    is_live: bool
    seconds: float | None
    workers: tuple[Worker, ...]

    @property
    def heard(self) -> tuple[Worker, ...]:
        """Those who count."""
        return tuple(one for one in self.workers if one.standing is not Standing.SILENT)

    @property
    def serving(self) -> int:
        """How many serve it."""
        return sum(one.standing in SERVES for one in self.workers)

    @property
    def failed(self) -> int:
        """How many cannot."""
        return sum(one.standing is Standing.FAILED for one in self.workers)

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing more to wait for."""
        everybody = bool(self.heard) and self.serving == len(self.heard)
        return not self.is_live or (everybody and self.seconds is not None)


def rollout_of(release: Release) -> Rollout:
    """Return how far a release is; three queries, however many workers there are."""
    model, environment = release.endpoint.model.name, release.endpoint.environment
    key = endpoint_key(environment, model)
    entry = SnapshotEntry.objects.filter(kind=ENDPOINT, key=key).aggregate(made=Max("generation"))
    wanted = _Wanted(
        key=key,
        number=release.number,
        versions=frozenset(version_key(model, one) for one in release.version_numbers),
        generation=entry["made"] or 0,
        is_live=release.state == ReleaseState.LIVE,
    )
    workers = [_worker(row, silent=False, wanted=wanted) for row in _rows(silent=False)]
    workers += [_worker(row, silent=True, wanted=wanted) for row in _rows(silent=True)]
    return Rollout(release.number, wanted.is_live, _seconds(release), tuple(workers))


def _rows(*, silent: bool) -> "QuerySet[WorkerStatus]":
    # By the database's clock, which also wrote them: the hosts' clocks may differ.
    edge = Now() - timedelta(seconds=SILENT_SECONDS)
    rows = WorkerStatus.objects.order_by("node", "worker")
    return rows.filter(seen_at__lt=edge) if silent else rows.filter(seen_at__gte=edge)


def _seconds(release: Release) -> float | None:
    if release.rolled_out_at is None or release.decided is None:
        return None
    return max(0.0, (release.rolled_out_at - release.decided).total_seconds())


@dataclass(frozen=True, slots=True)
class _Wanted:
    key: str
    number: int
    versions: frozenset[str]
    generation: int
    is_live: bool


def _worker(row: WorkerStatus, *, silent: bool, wanted: _Wanted) -> Worker:
    if silent:
        standing, sentence = Standing.SILENT, ""
    else:
        standing, sentence = _standing(row, wanted)
    return Worker(row.node, row.worker, standing, sentence or SENTENCES[standing])


def _standing(row: WorkerStatus, wanted: _Wanted) -> tuple[Standing, str]:
    """Say how far one worker is, and why where that is news."""
    number, reason = row.routes.get(wanted.key), row.failures.get(wanted.key, "")
    if number == wanted.number:
        return (Standing.WARM if wanted.versions <= set(row.loaded) else Standing.READY), ""
    if not wanted.is_live:
        return Standing.MOVED_ON, ""
    if row.generation < wanted.generation:
        return Standing.BEHIND, ""
    if reason.endswith(NOT_HERE_YET):
        return Standing.WAITING, reason
    return (Standing.FAILED, reason) if reason else (Standing.LOADING, "")

"""Follows the local snapshot file in one serving process: load, then swap.

Keys, people and revoked tokens count from the moment they are read. A release that needs a model
which is not in memory is loaded first, in a thread of its own, and takes over only then; if that
fails, the last good route of its endpoint stays and the load is tried again. So neither a slow nor
a broken model delays a revocation or another endpoint.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from apps.accounts.callers import MemoryDirectory
from apps.core.errors import PlatformError
from apps.core.snapshot_file import Change, Entry, SnapshotDamaged, SnapshotReader
from apps.inference.engine.batcher import Batcher
from apps.inference.engine.pipeline import Engine
from apps.inference.engine.pool import ModelPool
from apps.inference.engine.routing import Routes
from apps.inference.engine.spool import NOT_READY_AT
from apps.inference.node import NOT_HERE_YET, LoadedVersion, Node, WorkerReport
from apps.registry.snapshot import (
    ENDPOINT,
    VERSION,
    EndpointBody,
    VersionBody,
    endpoint_from_json,
    version_from_json,
    version_key,
)

LOG = logging.getLogger(__name__)
B = TypeVar("B")

LOAD_SECONDS = 300.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
# Several endpoints load side by side, so that a slow one does not hold up the others.
LOADERS = 4
HEARTBEAT_SECONDS = 1.0
# Without a sign of life from the agent for this long, what is served may be out of date.
AGENT_SILENT_SECONDS = 60.0


class State(StrEnum):
    """Whether a serving process may get traffic, in one word."""

    STARTING = "starting"
    LOADING = "loading"
    FULL = "full"
    DRAINING = "draining"
    READY = "ready"


class Room(Protocol):
    """What the follower asks of the spool."""

    @property
    def fill(self) -> float:
        """Part of the room that is taken, 0 to 1."""
        ...

    @property
    def dropped(self) -> int:
        """Records lost since the process started."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint with the bodies of its arms' versions.

    Attributes:
        missing: Numbers of arms of which the snapshot knows no version.
    """

    endpoint: EndpointBody
    versions: tuple[VersionBody, ...]
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What one loader's thread has in hand: an endpoint's versions that were not in memory."""

    key: str
    versions: frozenset[VersionBody]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an endpoint's newest release is not followed yet."""

    target: Target
    reason: str
    times: int
    retry_at: float


class Follower:
    """The one thread of a serving process that changes what it serves."""

    def __init__(
        self,
        *,
        node: Node,
        engine: Engine,
        pool: ModelPool[Batcher],
        room: Room,
        poll_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._engine = engine
        self._pool = pool
        self._room = room
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._reader = SnapshotReader(node.folder)
        self._directory = MemoryDirectory()
        self._endpoints: dict[str, EndpointBody] = {}
        self._versions: dict[str, VersionBody] = {}
        self._served: dict[str, Target] = {}
        self._pending: set[str] = set()
        self._loading: set[Load] = set()
        self._failures: dict[str, Failure] = {}
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_snapshot = False
        self._was_warm = False
        self._draining = False
        self._alarm = ""
        self._agent_alarm = False
        self._started = time.time()
        self._reported: WorkerReport | None = None
        self._beat_at = 0.0

    # --- what others ask ------------------------------------------------------------------------

    @property
    def directory(self) -> MemoryDirectory:
        """Who exists at this moment; hold it for one request only."""
        return self._directory

    @property
    def has_snapshot(self) -> bool:
        """Whether anything was read yet."""
        return self._has_snapshot

    @property
    def generation(self) -> int:
        """The newest generation that was read."""
        return self._reader.generation

    @property
    def failures(self) -> Mapping[str, str]:
        """Endpoint key to the reason why its newest release is not followed yet."""
        with self._lock:
            return {key: one.reason for key, one in self._failures.items()}

    def caught_up(self) -> bool:
        """Whether everything that was read is served."""
        with self._lock:
            return self._has_snapshot and not self._pending

    def state(self) -> State:
        """Say whether this process may get traffic; asks neither database nor network.

        Required models must be warm before the first traffic. Later ones are loaded before they
        are switched to, so a broken release never takes a working process out of service.
        """
        if self._draining:
            return State.DRAINING
        if not self._has_snapshot:
            return State.STARTING
        if not self._was_warm and not self._is_warm():
            return State.LOADING
        self._was_warm = True
        return State.FULL if self._room.fill >= NOT_READY_AT else State.READY

    # --- its life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Read once, here and now, then go on in a thread."""
        self.look()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Say from now on that no more traffic is wanted."""
        self._draining = True
        self._wake.set()

    def close(self) -> None:
        """End the thread and take the report away."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        self._node.leave(os.getpid())

    def wait_ready(self, seconds: float) -> bool:
        """Wait until this process may get traffic, for so long at the most."""
        until = self._clock() + seconds
        while self.state() is not State.READY:
            left = until - self._clock()
            if left <= 0 or self._stop.wait(min(left, 0.05)):
                return False
        return True

    def look(self) -> None:
        """Look at the file once and move on whatever can move."""
        with self._lock:
            change = self._read()
            if change is not None:
                self._apply(change)
            self._advance(full=change is not None)
        self._beat()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._poll_seconds)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self.look()
            except Exception:  # the last good state stays, whatever it was that went wrong
                LOG.exception("the snapshot could not be followed; what was served is served on")

    # --- reading --------------------------------------------------------------------------------

    def _read(self) -> Change | None:
        try:
            change = self._reader.read()
        except (SnapshotDamaged, OSError) as error:
            if self._alarm != str(error):
                self._alarm = str(error)
                LOG.error("the local snapshot is not followed: %s", error)  # noqa: TRY400
                self._ask_for_another()
            return None
        if change is not None and self._alarm:
            self._alarm = ""
            LOG.info("the local snapshot is followed again")
        return change

    def _ask_for_another(self) -> None:
        try:
            self._node.distrust()
        except OSError as error:
            LOG.warning("the agent cannot be told of it: %s", error)

    def _apply(self, change: Change) -> None:
        self._directory = self._directory.applied(change)
        self._endpoints = _merged(self._endpoints, change, ENDPOINT, endpoint_from_json)
        self._versions = _merged(self._versions, change, VERSION, version_from_json)
        self._has_snapshot = True

    # --- moving on ------------------------------------------------------------------------------

    def _advance(self, *, full: bool) -> None:
        """Take over what may serve now, and start the loads that others need first."""
        if not full and not self._pending:
            return
        gone = self._served.keys() - self._endpoints.keys()
        for key in gone:
            del self._served[key]
            self._failures.pop(key, None)
        self._pending &= self._endpoints.keys()
        todo = self._endpoints.keys() if full else set(self._pending)
        switched = [key for key in todo if self._step(key)]
        if full or switched or gone:
            self._publish()
        for key in tuple(self._pending):
            self._load_ahead(key)

    def _step(self, key: str) -> bool:
        """Move one endpoint on; return whether it is served otherwise now."""
        target, served = self._target(key), self._served.get(key)
        waits = self._waits(target, served)
        if waits:
            self._pending.add(key)
        else:
            self._pending.discard(key)
            self._failures.pop(key, None)
        if served == target or (waits and not _may_precede_its_load(target, served)):
            return False
        self._served[key] = target
        return True

    def _target(self, key: str) -> Target:
        endpoint = self._endpoints[key]
        numbers = [arm.version for arm in endpoint.release.arms] if endpoint.release else []
        keys = {number: version_key(endpoint.model, number) for number in numbers}
        return Target(
            endpoint,
            tuple(self._versions[one] for one in keys.values() if one in self._versions),
            tuple(number for number, one in keys.items() if one not in self._versions),
        )

    def _waits(self, target: Target, served: Target | None) -> bool:
        """Whether something must be in memory before the target may serve."""
        if target.missing:
            return True
        fresh = self._fresh(target)
        if not fresh:
            return False
        if target.endpoint.settings.required:
            return True
        # Nobody waits for a model that was not in use here: its first call loads it.
        known = served.versions if served else ()
        in_use = any(self._pool.is_loaded(one) for one in known)
        return in_use and not fresh <= set(known)

    def _fresh(self, target: Target) -> frozenset[VersionBody]:
        """Versions that are not in memory, or are and still being warmed."""
        return frozenset(one for one in target.versions if not self._is_warm_here(one))

    def _is_warm_here(self, version: VersionBody) -> bool:
        in_hand = any(version in one.versions for one in tuple(self._loading))
        return not in_hand and self._pool.is_loaded(version)

    def _publish(self) -> None:
        before = self._engine.routes.versions
        versions = {(one.model, one.number): one for one in self._versions.values()}
        for target in self._served.values():
            versions |= {(one.model, one.number): one for one in target.versions}
        endpoints = [target.endpoint for target in self._served.values()]
        self._engine.use(Routes.of(endpoints, versions.values()))
        self._pin()
        for key, version in before.items():
            if key not in versions:
                self._pool.drop(version)

    def _pin(self) -> None:
        """Keep what is required and what is being loaded to take over."""
        ahead = [one for key in self._pending for one in self._target(key).versions]
        self._pool.pin([*self._engine.routes.required(), *ahead])

    def _load_ahead(self, key: str) -> None:
        """Start the load that an endpoint waits for, unless it is under way or was just tried."""
        target, failure = self._target(key), self._failures.get(key)
        if failure is not None and failure.target != target:
            failure = None
        load = Load(key, self._fresh(target))
        paused = failure is not None and self._clock() < failure.retry_at
        if paused or load in self._loading or len(self._loading) >= LOADERS:
            return
        lacking = self._lacking(target)
        if lacking:
            # Not a failed try: it is looked at again at every turn.
            self._failures[key] = Failure(target, lacking, failure.times if failure else 0, 0.0)
            return
        self._pin()
        loader = threading.Thread(
            target=self._load, args=(load, target), name=f"follower-{key}", daemon=True
        )
        self._loading.add(load)
        try:
            loader.start()
        except RuntimeError:  # no thread to be had at present; the next turn tries again
            self._loading.discard(load)
            LOG.warning("no thread could be started to load %s", key)

    def _lacking(self, target: Target) -> str:
        if target.missing:
            return f"Version {target.missing[0]} is not in the snapshot."
        absent = [
            one
            for one in target.versions
            if not self._pool.is_loaded(one) and not self._node.has(one.sha256)
        ]
        for one in absent:
            self._node.want(one.sha256)
        return f"The file of version {absent[0].number} {NOT_HERE_YET}" if absent else ""

    def _load(self, load: Load, target: Target) -> None:
        """Load and warm what a target lacks; runs in a loader's thread."""
        reason = ""
        try:
            for version in load.versions:
                self._pool.ensure(version, deadline=time.monotonic() + LOAD_SECONDS)
        except PlatformError as error:
            reason = error.message
        except Exception:  # the last good route stays, whatever it was
            LOG.exception("a load ahead failed")
            reason = "It could not be loaded; the log of this process says why."
        with self._lock:
            self._loading.discard(load)
            if reason:
                self._note_failure(load.key, target, reason)
        self._wake.set()

    def _note_failure(self, key: str, target: Target, reason: str) -> None:
        last = self._failures.get(key)
        times = last.times + 1 if last is not None and last.target == target else 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(times - 1, 10))
        self._failures[key] = Failure(target, reason, times, self._clock() + pause)
        LOG.warning("%s stays as it was: %s", key, reason)

    # --- telling --------------------------------------------------------------------------------

    def _is_warm(self) -> bool:
        return all(self._is_warm_here(one) for one in self._engine.routes.required())

    def _watch_agent(self) -> None:
        found = self._node.agent()
        silent = found is not None and found[1] > AGENT_SILENT_SECONDS
        if silent != self._agent_alarm:
            self._agent_alarm = silent
            if silent:
                LOG.error("the agent gave no sign of life for a minute; changes do not arrive")
            else:
                LOG.info("the agent is back")

    def report(self) -> WorkerReport:
        """Say what this process runs."""
        with self._lock:
            routes = {
                key: one.endpoint.release.number if one.endpoint.release else None
                for key, one in self._served.items()
            }
            failures = {key: one.reason for key, one in self._failures.items()}
        return WorkerReport(
            pid=os.getpid(),
            epoch=self._reader.epoch,
            generation=self._reader.generation,
            state=self.state(),
            routes=routes,
            loaded=tuple(_loaded(one) for one in self._pool.loaded()),
            failures=failures,
            spool_fill=round(self._room.fill, 3),
            dropped=self._room.dropped,
            started=self._started,
        )

    def _beat(self) -> None:
        """Write the report when it says something new, else only a sign of life."""
        report = self.report()
        now = self._clock()
        if now >= self._beat_at:
            self._watch_agent()
        try:
            if self._reported is None or _told(report) != _told(self._reported):
                self._node.report(report)
            elif now < self._beat_at:
                return
            elif not self._node.still_alive(report.pid):
                self._node.report(report)
        except OSError as error:
            LOG.warning("this process cannot report: %s", error)
        self._reported, self._beat_at = report, now + HEARTBEAT_SECONDS


def _may_precede_its_load(target: Target, served: Target | None) -> bool:
    """Whether waiting for a load would keep nothing good.

    At the start nothing is served yet: calls find the route and wait for its load. And a change of
    settings alone brings no version that is not served already.
    """
    return served is None or (not target.missing and set(target.versions) <= set(served.versions))


def _told(report: WorkerReport) -> WorkerReport:
    """Leave out what changes with every call; it is written along with the next news."""
    loaded = tuple(replace(one, leases=0) for one in report.loaded)
    return replace(report, loaded=loaded)


def _loaded(one: Any) -> LoadedVersion:
    version: VersionBody = one.version
    return LoadedVersion(
        version.model, version.number, version.sha256, one.bytes, one.leases, one.pinned
    )


def _merged(
    old: Mapping[str, B], change: Change, kind: str, read: Callable[[Mapping[str, Any]], B]
) -> dict[str, B]:
    """Return the bodies of one kind after a change; an unreadable one leaves its last good one."""
    merged = {} if change.full else dict(old)
    for one in _of(change.entries, kind):
        if one.body is None:
            merged.pop(one.key, None)
            continue
        try:
            merged[one.key] = read(one.body)
        except (ValueError, KeyError, TypeError, AttributeError):
            LOG.exception("the snapshot entry %s %s cannot be read", one.kind, one.key)
            if one.key in old:
                merged[one.key] = old[one.key]
    return merged


def _of(entries: Iterable[Entry], kind: str) -> list[Entry]:
    return [one for one in entries if one.kind == kind]

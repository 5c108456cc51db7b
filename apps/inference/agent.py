"""One per node: carries changes from the database to local files, and records back.

Serving processes read what is written here and nothing else, so the database, the artifact store
and this process may all be away while they answer. Four loops run beside each other, so that a
large download delays neither a revoked key nor the record: what changed, what is to be fetched,
what is to be shipped, what people see of the workers. None of them ever ends because something
failed.
"""

import contextlib
import fcntl
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from django.db import connections

from apps.core import snapshot, storage
from apps.core.confined import remove_abandoned
from apps.core.errors import PlatformError
from apps.core.logs import error_words
from apps.core.snapshot_file import Entry, SnapshotWriter
from apps.inference import journal_db
from apps.inference.engine.spool import count_bytes, sealed_segments
from apps.inference.journal_db import Shipped
from apps.inference.node import AgentReport, Node
from apps.inference.worker_status import Board, node_name
from apps.registry.services import releases
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

LONGEST_PAUSE_SECONDS = 2.0
LONGEST_FETCH_PAUSE_SECONDS = 30.0
# Artifacts that no release needs stay for tries until they take this much room together.
SPARE_BYTES = 10 * 2**30
REPORT_SECONDS = 1.0
# How often folders of confined processes are looked for whose parent was killed, and their age.
TIDY_SECONDS = 900.0
ABANDONED_SECONDS = 3600.0
# What the end may take, of the 30 seconds that supervisors commonly give.
LAST_SECONDS = 15.0
OK = "ok"

B = TypeVar("B")
Fetch = Callable[[str, Path], str]


class ArtifactDamaged(PlatformError):
    """The store gave a file whose digest is not the version's."""

    code = "artifact_damaged"
    retryable = True


@dataclass(frozen=True, slots=True)
class _Failed:
    times: int
    retry_at: float


class Agent:
    """The work of one node's agent; each of its rounds can be called by itself."""

    def __init__(
        self,
        node: Node,
        spool: Path,
        *,
        name: str = "",
        fetch: Fetch = storage.fetch,
        spare_bytes: int = SPARE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take up the snapshot file that a former agent left.

        Args:
            node: The local folder that serving processes read.
            spool: Where they leave their records.
            name: Of the node, where people see what its workers run; empty is host and folder.
            fetch: Copies a stored file to a local path and returns its digest.
            spare_bytes: Room for artifacts that no release needs.
            clock: Monotonic seconds, for pauses.
        """
        self._node = node
        self._spool = spool
        self._fetch = fetch
        self._spare_bytes = spare_bytes
        self._clock = clock
        self._board = Board(node_name(name, node.folder), clock=clock)
        self._writer = SnapshotWriter(node.folder)
        self._writer.load()
        # A former agent may have died within a line; what it left is written afresh before more
        # is appended to it.
        self._rewrite = True
        self._endpoints: dict[str, EndpointBody] = {}
        self._versions: dict[str, VersionBody] = {}
        self._failed: dict[str, _Failed] = {}
        self._rolled_out: dict[str, int] = {}
        self._store = OK
        self._older = False
        self._tidy_at = 0.0
        self._read_entries(self._writer.state())
        self.news = threading.Event()

    @property
    def epoch(self) -> str:
        """Epoch of what the local file holds."""
        return self._writer.epoch

    @property
    def generation(self) -> int:
        """Generation of what the local file holds."""
        return self._writer.generation

    # --- the snapshot ---------------------------------------------------------------------------

    def poll_once(self) -> bool:
        """Bring the local file up to date with the database; return whether it changed."""
        epoch, generation = snapshot.newest()
        changed = self._follow(epoch, generation)
        self._mark_rolled_out()
        if changed:
            self.news.set()
        return changed

    def _follow(self, epoch: str, generation: int) -> bool:
        if epoch != self._writer.epoch and not self._is_empty_beside_ours(epoch):
            return self._take_all(epoch)
        if self._rewrite or self._node.distrusted():
            self._write_all(self._writer.epoch, self._writer.state(), self._writer.generation)
        if epoch != self._writer.epoch or generation <= self._writer.generation:
            self._warn_of_older(epoch, generation)
            return False
        entries = tuple(snapshot.entries_after(self._writer.generation))
        if snapshot.newest()[0] != epoch:  # restored in between; the next round takes everything
            return False
        self._rewrite = True  # until the append is known to be whole
        self._writer.append(entries)
        self._rewrite = False
        self._read_entries(entries)
        return True

    def _is_empty_beside_ours(self, epoch: str) -> bool:
        """Whether a database without any epoch would wipe out a good snapshot.

        Somebody points us at a new database, or restores one: what is served stays until it says
        something.
        """
        return not epoch and bool(self._writer.epoch)

    def _warn_of_older(self, epoch: str, generation: int) -> None:
        older = epoch == self._writer.epoch and generation < self._writer.generation
        if older and not self._older:
            LOG.error(
                "the database is older (generation %d) than what is served (%d): after a restore, "
                "renew the snapshot's epoch",
                generation,
                self._writer.generation,
            )
        self._older = older

    def _take_all(self, epoch: str) -> bool:
        entries = tuple(snapshot.entries_after(0))
        if snapshot.newest()[0] != epoch:
            return False
        generation = max((one.generation for one in entries), default=0)
        self._write_all(epoch, entries, generation)
        self._endpoints, self._versions, self._rolled_out = {}, {}, {}
        self._read_entries(entries)
        LOG.info("a new epoch of the snapshot was taken whole: generation %d", generation)
        return True

    def _write_all(self, epoch: str, entries: tuple[Entry, ...], generation: int) -> None:
        self._rewrite = True
        self._writer.replace(epoch, entries, generation)
        self._rewrite = False

    def _read_entries(self, entries: tuple[Entry, ...]) -> None:
        """Take over what entries say, by replacement: another thread reads these tables."""
        endpoints, versions = dict(self._endpoints), dict(self._versions)
        for one in entries:
            try:
                if one.kind == ENDPOINT:
                    _put(endpoints, one, endpoint_from_json)
                elif one.kind == VERSION:
                    _put(versions, one, version_from_json)
            except (ValueError, KeyError, TypeError, AttributeError):
                LOG.exception("the snapshot entry %s %s cannot be read", one.kind, one.key)
        self._endpoints, self._versions = endpoints, versions

    # --- roll-out -------------------------------------------------------------------------------

    def _mark_rolled_out(self) -> None:
        """Note the releases that every living process of every node follows."""
        living = self._node.living()
        here = {
            key: endpoint.release.number
            for key, endpoint in self._endpoints.items()
            if endpoint.release is not None
            and self._rolled_out.get(key) != endpoint.release.number
            and all(one.routes.get(key) == endpoint.release.number for one in living)
        }
        if not living or not here:
            return
        elsewhere = self._board.routes_elsewhere()
        for key, number in here.items():
            if all(routes.get(key) == number for routes in elsewhere):
                endpoint = self._endpoints[key]
                releases.mark_rolled_out(endpoint.model, endpoint.environment, number)
                self._rolled_out[key] = number

    def tell_once(self) -> None:
        """Copy what the workers of this node report to where pages see it."""
        self._board.show(self._node.living())

    # --- artifacts ------------------------------------------------------------------------------

    def fetch_once(self) -> int:
        """Bring the artifacts that are needed and not here; return how many came."""
        came = 0
        wanted = self._node.wanted()
        for version in self._lacking(wanted):
            came += self._bring(version)
        for sha256 in wanted:
            if self._node.has(sha256) or sha256 not in self._by_digest():
                self._node.granted(sha256)
        self._make_room()
        self._node.forget_silent()
        self._tidy()
        return came

    def _tidy(self) -> None:
        """Remove what killed processes of this node left in the system's temporary folder."""
        now = self._clock()
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_SECONDS
            folder = Path(tempfile.gettempdir())
            remove_abandoned(folder, older_than_seconds=ABANDONED_SECONDS)

    def _by_digest(self) -> Mapping[str, VersionBody]:
        return {one.sha256: one for one in self._versions.values()}

    def _released(self) -> list[VersionBody]:
        numbers = {
            version_key(endpoint.model, arm.version)
            for endpoint in self._endpoints.values()
            if endpoint.release is not None
            for arm in endpoint.release.arms
        }
        versions = self._versions
        return [versions[key] for key in sorted(numbers) if key in versions]

    def _lacking(self, wanted: frozenset[str]) -> list[VersionBody]:
        """List what to bring now: first what somebody waits for, then small before large."""
        known = self._by_digest()
        asked = [known[sha256] for sha256 in wanted if sha256 in known]
        every = {one.sha256: one for one in (*asked, *self._released())}
        now = self._clock()
        return sorted(
            (
                one
                for one in every.values()
                if not self._node.has(one.sha256) and self._may_try(one.sha256, now)
            ),
            key=lambda one: (one.sha256 not in wanted, one.size),
        )

    def _may_try(self, sha256: str, now: float) -> bool:
        failed = self._failed.get(sha256)
        return failed is None or now >= failed.retry_at

    def _bring(self, version: VersionBody) -> bool:
        try:
            self._download(version)
        except Exception as error:  # noqa: BLE001 - each store has errors of its own; all are retried
            self._note_failure(version, error)
            return False
        self._failed.pop(version.sha256, None)
        self._store = OK
        LOG.info("the artifact of %s %d is on this node", version.model, version.number)
        return True

    def _note_failure(self, version: VersionBody, error: Exception) -> None:
        last = self._failed.get(version.sha256)
        times = last.times + 1 if last else 1
        pause = min(LONGEST_FETCH_PAUSE_SECONDS, 2.0 ** min(times - 1, 10))
        self._failed[version.sha256] = _Failed(times, self._clock() + pause)
        self._store = f"{type(error).__name__}: {str(error)[:200]}"
        LOG.warning(
            "the artifact of %s %d could not be fetched (try %d, again in %.0f s): %s",
            version.model,
            version.number,
            times,
            pause,
            error,
        )

    def _download(self, version: VersionBody) -> None:
        """Download beside, check, and only then give the file its name."""
        target = self._node.artifact(version.sha256)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = target.with_name(f".draft-{version.sha256}")
        try:
            digest = self._fetch(version.storage_key, draft)
            if digest != version.sha256:
                raise ArtifactDamaged(
                    f"The artifact store holds another file for {version.model} "
                    f"{version.number} than was validated. Restore it from a backup.",
                )
            draft.chmod(0o600)
            _sync(draft)
            draft.replace(target)
            _sync(target.parent)
        finally:
            draft.unlink(missing_ok=True)

    def _make_room(self) -> None:
        """Remove artifacts that no release and no process needs, the longest unused first."""
        needed = {one.sha256 for one in self._released()} | self._node.wanted()
        needed |= {one.sha256 for report in self._node.living() for one in report.loaded}
        spare = [_used(path) for path in self._node.present() if path.name not in needed]
        excess = sum(size for _, size, _ in spare) - self._spare_bytes
        for _, size, path in sorted(spare):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size
            LOG.info("the unused artifact %s left this node", path.name)

    # --- the record -----------------------------------------------------------------------------

    def ship_once(self, *, stop: Callable[[], bool] = lambda: False) -> Shipped:
        """Bring the records of this node into the database.

        Raises:
            LogUnavailable: The database does not take them; the files stay.
        """
        return journal_db.ship(self._spool, stop=stop)

    # --- its life -------------------------------------------------------------------------------

    def run(self, stop: threading.Event, *, poll_seconds: float) -> None:
        """Work until asked to stop, then ship once more."""
        for path in tuple(self._node.drafts()):
            path.unlink(missing_ok=True)
        ship_until_stop = partial(self.ship_once, stop=stop.is_set)
        follow = Round("following the database", self.poll_once, stop, poll_seconds)
        ship = Round("shipping the record", ship_until_stop, stop, poll_seconds)
        fetch = Round("fetching artifacts", self.fetch_once, stop, poll_seconds, wake=self.news)
        # A round of its own: nothing that serves waits for what people look at.
        tell = Round("telling what workers run", self.tell_once, stop, REPORT_SECONDS)
        # Daemons: a download under way, or a database that hangs, must not hold up the end.
        threads = [
            threading.Thread(target=one.run, name=one.name, daemon=True)
            for one in (follow, ship, fetch, tell)
        ]
        for thread in threads:
            thread.start()
        while not stop.wait(REPORT_SECONDS):
            self._report(follow, ship)
        for thread in threads[:2]:
            thread.join(timeout=LAST_SECONDS / 2)
        self._ship_the_rest()
        self._report(follow, ship)

    def _ship_the_rest(self) -> None:
        until = time.monotonic() + LAST_SECONDS
        try:
            shipped = self.ship_once(stop=lambda: time.monotonic() > until)
            journal_db.write_manifest()
        except PlatformError as error:
            LOG.warning("the last records stay in the spool: %s", error.message)
        else:
            LOG.info("shipped %d last records", shipped.rows)
        finally:
            connections.close_all()

    def _report(self, follow: "Round", ship: "Round") -> None:
        with contextlib.suppress(OSError):  # a full disk is told by those who find it full
            self._node.report_agent(
                AgentReport(
                    pid=os.getpid(),
                    epoch=self.epoch,
                    generation=self.generation,
                    database=follow.state,
                    store=self._store,
                    shipping=ship.state,
                    backlog_bytes=count_bytes(self._spool),
                    backlog_seconds=round(_oldest_seconds(self._spool), 1),
                )
            )


class Round:
    """Does one thing again and again, in a thread of its own, whatever happens to it."""

    def __init__(
        self,
        name: str,
        act: Callable[[], object],
        stop: threading.Event,
        pause_seconds: float,
        *,
        wake: threading.Event | None = None,
    ) -> None:
        """Describe the round.

        Args:
            name: For the log.
            act: What is done.
            stop: Ends it.
            pause_seconds: Between two rounds; doubled up to two seconds while it fails.
            wake: Ends a pause early.
        """
        self.name = name
        self.state = OK
        self._act = act
        self._stop = stop
        self._pause = pause_seconds
        self._wake = wake or stop

    def run(self) -> None:
        """Go on until asked to stop."""
        pause = 0.0
        try:
            while not self._stop.is_set():
                self._wake.wait(pause)
                if self._wake is not self._stop:
                    self._wake.clear()
                if self._stop.is_set():
                    return
                pause = self._next_pause(pause, failed=not self.turn())
        finally:
            connections.close_all()

    def turn(self) -> bool:
        """Do it once; return whether it succeeded. The log hears of changes only."""
        try:
            self._act()
        except Exception as error:  # noqa: BLE001 - the agent outlives whatever befalls the others
            connections.close_all()  # a broken connection would fail for ever
            self._failed(error)
            return False
        if self.state != OK:
            self.state = OK
            LOG.info("%s works again", self.name)
        return True

    def _failed(self, error: Exception) -> None:
        own = isinstance(error, PlatformError)
        said = (f"{type(error).__name__}: {error}" if own else error_words(error))[:250]
        if self.state == OK:
            LOG.warning(
                "%s fails and is tried until it succeeds: %s", self.name, said, exc_info=error
            )
        self.state = said

    def _next_pause(self, last: float, *, failed: bool) -> float:
        if not failed:
            return self._pause
        return min(max(last, self._pause) * 2, max(LONGEST_PAUSE_SECONDS, self._pause))


@contextlib.contextmanager
def only_agent(node: Node, stop: threading.Event, say: Callable[[str], None]) -> Iterator[bool]:
    """Be the only agent of a node; a second one waits here until the first has gone.

    Yields False when it was asked to stop while it waited.
    """
    node.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (node.folder / "agent.lock").open("a+") as lock:
        told = False
        while not _locked(lock):
            if not told:
                told = True
                lock.seek(0)
                say(
                    f"Another agent (process {lock.read().strip() or 'unknown'}) serves "
                    f"{node.folder}; this one waits until it ends."
                )
            if stop.wait(1.0):
                yield False
                return
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield True


def _put(table: dict[str, B], one: Entry, read: Callable[[Mapping[str, Any]], B]) -> None:
    if one.body is None:
        table.pop(one.key, None)
    else:
        table[one.key] = read(one.body)


def _oldest_seconds(spool: Path) -> float:
    """Return the age of the oldest file that waits to be shipped; 0 when none does."""
    for one in sealed_segments(spool):
        with contextlib.suppress(FileNotFoundError):  # shipped between the listing and now
            return one.age_seconds(time.time())
    return 0.0


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _used(path: Path) -> tuple[float, int, Path]:
    """Return when a file was last used, its size, and the file; sorts by the first."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return 0.0, 0, path
    return facts.st_mtime, facts.st_size, path


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

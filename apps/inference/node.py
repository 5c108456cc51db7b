"""The files by which the processes of one node meet: artifacts, wishes, reports; plain Python.

The agent brings artifacts and reads reports; serving processes name what they lack and say what
they run. Nothing here is a lock or a queue: every file is written whole and renamed, and whoever
finds one missing tries again later. File names are digests and process ids, never a client's text.
"""

import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

LOG = logging.getLogger(__name__)
SHA256 = re.compile(r"[0-9a-f]{64}")
# A process that said nothing for this long is not counted among the living.
SILENT_SECONDS = 5.0
FORGOTTEN_SECONDS = 300.0
CHUNK = 1024 * 1024
# How every reason ends that goes away by itself when the agent has brought the file.
NOT_HERE_YET = "is not on this node yet."


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """One model in a process' memory."""

    model: str
    version: int
    sha256: str
    bytes: int
    leases: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What one serving process runs.

    Attributes:
        state: One word; ``ready`` when it may get traffic.
        routes: Endpoint key to the number of the release that it follows, or None.
        failures: Endpoint key to the reason why its newest release is not followed yet.
        spool_fill: Part of the spool's room that is taken, 0 to 1.
        dropped: Records lost under ``best_effort`` since the process started.
    """

    pid: int
    epoch: str
    generation: int
    state: str
    routes: Mapping[str, int | None] = field(default_factory=dict)
    loaded: tuple[LoadedVersion, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    spool_fill: float = 0.0
    dropped: int = 0
    started: float = 0.0


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What the node's agent last knew.

    Attributes:
        database: ``ok``, or since when and why it does not answer.
        store: The same of the artifact store.
        shipping: The same of the table of predictions.
        backlog_bytes: Bytes of records that wait in the spool.
        backlog_seconds: Age of the oldest file among them.
    """

    pid: int
    epoch: str
    generation: int
    database: str
    store: str
    shipping: str
    backlog_bytes: int
    backlog_seconds: float


@dataclass(frozen=True, slots=True)
class Node:
    """The local folder of one node."""

    folder: Path

    # --- artifacts ---

    @property
    def artifacts(self) -> Path:
        """Where artifacts lie, each under its digest."""
        return self.folder / "artifacts"

    def artifact(self, sha256: str) -> Path:
        """Where one artifact lies, or will."""
        return self.artifacts / _digest(sha256)

    def has(self, sha256: str) -> bool:
        """Whether an artifact is here; its content is checked when it is opened."""
        return self.artifact(sha256).exists()

    def present(self) -> Iterator[Path]:
        """Yield the artifacts that are here."""
        return (path for path in _files(self.artifacts) if SHA256.fullmatch(path.name))

    def drafts(self) -> Iterator[Path]:
        """Yield what an interrupted download left."""
        return (path for path in _files(self.artifacts) if not SHA256.fullmatch(path.name))

    def verified(self, sha256: str) -> Path | None:
        """Return an artifact whose content is what its name says; remove it when it is not.

        Its time of change becomes its time of last use, for the agent's clean-up.
        """
        path = self.artifact(sha256)
        try:
            with path.open("rb") as file:
                digest = _sha256_of(file)
                inode = os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return None
        if digest != sha256:
            LOG.error("the local copy of artifact %s is damaged; it is fetched again", sha256)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode:  # not a good copy that came in the meantime
                    path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    # --- wishes ---

    @property
    def wishes(self) -> Path:
        """Where processes name the artifacts that they lack."""
        return self.folder / "wanted"

    def want(self, sha256: str) -> None:
        """Ask the agent for an artifact; asking again does no harm."""
        wish = self.wishes / _digest(sha256)
        if not wish.exists():
            self.wishes.mkdir(parents=True, exist_ok=True, mode=0o700)
            wish.touch(mode=0o600)

    def wanted(self) -> frozenset[str]:
        """Return the digests that processes asked for."""
        return frozenset(path.name for path in _files(self.wishes) if SHA256.fullmatch(path.name))

    def granted(self, sha256: str) -> None:
        """Forget a wish."""
        (self.wishes / _digest(sha256)).unlink(missing_ok=True)

    # --- distrust ---

    def distrust(self) -> None:
        """Say that the snapshot file is damaged; the agent writes it afresh."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "distrusted").touch(mode=0o600)

    def distrusted(self) -> bool:
        """Whether a process said so since this was last asked."""
        try:
            (self.folder / "distrusted").unlink()
        except FileNotFoundError:
            return False
        return True

    # --- reports ---

    @property
    def workers(self) -> Path:
        """Where serving processes report."""
        return self.folder / "workers"

    def report(self, report: WorkerReport) -> None:
        """Replace the report of one process."""
        _write_whole(self.workers / f"{report.pid}.json", orjson.dumps(asdict(report)))

    def still_alive(self, pid: int) -> bool:
        """Say that the last report of a process still holds; False when it has none."""
        try:
            os.utime(self.workers / f"{pid}.json")
        except FileNotFoundError:
            return False
        return True

    def leave(self, pid: int) -> None:
        """Take away the report of a process that has ended."""
        (self.workers / f"{pid}.json").unlink(missing_ok=True)

    def living(self) -> list[WorkerReport]:
        """Return the reports of processes that were heard of a moment ago."""
        now = time.time()
        found = []
        for path in _files(self.workers):
            if path.suffix == ".json" and _age(path, now) < SILENT_SECONDS:
                report = _worker_report(path)
                if report is not None:
                    found.append(report)
        return sorted(found, key=lambda one: one.pid)

    def forget_silent(self) -> None:
        """Remove reports of processes that ended without a word long ago."""
        now = time.time()
        for path in _files(self.workers):
            if _age(path, now) > FORGOTTEN_SECONDS:
                path.unlink(missing_ok=True)

    def report_agent(self, report: AgentReport) -> None:
        """Replace the agent's report; its time of change is the agent's sign of life."""
        _write_whole(self.folder / "agent.json", orjson.dumps(asdict(report)))

    def agent(self) -> tuple[AgentReport, float] | None:
        """Return the agent's last report and its age in seconds."""
        path = self.folder / "agent.json"
        try:
            report = AgentReport(**orjson.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return report, _age(path, time.time())


def _digest(sha256: str) -> str:
    """Refuse what is no digest before it becomes a file name."""
    if not SHA256.fullmatch(sha256):
        raise ValueError("This is not a SHA-256 digest.")
    return sha256


def _sha256_of(file: Any) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except FileNotFoundError:
        return []


def _age(path: Path, now: float) -> float:
    try:
        return max(0.0, now - path.stat().st_mtime)
    except FileNotFoundError:
        return float("inf")


def _worker_report(path: Path) -> WorkerReport | None:
    try:
        raw = orjson.loads(path.read_bytes())
        loaded = tuple(LoadedVersion(**one) for one in raw.pop("loaded"))
        return WorkerReport(**raw, loaded=loaded)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # written by another release of this program, or just removed


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(path)

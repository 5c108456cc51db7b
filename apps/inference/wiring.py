"""Builds the one engine of this process from the settings, after the fork.

Nothing here runs before somebody asks: a process that never predicts has no threads of ours. What a
parent built is forgotten in its child, whose copy of the threads does not run.
"""

import atexit
import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

from apps.accounts.callers import MemoryDirectory
from apps.accounts.selectors import token_verifier
from apps.accounts.tokens import TokenVerifier
from apps.core import storage
from apps.inference.engine.batcher import Batcher
from apps.inference.engine.cache import AnswerCache
from apps.inference.engine.errors import ModelUnavailable
from apps.inference.engine.pipeline import Engine
from apps.inference.engine.pool import ModelPool
from apps.inference.engine.routing import Routes
from apps.inference.engine.spool import Spool
from apps.inference.follower import Follower
from apps.inference.journal_db.direct import DirectJournal
from apps.inference.node import NOT_HERE_YET, Node
from apps.inference.record_keys import record_rules
from apps.inference.runtimes.table import runtime_for
from apps.registry.snapshot import EndpointBody, VersionBody

LOG = logging.getLogger(__name__)
ONNX = "onnx"
# How long a load waits for the agent to bring the file, and how often it looks.
FETCH_SECONDS = 20.0
LOOK_SECONDS = 0.05
# A load that waits for its file holds one of these turns; others must not wait behind it.
PARALLEL_LOADS = 4
# Files kept beside the models of a trial's pool, as a multiple of it; none leaves while it may be
# about to be opened.
SPARE_POOLS = 8
IN_USE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything that one serving process is made of."""

    engine: Engine
    pool: ModelPool[Batcher]
    spool: Spool
    follower: Follower
    node: Node

    def close(self) -> None:
        """Stop following, refuse new calls, and seal what was recorded."""
        self.follower.close()
        self.pool.close()
        self.spool.close()


@dataclass(frozen=True, slots=True)
class Trial:
    """What a process that serves nobody needs to let people try a version.

    It knows only the models that were tried here; who tries brings their routes along.
    """

    engine: Engine
    pool: ModelPool[Batcher]
    journal: DirectJournal
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def know(self, endpoint: EndpointBody, version: VersionBody) -> None:
        """Let the next calls reach a version; what others try stays reachable."""
        with self._lock:
            known = self.engine.routes
            self.engine.use(
                Routes(
                    {**known.endpoints, (endpoint.environment, endpoint.model): endpoint},
                    {**known.versions, (version.model, version.number): version},
                )
            )

    def close(self) -> None:
        """Give the memory back."""
        self.pool.close()


_lock = threading.Lock()
_serving: Serving | None = None
_trial: Trial | None = None


def serving() -> Serving:
    """Return this process' own; the first call builds it and reads the snapshot once."""
    return _serving or _built()


def engine() -> Engine:
    """Return the engine of this process."""
    return serving().engine


def directory() -> MemoryDirectory:
    """Return who exists at this moment."""
    return serving().follower.directory


def verifier() -> TokenVerifier:
    """Return what reads access tokens in this process."""
    return token_verifier()


def start(wait_seconds: float = 0.0) -> bool:
    """Build what serves and wait until its required models are warm; say whether they are."""
    return serving().follower.wait_ready(wait_seconds)


def drain() -> None:
    """Say from now on that this process wants no more traffic."""
    if _serving is not None:
        _serving.follower.drain()


def reset() -> None:
    """Close what was built, at the end of the process or of a test; the next call builds anew."""
    global _serving, _trial
    with _lock:
        closing, _serving, _trial = (_serving, _trial), None, None
    for one in closing:
        if one is not None:
            one.close()


def trial() -> Trial:
    """Return the small engine of a process that serves nobody; the first call builds it."""
    global _trial  # noqa: PLW0603 - the one reference of the process
    with _lock:
        if _trial is None:
            node = Node(Path(settings.DATA_DIR) / "trial")
            loader = StoreLoader(node, spare_bytes=SPARE_POOLS * settings.WEB_POOL_BYTES)
            pool = ModelPool(loader.load, budget_bytes=settings.WEB_POOL_BYTES)
            journal = DirectJournal()
            made = Engine(pool=pool, cache=AnswerCache(0), journal=journal, rules=record_rules())
            _trial = Trial(made, pool, journal)
        return _trial


def build(node: Node, spool: Spool) -> Serving:
    """Put the parts together; nothing runs yet."""
    pool = ModelPool(
        Loader(node).load, budget_bytes=settings.POOL_BYTES, parallel_loads=PARALLEL_LOADS
    )
    made = Engine(
        pool=pool,
        cache=AnswerCache(settings.ANSWER_CACHE_BYTES),
        journal=spool,
        rules=record_rules(),
    )
    follower = Follower(
        node=node,
        engine=made,
        pool=pool,
        room=spool,
        poll_seconds=settings.FOLLOW_POLL_SECONDS,
    )
    return Serving(made, pool, spool, follower, node)


@dataclass(frozen=True, slots=True)
class Loader:
    """Turns a version into a running model, from the local file that its digest names."""

    node: Node
    fetch_seconds: float = FETCH_SECONDS

    def load(self, version: VersionBody) -> Batcher:
        """Load one version; whatever is raised reaches all who wait for it.

        Raises:
            ModelUnavailable: The file is not on this node, or its format is not served here.
        """
        _require_allowed(version)
        model = runtime_for(version.runtime).load(
            self._file(version), threads=settings.MODEL_THREADS
        )
        return Batcher(
            model,
            version.signature,
            name=f"{version.model}-{version.number}",
            max_waiting=settings.QUEUE_CALLS,
        )

    def _file(self, version: VersionBody) -> Path:
        """Return the checked file; a missing or damaged one is asked for and waited for."""
        until = time.monotonic() + self.fetch_seconds
        while True:
            path = self.node.verified(version.sha256)
            if path is not None:
                return path
            self.node.want(version.sha256)
            if not self._comes(version, until):
                raise ModelUnavailable(f"Its file {NOT_HERE_YET}")

    def _comes(self, version: VersionBody, until: float) -> bool:
        # The agent is another process: its only signal is the file.
        while not self.node.has(version.sha256):
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK_SECONDS)
        return time.monotonic() < until


@dataclass(frozen=True, slots=True)
class StoreLoader(Loader):
    """A loader where no agent runs: it brings files from the artifact store itself.

    Attributes:
        spare_bytes: Room for files on this disk; beyond it the longest unused ones leave.
    """

    spare_bytes: int = 0

    def _file(self, version: VersionBody) -> Path:
        path = self.node.verified(version.sha256)
        return path if path is not None else self._fetched(version)

    def _fetched(self, version: VersionBody) -> Path:
        target = self.node.artifact(version.sha256)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(version.size)
        # Loads of several processes may fetch the same file; the last whole one stays.
        draft = target.with_name(f".draft-{version.sha256}-{os.getpid()}-{threading.get_ident()}")
        try:
            digest = storage.fetch(version.storage_key, draft)
            if digest != version.sha256:
                raise ModelUnavailable(
                    "The artifact store holds another file for this version than was validated. "
                    "Ask your operator to restore it from a backup."
                )
            draft.chmod(0o600)
            draft.replace(target)
        except OSError as error:
            raise ModelUnavailable(
                "Its file could not be brought from the artifact store. Try again in a moment."
            ) from error
        finally:
            draft.unlink(missing_ok=True)
        return target

    def _make_room(self, wanted: int) -> None:
        """Remove files that nobody loaded for a while, the longest unused first."""
        there = []
        for path in self.node.present():
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                there.append((about.st_mtime, about.st_size, path))
        excess = sum(size for _, size, _ in there) + wanted - self.spare_bytes
        for used, size, path in sorted(there):
            if excess <= 0 or time.time() - used < IN_USE_SECONDS:
                return
            path.unlink(missing_ok=True)
            excess -= size


def _require_allowed(version: VersionBody) -> None:
    if version.runtime != ONNX and version.runtime not in settings.NATIVE_FORMATS:
        raise ModelUnavailable(
            f"Its format is served natively by {version.runtime}, which this process is not "
            "allowed to do (MLP_NATIVE_FORMATS)."
        )


def _built() -> Serving:
    global _serving  # noqa: PLW0603 - the one reference of the process
    with _lock:
        if _serving is None:
            spool = Spool(Path(settings.SPOOL_DIR), quota_bytes=settings.SPOOL_BYTES)
            made = build(Node(Path(settings.SERVING_DIR)), spool)
            made.follower.start()
            _serving = made
        return _serving


def _forget() -> None:
    """In a forked child: the parent's threads do not run here, and its lock may be held."""
    global _serving, _trial, _lock
    _serving, _trial, _lock = None, None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
atexit.register(reset)

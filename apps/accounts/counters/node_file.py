"""Counters of one node: a small file that its processes share, exact among them; plain Python.

The file is a table of slots in memory that all processes see. A lock on the file is held for the
microseconds of one charge and ends with its holder; nobody waits for it longer than a moment, and a
process that cannot have it counts by itself meanwhile. Counts outlive a process, so a quota of a
day survives a restart. They are no record: losing them opens a window anew, nothing more.
"""

import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from apps.accounts.counters.memory import MemoryCounters
from apps.accounts.limits import DAY, Ask, Taken, given

LOG = logging.getLogger(__name__)
MAGIC = b"mlpcount1\n"
HEADER = struct.Struct("<10sHI48x")
SLOT = struct.Struct("<16sqd")
SLOTS_OF_A_NAME = 8
BUCKETS = 16_384
SIZE = HEADER.size + BUCKETS * SLOTS_OF_A_NAME * SLOT.size
# An end beyond this is damage.
LATEST_SECONDS = DAY + 3600
# A holder needs microseconds; one that was stopped while it held the lock is not waited for again.
WAIT_SECONDS = 0.25
ALONE_SECONDS = 1.0
# Threads of one process wait for each other; the one in front waits no longer than above.
THREADS_WAIT_SECONDS = 2.0
PAUSE_SECONDS = 0.0001
START_SECONDS = 5.0
_EMPTY = b"\0" * 16


class _Busy(Exception):
    """Somebody holds the lock longer than anybody should."""


class NodeCounters:
    """The file of one node. One object for each process: it must not cross a fork."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; where neither is possible the process counts by itself."""
        self._path = path
        self._alone = MemoryCounters()
        self._threads = threading.Lock()
        self._alone_until = 0.0
        self._fd = -1
        self._map: mmap.mmap | None = None
        try:
            self._open()
        except OSError as error:
            LOG.error(  # noqa: TRY400 - the reason is said, its place is known
                "limits are counted by each process alone: %s cannot be used (%s)", path, error
            )

    def take(self, asks: Sequence[Ask], now: float) -> list[Taken]:
        """Count what fits."""
        if self._map is None or time.monotonic() < self._alone_until:
            return self._alone.take(asks, now)
        try:
            with self._locked() as table:
                return _taken(table, asks, now)
        except (_Busy, OSError) as error:
            LOG.warning("limits are counted by this process alone for a moment: %r", error)
            self._alone_until = time.monotonic() + ALONE_SECONDS
            return self._alone.take(asks, now)

    @property
    def nodes(self) -> int:
        """How many nodes there were when Redis was last heard, or 0."""
        return int(HEADER.unpack_from(self._map)[2]) if self._map is not None else 0

    def remember_nodes(self, nodes: int) -> None:
        """Keep the number of nodes for a time when nobody can be asked, also after a restart."""
        if self._map is not None and nodes != self.nodes:
            HEADER.pack_into(self._map, 0, MAGIC, 0, min(nodes, 2**32 - 1))

    def close(self) -> None:
        """Let go of the file."""
        with self._threads:
            if self._map is not None:
                self._map.close()
                os.close(self._fd)
                self._map, self._fd = None, -1

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_sure_of(self._path)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(self._fd, SIZE)
        except (OSError, ValueError) as error:
            os.close(self._fd)
            self._fd = -1
            raise OSError(f"it has another size ({error})") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[mmap.mmap]:
        # The file's lock is between processes, this one between the threads of ours.
        if not self._threads.acquire(timeout=THREADS_WAIT_SECONDS):
            raise _Busy
        try:
            if self._map is None:
                raise _Busy
            _hold(self._fd, WAIT_SECONDS)
            try:
                yield self._map
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._threads.release()


def _hold(fd: int, seconds: float) -> None:
    """Take the lock of a file between processes; it is usually free."""
    until = 0.0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            until = until or now + seconds
            if now >= until:
                raise _Busy from None
            time.sleep(PAUSE_SECONDS)
        else:
            return


def _make_sure_of(path: Path) -> None:
    """Make the file unless it is there; of processes that start at once one does."""
    guard = os.open(
        path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        _hold(guard, START_SECONDS)
        if not _is_ours(path):
            _make(path)
    except _Busy as error:
        raise OSError("another process has been making it for too long") from error
    finally:
        os.close(guard)


def _is_ours(path: Path) -> bool:
    """Whether a whole file of this layout is there; a map of a shorter one would end us."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC and path.stat().st_size == SIZE
    except FileNotFoundError:
        return False


def _make(path: Path) -> None:
    """Put an empty file in its place, whole and with all of its blocks.

    A hole would be filled when it is written to, and a full disk would end the process then.
    """
    draft = path.with_name(f"{path.name}.draft")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, SIZE)
        os.pwrite(fd, HEADER.pack(MAGIC, 0, 0), 0)
        draft.replace(path)
    finally:
        os.close(fd)
        draft.unlink(missing_ok=True)


# --- the table ------------------------------------------------------------------------------------


def _taken(table: mmap.mmap, asks: Sequence[Ask], now: float) -> list[Taken]:
    places = [_place(table, one, now) for one in asks]
    stood = [
        max(count, one.known) + one.owed for one, (_, _, count) in zip(asks, places, strict=True)
    ]
    gifts = given(asks, stood)
    for one, (at, digest, count), before, gift in zip(asks, places, stood, gifts, strict=True):
        if before + gift != count:
            SLOT.pack_into(table, at, digest, before + gift, one.ends)
    return [
        Taken(before + gift, gift, one.most)
        for one, before, gift in zip(asks, stood, gifts, strict=True)
    ]


def _place(table: mmap.mmap, ask: Ask, now: float) -> tuple[int, bytes, int]:
    """Find the slot of a counter's window; where none is free the least used one makes room."""
    name = f"{ask.counter}:{ask.window}".encode()
    digest = hashlib.blake2b(name, digest_size=16).digest()
    bucket = int.from_bytes(digest[:4], "little") % BUCKETS
    start = HEADER.size + bucket * SLOTS_OF_A_NAME * SLOT.size
    best, least = start, -1
    content = table[start : start + SLOTS_OF_A_NAME * SLOT.size]
    for index, (owner, count, ends) in enumerate(SLOT.iter_unpack(content)):
        at = start + index * SLOT.size
        if owner == digest:
            return at, digest, max(0, count)
        weight = count if owner != _EMPTY and now < ends < now + LATEST_SECONDS else -1
        if index == 0 or weight < least:
            best, least = at, weight
    return best, digest, 0

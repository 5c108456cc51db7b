"""The journal on local append-only files: one ``write()`` before the answer leaves.

A record that ``note`` accepted survives the death of this process, because the kernel holds its
bytes; it survives the loss of power once its segment is sealed. The shipper reads sealed segments,
and those whose owner died. Nothing here knows the database.

A frame is length, CRC32 and payload. Segments are named ``<writer>-<number>.open`` while their
owner holds a lock on them, and ``.sealed`` afterwards.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import orjson

from apps.inference.engine.errors import SpoolFull
from apps.inference.engine.journal import PredictionRecord
from apps.registry.snapshot import FullSpool

log = logging.getLogger(__name__)
_T = TypeVar("_T")

HEAD = struct.Struct("<II")
OPEN = ".open"
SEALED = ".sealed"
NOT_READY_AT = 0.9
# While full, the folder is measured again this often, so that it recovers without a restart.
LOOK_AGAIN_SECONDS = 0.2
# Segments that wait for their fsync; beyond this the writer seals itself, which slows it down.
SEAL_BACKLOG = 8
DEEPEST = 100
# PostgreSQL's jsonb takes neither; one such record would block the whole pipe.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def frame(payload: bytes) -> bytes:
    """Wrap a payload so that a reader can tell whether it is whole."""
    return HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes) -> Iterator[bytes]:
    """Yield whole payloads; end at the first bad frame, since a torn tail was never acknowledged.

    An empty payload is bad as well: zeros left behind by a loss of power look like one for ever.
    """
    at = 0
    while at + HEAD.size <= len(data):
        size, checksum = HEAD.unpack_from(data, at)
        payload = data[at + HEAD.size : at + HEAD.size + size]
        if size == 0 or len(payload) < size or zlib.crc32(payload) != checksum:
            return
        yield payload
        at += HEAD.size + size


def record_from(payload: bytes) -> dict[str, Any]:
    """Read a payload: the fields of a ``PredictionRecord``, with ``seq`` and ``writer``.

    Raises:
        ValueError: It is not a JSON object; put it aside, the next ones may be sound.
    """
    record = orjson.loads(payload)
    if not isinstance(record, dict):
        raise ValueError("A spooled record is a JSON object, and this one is not.")  # noqa: TRY004
    return record


@dataclass(frozen=True, slots=True)
class Content:
    """Payloads of one segment, and how many bytes behind them could not be read."""

    payloads: tuple[bytes, ...]
    torn_bytes: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the spool."""

    path: Path

    @property
    def writer(self) -> str:
        """Name of the process' life that wrote it."""
        return self.path.stem.rpartition("-")[0]

    @property
    def number(self) -> int:
        """Its place among the segments of its writer, from 1."""
        return int(self.path.stem.rpartition("-")[2])

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    def age_seconds(self, now_epoch: float) -> float:
        """Seconds since its last record, by the clock of the wall."""
        return max(0.0, now_epoch - self.path.stat().st_mtime)

    def read(self) -> Content:
        """Read all whole payloads."""
        data = self.path.read_bytes()
        payloads = tuple(frames(data))
        return Content(payloads, len(data) - sum(HEAD.size + len(one) for one in payloads))

    def remove(self) -> None:
        """Delete the file, after its records were committed; a missing one is fine."""
        self.path.unlink(missing_ok=True)


def sealed_segments(folder: Path) -> list[Segment]:
    """List the segments that are ready to ship, oldest first."""
    return _listed(folder, SEALED)


def orphans(folder: Path) -> list[Segment]:
    """List open segments whose owner is dead: nobody holds their lock."""
    return [one for one in _listed(folder, OPEN) if _try_lock(one.path, lambda _: True)]


def adopt(segment: Segment) -> Segment | None:
    """Seal an orphan, so that it ships like any other.

    Returns:
        The sealed segment; None when its owner lives, or another adopter was quicker.
    """
    sealed = segment.path.with_suffix(SEALED)

    def seal(descriptor: int) -> Segment:
        os.fsync(descriptor)
        segment.path.rename(sealed)
        _sync_folder(segment.path.parent)
        return Segment(sealed)

    return _try_lock(segment.path, seal)


def count_bytes(folder: Path) -> int:
    """Add up everything that stands under the folder's quota."""
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # shipped between the listing and now
                total += entry.stat(follow_symlinks=False).st_size
    return total


def _listed(folder: Path, suffix: str) -> list[Segment]:
    found: list[tuple[int, str, Segment]] = []
    for path in folder.glob("*" + suffix):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime_ns, path.name, Segment(path)))
    return [segment for _, _, segment in sorted(found, key=lambda one: one[:2])]


def _try_lock(path: Path, act: Callable[[int], _T]) -> _T | None:
    """Do something with a file while holding its lock; None when its owner still does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if not _lock(descriptor) or not _is_still(path, descriptor):
            return None
        return act(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    # Between open and lock the owner may have sealed it, or an adopter taken it.
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Open:
    """The segment being written: its descriptor holds the lock."""

    path: Path
    descriptor: int
    size: int
    since: float


class Spool:
    """The journal of one process; safe to use from several threads, and after a fork."""

    def __init__(
        self,
        folder: Path,
        *,
        quota_bytes: int = 10 * 2**30,
        seal_seconds: float = 1.0,
        seal_bytes: int = 4 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember where to write; the first segment is opened by the first record.

        Args:
            folder: Shared by all writers of this machine and its shipper.
            quota_bytes: What all files in the folder may take together.
            seal_seconds: Age at which a segment is sealed.
            seal_bytes: Size at which it is.
            clock: Monotonic seconds.
        """
        self._folder = folder
        self._quota = quota_bytes
        self._seal_seconds = seal_seconds
        self._seal_bytes = seal_bytes
        self._clock = clock
        self._start_over()
        _spools.add(self)

    def _start_over(self) -> None:
        """Begin a writer's life: in a new process nothing of the parent's may be touched."""
        self._pid = os.getpid()
        self._writer = f"{_boot_id()[:8]}-{self._pid}-{time.time_ns():x}"
        self._lock = threading.Lock()
        self._sealing = threading.Lock()
        self._segment: _Open | None = None
        self._to_seal: list[_Open] = []
        self._number = 0
        self._seq = 0
        self._dropped = 0
        self._used = 0
        self._capacity = self._quota
        self._measured_at: float | None = None
        self._wake = threading.Event()
        self._sealer: threading.Thread | None = None
        self._closed = False

    @property
    def writer(self) -> str:
        """Name of this writer's life; stands in every record and file name."""
        return self._writer

    @property
    def dropped(self) -> int:
        """Records lost under ``best_effort`` since this writer began."""
        return self._dropped

    @property
    def fill(self) -> float:
        """Part of the room that is taken, 0 to 1; from ``NOT_READY_AT`` on, others should serve."""
        with self._lock:
            self._measure(self._seal_seconds)
            return min(1.0, self._used / self._capacity) if self._capacity > 0 else 1.0

    def note(self, record: PredictionRecord, *, policy: FullSpool) -> None:
        """Keep one record; when this returns, it survives the death of this process.

        Raises:
            SpoolFull: There is no room, and the policy is ``required``.
        """
        body = _payload_of(record)
        if self._pid != os.getpid():
            self._forget_parent()
        with self._lock:
            try:
                self._append(body)
            except OSError as error:
                if policy is FullSpool.REQUIRED:
                    raise _full(error) from error
                self._dropped += 1

    def seal(self) -> None:
        """Seal what was written so far, for example before the process leaves."""
        with self._lock:
            self._hand_over()
        self._seal_waiting()

    def close(self) -> None:
        """Seal, and end the sealer's thread; calling it twice does no harm."""
        self._closed = True
        self._wake.set()
        if self._sealer is not None:
            self._sealer.join(timeout=5.0)
        self.seal()
        _spools.discard(self)

    def _append(self, body: bytes) -> None:
        seq = self._seq + 1
        head = b'{"seq":%d,"writer":"%s",' % (seq, self._writer.encode())
        data = frame(head + body[1:])
        self._measure(2 * self._seal_seconds)
        if self._used + len(data) > self._capacity:
            self._measure(LOOK_AGAIN_SECONDS)
            if self._used + len(data) > self._capacity:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        segment = self._segment or self._open()
        self._write(segment, data)
        self._seq = seq
        self._used += len(data)
        if segment.size >= self._seal_bytes:
            self._hand_over()
            self._wake.set()

    def _write(self, segment: _Open, data: bytes) -> None:
        try:
            written = os.write(segment.descriptor, data)
        except OSError:
            self._mend(segment)
            raise
        if written < len(data):  # the disk took a part of it: a reader would stop here for ever
            self._mend(segment)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        segment.size += written

    def _mend(self, segment: _Open) -> None:
        """Cut a torn record off, or leave the segment for good when even that fails."""
        try:
            os.ftruncate(segment.descriptor, segment.size)
        except OSError:
            self._hand_over()
        self._measured_at = None

    def _open(self) -> _Open:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            self._number += 1
            path = self._folder / f"{self._writer}-{self._number:08d}{OPEN}"
            descriptor = os.open(
                path,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC,
                0o600,
            )
            # An adopter may have been quicker with the lock: it takes the file for an orphan.
            if _lock(descriptor) and _is_still(path, descriptor):
                break
            os.close(descriptor)
        self._segment = _Open(path, descriptor, 0, self._clock())
        self._start_sealer()
        return self._segment

    def _hand_over(self) -> None:
        """Put the open segment in line for sealing; its fsync must not hold up a caller."""
        if self._segment is None:
            return
        self._to_seal.append(self._segment)
        self._segment = None
        while len(self._to_seal) > SEAL_BACKLOG:
            _seal(self._to_seal.pop(0))

    def _seal_waiting(self) -> None:
        with self._sealing:  # so that a drain also waits for what another thread is sealing
            while segment := self._next_to_seal():
                _seal(segment)

    def _next_to_seal(self) -> _Open | None:
        with self._lock:
            return self._to_seal.pop(0) if self._to_seal else None

    def _start_sealer(self) -> None:
        if self._sealer is None and not self._closed:
            self._sealer = threading.Thread(target=self._keep_sealing, name="spool", daemon=True)
            self._sealer.start()

    def _keep_sealing(self) -> None:
        while not self._closed:
            self._wake.wait(timeout=self._seal_seconds / 2)
            self._wake.clear()
            try:
                self.seal_if_due()
            except OSError:  # the next turn tries again; without this thread nothing is ever sealed
                log.exception("The spool could not be sealed.")

    def seal_if_due(self) -> None:
        """Seal the open segment when it is old enough; the sealer's thread asks twice per span."""
        with self._lock:
            segment = self._segment
            if segment is not None and self._clock() - segment.since >= self._seal_seconds:
                self._hand_over()
            self._measure(self._seal_seconds)
        self._seal_waiting()

    def _measure(self, older_than_seconds: float) -> None:
        """Count the folder again when the last count is too old; writers share it unseen."""
        now = self._clock()
        if self._measured_at is not None and now - self._measured_at < older_than_seconds:
            return
        self._measured_at = now
        try:
            self._used = count_bytes(self._folder)
            free = shutil.disk_usage(self._folder).free
        except FileNotFoundError:  # no record yet, so no folder yet
            free = self._quota
        except OSError:  # writing may still work; the last count holds
            log.exception("The spool's folder could not be measured.")
            return
        self._capacity = min(self._quota, self._used + free)

    def _forget_parent(self) -> None:
        # Closing the copies matters: the parent's locks hold as long as any copy is open.
        copies = [*self._to_seal, *([self._segment] if self._segment else [])]
        for segment in copies:
            with contextlib.suppress(OSError):
                os.close(segment.descriptor)
        self._start_over()


# Spools of this process: a forked child must let go of its parent's files at once, even if it never
# writes itself.
_spools: "weakref.WeakSet[Spool]" = weakref.WeakSet()


def _after_fork() -> None:
    for spool in tuple(_spools):
        spool._forget_parent()  # noqa: SLF001 - the same module


os.register_at_fork(after_in_child=_after_fork)


def _seal(segment: _Open) -> None:
    """Make a segment safe from a loss of power and give it to the shipper."""
    try:
        os.fsync(segment.descriptor)
        segment.path.rename(segment.path.with_suffix(SEALED))
        _sync_folder(segment.path.parent)
    except OSError:
        # It stays an open file without an owner: the shipper adopts it as an orphan.
        log.exception("A spool segment could not be sealed: %s", segment.path.name)
    finally:
        os.close(segment.descriptor)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown0"


def _full(error: OSError) -> SpoolFull:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFull(
            "The answer could not be recorded because the local log is full, so it is not given. "
            "Try again shortly; an operator sees why under /health/deps."
        )
    return SpoolFull(
        "The answer could not be recorded because the local log cannot be written, so it is not "
        "given. Try again shortly; an operator sees why in the log of this process."
    )


def _payload_of(record: PredictionRecord) -> bytes:
    """Write a record as JSON that PostgreSQL's jsonb takes; NaN and Infinity become null."""
    try:
        payload = orjson.dumps(record)
    except orjson.JSONEncodeError:
        payload = b"\\u0000"
    if b"\\u0000" in payload:  # or a harmless escaped backslash before it, which cleaning keeps
        values = {one.name: getattr(record, one.name) for one in fields(record)}
        payload = orjson.dumps(_storable(values))
    return payload


def _storable(value: Any, depth: int = 0) -> Any:
    if isinstance(value, Mapping) and depth < DEEPEST:
        return {_text(str(name)): _storable(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple) and depth < DEEPEST:
        return [_storable(one, depth + 1) for one in value]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool | float):
        return value
    return value if isinstance(value, int) and -(2**63) <= value < 2**64 else None


def _text(value: str) -> str:
    return UNSTORABLE.sub("\ufffd", value)

"""The snapshot on local disk: a compacted base with an appended tail; plain Python.

One file, one line an entry: eight hex digits of CRC32, a space, compact JSON. The first line names
the epoch. One writer (the agent) appends lines and now and then replaces the file by a compacted
one; any number of readers follow by offset and notice a replacement by the inode. A reader never
goes back: a file with an older generation of the same epoch is refused.
"""

import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

FILE = "snapshot.jsonl"
FORMAT = 1
# The tail may grow to this many lines, or to the size of the base, before a compaction.
TAIL_LINES = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest state of one thing; ``body`` None says that it is no more."""

    kind: str
    key: str
    generation: int
    body: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Change:
    """What a reader has not seen yet. ``full`` means: forget what you knew, this is everything."""

    full: bool
    epoch: str
    generation: int
    entries: tuple[Entry, ...]


class SnapshotDamaged(Exception):
    """The file cannot be believed; the reader keeps what it has."""


def _line(value: object) -> bytes:
    packed = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return b"%08x %b\n" % (zlib.crc32(packed), packed)


def _parse(line: bytes) -> Any:
    try:
        crc, packed = int(line[:8], 16), line[9:]
        if line[8:9] != b" " or zlib.crc32(packed) != crc:
            raise SnapshotDamaged("A line's checksum is wrong.")
        return orjson.loads(packed)
    except ValueError as error:
        raise SnapshotDamaged("A line cannot be read.") from error


def _entry(value: Any) -> Entry:
    try:
        kind, key, generation, body = value
    except (TypeError, ValueError) as error:
        raise SnapshotDamaged("A line is not an entry.") from error
    return Entry(kind, key, generation, body)


@dataclass(slots=True)
class SnapshotWriter:
    """The agent's side. There is one writer per folder."""

    folder: Path
    epoch: str = ""
    generation: int = 0
    _state: dict[tuple[str, str], Entry] = field(default_factory=dict)
    _tail: int = 0

    def load(self) -> None:
        """Take up the file that a former agent left, if it can be believed.

        A line that its death tore is not part of it: ``replace`` before the first ``append``.
        """
        try:
            change = SnapshotReader(self.folder).read()
        except SnapshotDamaged:
            return
        if change is not None:
            self.epoch, self.generation = change.epoch, change.generation
            self._state = {(one.kind, one.key): one for one in change.entries}

    def replace(self, epoch: str, entries: Iterable[Entry], generation: int) -> None:
        """Write a whole new file (a new epoch, or the first one)."""
        self.epoch, self.generation = epoch, generation
        self._state = {(one.kind, one.key): one for one in entries if one.body is not None}
        self._compact()

    def append(self, entries: Iterable[Entry]) -> None:
        """Append what changed; readers see all of it or, after a crash in between, a part."""
        fresh = [one for one in entries if one.generation > self.generation]
        if not fresh:
            return
        for one in fresh:
            self._state[one.kind, one.key] = one
        self.generation = fresh[-1].generation
        self._tail += len(fresh)
        if self._tail > max(TAIL_LINES, len(self._state)) or not self._path.exists():
            self._compact()
            return
        lines = b"".join(_line([one.kind, one.key, one.generation, one.body]) for one in fresh)
        with self._path.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def state(self) -> tuple[Entry, ...]:
        """Return everything that is."""
        return tuple(one for one in self._state.values() if one.body is not None)

    @property
    def _path(self) -> Path:
        return self.folder / FILE

    def _compact(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._state = {key: one for key, one in self._state.items() if one.body is not None}
        self._tail = 0
        draft = self._path.with_suffix(".draft")
        with draft.open("wb") as file:
            head = {"format": FORMAT, "epoch": self.epoch, "generation": self.generation}
            file.write(_line(head))
            for one in sorted(self._state.values(), key=lambda one: one.generation):
                file.write(_line([one.kind, one.key, one.generation, one.body]))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@dataclass(slots=True)
class SnapshotReader:
    """A serving process' side: ``read`` returns what is new, or None."""

    folder: Path
    epoch: str = ""
    generation: int = 0
    _inode: int = 0
    _offset: int = 0

    def read(self) -> Change | None:
        """Look at the file once.

        Raises:
            SnapshotDamaged: A complete line is wrong, or the file is older than what was read.
        """
        try:
            with (self.folder / FILE).open("rb") as file:
                stat = os.fstat(file.fileno())
                fresh = stat.st_ino != self._inode or stat.st_size < self._offset
                if not fresh and stat.st_size == self._offset:
                    return None
                file.seek(0 if fresh else self._offset)
                data = file.read()
        except FileNotFoundError:
            return None
        whole = data[: data.rfind(b"\n") + 1]
        change = self._whole(whole) if fresh else self._tail(whole)
        self._inode = stat.st_ino
        self._offset = len(whole) + (0 if fresh else self._offset)
        if change is not None:
            self.epoch, self.generation = change.epoch, change.generation
        return change

    def _whole(self, data: bytes) -> Change | None:
        lines = data.splitlines()
        if not lines:
            return None
        head = _parse(lines[0])
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise SnapshotDamaged("The file's first line is of another format.")
        newest: dict[tuple[str, str], Entry] = {}
        generation = int(head["generation"])
        for line in lines[1:]:
            one = _entry(_parse(line))
            newest[one.kind, one.key] = one
            generation = max(generation, one.generation)
        epoch = str(head["epoch"])
        if epoch == self.epoch and generation < self.generation:
            raise SnapshotDamaged("The file is older than what was read from it before.")
        entries = tuple(one for one in newest.values() if one.body is not None)
        return Change(True, epoch, generation, entries)

    def _tail(self, data: bytes) -> Change | None:
        entries = tuple(_entry(_parse(line)) for line in data.splitlines())
        fresh = tuple(one for one in entries if one.generation > self.generation)
        if not fresh:
            return None
        return Change(False, self.epoch, fresh[-1].generation, fresh)

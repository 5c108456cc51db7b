"""Answers kept for equal questions, bounded by bytes and by age.

The key names everything an answer depends on. Model and number stand beside the file's digest, so
that two teams with the same file never learn from each other's questions.
"""

import hashlib
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apps.inference.engine.types import Tensors
from apps.registry.snapshot import VersionBody

# What an entry costs beside its arrays: key, dataclass, dictionary slots, array headers.
ENTRY_BYTES = 600
# One answer may not push out more than this part of the others.
LARGEST_SHARE = 0.125


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Everything that an answer depends on."""

    model: str
    number: int
    sha256: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    outputs: Tensors
    size: int
    expires: float


def cache_key(version: VersionBody, tensors: Tensors, parameters: bytes = b"") -> CacheKey:
    """Make the key of one question: names, dtypes, shapes and bytes of all tensors."""
    digest = hashlib.blake2b(digest_size=20)
    for name, tensor in sorted(tensors.items()):
        for part in (name.encode("utf-8", "surrogatepass"), tensor.dtype.str.encode()):
            digest.update(len(part).to_bytes(4, "little") + part)
        digest.update(repr(tensor.shape).encode())
        _feed(digest, tensor)
    digest.update(parameters)
    return CacheKey(version.model, version.number, version.sha256, digest.digest())


def _feed(digest: hashlib.blake2b, tensor: NDArray[np.generic]) -> None:
    if tensor.dtype != object:
        digest.update(np.ascontiguousarray(tensor).data)
        return
    # An object array's bytes are addresses. Lengths go in too: ["ab", "c"] is not ["a", "bc"].
    for text in tensor.ravel():
        part = str(text).encode("utf-8", "surrogatepass")
        digest.update(len(part).to_bytes(8, "little") + part)


class AnswerCache:
    """Least recently used answers of this process; safe to use from several threads."""

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep at most ``max_bytes`` of answers; 0 keeps none."""
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[CacheKey, _Entry] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes held now, with the cost of keeping them."""
        return self._used

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: CacheKey) -> Tensors | None:
        """Return the stored outputs, or None when there are none or they are too old."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.expires <= self._clock():
                self._forget(key)
                return None
            self._entries.move_to_end(key)
            return entry.outputs

    def put(self, key: CacheKey, outputs: Tensors, *, ttl_seconds: float) -> None:
        """Keep an answer for ``ttl_seconds``; one that is too large for its share is not kept."""
        own = {name: _own(array) for name, array in outputs.items()}
        size = ENTRY_BYTES + sum(_bytes_of(array) for array in own.values())
        if ttl_seconds <= 0 or size > self._max_bytes * LARGEST_SHARE:
            return
        with self._lock:
            if key in self._entries:
                self._forget(key)
            self._entries[key] = _Entry(own, size, self._clock() + ttl_seconds)
            self._used += size
            while self._used > self._max_bytes:
                self._forget(next(iter(self._entries)))

    def _forget(self, key: CacheKey) -> None:
        self._used -= self._entries.pop(key).size


def _own(array: NDArray[np.generic]) -> NDArray[np.generic]:
    # A view would keep its whole batch in memory, uncounted; a writable one could be changed later.
    mine = array.copy()
    mine.flags.writeable = False
    return mine


def _bytes_of(array: NDArray[np.generic]) -> int:
    if array.dtype != object:
        return array.nbytes
    return array.nbytes + sum(sys.getsizeof(one) for one in array.ravel())

"""What serving processes must know, written in the transaction of the change that makes it so.

``put`` and ``drop`` take the next generation under one row lock, which is held until the caller's
commit: generations become visible in their order. Call them last in a transaction.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson
from django.db import transaction

from apps.core import ids
from apps.core.models import SnapshotClock, SnapshotEntry
from apps.core.snapshot_file import Entry


def put(kind: str, key: str, body: dict[str, Any]) -> int:
    """Write the newest body of one thing; return its generation."""
    return _write(kind, key, body)


def drop(kind: str, key: str) -> int:
    """Say that one thing is no more; return the generation that says so."""
    return _write(kind, key, None)


def take_turn() -> None:
    """Make every other writer wait until the caller's commit.

    Call it before reading what a body is made of, where no other lock covers all of it: a body
    that was read before another change's commit and written after it would undo that change.
    """
    _clock()


def renew_epoch() -> str:
    """Begin a new epoch, after a restore: every reader loads everything afresh."""
    with transaction.atomic():
        clock = _clock()
        clock.epoch = ids.new_id()
        clock.save(update_fields=["epoch"])
    return clock.epoch


def newest() -> tuple[str, int]:
    """Return the epoch and the newest generation."""
    clock = SnapshotClock.objects.filter(pk=1).first()
    return (clock.epoch, clock.generation) if clock else ("", 0)


def entries_after(generation: int) -> Iterator[Entry]:
    """Yield what changed after a generation, oldest first; after 0 nothing that is deleted."""
    rows = SnapshotEntry.objects.filter(generation__gt=generation).order_by("generation")
    if generation == 0:
        rows = rows.filter(deleted=False)
    for row in rows.iterator(chunk_size=2000):
        yield Entry(row.kind, row.key, row.generation, None if row.deleted else row.body)


def _write(kind: str, key: str, body: dict[str, Any] | None) -> int:
    clock = _clock()
    clock.generation += 1
    clock.save(update_fields=["generation"])
    packed = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    SnapshotEntry.objects.update_or_create(
        kind=kind,
        key=key,
        defaults={
            "generation": clock.generation,
            "body": body,
            "sha256": hashlib.sha256(packed).hexdigest(),
            "deleted": body is None,
        },
    )
    return clock.generation


def _clock() -> SnapshotClock:
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("A snapshot entry is written in the transaction of its change.")
    SnapshotClock.objects.get_or_create(pk=1, defaults={"epoch": ids.new_id()})
    return SnapshotClock.objects.select_for_update().get(pk=1)

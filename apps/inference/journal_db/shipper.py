"""Walks the spool: adopt orphans, read, write, and only then delete.

A file goes after the commit that holds its last record. A crash in between ships it again, which
adds nothing. A record that the database refuses is found by halving and put aside with the reason.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    connection,
    transaction,
)
from django.db.models import Max
from django.utils import timezone

from apps.core.errors import Unavailable
from apps.inference.engine.spool import Segment, adopt, orphans, record_from, sealed_segments
from apps.inference.journal_db import manifest, tables
from apps.inference.journal_db.erased import Erased, time_in
from apps.inference.journal_db.rows import EPOCH, Row, Whence, arrival_from
from apps.inference.models import Erasure, PredictionRejected

LOG = logging.getLogger(__name__)
DAMAGED = "damaged"
# Classes of SQLSTATE with which PostgreSQL refuses a value, not a moment: data exception,
# integrity, program limit. Everything else may succeed later, and the files wait for it.
_REFUSALS = ("22", "23", "54")


class LogUnavailable(Unavailable):
    """The database does not take predictions at present; the files stay and nothing is lost."""

    code = "log_unavailable"


@dataclass(frozen=True, slots=True)
class Shipped:
    """What one walk over the spool did.

    Attributes:
        rows: Predictions that were not in the database before.
        duplicates: Those that were, left there by a walk that ended before its file was deleted.
        rejected: Records put aside in ``PredictionRejected``.
        erased: Those that were dropped because their unit was erased after they were written.
        segments: Files that were deleted.
    """

    rows: int = 0
    duplicates: int = 0
    rejected: int = 0
    segments: int = 0
    erased: int = 0

    def __add__(self, more: "Shipped") -> "Shipped":
        return Shipped(
            self.rows + more.rows,
            self.duplicates + more.duplicates,
            self.rejected + more.rejected,
            self.segments + more.segments,
            self.erased + more.erased,
        )


def _never() -> bool:
    return False


def ship(folder: Path, *, stop: Callable[[], bool] = _never) -> Shipped:
    """Bring everything that is sealed or orphaned into the database, oldest first.

    Args:
        folder: The spool of this machine; while somebody else ships it, nothing is done.
        stop: Asked between two files; a true answer ends the walk early.

    Raises:
        LogUnavailable: The database does not answer; what was not committed is still in its file.
    """
    total = Shipped()
    with _only_shipper(folder) as alone:
        if not alone:
            return total
        adopted = {segment.path for segment in map(adopt, orphans(folder)) if segment}
        for segment in sealed_segments(folder):
            if stop():
                break
            total += _ship_segment(segment, torn_is_normal=segment.path in adopted)
        with _outages_named():
            manifest.write_due()
        _forget_damaged(folder)
    return total


def write_manifest() -> None:
    """Write the event of what was shipped since the last one, before the shipper leaves.

    Raises:
        LogUnavailable: The database does not answer.
    """
    with _outages_named():
        manifest.write()


@contextlib.contextmanager
def _only_shipper(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, which the kernel gives back when its holder dies."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except FileNotFoundError:  # nobody wrote anything yet
        yield False
        return
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ship_segment(segment: Segment, *, torn_is_normal: bool) -> Shipped:
    content = segment.read()
    total = Shipped(segments=1)
    most = tables.MOST_ROWS[connection.vendor]
    for start in range(0, len(content.payloads), most):
        total += ship_batch(content.payloads[start : start + most])
        time.sleep(tables.PAUSE_SECONDS[connection.vendor])
    manifest.note(segment, content.payloads, rows=total.rows + total.duplicates)
    if content.torn_bytes and not torn_is_normal:
        _keep_damaged(segment, content.torn_bytes)
    segment.remove()
    return total


@dataclass(frozen=True, slots=True)
class _Record:
    payload: bytes
    row: Row
    whence: Whence


def ship_batch(payloads: Sequence[bytes]) -> Shipped:
    """Write some records with their counts; what can never be a row is put aside with its reason.

    Raises:
        LogUnavailable: The database does not answer; some of them may be written already.
    """
    records: list[_Record] = []
    total = Shipped()
    for payload in payloads:
        try:
            records.append(_Record(payload, *arrival_from(payload)))
        except ValueError as error:
            total += _reject(payload, str(error))
    return total + _write(records)


def _write(records: Sequence[_Record]) -> Shipped:
    if not records:
        return Shipped()
    try:
        return _shipped(_try_to_write(records), len(records))
    except _Refused as refusal:
        if len(records) == 1:
            return _write_last_time(records[0], refusal)
        middle = len(records) // 2
        return _write(records[:middle]) + _write(records[middle:])


def _shipped(written: tables.Written, records: int) -> Shipped:
    left = records - written.new - written.erased
    return Shipped(rows=written.new, duplicates=left, erased=written.erased)


def _write_last_time(record: _Record, refusal: "_Refused") -> Shipped:
    # A partition that is attached at this very moment refuses sound rows once.
    with contextlib.suppress(_Refused):
        return _shipped(_try_to_write([record]), 1)
    return _reject(record.payload, str(refusal))


class _Refused(Exception):
    """The database takes no such value, now or later."""


def _try_to_write(records: Sequence[_Record]) -> tables.Written:
    rows, whence = [one.row for one in records], {one.row.id: one.whence for one in records}
    with _outages_named():
        try:
            return tables.write(rows, whence)
        except DatabaseError as error:
            if _is_refusal(error):
                raise _Refused(str(error)) from error
            raise
        except (OverflowError, UnicodeError) as error:  # the driver could not even send it
            raise _Refused(str(error)) from error


def _is_refusal(error: DatabaseError) -> bool:
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    if sqlstate:
        return str(sqlstate).startswith(_REFUSALS)
    return isinstance(error, DataError | IntegrityError)


@contextlib.contextmanager
def _outages_named() -> Iterator[None]:
    try:
        yield
    except (DatabaseError, InterfaceError) as error:
        connection.close_if_unusable_or_obsolete()
        raise LogUnavailable(
            "The database does not take predictions at present. They stay in the spool and are "
            "shipped when it answers again."
        ) from error


def _reject(payload: bytes, why: str) -> Shipped:
    digest = hashlib.sha256(payload).hexdigest()
    # The reason may quote values of the record; it stays beside it, and out of the log.
    LOG.error("a spooled prediction was put aside: see rejected prediction %s", digest[:12])
    aside = PredictionRejected(
        sha256=digest, payload=payload, error=why.replace("\x00", "\\0"), at=timezone.now()
    )
    with _outages_named(), transaction.atomic():
        if _was_erased(payload):
            return Shipped(erased=1)
        PredictionRejected.objects.bulk_create([aside], ignore_conflicts=True)
    return Shipped(rejected=1)


def _was_erased(payload: bytes) -> bool:
    try:
        fields = record_from(payload)
    except ValueError:
        return False
    return Erased.since(time_in(fields) or EPOCH).holds(fields)


def _keep_damaged(segment: Segment, torn_bytes: int) -> None:
    """Keep what an owner sealed whole and the disk did not: it may hold acknowledged records."""
    kept = segment.path.parent / DAMAGED / segment.path.name
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    segment.path.rename(kept)
    LOG.error(
        "the disk damaged a spool segment: its last %d bytes cannot be read; a copy is kept for "
        "%d days at %s",
        torn_bytes,
        settings.REJECTED_RETENTION_DAYS,
        kept,
    )


def _forget_damaged(folder: Path) -> None:
    """Remove copies past their time, and those from before an erasure: nobody can search them."""
    copies = list((folder / DAMAGED).glob("*"))
    if not copies:
        return
    with _outages_named():
        erased = Erasure.objects.aggregate(last=Max("before"))["last"]
    kept_seconds = settings.REJECTED_RETENTION_DAYS * 86_400
    oldest = max(time.time() - kept_seconds, erased.timestamp() if erased else 0.0)
    for kept in copies:
        with contextlib.suppress(FileNotFoundError):
            if kept.stat().st_mtime < oldest:
                kept.unlink()

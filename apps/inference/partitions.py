"""Days of the record on PostgreSQL: make them ahead, list them, take them out.

Elsewhere there are no partitions: the same calls do nothing and return nothing. Times are UTC.
Whoever makes or drops holds one advisory lock, and no statement waits long for a lock that
predictions need: it gives up, and the next run tries again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db import OperationalError, connection, transaction
from django.utils import timezone

from apps.core.errors import Unavailable

PARENT = "inference_prediction"
DEFAULT = f"{PARENT}_default"
_ADVISORY_LOCK = 0x6D6C7002
# Longer than an insert takes, shorter than anybody minds: meanwhile inserts queue behind us.
_LOCK_TIMEOUT = "1s"
# lock_not_available, deadlock_detected
_BUSY = {"55P03", "40P01"}


class PartitionBusy(Unavailable):
    """The record is in use for longer than a partition may make it wait."""

    code = "partition_busy"


@dataclass(frozen=True, slots=True)
class Partition:
    """One piece of the record.

    Attributes:
        day: The UTC day it holds; None for the default one, which takes what fits nowhere else.
        attached: False for a day that was taken out but whose table was not dropped yet.
        rows: As the database estimates them.
        bytes: On disk, indexes included.
    """

    name: str
    day: date | None
    attached: bool
    rows: int
    bytes: int


def has_partitions() -> bool:
    """Whether this database keeps the record in partitions."""
    return connection.vendor == "postgresql"


def name_of(day: date) -> str:
    """Return the table of one day."""
    return f"{PARENT}_{day:%Y%m%d}"


def start_of(day: date) -> datetime:
    """Return the first instant of a UTC day."""
    return datetime.combine(day, time(), UTC)


def make_partitions(*, days_ahead: int) -> tuple[date, ...]:
    """Make the days from today that are not there yet; return those that were made.

    Raises:
        PartitionBusy: A lock could not be had in time; what was made stays made.
    """
    if not has_partitions():
        return ()
    today = timezone.now().astimezone(UTC).date()
    there = {one.day for one in list_partitions()}
    wanted = [today + timedelta(days=n) for n in range(days_ahead + 1)]
    return tuple(day for day in wanted if day not in there and make_partition(day))


def make_partition(day: date) -> bool:
    """Make one day, moving rows of it out of the default partition; return whether it was made.

    The table is built beside the others and attached, which readers and inserts of other days do
    not notice; ``CREATE TABLE .. PARTITION OF`` would stop them all.
    """
    if not has_partitions():
        return False
    with _changing() as cursor:
        if _exists(cursor, name_of(day)):
            return False
        name, low, high = name_of(day), start_of(day), start_of(day + timedelta(days=1))
        # Until the commit nobody may put a row of this day into the default partition.
        cursor.execute(f'LOCK TABLE "{DEFAULT}" IN ACCESS EXCLUSIVE MODE')
        cursor.execute(
            f'CREATE TABLE "{name}" (LIKE "{PARENT}" INCLUDING DEFAULTS INCLUDING INDEXES)'
        )
        cursor.execute(
            f'WITH moved AS (DELETE FROM "{DEFAULT}" WHERE ts >= %s AND ts < %s RETURNING *) '  # noqa: S608 - own names  # nosec B608
            f'INSERT INTO "{name}" SELECT * FROM moved',
            [low, high],
        )
        cursor.execute(
            f'ALTER TABLE "{PARENT}" ATTACH PARTITION "{name}" '
            f"FOR VALUES FROM ('{low.isoformat()}') TO ('{high.isoformat()}')"
        )
    return True


def list_partitions() -> tuple[Partition, ...]:
    """Return all days, oldest first, and the default partition last."""
    if not has_partitions():
        return ()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT c.relname, i.inhrelid IS NOT NULL, greatest(c.reltuples, 0)::bigint,
                   pg_total_relation_size(c.oid)
            FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
            WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
              AND c.relname ~ %s
            ORDER BY c.relname
            """,
            [rf"^{PARENT}_(\d{{8}}|default)$"],
        )
        return tuple(
            Partition(name, _day_of(name), attached, rows, size)
            for name, attached, rows, size in cursor.fetchall()
        )


def detach_partition(day: date) -> None:
    """Take a day out of the record; its table stays until ``drop_detached``.

    Raises:
        PartitionBusy: A lock could not be had in time; nothing was changed.
    """
    if not has_partitions():
        return
    with _changing() as cursor:
        if _is_attached(cursor, name_of(day)):
            cursor.execute(f'ALTER TABLE "{PARENT}" DETACH PARTITION "{name_of(day)}"')


def drop_detached(day: date) -> int | None:
    """Drop the table of a day that was taken out; return its rows, counted exactly.

    Runs in the caller's transaction when there is one, so that what it says of the drop is true.
    Returns None when there is no such table any more.
    """
    if not has_partitions():
        return None
    with _changing() as cursor:
        name = name_of(day)
        if not _exists(cursor, name) or _is_attached(cursor, name):
            return None
        rows = _scalar(cursor, f'SELECT count(*) FROM "{name}"')  # noqa: S608 - own name  # nosec B608
        cursor.execute(f'DROP TABLE "{name}"')
        return int(rows)


def count_rows(day: date) -> int:
    """Count the rows of one day's table exactly, attached or not."""
    with connection.cursor() as cursor:
        return int(_scalar(cursor, f'SELECT count(*) FROM "{name_of(day)}"'))  # noqa: S608 - own name  # nosec B608


@contextmanager
def _changing() -> Iterator[Any]:
    """Be the only one who changes partitions, with bounded waits."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
            yield cursor
            cursor.execute("SET LOCAL lock_timeout = DEFAULT")
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) not in _BUSY:
            raise
        raise PartitionBusy(
            "The record of predictions was in use for too long to change its partitions. Nothing "
            "was changed; try again."
        ) from error


def _scalar(cursor: Any, sql: str, *given: Any) -> Any:
    cursor.execute(sql, given)
    return cursor.fetchone()[0]


def _exists(cursor: Any, name: str) -> bool:
    return bool(_scalar(cursor, "SELECT to_regclass(%s) IS NOT NULL", f'"{name}"'))


def _is_attached(cursor: Any, name: str) -> bool:
    sql = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(%s))"
    return bool(_scalar(cursor, sql, f'"{name}"'))


def _day_of(name: str) -> date | None:
    text = name.removeprefix(f"{PARENT}_")
    return None if text == "default" else date.fromisoformat(text)

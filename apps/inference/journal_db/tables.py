"""Writes rows and the counts of exactly those rows in one transaction.

A row that is already there changes nothing, neither the table nor a count. Rollups are locked in
the order of their keys, so that two shippers never wait for each other in a circle.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson
from django.db import connection, transaction

from apps.accounts.services import key_uses
from apps.accounts.services.key_uses import KeyUse
from apps.inference.engine.buckets import (
    HourKey,
    MinuteKey,
    SpanKey,
    Tally,
    hour_tallies,
    minute_tallies,
    span_tallies,
)
from apps.inference.journal_db.erased import Erased, oldest_of
from apps.inference.journal_db.rows import Row, Whence
from apps.inference.models import KeyHour, Prediction, PredictionMinute, PredictionSpan

LOG = logging.getLogger(__name__)
_UNKNOWN: Mapping[str, Whence] = {}
R = TypeVar("R", PredictionMinute, KeyHour, PredictionSpan)
# Rows of one transaction, and the pause after it. SQLite has one writer: whoever holds it long, or
# takes it again at once, starves all others.
MOST_ROWS = {"postgresql": 20_000, "sqlite": 500}
PAUSE_SECONDS = {"postgresql": 0.0, "sqlite": 0.01}
_COUNTS = ["count", "rows", "cache_hits", "latency_us", "histogram"]

_COLUMNS = ", ".join(f'"{name}"' for name in Row._fields)
_TEMPORARY = (
    'CREATE TEMPORARY TABLE "arriving_predictions" AS '  # noqa: S608 - own names  # nosec B608
    f'SELECT {_COLUMNS} FROM "inference_prediction" WITH NO DATA'
)
_COPY = f'COPY "arriving_predictions" ({_COLUMNS}) FROM STDIN'
_INSERT = (
    f'INSERT INTO "inference_prediction" ({_COLUMNS}) '  # noqa: S608 - own names  # nosec B608
    f'SELECT {_COLUMNS} FROM "arriving_predictions" ORDER BY "ts", "id" '
    'ON CONFLICT ("ts", "id") DO NOTHING '
    'RETURNING "id"::text, tableoid = \'"inference_prediction_default"\'::regclass'
)


class Written(NamedTuple):
    """What became of some rows: how many were new, and how many are not to be kept."""

    new: int
    erased: int


def write(rows: Sequence[Row], whence: Mapping[str, Whence] = _UNKNOWN) -> Written:
    """Insert what is not there yet, with its counts, and commit; leave out what was erased.

    Args:
        rows: What to insert.
        whence: Where the calls came from, by prediction id; only their keys' rows learn of it.
    """
    distinct = {row.id: row for row in rows}
    with transaction.atomic(durable=True):
        erased = Erased.since(oldest_of(rows)).among(rows)
        for identifier in erased:
            del distinct[identifier]
        insert = _insert_by_copy if connection.vendor == "postgresql" else _insert_by_orm
        new = insert(distinct)
        _add(PredictionMinute, MinuteKey, minute_tallies(new))
        _add(KeyHour, HourKey, hour_tallies(new))
        _add(PredictionSpan, SpanKey, span_tallies(new))
        key_uses.note_calls(_uses(new, whence))
    return Written(len(new), len(erased))


def _uses(rows: Sequence[Row], whence: Mapping[str, Whence]) -> list[KeyUse]:
    """Return which keys were used, when and from where; a token's calls use none."""
    return [KeyUse(row.key_id, row.ts, *whence.get(row.id, Whence())) for row in rows if row.key_id]


def _insert_by_copy(rows: Mapping[str, Row]) -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(_TEMPORARY)
        # psycopg's own errors during the copy become Django's, as those of ``execute`` do.
        with connection.wrap_database_errors, cursor.copy(_COPY) as copy:
            for row in rows.values():
                copy.write_row((*row[:-2], _json(row.inputs), _json(row.outputs)))
        cursor.execute(_INSERT)
        inserted = cursor.fetchall()
        cursor.execute('DROP TABLE "arriving_predictions"')
    _warn_of_strays(sum(stray for _, stray in inserted))
    return [rows[identifier] for identifier, _ in inserted]


def _insert_by_orm(rows: Mapping[str, Row]) -> list[Row]:
    # SQLite's transaction is IMMEDIATE: nobody writes between this look and the insert.
    among = Prediction.objects.filter(pk__in=list(rows)).values_list("pk", flat=True)
    there = {str(identifier) for identifier in among}
    new = [row for identifier, row in rows.items() if identifier not in there]
    Prediction.objects.bulk_create(Prediction(**row._asdict()) for row in new)
    return new


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _warn_of_strays(count: int) -> None:
    if count:
        LOG.warning(
            "%d predictions lie outside all partitions and went to the default one; "
            "run `manage.py partitions --make`, and check the clocks of the serving machines",
            count,
        )


def _add(
    table: type[R], kind: type[MinuteKey | HourKey | SpanKey], tallies: Mapping[Any, Tally]
) -> None:
    """Add counts to a rollup table; missing rows are made empty first, then all are locked."""
    if not tallies:
        return
    table.objects.bulk_create(
        [table(**key._asdict()) for key in sorted(tallies)], ignore_conflicts=True
    )
    start = kind._fields[0]
    among = {
        f"{start}__in": {getattr(key, start) for key in tallies},
        "model__in": {key.model for key in tallies},
    }
    locked = table.objects.select_for_update().filter(**among).order_by(*kind._fields)
    mine = [row for row in locked if row.key() in tallies]
    for row in mine:
        row.absorb(tallies[row.key()])
    own: list[str] = [] if kind is SpanKey else ["errors"]
    table.objects.bulk_create(
        mine, update_conflicts=True, unique_fields=["id"], update_fields=[*_COUNTS, *own]
    )

"""Keeps out of the table what was erased before it arrived.

A record may lie on a node for days while its unit is erased. Whoever writes records holds a shared
lock while it looks for erasures, and an erasure is asked for under the same lock alone: so each
record is either in the table when the erasure begins, or its writer knows of the erasure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from apps.inference.journal_db.rows import EPOCH, Row, time_of
from apps.inference.models import Erasure
from apps.inference.record_keys import digests_of

_ADVISORY_LOCK = 0x6D6C7010


def hold_off_writers() -> None:
    """Wait in this transaction until nobody writes records, and let nobody begin to.

    On SQLite every writing transaction is alone already.
    """
    _lock("pg_advisory_xact_lock")


@dataclass(frozen=True, slots=True)
class Erased:
    """The erasures that concern some records."""

    erasures: tuple[Erasure, ...]

    @classmethod
    def since(cls, oldest: datetime) -> "Erased":
        """Read, in the transaction that writes, the erasures of records from then on."""
        _lock("pg_advisory_xact_lock_shared")
        return cls(tuple(Erasure.objects.filter(before__gt=oldest)))

    def among(self, rows: Iterable[Row]) -> frozenset[str]:
        """Return the ids of those that are not to be written."""
        if not self.erasures:
            return frozenset()
        return frozenset(
            row.id for row in rows if self._holds(row.ts, row.unit, row.team_id, row.model)
        )

    def holds(self, fields: Mapping[str, Any]) -> bool:
        """Whether a record that can be no row is one that is not to be kept aside, either.

        One that does not say when it was made counts as from before.
        """
        unit, ts = fields.get("unit"), time_in(fields) or EPOCH
        return isinstance(unit, str) and self._holds(
            ts, unit, fields.get("team_id"), fields.get("model")
        )

    def _holds(self, ts: Any, unit: Any, team_id: Any, model: Any) -> bool:
        about = [
            one
            for one in self.erasures
            if unit
            and ts < one.before
            and one.team_id in (None, team_id)
            and one.model in ("", model)
        ]
        if not about:
            return False
        same = {unit, *digests_of(unit)}
        return any(same.intersection(one.digests) for one in about)


def time_in(fields: Mapping[str, Any]) -> datetime | None:
    """Return when the call of a record was accepted; None when the record does not say."""
    ts_ms = fields.get("ts_ms")
    try:
        return time_of(ts_ms) if type(ts_ms) is int else None
    except ValueError:
        return None


def oldest_of(rows: Iterable[Row]) -> datetime:
    """Return the time of the oldest of some rows."""
    return min((row.ts for row in rows), default=EPOCH)


def _lock(function: str) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {function}(%s)", [_ADVISORY_LOCK])

"""How long each kind of data is kept: one small entry for each, written by the app that owns it.

The floor that sees all apps collects the entries and works them off; here is only their form.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from apps.core.events import Actor

STEP_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Removed:
    """What a purge removed of one kind, or would remove.

    Attributes:
        bytes: As far as they can be told; None when they cannot.
        left: What had to stay for the next run, in words; empty when nothing had to.
    """

    rows: int = 0
    bytes: int | None = None
    left: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """One kind of data and how long it is kept.

    Attributes:
        name: One word for the command line and the report.
        days: Returns how many days it is kept.
        remove: Takes the days, whether only to count, and who is named in events.
    """

    name: str
    days: Callable[[], int]
    remove: Callable[[int, bool, Actor], Removed]


def older_than(days: int) -> datetime:
    """Return the time that many days ago."""
    return timezone.now() - timedelta(days=days)


def in_steps(rows: QuerySet[Any], *, dry_run: bool) -> Removed:
    """Delete rows some at a time, each step by itself, or only count them."""
    if dry_run:
        return Removed(rows.count())
    total = 0
    while some := list(rows.values_list("pk", flat=True)[:STEP_ROWS]):
        gone, by_table = rows.model.objects.filter(pk__in=some).delete()
        if not gone:  # somebody else deleted them; what is left is looked at again next time
            break
        total += by_table.get(rows.model._meta.label, 0)
    return Removed(total)

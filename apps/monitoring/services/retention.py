"""Remove what is past its time, of every kind and from every app, with a report of what went."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta

from django.conf import settings
from django.utils import timezone

from apps.accounts.services.retention import KEPT as ACCOUNTS
from apps.core import chain, events, work
from apps.core.errors import Invalid, PlatformError
from apps.core.events import Actor
from apps.core.retention import Kept, Removed, in_steps, older_than
from apps.inference.services.retention import KEPT as INFERENCE
from apps.monitoring.models import PurgeRun
from apps.monitoring.services import news
from apps.registry.services.retention import KEPT as REGISTRY

LOG = logging.getLogger(__name__)
PURGE = "monitoring.purge"


def _work(days: int, dry_run: bool, actor: Actor) -> Removed:
    return in_steps(work.ended_before(older_than(days)), dry_run=dry_run)


def _notifications(days: int, dry_run: bool, actor: Actor) -> Removed:
    return Removed(news.drop_old(days=days, dry_run=dry_run))


def _audit(days: int, dry_run: bool, actor: Actor) -> Removed:
    """Remove the oldest part of the audit record, which only the tables' owner may do."""
    age = timedelta(days=days)
    waiting = chain.count_purgeable(age)
    if dry_run or not waiting:
        return Removed(waiting)
    rows = 0
    while gone := chain.purge_events(age, actor=actor).count:
        rows += gone
    return Removed(rows)


KINDS: tuple[Kept, ...] = (
    *INFERENCE,
    *REGISTRY,
    *ACCOUNTS,
    Kept("work", lambda: settings.WORK_RETENTION_DAYS, _work),
    Kept("notifications", lambda: settings.NOTIFICATION_RETENTION_DAYS, _notifications),
    Kept("audit", lambda: max(1, settings.AUDIT_RETENTION_DAYS), _audit),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One kind in the report of a purge."""

    name: str
    days: int
    removed: Removed


def kind_names() -> tuple[str, ...]:
    """Return the names of all kinds."""
    return tuple(one.name for one in KINDS)


def purge(kinds: Sequence[str] = (), *, dry_run: bool, actor: Actor) -> tuple[Line, ...]:
    """Remove what is past its time; what fails of one kind does not stop the others.

    Args:
        kinds: Names of the kinds to look at; empty for all.
        dry_run: Count, and change nothing.
        actor: Who is named in the events.

    Raises:
        Invalid: There is no such kind.
    """
    unknown = sorted(set(kinds) - set(kind_names()))
    if unknown:
        known = ", ".join(kind_names())
        raise Invalid(f"There is no kind `{unknown[0]}`; there are {known}.")
    wanted = [one for one in KINDS if not kinds or one.name in kinds]
    lines = []
    for at, kind in enumerate(wanted):
        work.report(f"Removing {kind.name}", at, len(wanted))
        days = kind.days()
        lines.append(Line(kind.name, days, _removed(kind, days, dry_run, actor)))
    if not dry_run:
        _say(lines, actor)
    return tuple(lines)


def _removed(kind: Kept, days: int, dry_run: bool, actor: Actor) -> Removed:
    try:
        return kind.remove(days, dry_run, actor)
    except PlatformError as error:
        return Removed(left=error.message)
    except Exception as error:  # an artifact store raises kinds of its own
        LOG.exception("%s could not be purged", kind.name)
        return Removed(left=type(error).__name__)


def _say(lines: Sequence[Line], actor: Actor) -> None:
    events.record(
        "purge.done",
        actor=actor,
        target=PurgeRun(day=timezone.now().astimezone(UTC).date()),
        rows={one.name: one.removed.rows for one in lines},
        left={one.name: one.removed.left for one in lines if one.removed.left},
    )

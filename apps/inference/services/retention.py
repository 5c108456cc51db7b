"""How long what predictions leave is kept."""

import time
from pathlib import Path

from django.conf import settings

from apps.core.events import Actor
from apps.core.retention import Kept, Removed, in_steps, older_than
from apps.inference.journal_db.shipper import DAMAGED
from apps.inference.models import Erasure
from apps.inference.services import purge

DAY_SECONDS = 86_400
# An erasure must be known for as long as a record from before it may still arrive.
ERASURE_DAYS = 400


def _predictions(days: int, dry_run: bool, actor: Actor) -> Removed:
    done = purge.purge_record(keep_days=days, dry_run=dry_run, actor=actor)
    left = f"{done.days_left} days were in use" if done.days_left else ""
    return Removed(done.rows, done.bytes, left)


def _counts(days: int, dry_run: bool, actor: Actor) -> Removed:
    return Removed(purge.purge_counts(dry_run=dry_run))


def _rejected(days: int, dry_run: bool, actor: Actor) -> Removed:
    return Removed(purge.purge_rejected(keep_days=days, dry_run=dry_run))


def _damaged(days: int, dry_run: bool, actor: Actor) -> Removed:
    """Remove this node's own copies; each other node's agent removes its own."""
    before = time.time() - days * DAY_SECONDS
    files = size = 0
    for copy in (Path(settings.SPOOL_DIR) / DAMAGED).glob("*"):
        facts = copy.stat()
        if facts.st_mtime < before:
            files, size = files + 1, size + facts.st_size
            if not dry_run:
                copy.unlink(missing_ok=True)
    return Removed(files, size)


def _erasures(days: int, dry_run: bool, actor: Actor) -> Removed:
    over = Erasure.objects.filter(finished__lt=older_than(days)).order_by("pk")
    return in_steps(over, dry_run=dry_run)


KEPT = (
    Kept("predictions", lambda: settings.PREDICTION_RETENTION_DAYS, _predictions),
    Kept("rollups", lambda: purge.ROLLUP_DAYS, _counts),
    Kept("rejected", lambda: settings.REJECTED_RETENTION_DAYS, _rejected),
    Kept("damaged", lambda: settings.REJECTED_RETENTION_DAYS, _damaged),
    Kept("erasures", lambda: max(ERASURE_DAYS, settings.PREDICTION_RETENTION_DAYS), _erasures),
)

"""A process of its own that ships, checks or dies, for tests that kill it.

Run as ``python -m tests.apps.inference.shipping_child <verb> ...`` with DATABASE_URL set.
"""

import contextlib
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch


def answer(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts))


def migrate() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def ship(folder: str) -> None:
    """Ship until the file ``enough`` appears in the folder's parent and the spool is empty."""
    from apps.inference import journal_db
    from apps.inference.engine.spool import sealed_segments

    here = Path(folder)
    total = journal_db.Shipped()
    while True:
        with contextlib.suppress(journal_db.LogUnavailable):
            total += journal_db.ship(here)
        if (here.parent / "enough").exists() and not sealed_segments(here):
            break
    answer({"rows": total.rows, "duplicates": total.duplicates})


def ship_and_die_before_unlink(folder: str) -> None:
    from apps.inference import journal_db
    from apps.inference.engine.spool import Segment

    def die(_: Segment) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(Segment, "remove", die):  # the moment between commit and unlink
        journal_db.ship(Path(folder))


def ship_without_database(folder: str) -> None:
    from apps.inference import journal_db

    try:
        journal_db.ship(Path(folder))
    except journal_db.LogUnavailable as error:
        answer({"code": error.code, "retryable": error.retryable})


def check() -> None:
    from django.db.models import Count

    from apps.inference.models import Prediction, PredictionRejected
    from apps.inference.selectors import rollups_equal_scan

    found = rollups_equal_scan(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
    twice = Prediction.objects.values("id").annotate(n=Count("id")).filter(n__gt=1).count()
    facts = {
        "rows": found.predictions,
        "twice": twice,
        "rejected": PredictionRejected.objects.count(),
        "differences": found.differences,
        "ids": sorted(str(one) for one in Prediction.objects.values_list("id", flat=True)),
    }
    answer(facts)


if __name__ == "__main__":
    import django

    django.setup()
    globals()[sys.argv[1]](*sys.argv[2:])

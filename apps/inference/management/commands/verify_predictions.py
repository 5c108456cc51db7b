"""Count whether all predictions that were shipped are still there."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.inference.journal_db import manifest


class Command(BaseCommand):
    help = (
        "Compare the record of predictions with what the events `predictions.shipped` say of it, "
        "as far as retention keeps it. Exit code 1 when rows are missing."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        checked, missing = manifest.verify()
        for one in missing:
            self.stderr.write(
                f"event {one.event_id}: of writer {one.writer}, records {one.first_seq} to "
                f"{one.last_seq}, {one.there} rows are there and {one.shipped} were shipped"
            )
        if missing:
            raise CommandError(
                f"Rows are missing in {len(missing)} of {checked} stretches. An erasure removes "
                "rows, too: compare with the events `privacy.erased`."
            )
        self.stdout.write(f"{checked} stretches of shipped predictions are complete")

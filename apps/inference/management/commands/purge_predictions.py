"""Remove predictions that are past retention."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.errors import PlatformError
from apps.core.events import Actor
from apps.inference.services.purge import purge_predictions


class Command(BaseCommand):
    help = "Remove logged predictions, and counts of them, that are past retention."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--days",
            type=int,
            default=settings.PREDICTION_RETENTION_DAYS,
            help="whole days before today that are kept (default: %(default)s)",
        )
        parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")

    def handle(self, *args: Any, days: int, dry_run: bool, **options: Any) -> None:
        try:
            report = purge_predictions(keep_days=days, dry_run=dry_run, actor=Actor.operator())
        except PlatformError as error:
            raise CommandError(error.message) from error
        self.stdout.write(
            f"{'would remove' if dry_run else 'removed'} {report.days} days, "
            f"{report.rows} predictions, {report.bytes} bytes; "
            f"{report.counts} rollup rows, {report.rejected} rejected records"
        )
        if report.days_left:
            raise CommandError(f"{report.days_left} days were in use. Run the command again.")

"""Show the days of the prediction record, and make those that are missing."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.errors import PlatformError
from apps.inference.partitions import Partition, has_partitions, list_partitions
from apps.inference.services import purge


class Command(BaseCommand):
    help = "List the daily partitions of the prediction record with their sizes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--make", action="store_true", help="make the days ahead first")

    def handle(self, *args: Any, make: bool, **options: Any) -> None:
        if not has_partitions():
            self.stdout.write("This database keeps all predictions in one table; nothing to do.")
            return
        if make:
            self._make()
        for one in list_partitions():
            self.stdout.write(_line(one))

    def _make(self) -> None:
        try:
            made = purge.make_partitions()
        except PlatformError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"made {len(made)} days")


def _line(one: Partition) -> str:
    day = one.day.isoformat() if one.day else "all others"
    note = "" if one.attached else "  taken out, to be dropped by the next purge"
    return f"{day:<10}  {one.rows:>12,} rows (estimated)  {one.bytes / 1e6:>10,.1f} MB{note}"

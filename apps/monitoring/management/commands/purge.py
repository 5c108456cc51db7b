"""Remove what is past its time, of every kind."""

from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.errors import PlatformError
from apps.core.events import Actor
from apps.monitoring.services import retention
from apps.monitoring.services.retention import Line


class Command(BaseCommand):
    help = "Remove data that is past its retention, and say for each kind what went."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--kind",
            action="append",
            default=[],
            help=f"only this kind, may be given several times: {', '.join(retention.kind_names())}",
        )
        parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")

    def handle(self, *args: Any, kind: list[str], dry_run: bool, **options: Any) -> None:
        try:
            lines = retention.purge(kind, dry_run=dry_run, actor=Actor.operator())
        except PlatformError as error:
            raise CommandError(error.message) from error
        self._tell(lines, dry_run=dry_run)
        left = [f"{one.name}: {one.removed.left}" for one in lines if one.removed.left]
        if left:
            raise CommandError("Something stays for the next run. " + "; ".join(left))

    def _tell(self, lines: Iterable[Line], *, dry_run: bool) -> None:
        rows = "would remove" if dry_run else "removed"
        self.stdout.write(f"{'kind':<14} {'older than':>12} {rows:>14} {'bytes':>16}")
        for one in lines:
            size = "" if one.removed.bytes is None else f"{one.removed.bytes:,}"
            age = f"{one.days} days" if one.days else "its own end"
            self.stdout.write(f"{one.name:<14} {age:>12} {one.removed.rows:>14,} {size:>16}")

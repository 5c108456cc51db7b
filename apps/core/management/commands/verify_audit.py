"""Check the hash chain over all events."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from apps.core import events


class Command(BaseCommand):
    help = "Walk the audit chain and name the first record that was altered, deleted or moved."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seal", action="store_true", help="seal what is unsealed first")

    def handle(self, *args: Any, seal: bool, **options: Any) -> None:
        if seal:
            events.seal_everything()
        report = events.verify_chain()
        if report.first_break:
            broken = report.first_break
            raise CommandError(f"The chain breaks at {broken.seq}: {broken.what}")
        age = ""
        if report.oldest_unsealed:
            seconds = (timezone.now() - report.oldest_unsealed).total_seconds()
            age = f", the oldest for {seconds:.0f} s"
        self.stdout.write(
            f"{report.sealed} events sealed, head {report.head}; {report.unsealed} unsealed{age}"
        )

"""Write the head of the audit chain down outside the database, now."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core import anchors, chain, events
from apps.core.errors import PlatformError
from apps.core.events import Actor


class Command(BaseCommand):
    help = "Seal what waits and write the head of the audit chain to MLP_AUDIT_ANCHOR."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--after-restore",
            metavar="REASON",
            help="the database comes from a backup: say why, and what was lost is told for ever",
        )

    def handle(self, *args: Any, after_restore: str | None, **options: Any) -> None:
        events.seal_everything()
        try:
            if after_restore is not None:
                chain.anchor_after_restore(after_restore, actor=Actor.operator())
            note = anchors.write()
        except PlatformError as error:
            raise CommandError(str(error)) from error
        seq, head = events.head()
        if note is None:
            self.stdout.write(f"head {seq} {head}; MLP_AUDIT_ANCHOR is not set, no anchor written")
        else:
            self.stdout.write(f"anchor {note.number} at {note.place}: head {note.seq} {note.hash}")

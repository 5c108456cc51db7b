"""Check the hash chain over all events, and the anchors outside the database."""

from dataclasses import asdict
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from apps.core import anchors, chain, events
from apps.core.chain import ChainReport
from apps.core.errors import PlatformError

# Exit codes: 1 the chain is broken or cannot be checked, 2 it holds but an alarm stands.
ALARMED = 2


class Command(BaseCommand):
    help = (
        "Walk the audit chain, compare it with the anchors, and name the first record that was "
        "altered, deleted, moved or inserted. Exit code 1 for a broken chain, 2 for an alarm."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seal", action="store_true", help="seal what is unsealed first")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, *args: Any, seal: bool, json: bool, **options: Any) -> None:
        if seal:
            events.seal_everything()
        try:
            report = chain.verify_chain()
        except PlatformError as error:
            raise CommandError(f"The anchors cannot be read: {error}") from error
        if json:
            self.stdout.write(orjson.dumps(asdict(report)).decode())
        broken = report.first_break
        if broken:
            raise CommandError(f"The chain breaks at {broken.seq}: {broken.what}")
        if not json:
            self.stdout.write(_told(report))
        if report.alarms:
            raise CommandError(" ".join(report.alarms), returncode=ALARMED)


def _told(report: ChainReport) -> str:
    age = ""
    if report.oldest_unsealed:
        seconds = (timezone.now() - report.oldest_unsealed).total_seconds()
        age = f", the oldest for {seconds:.0f} s"
    told = f"{report.sealed} events sealed, head {report.head}; {report.unsealed} unsealed{age}"
    if report.purged:
        told += f"; {report.purged} purged after their time"
    if report.anchored_at:
        told += f"; anchored up to {report.anchored} at {report.anchored_at:%Y-%m-%d %H:%M} UTC"
    elif not anchors.is_on():
        told += "; not anchored (MLP_AUDIT_ANCHOR is not set)"
    return "; ".join((told, *report.lost))

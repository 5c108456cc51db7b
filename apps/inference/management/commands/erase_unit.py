"""Remove all that one unit left."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.accounts.models import Team
from apps.core.errors import PlatformError
from apps.core.events import Actor
from apps.inference.services import erasure


class Command(BaseCommand):
    help = "Erase what one unit left in the record, whether it was recorded as it is or hashed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--unit", required=True, help="as callers send it")
        parser.add_argument("--model", default="", help="only this model; all without")
        parser.add_argument("--team", default="", help="only this team (its slug); all without")
        parser.add_argument("--reason", default="asked for at the command line")
        parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")

    def handle(
        self,
        *args: Any,
        unit: str,
        model: str,
        team: str,
        reason: str,
        dry_run: bool,
        **options: Any,
    ) -> None:
        team_id = _team(team)
        try:
            if dry_run:
                found = erasure.would_erase(unit, team_id=team_id, model=model)
                counts = {name: one.rows for name, one in found.items()}
            else:
                done = erasure.erase_now(
                    unit, team_id=team_id, model=model, reason=reason, actor=Actor.operator()
                )
                counts = done.counts
        except PlatformError as error:
            raise CommandError(error.message) from error
        for name, rows in counts.items():
            self.stdout.write(f"{name:<20} {rows:>10,} {'would go' if dry_run else 'removed'}")
        if not dry_run:
            self.stdout.write(f"erasure {done.pk}, {done}; late records are dropped on arrival")
        for name in erasure.unfindable(team_id=team_id, model=model):
            self.stdout.write(f"{name}: its unit is dropped or masked, so nothing can be found")


def _team(slug: str) -> int | None:
    if not slug:
        return None
    found = Team.objects.filter(slug=slug).values_list("pk", flat=True).first()
    if found is None:
        raise CommandError(f"There is no team `{slug}`.")
    return found

"""Give the application a database role that cannot rewrite the audit record."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core import roles
from apps.core.errors import PlatformError


class Command(BaseCommand):
    help = (
        "Make the role of MLP_MIGRATE_DATABASE_URL the tables' owner, and grant the application's "
        "role what it needs. Run it after each upgrade; a second time changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--app-role", required=True, help="the role in DATABASE_URL; it must exist"
        )

    def handle(self, *args: Any, app_role: str, **options: Any) -> None:
        try:
            said = roles.separate(app_role)
        except PlatformError as error:
            raise CommandError(str(error)) from error
        for line in said:
            self.stdout.write(line)

"""``manage.py rollback wine --environment production [--to N] --reason ...``."""

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.errors import PlatformError
from apps.core.events import Actor
from apps.registry import selectors
from apps.registry.services import releases
from apps.registry.states import Environment


class Command(BaseCommand):
    help = "Go back to what an endpoint served before; never waits for approval."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model")
        parser.add_argument(
            "--environment", choices=[one.value for one in Environment], default="production"
        )
        parser.add_argument("--to", type=int, help="Number of the release to go back to.")
        parser.add_argument("--reason", required=True, help="Kept in the history.")

    def handle(
        self, *, model: str, environment: str, to: int | None, reason: str, **options: object
    ) -> None:
        try:
            endpoint = selectors.find_endpoint(selectors.find_model(model), environment)
            made = releases.roll_back(endpoint, to=to, reason=reason, actor=Actor.operator())
        except PlatformError as error:
            raise CommandError(error.message) from error
        serves = ", ".join(f"version {arm.version}" for arm in made.typed_arms())
        self.stdout.write(f"{model} in {environment} serves {serves} again: release {made.number}")

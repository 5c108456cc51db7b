"""``manage.py release wine 3 --environment production --reason ...``."""

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.errors import PlatformError
from apps.core.events import Actor
from apps.registry import selectors
from apps.registry.services import releases
from apps.registry.states import Environment, ReleaseState


class Command(BaseCommand):
    help = "Release a version of a model to an environment."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model")
        parser.add_argument("version", type=int)
        parser.add_argument(
            "--environment", choices=[one.value for one in Environment], default="production"
        )
        parser.add_argument("--reason", required=True, help="Kept in the history.")
        parser.add_argument(
            "--expected-release",
            type=int,
            help="The live release you saw, 0 for none; another one now is an error.",
        )

    def handle(
        self,
        *,
        model: str,
        version: int,
        environment: str,
        reason: str,
        expected_release: int | None,
        **options: object,
    ) -> None:
        try:
            endpoint = selectors.find_endpoint(selectors.find_model(model), environment)
            made = releases.make_release(
                endpoint,
                version=version,
                reason=reason,
                expected_release=expected_release,
                actor=Actor.operator(),
            )
        except PlatformError as error:
            raise CommandError(error.message) from error
        if made.state == ReleaseState.LIVE:
            self.stdout.write(f"{model} {version} is live in {environment}: release {made.number}")
        else:
            self.stdout.write(f"Release {made.number} of {model} {version} awaits approval")

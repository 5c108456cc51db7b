"""Change the key that signs tokens, a step a call; safe to call as often as one likes."""

import time

from django.core.management.base import BaseCommand, CommandParser

from apps.accounts.services import token_keys
from apps.accounts.services.token_keys import Rotation, Step
from apps.core.events import Actor

NEXT = {
    Step.IDLE: "one key is in use; the next call prepares another",
    Step.PREPARED: "the next key is published and signs nothing yet; the next call switches to it",
    Step.SWITCHED: "the new key signs; the next call takes the former one away",
}


class Command(BaseCommand):
    help = (
        "Change the kept key that signs tokens: prepare, switch, drop. Each call makes the step "
        "that is due. No token ends early, unless --compromised says that it must."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--status", action="store_true", help="say how far it is, change nothing"
        )
        parser.add_argument(
            "--compromised",
            action="store_true",
            help="a stranger may know the key: drop it now; everybody signs in again",
        )

    def handle(self, *, status: bool, compromised: bool, **options: object) -> None:
        if compromised and not status:
            token_keys.replace_at_once(actor=Actor.operator())
            self.stdout.write("A new key signs. Tokens of the former one are refused everywhere.")
            return
        now = time.time()
        found = (
            token_keys.standing(now) if status else token_keys.advance(now, actor=Actor.operator())
        )
        self.stdout.write(_sentence(found))


def _sentence(found: Rotation) -> str:
    waits = f", in {found.waits_seconds} seconds at the earliest" if found.waits_seconds else ""
    return f"{'Done: ' if found.did else ''}{NEXT[found.step]}{waits}."

"""Load every required model once, as a serving process would: a check before traffic comes."""

import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.errors import PlatformError
from apps.inference import wiring
from apps.inference.engine.spool import Spool
from apps.inference.node import Node
from apps.registry.snapshot import VersionBody


class Command(BaseCommand):
    help = "Load and try every required model from this node's files; fails if one does not load."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seconds", type=float, default=120.0, help="for each model")

    def handle(self, *args: Any, seconds: float, **options: Any) -> None:
        made = wiring.build(Node(Path(settings.SERVING_DIR)), Spool(Path(settings.SPOOL_DIR)))
        try:
            made.follower.look()
            if not made.follower.has_snapshot:
                raise CommandError("There is no snapshot on this node yet; start the agent.")
            required = made.engine.routes.required()
            failed = sum(not self._warm(made, one, seconds) for one in required)
        finally:
            made.close()
        self.stdout.write(f"{len(required) - failed} of {len(required)} required models are warm")
        if failed:
            raise CommandError(f"{failed} required models could not be loaded.")

    def _warm(self, made: wiring.Serving, version: VersionBody, seconds: float) -> bool:
        started = time.monotonic()
        name = f"{version.model} {version.number}"
        try:
            made.pool.ensure(version, deadline=started + seconds)
        except PlatformError as error:
            self.stderr.write(f"{name}: {error.message}")
            return False
        self.stdout.write(f"{name}: {(time.monotonic() - started) * 1000:.0f} ms")
        return True

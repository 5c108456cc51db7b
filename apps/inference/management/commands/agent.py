"""The agent of this node, until SIGTERM or Ctrl-C."""

import signal
import threading
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from apps.inference.agent import Agent, only_agent
from apps.inference.node import Node


class Command(BaseCommand):
    help = "Carry changes, artifacts and records between the database and this node's processes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="one round of everything, then end")

    def handle(self, *args: Any, once: bool, **options: Any) -> None:
        stop = threading.Event()
        node = Node(Path(settings.SERVING_DIR))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with only_agent(node, stop, self.stdout.write) as alone:
            if not alone:
                return
            agent = Agent(node, Path(settings.SPOOL_DIR), name=settings.NODE_NAME)
            if once:
                self._one_round(agent)
            else:
                agent.run(stop, poll_seconds=settings.AGENT_POLL_SECONDS)

    def _one_round(self, agent: Agent) -> None:
        agent.poll_once()
        came = agent.fetch_once()
        shipped = agent.ship_once()
        self.stdout.write(
            f"generation {agent.generation}, {came} artifacts fetched, "
            f"{shipped.rows} predictions shipped"
        )

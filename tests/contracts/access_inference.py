"""Rows of the prediction door and of health.

These doors answer from memory, so each call gets a node of its own that an agent has just filled.
"""

import tempfile
from pathlib import Path

from django.test import Client, override_settings

from apps.inference import wiring
from apps.inference.agent import Agent
from apps.inference.node import Node
from apps.registry.models import RegisteredModel
from tests.contracts.access import Headers, Row, World
from tests.factories.registry import make_model, make_release, make_version

EVERYBODY = "200 200 200 200 200 200 200 200"


def released(world: World) -> None:
    """A model of the blue team that is live in production."""
    make_release(make_version(make_model("wine", team=world.blue)))


def half_released(world: World) -> None:
    """The same with a second version that serves nowhere."""
    released(world)
    make_version(RegisteredModel.objects.get(name="wine"))


def through_a_node(world: World, row: Row, headers: Headers) -> int:
    """Carry what the database holds to a serving process, then call it."""
    with tempfile.TemporaryDirectory() as folder:
        serving, spool = Path(folder) / "serving", Path(folder) / "spool"
        agent = Agent(Node(serving), spool)
        agent.poll_once()
        agent.fetch_once()
        with override_settings(SERVING_DIR=serving, SPOOL_DIR=spool):
            wiring.reset()
            wiring.start(10)
            try:
                reply = Client(raise_request_exception=False).generic(
                    row.method,
                    row.url(world),
                    row.json(world),
                    content_type="application/json",
                    headers=dict(headers),
                )
            finally:
                wiring.reset()
    return reply.status_code


ROWS = [
    Row(
        "POST",
        "api/v1/predict/<str:model>",
        "401 404 200 200 200 200 200 403",
        scope="predict",
        fill={"model": "wine"},
        body={"instances": [[1, 2, 3, 4]]},
        prepare=released,
        send=through_a_node,
    ),
    # A version that is not released: for those who may try it. The key may read models and not
    # predict, the bare one the other way round.
    Row(
        "POST",
        "api/v1/predict/<str:model>",
        "401 404 409 200 200 200 403 409",
        scope="models:read",
        fill={"model": "wine"},
        body={"instances": [[1, 2, 3, 4]]},
        query="?version=2",
        prepare=half_released,
        send=through_a_node,
    ),
    *(
        Row("GET", route, EVERYBODY, send=through_a_node)
        for route in ("health", "health/ready", "health/live")
    ),
    Row(
        "GET",
        "health/deps",
        "401 403 403 403 403 200 200 403",
        scope="metrics:read",
        key_owner="admin",
        send=through_a_node,
    ),
]

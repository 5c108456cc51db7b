"""Rows of the doors to the record of predictions."""

from typing import Any

from apps.core.events import Actor
from apps.inference.services import erasure
from tests.contracts.access import Row, World
from tests.factories.inference import prediction


def recorded(world: World) -> None:
    world.things["prediction"] = prediction(team_id=world.blue.pk)


def its_id(world: World) -> dict[str, Any]:
    return {"prediction": world.things["prediction"].pk}


def erased(world: World) -> None:
    actor = Actor.operator()
    world.things["erasure"] = erasure.ask_erasure(
        "unit-7", team_id=world.blue.pk, reason="asked", actor=actor
    )


WISH = {"unit": "unit-7", "reason": "asked", "team": "blue"}
ROWS = [
    Row(
        "POST",
        "api/v1/privacy/erasures",
        "401 404 403 403 202 202 202 403",
        scope="admin:*",
        body=WISH,
    ),
    Row(
        "GET",
        "api/v1/privacy/erasures/<int:erasure>",
        "401 404 403 403 200 200 200 403",
        scope="admin:*",
        prepare=erased,
        fill=lambda world: {"erasure": world.things["erasure"].pk},
    ),
    Row(
        "GET",
        "api/v1/predictions/<str:prediction>",
        "401 404 403 403 200 200 200 403",
        scope="logs:read",
        prepare=recorded,
        fill=its_id,
        query="?redacted=show&reason=because",
    ),
    Row("GET", "api/v1/predictions", "401 200 200 200 200 200 200 403", scope="logs:read"),
    Row(
        "GET",
        "api/v1/predictions/<str:prediction>",
        "401 404 200 200 200 200 200 403",
        scope="logs:read",
        prepare=recorded,
        fill=its_id,
    ),
    Row("GET", "api/v1/analytics", "401 200 200 200 200 200 200 403", scope="logs:read"),
    Row(
        "GET",
        "api/v1/analytics",
        "401 404 200 200 200 200 200 403",
        scope="logs:read",
        query="?team=blue",
    ),
]

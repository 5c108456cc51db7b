"""Rows of the doors to the record of predictions."""

from typing import Any

from tests.contracts.access import Row, World
from tests.factories.inference import prediction


def recorded(world: World) -> None:
    world.things["prediction"] = prediction(team_id=world.blue.pk)


def its_id(world: World) -> dict[str, Any]:
    return {"prediction": world.things["prediction"].pk}


ROWS = [
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

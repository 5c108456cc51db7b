"""Whatever is sent by the OpenAPI document, the answer is one that the document announces.

Each operation is called with made-up parameters and bodies, by nobody and by a platform admin, with
unknown names and with those of things that exist. No call may end in a server error, a status that
is no success and no problem, or another kind of body than announced. The upload door stands in
front of Django and has hostile bodies of its own (tests/apps/registry/test_upload_door.py).
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pytest_django.fixtures import Settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from apps.inference import wiring
from apps.inference.agent import Agent
from apps.inference.node import Node
from tests.contracts.access import World
from tests.factories.accounts import bearer, make_key
from tests.factories.registry import make_model, make_release, make_version

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.xdist_group("schemathesis")]
EXAMPLES = 6
ELSEWHERE = {"upload_version"}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]


@cache
def document() -> Any:
    return SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]  # untyped there


@cache
def operations() -> dict[str, Any]:
    loaded = schemathesis.openapi.from_dict(document())
    loaded.app = get_wsgi_application()
    read: list[Any] = list(loaded.get_all_operations())
    found = [one.ok() for one in read]
    return {one.definition.raw["operationId"]: one for one in found}


NAMES = sorted(
    one["operationId"]
    for methods in document()["paths"].values()
    for one in methods.values()
    if isinstance(one, dict) and "operationId" in one
)


@pytest.fixture(autouse=True)
def lasting_connection() -> Iterator[None]:
    """Keep the test's connection over the end of a request, as Django's own client does."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> Iterator[World]:
    made = World.make()
    make_release(make_version(make_model("wine", team=made.blue)))
    key, _ = make_key(made.blue, made.users["maintainer"])
    made.things = {
        "model": "wine",
        "slug": "blue",
        "team": "blue",
        "number": "1",
        "environment": "production",
        "username": "viewer",
        "key": key.pk,
    }
    settings.SERVING_DIR, settings.SPOOL_DIR = tmp_path / "serving", tmp_path / "spool"
    agent = Agent(Node(settings.SERVING_DIR), settings.SPOOL_DIR)
    agent.poll_once()
    agent.fetch_once()
    wiring.reset()
    wiring.start(10)
    yield made
    wiring.reset()


@pytest.mark.parametrize("caller", ["nobody", "admin"])
@pytest.mark.parametrize("name", [one for one in NAMES if one not in ELSEWHERE])
def test_every_answer_is_one_that_the_document_announces(
    name: str, caller: str, world: World
) -> None:
    operation = operations()[name]
    headers = {} if caller == "nobody" else dict(bearer(world.users["admin"]))

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), is_known=st.booleans())
    def call(case: Any, is_known: bool) -> None:
        if is_known:
            known = {one: world.things[one] for one in case.path_parameters if one in world.things}
            case.path_parameters = {**case.path_parameters, **known}
        with transaction.atomic():
            reply = case.call(headers=headers)
            transaction.set_rollback(True)
        case.validate_response(reply, checks=CHECKS)
        if reply.status_code < 400:
            assert str(reply.status_code) in operation.definition.raw["responses"]
        elif not 400 <= reply.status_code < 500:
            raise AssertionError(reply.status_code)

    call()

"""Health: one word, from memory; the rest for dashboards only."""

import time
from typing import Any

import pytest
from django.test import Client

from apps.accounts.snapshot import Role
from apps.inference import wiring
from apps.inference.node import AgentReport
from tests.factories.serving import ServingNode, answering, primary


@pytest.fixture(autouse=True)
def serves(settings: Any) -> None:
    settings.SERVES = True


def word(path: str) -> tuple[int, str]:
    reply = Client().get(path)
    return reply.status_code, reply.content.decode().strip()


# No test here is marked for the database, so a single query would fail it.


@pytest.mark.parametrize("path", ["/health/live", "/health/live/"])
def test_a_process_that_answers_is_live_even_without_a_snapshot(
    node: ServingNode, path: str
) -> None:
    (node.node.folder / "snapshot.jsonl").unlink()
    assert word(path) == (200, "live")


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/ready/"])
def test_a_process_without_a_snapshot_is_starting(node: ServingNode, path: str) -> None:
    (node.node.folder / "snapshot.jsonl").unlink()
    assert word(path) == (503, "starting")


def test_a_process_with_its_required_models_warm_is_ready(node: ServingNode) -> None:
    node.wine(required=True)
    assert wiring.start(10)
    assert word("/health") == (200, "ready")


def test_a_required_model_that_is_not_warm_keeps_a_new_process_out(node: ServingNode) -> None:
    node.version(1, with_file=False)
    node.endpoint(answering(primary(1)), required=True)
    assert word("/health") == (503, "loading")


def test_a_model_that_is_not_required_keeps_nobody_waiting(node: ServingNode) -> None:
    node.version(1, with_file=False)
    node.endpoint(answering(primary(1)))
    assert word("/health") == (200, "ready")


def test_a_process_of_another_role_waits_for_no_model_and_loads_none(
    node: ServingNode, settings: Any
) -> None:
    settings.SERVES = False
    node.version(1, with_file=False)
    node.endpoint(answering(primary(1)), required=True)
    assert word("/health") == (200, "ready")
    assert wiring._serving is None


def test_a_draining_process_wants_no_more_traffic_but_lives(node: ServingNode) -> None:
    node.wine()
    wiring.start(10)
    wiring.drain()
    assert word("/health") == (503, "draining")
    assert word("/health/live") == (200, "live")


def test_a_spool_that_is_nearly_full_takes_the_process_out(
    node: ServingNode, settings: object
) -> None:
    node.wine()
    settings.SPOOL_BYTES = 1000  # type: ignore[attr-defined]
    node.spool.mkdir(parents=True)
    (node.spool / "old-1-1-00000001.sealed").write_bytes(b"x" * 950)
    assert word("/health") == (503, "full")


def test_health_is_only_read() -> None:
    reply = Client().post("/health")
    assert reply.status_code == 405
    assert reply.headers["Allow"] == "GET, HEAD"


def test_deps_are_for_those_who_may_read_metrics(node: ServingNode) -> None:
    key = node.wine()
    assert Client().get("/health/deps").status_code == 401
    assert Client().get("/health/deps", headers={"X-API-Key": key}).status_code == 403
    node.person(Role.MAINTAINER, is_admin=True)
    wiring.serving().follower.look()
    key = node.key(scopes=("metrics:read",))
    wiring.serving().follower.look()
    reply = Client().get("/health/deps", headers={"X-API-Key": key})
    assert reply.status_code == 200


def test_deps_tell_of_the_agent_and_of_every_process(node: ServingNode) -> None:
    node.wine(required=True)
    node.person(is_admin=True)
    key = node.key(scopes=("metrics:read",))
    node.node.report_agent(AgentReport(1, "epoch-1", 5, "ok", "ok", "down", 10, 2.5))
    wiring.start(10)
    wiring.serving().follower.look()
    body = Client().get("/health/deps", headers={"X-API-Key": key}).json()
    assert body["agent"]["shipping"] == "down"
    assert body["agent"]["age_seconds"] < 60
    (worker,) = body["workers"]
    assert worker["state"] == "ready"
    assert worker["routes"] == {"production/wine": 1}
    assert [(one["model"], one["version"]) for one in worker["loaded"]] == [("wine", 1)]
    assert worker["started"] <= time.time()

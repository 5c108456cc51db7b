"""Wiring: the one engine of a process, and how a version's file becomes a model."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.inference import record_keys, wiring
from apps.inference.engine.errors import ModelUnavailable
from apps.inference.node import Node
from apps.inference.wiring import Loader
from tests.factories.serving import ServingNode, onnx_bytes


@pytest.fixture
def loader(node: ServingNode) -> Loader:
    return Loader(node.node, fetch_seconds=0.2)


def test_a_process_has_one_engine(node: ServingNode) -> None:
    assert wiring.engine() is wiring.engine()
    assert wiring.serving().engine is wiring.engine()


def test_reset_seals_what_was_recorded_and_takes_the_report_away(node: ServingNode) -> None:
    node.wine()
    wiring.start(5)
    assert len(node.node.living()) == 1
    wiring.reset()
    assert node.node.living() == []


def test_a_child_builds_its_own(node: ServingNode) -> None:
    node.wine()
    parent = wiring.engine()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in another process
        os.write(writing, b"own" if wiring._serving is None else b"parents")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        assert told.read() == b"own"
    os.waitpid(child, 0)
    assert wiring.engine() is parent


def test_a_version_becomes_a_model_that_answers(node: ServingNode, loader: Loader) -> None:
    batcher = loader.load(node.version(1, shift=1.0))
    try:
        x = np.zeros((1, 4), dtype=np.float32)
        ran = batcher.submit({"x": x}, 1, time.monotonic() + 5).result(5)
        assert np.allclose(ran.outputs["scores"], 1.0)
    finally:
        batcher.close()


def test_a_missing_file_is_asked_for_and_refused_when_it_does_not_come(
    node: ServingNode, loader: Loader
) -> None:
    body = node.version(1, with_file=False)
    with pytest.raises(ModelUnavailable, match="not on this node"):
        loader.load(body)
    assert node.node.wanted() == {body.sha256}


def test_a_file_that_comes_while_a_load_waits_is_taken(node: ServingNode) -> None:
    data = onnx_bytes()
    body = node.version(1, with_file=False)
    waits = Loader(node.node, fetch_seconds=20)

    def bring() -> None:
        while body.sha256 not in node.node.wanted():
            threading.Event().wait(0.01)
        node.artifact(body, data)

    agent = threading.Thread(target=bring)
    agent.start()
    waits.load(body).close()
    agent.join()


def test_a_damaged_file_is_never_loaded_and_is_fetched_afresh(
    node: ServingNode, loader: Loader
) -> None:
    body = node.version(1)
    path = node.node.artifact(body.sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelUnavailable):
        loader.load(body)
    assert not path.exists(), "the agent brings a good one"
    assert node.node.wanted() == {body.sha256}


def test_a_damaged_file_does_not_touch_a_good_one_that_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    sha256 = "a" * 64
    node.artifacts.mkdir(parents=True)
    node.artifact(sha256).write_bytes(b"damaged")

    def digest(file: Any) -> str:
        fresh = node.artifacts / "fresh"
        fresh.write_bytes(b"good")
        fresh.replace(node.artifact(sha256))
        return "b" * 64

    monkeypatch.setattr("apps.inference.node._sha256_of", digest)
    assert node.verified(sha256) is None
    assert node.artifact(sha256).read_bytes() == b"good"


def test_a_native_format_is_served_only_where_the_operator_allows_it(
    node: ServingNode, loader: Loader, settings: Any
) -> None:
    settings.NATIVE_FORMATS = frozenset()
    with pytest.raises(ModelUnavailable, match="MLP_NATIVE_FORMATS"):
        loader.load(node.version(1, runtime="sklearn"))


def test_hashed_fields_depend_on_the_installation(settings: Any) -> None:
    one = record_keys.record_rules()
    settings.SECRET_KEY = "another installation"
    assert one.hmac_key != record_keys.record_rules().hmac_key

"""From a trained model's file to a recorded answer: every part is the real one, by HTTP only."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pytest
from django.core.files.storage import storages
from django.test import Client
from sklearn.datasets import load_wine
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from apps.accounts.snapshot import Role
from apps.core import work
from apps.core.models import Work
from apps.inference import wiring
from apps.inference.agent import Agent
from apps.inference.models import Prediction, PredictionMinute
from apps.registry import tasks as registry_tasks
from apps.registry.api.upload import upload
from tests.factories.accounts import bearer, make_member, make_team
from tests.factories.serving import ServingNode, onnx_bytes, scores, serving_node
from tests.fakes.asgi import call, form, part

assert registry_tasks, "a worker knows the kinds of work by importing them"
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
ROW = [5.1, 3.5, 1.4, 0.2]


class Platform:
    """The whole of it in one process: web, worker, agent and serving process."""

    def __init__(self, node: ServingNode) -> None:
        self.node = node
        (node.node.folder / "snapshot.jsonl").unlink()
        self.agent = Agent(node.node, node.spool)
        self.headers = bearer(make_member(make_team("blue"), Role.MAINTAINER, "mara"))

    def http(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        reply = Client().generic(
            method,
            f"/api/v1/{path}",
            b"" if body is None else orjson.dumps(body),
            content_type="application/json",
            headers=headers or self.headers,
        )
        assert reply.status_code < 300, reply.content
        return reply.json() if reply.content else None

    def upload(self, model: str, filename: str, data: bytes, **fields: str) -> Any:
        """Upload, let the worker validate, and return the version as the API shows it."""
        parts = [part("name", model), *(part(name, value) for name, value in fields.items())]
        body = form(*parts, part("file", data, filename))
        reply = call(upload, "/api/v1/models/upload", body, headers=self.headers)
        assert reply.status == 202, reply.body
        for one in Work.objects.filter(state=Work.State.QUEUED):
            work.run_once(one.pk)
        return self.http("GET", f"models/{model}/versions/{reply.json()['number']}")

    def release(self, model: str, version: int, environment: str = "production") -> Any:
        path = f"models/{model}/endpoints/{environment}/releases"
        made = self.http("POST", path, {"version": version, "reason": "it is better"})
        self.sync()
        return made

    def key(self) -> str:
        text: str = self.http("POST", "keys", {"name": "shop", "scopes": ["predict"]})["key"]
        self.sync()
        return text

    def sync(self) -> None:
        """One round of the agent, then let the serving process catch up."""
        self.agent.poll_once()
        self.agent.fetch_once()
        follower = wiring.serving().follower
        deadline = time.monotonic() + 30
        while follower.generation < self.agent.generation or not follower.caught_up():
            assert time.monotonic() < deadline, follower.failures
            follower.look()
        self.agent.poll_once()

    def predict(self, model: str, rows: Any, key: str) -> Any:
        return self.http("POST", f"predict/{model}", {"instances": rows}, **{"X-API-Key": key})

    def ship(self) -> int:
        wiring.serving().spool.seal()
        return self.agent.ship_once().rows


@pytest.fixture
def platform(tmp_path: Path, settings: Any) -> Iterator[Platform]:
    settings.DATA_DIR = tmp_path / "data"
    store = dict(settings.STORAGES)
    store["artifacts"] = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(tmp_path / "artifacts")},
    }
    settings.STORAGES = store
    vars(storages)["_storages"].pop("artifacts", None)
    with serving_node(tmp_path, settings) as node:
        yield Platform(node)
    vars(storages)["_storages"].pop("artifacts", None)


def test_an_onnx_model_is_uploaded_released_asked_and_recorded(platform: Platform) -> None:
    version = platform.upload("tiny", "tiny.onnx", onnx_bytes())
    assert version["state"] == "ready", version["report"]
    release = platform.release("tiny", 1)
    assert release["state"] == "live"
    key = platform.key()
    answer = platform.predict("tiny", [ROW], key)
    assert answer["predictions"][0] == pytest.approx(scores(ROW), abs=1e-5)
    assert answer["version"] == 1
    assert platform.ship() == 1
    row = Prediction.objects.get(pk=answer["prediction_id"])
    assert (row.model, row.version, row.status, row.rows) == ("tiny", 1, "ok", 1)
    assert row.key_id == key.split("_")[2]
    assert sum(PredictionMinute.objects.values_list("count", flat=True)) == 1
    assert platform.ship() == 0
    found = platform.http("GET", f"predictions/{answer['prediction_id']}")
    assert found["model"] == "tiny"


def test_a_release_and_a_rollback_change_what_answers(platform: Platform) -> None:
    for shift in (0.0, 1.0):
        platform.upload("tiny", "tiny.onnx", onnx_bytes(shift))
    platform.release("tiny", 1)
    key = platform.key()
    first = platform.predict("tiny", [ROW], key)
    platform.release("tiny", 2)
    second = platform.predict("tiny", [ROW], key)
    platform.http("POST", "models/tiny/endpoints/production/rollback", {"reason": "worse"})
    platform.sync()
    third = platform.predict("tiny", [ROW], key)
    assert [one["version"] for one in (first, second, third)] == [1, 2, 1]
    assert second["predictions"][0] == pytest.approx(scores(ROW, 1.0), abs=1e-5)
    endpoint = platform.http("GET", "models/tiny/endpoints/production")
    assert endpoint["release"]["number"] == 3


def test_a_sklearn_pipeline_answers_as_the_original_does(platform: Platform) -> None:
    data = load_wine()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    pipeline.fit(data.data, data.target)
    file = io.BytesIO()
    joblib.dump(pipeline, file)
    version = platform.upload("wine", "wine.joblib", file.getvalue())
    assert version["state"] == "ready", version["report"]
    platform.release("wine", 1)
    key = platform.key()
    rows = data.data[::10]
    answer = platform.predict("wine", rows.tolist(), key)
    said = np.array([row["probabilities"] for row in answer["predictions"]])
    assert np.abs(said - pipeline.predict_proba(rows)).max() < 1e-5
    assert [row["label"] for row in answer["predictions"]] == pipeline.predict(rows).tolist()


def test_a_revoked_key_is_refused_by_the_serving_process(platform: Platform) -> None:
    platform.upload("tiny", "tiny.onnx", onnx_bytes())
    platform.release("tiny", 1)
    key = platform.key()
    assert platform.predict("tiny", [ROW], key)
    platform.http("DELETE", f"keys/{key.split('_')[2]}")
    platform.sync()
    reply = Client().post(
        "/api/v1/predict/tiny",
        orjson.dumps({"instances": [ROW]}),
        content_type="application/json",
        headers={"X-API-Key": key},
    )
    assert reply.status_code == 403


def test_a_release_is_marked_as_rolled_out(platform: Platform) -> None:
    platform.upload("tiny", "tiny.onnx", onnx_bytes())
    platform.release("tiny", 1)
    platform.sync()
    endpoint = platform.http("GET", "models/tiny/endpoints/production")
    assert endpoint["release"]["rolled_out_at"] is not None


def test_a_pipeline_that_does_not_convert_is_served_by_a_runner(platform: Platform) -> None:
    data = load_wine()
    model = make_pipeline(StandardScaler(), KernelRidge(kernel="rbf")).fit(data.data, data.target)
    file = io.BytesIO()
    joblib.dump(model, file)
    version = platform.upload("ridge", "ridge.joblib", file.getvalue())
    assert version["state"] == "ready", version["report"]
    assert version["runtime"] == "sklearn"
    platform.release("ridge", 1)
    rows = data.data[::20]
    answer = platform.predict("ridge", rows.tolist(), platform.key())
    said = np.array(answer["predictions"], dtype=float).reshape(-1)
    assert np.abs(said - model.predict(rows)).max() < 1e-5
    assert platform.ship() == 1
    assert Prediction.objects.get(pk=answer["prediction_id"]).model == "ridge"

"""The demo's image model from training to a recorded answer, by HTTP and by real PNG files."""

import base64
from typing import Any

import numpy as np
import onnxruntime
import orjson
import pytest
from django.test import Client

from apps.inference.models import Prediction
from demo import digits
from demo.files import examples
from tests.flows.test_model_to_record import Platform, platform

assert platform, "a fixture is used by its name"
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
ASKED = 100


def test_a_hundred_files_are_answered_like_their_arrays(platform: Platform) -> None:
    trained = digits.digits()
    version = platform.upload(
        "digits",
        trained.filename,
        trained.content,
        signature=orjson.dumps(trained.signature).decode(),
        example=orjson.dumps(trained.example).decode(),
    )
    assert version["state"] == "ready", version["report"]
    assert version["example"] == examples()["digits"]
    assert version["signature"]["outputs"][0]["classes"] == digits.CLASSES
    platform.release("digits", 1)
    key = platform.key()
    data = digits.load()
    pixels, labels = data.held_pixels[:ASKED], data.held_labels[:ASKED]
    files = [digits.png_of(one) for one in pixels]
    rows = [{"image": {"b64": base64.b64encode(one).decode()}} for one in files]
    answer = platform.predict("digits", rows, key)
    found = np.array([int(one["class"]) for one in answer["predictions"]])
    session = onnxruntime.InferenceSession(trained.content)
    (wanted,) = session.run(None, {"image": digits.rows_of(pixels)})
    said = np.array([list(one["scores"].values()) for one in answer["predictions"]])
    assert np.abs(said - wanted).max() < 1e-5
    assert (found == labels).mean() == (wanted.argmax(axis=1) == labels).mean() > 0.95
    assert _alone(files[0], key)["class"] == str(wanted[0].argmax())
    assert platform.ship() == 2
    row = Prediction.objects.get(pk=answer["prediction_id"])
    assert row.rows == ASKED
    assert rows[0]["image"]["b64"] not in orjson.dumps(row.inputs).decode()


def _alone(file: bytes, key: str) -> Any:
    reply = Client().post(
        "/api/v1/predict/digits", file, content_type="image/png", headers={"X-API-Key": key}
    )
    assert reply.status_code == 200, reply.content
    return reply.json()["predictions"][0]

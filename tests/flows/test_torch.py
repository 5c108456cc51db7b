"""The demo's two PyTorch models from training to a recorded answer, by HTTP only."""

import io
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes

from apps.inference.models import Prediction
from demo import torch_models
from demo.files import Trained
from tests.flows.test_model_to_record import Platform, platform

assert platform, "a fixture is used by its name"
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def _uploaded(platform: Platform, trained: Trained) -> Any:
    version = platform.upload(
        trained.name,
        trained.filename,
        trained.content,
        signature=orjson.dumps(trained.signature).decode(),
        example=orjson.dumps(trained.example).decode(),
    )
    assert version["state"] == "ready", version["report"]
    platform.release(trained.name, version["number"])
    return version


def test_an_exported_program_is_served_as_onnx_and_answers_as_pytorch_does(
    platform: Platform,
) -> None:
    trained = torch_models.tumour()
    version = _uploaded(platform, trained)
    assert version["runtime"] == "onnx"
    assert version["report"]["conversion"]["max_abs_difference"] <= 1e-5
    rows = load_breast_cancer().data[::8]
    key = platform.key()
    answer = platform.predict("tumour", rows.tolist(), key)
    program = torch.export.load(io.BytesIO(trained.content)).module()
    with torch.inference_mode():
        wanted = program(torch.tensor(rows, dtype=torch.float32))["malignant"].numpy()
    assert np.abs(np.array(answer["predictions"]) - wanted).max() <= 1e-5
    assert platform.predict("tumour", trained.example["instances"], key)["predictions"][0] > 0.9


def test_torchscript_that_does_not_convert_answers_exactly_as_pytorch_does(
    platform: Platform, settings: Any
) -> None:
    settings.NATIVE_FORMATS = frozenset({"torch"})
    trained = torch_models.progression()
    version = _uploaded(platform, trained)
    assert version["runtime"] == "torch"
    rows = load_diabetes(scaled=False).data[::8]
    answer = platform.predict("progression", rows.tolist(), platform.key())
    library: Any = torch.jit  # it says no types
    with pytest.deprecated_call():
        original = library.load(io.BytesIO(trained.content))
    with torch.inference_mode():
        wanted = {name: one.numpy() for name, one in original(torch.tensor(rows)).items()}
    for name, values in wanted.items():
        said = np.array([row[name] for row in answer["predictions"]])
        np.testing.assert_allclose(said, values, rtol=1e-12)
    assert platform.ship() == 1
    assert Prediction.objects.get(pk=answer["prediction_id"]).model == "progression"

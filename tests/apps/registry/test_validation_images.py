"""Images and classes at validation: said by the uploader, tried by the real sandbox."""

from typing import Any

import pytest

from apps.inference.engine.types import RowInputs
from apps.inference.engine.validate import tensors_of
from apps.registry.image_spec import ColourMode, ImageSpec
from apps.registry.models import ModelVersion
from apps.registry.services import validation
from apps.registry.services.uploads import About
from apps.registry.signature import signature_from_json
from apps.registry.states import VersionState
from tests.factories.images import b64, file_of, image_onnx, noise
from tests.factories.registry import make_upload

pytestmark = pytest.mark.django_db


def image_upload(example: Any = None, **change: object) -> ModelVersion:
    image = {"height": 2, "width": 2, "mode": "grey"} | change
    said = {"name": "image", "dtype": "float32", "shape": [-1, 1, 2, 2], "image": image}
    out = {"name": "scores", "dtype": "float32", "shape": [-1, 3], "classes": ["a", "b", "c"]}
    about = About(signature={"inputs": [said], "outputs": [out]}, example=example)
    wanted = make_upload(data=image_onnx(), about=about)
    validation.validate_version(wanted.pk)
    wanted.refresh_from_db()
    return wanted


def test_images_and_classes_are_taken_from_the_signature_that_was_sent() -> None:
    wanted = image_upload(mean=0.5)
    assert wanted.state == VersionState.READY, wanted.report
    signature = signature_from_json(wanted.signature)
    assert signature.inputs[0].image == ImageSpec(2, 2, ColourMode.GREY, mean=(0.5,))
    assert signature.outputs[0].classes == ("a", "b", "c")


def test_an_image_model_without_an_example_gets_a_file_that_was_really_run() -> None:
    wanted = image_upload()
    assert wanted.example is not None
    (row,) = wanted.example["instances"]
    checked = tensors_of(RowInputs([row]), signature_from_json(wanted.signature), max_rows=1)
    assert checked.tensors["image"].shape == (1, 1, 2, 2)
    assert checked.images["image"][0].content_type == "image/png"


def test_the_uploaders_image_is_the_example_and_is_read_in_the_sandbox() -> None:
    example = {"instances": [{"image": b64(file_of(noise(2, 2)))}]}
    wanted = image_upload(example)
    assert wanted.example == example
    (check,) = [one for one in wanted.report["checks"] if one["name"] == "example"]
    assert (check["state"], check["message"]) == ("passed", "1 row(s).")


def test_an_example_image_that_cannot_be_read_is_told_and_replaced_by_a_good_one() -> None:
    wanted = image_upload({"instances": [{"image": b64(b"GIF89a....")}]})
    assert wanted.state == VersionState.READY
    (check,) = [one for one in wanted.report["checks"] if one["name"] == "example"]
    assert check["state"] == "warning"
    assert "a GIF image" in check["message"]
    assert wanted.example is not None
    assert wanted.example["instances"][0]["image"]["content_type"] == "image/png"

"""What a signature may say of images and of classes."""

import re
from typing import Any

import pytest

from apps.core.errors import Invalid
from apps.registry.image_spec import JPEG, MAX_PIXELS, ColourMode, ImageSpec, Layout, Resampling
from apps.registry.signature import Signature, TensorSpec, signature_from_json, signature_to_json
from apps.registry.snapshot import VersionBody, version_from_json, version_to_json


def body(
    image: Any = None, *, shape: Any = (-1, 3, 32, 48), dtype: str = "float32", **output: Any
) -> dict[str, Any]:
    said = {"name": "image", "dtype": dtype, "shape": list(shape)}
    if image is not None:
        said["image"] = image
    out = {"name": "y", "dtype": "float32", "shape": [-1, 3], **output}
    return {"inputs": [said], "outputs": [out]}


def image_of(said: Any, **more: Any) -> ImageSpec:
    image = signature_from_json(body(said, **more)).inputs[0].image
    assert image is not None
    return image


def refusal(written: Any) -> tuple[str, str]:
    with pytest.raises(Invalid) as caught:
        signature_from_json(written)
    (problem,) = caught.value.problems
    assert problem.detail.endswith(".")
    return problem.pointer, problem.detail


SIZE = {"height": 32, "width": 48}
FULL = {
    "content_types": [JPEG],
    "mode": "grey",
    "height": 32,
    "width": 48,
    "resampling": "lanczos",
    "layout": "nhwc",
    "scale": 0.5,
    "mean": [0.25],
    "std": [2.0],
    "max_pixels": 1000,
}


def test_only_height_and_width_must_be_said() -> None:
    assert image_of(SIZE) == ImageSpec(32, 48)
    image = image_of(SIZE)
    assert (image.mode, image.layout, image.max_pixels) == (ColourMode.RGB, Layout.NCHW, MAX_PIXELS)
    assert image.scale == 1 / 255


def test_a_uint8_input_takes_pixels_as_they_are_unless_told() -> None:
    assert image_of(SIZE, dtype="uint8").scale == 1.0


def test_a_number_for_mean_or_std_counts_for_every_channel() -> None:
    image = image_of({**SIZE, "mean": 0.5, "std": [1, 2, 3]})
    assert (image.mean, image.std) == ((0.5, 0.5, 0.5), (1.0, 2.0, 3.0))


def test_everything_said_survives_being_written_and_read() -> None:
    read = signature_from_json(body(FULL, shape=(-1, 32, 48, 1), classes=["a", "b", "c"]))
    assert read.inputs[0].image == ImageSpec(
        32,
        48,
        mode=ColourMode.GREY,
        layout=Layout.NHWC,
        resampling=Resampling.LANCZOS,
        scale=0.5,
        mean=(0.25,),
        std=(2.0,),
        content_types=(JPEG,),
        max_pixels=1000,
    )
    assert read.outputs[0].classes == ("a", "b", "c")
    written = signature_to_json(read)
    assert written["inputs"][0]["image"] == FULL
    assert signature_from_json(written) == read


def test_serving_processes_learn_of_images_and_classes() -> None:
    signature = signature_from_json(body(SIZE, classes=["a", "b", "c"]))
    version = VersionBody("wine", 1, "onnx", "0" * 64, 1, "key", 1, signature)
    assert version_from_json(version_to_json(version)) == version


def test_a_signature_without_images_reads_as_before() -> None:
    plain = signature_from_json(body())
    assert (plain.takes_images, plain.is_one_image) == (False, False)
    assert "image" not in signature_to_json(plain)["inputs"][0]
    assert "classes" not in signature_to_json(plain)["outputs"][0]


def test_one_image_is_a_whole_question_only_when_it_is_the_only_input() -> None:
    image = signature_from_json(body(SIZE)).inputs[0]
    other = TensorSpec("age", image.dtype, (-1, 1))
    assert Signature((image,), ()).is_one_image
    assert not Signature((image, other), ()).is_one_image
    assert Signature((image, other), ()).takes_images


@pytest.mark.parametrize("shape", [(1, 3, 32, 48), (-1, 3, -1, -1), (-1, -1, 32, 48)])
def test_free_axes_and_a_batch_of_one_agree_with_an_image(shape: tuple[int, ...]) -> None:
    assert image_of(SIZE, shape=shape) == ImageSpec(32, 48)


@pytest.mark.parametrize(
    ("said", "more", "words"),
    [
        (SIZE, {"shape": (-1, 1, 32, 48)}, r"rgb .* nchw is \[-1, 3, 32, 48\]"),
        (SIZE, {"shape": (-1, 3, 48, 32)}, r"the input is \[-1, 3, 48, 32\]"),
        (SIZE, {"shape": (-1, 32, 48, 3)}, "nchw"),
        ({**SIZE, "layout": "nhwc"}, {}, "nhwc"),
        ({**SIZE, "mode": "grey"}, {}, "grey"),
        (SIZE, {"shape": (3, 32, 48)}, "the input is"),
        (SIZE, {"shape": (8, 3, 32, 48)}, "the input is"),
        (SIZE, {"dtype": "int64"}, "not int64"),
        (SIZE, {"dtype": "string"}, "not string"),
        ({**SIZE, "scale": 1.5}, {"dtype": "uint8"}, "as they are"),
        ({**SIZE, "scale": 1e6}, {"dtype": "float16"}, "does not fit into float16"),
        ({**SIZE, "std": [1, 1e-39, 1]}, {}, "does not fit into float32"),
    ],
)
def test_an_image_that_does_not_agree_with_its_tensor_is_refused(
    said: Any, more: Any, words: str
) -> None:
    pointer, detail = refusal(body(said, **more))
    assert pointer == "/inputs/0/image"
    assert re.search(words, detail), detail


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"height": 0}, "/height"),
        ({"height": True}, "/height"),
        ({"width": 4097}, "/width"),
        ({"width": "8"}, "/width"),
        ({"mode": "cmyk"}, "/mode"),
        ({"layout": ["nchw"]}, "/layout"),
        ({"resampling": "magic"}, "/resampling"),
        ({"scale": "x"}, "/scale"),
        ({"scale": float("nan")}, "/scale"),
        ({"mean": [1, 2]}, "/mean"),
        ({"mean": [1, None, 2]}, "/mean"),
        ({"std": [1, 0, 1]}, "/std"),
        ({"std": [1, "x", 1]}, "/std"),
        ({"content_types": []}, "/content_types"),
        ({"content_types": ["image/gif"]}, "/content_types"),
        ({"content_types": [["image/png"]]}, "/content_types"),
        ({"max_pixels": 10**9}, "/max_pixels"),
        ({"crop": 1}, ""),
    ],
)
def test_a_wrong_word_about_images_is_pointed_at(change: dict[str, Any], place: str) -> None:
    assert refusal(body({**SIZE, **change}))[0] == f"/inputs/0/image{place}"


def test_an_image_is_an_object() -> None:
    assert refusal(body("png"))[0] == "/inputs/0/image"


def test_an_image_input_has_no_bounds_beside_it() -> None:
    written = body(SIZE)
    written["inputs"][0]["minimum"] = 0
    assert refusal(written)[0] == "/inputs/0/image"


def test_an_output_has_no_image_and_an_input_no_classes() -> None:
    written = body()
    written["outputs"][0]["image"] = SIZE
    assert refusal(written)[0] == "/outputs/0/image"
    written = body()
    written["inputs"][0]["classes"] = ["a"]
    assert refusal(written)[0] == "/inputs/0/classes"


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["a", "b"]},
        {"classes": ["a", "a", "b"]},
        {"classes": ["a", "", "b"]},
        {"classes": ["a", 1, "b"]},
        {"classes": "abc"},
        {"classes": ["x" * 201, "b", "c"]},
        {"classes": ["a", "b", "c"], "shape": [-1, 2, 3]},
        {"classes": ["a", "b", "c"], "shape": [-1]},
        {"classes": ["a", "b", "c"], "dtype": "string", "shape": [-1]},
        {"classes": [str(one) for one in range(10_001)], "shape": [-1, -1]},
    ],
)
def test_classes_that_cannot_name_an_output_are_refused(change: dict[str, Any]) -> None:
    written = body()
    written["outputs"][0] |= change
    assert refusal(written)[0] == "/outputs/0/classes"


@pytest.mark.parametrize(("dtype", "shape"), [("int64", [-1]), ("int32", [-1, 1]), ("uint8", [1])])
def test_classes_may_name_labels_of_whole_numbers(dtype: str, shape: list[int]) -> None:
    written = body()
    written["outputs"][0] |= {"dtype": dtype, "shape": shape, "classes": ["a", "b"]}
    assert signature_from_json(written).outputs[0].classes == ("a", "b")

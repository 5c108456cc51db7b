"""Image files, and a tiny model that takes them."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from apps.registry.image_spec import ColourMode, ImageSpec
from apps.registry.signature import Dtype, Signature, TensorSpec

Pixels = NDArray[np.uint8]
NAMES = ("cat", "dog", "owl")
GREY_2X2 = ImageSpec(2, 2, mode=ColourMode.GREY)


def file_of(pixels: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    """Write pixels of shape (height, width) or (height, width, 3) as a file."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, format=kind, **options)
    return written.getvalue()


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def b64(content: bytes, **more: Any) -> dict[str, Any]:
    """Return a file as a request carries it."""
    return {"b64": base64.b64encode(content).decode(), **more}


def image_signature(image: ImageSpec = GREY_2X2, *, rows: int = -1) -> Signature:
    """Return the signature of ``image_onnx``."""
    return Signature(
        inputs=(TensorSpec("image", Dtype.FLOAT32, (rows, 1, 2, 2), image=image),),
        outputs=(TensorSpec("scores", Dtype.FLOAT32, (rows, 3), classes=NAMES),),
    )


def image_onnx() -> bytes:
    """Make a real model of 2 x 2 grey pixels whose three scores are their weighted sums."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        ],
        "tiny-image",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 1, 2, 2])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def image_scores(pixels: Pixels) -> list[float]:
    """Return what the tiny model says of 2 x 2 pixels, computed without it."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    return [float(one) for one in (pixels.astype(np.float32).ravel() / 255) @ weights]

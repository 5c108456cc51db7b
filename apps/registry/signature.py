"""Named inputs and outputs of a version: what may be asked and what comes back; plain Python.

A signature is data from an upload's report or from a person's form, so reading one checks every
field and says which is wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from apps.registry.image_spec import ImageSpec, image_from_json, image_to_json
from apps.registry.plain_json import bound, is_number, is_text, wrong

MAX_TENSORS = 512
MAX_RANK = 8
MAX_CLASSES = 10_000
CLASS_CHARACTERS = 200


class Dtype(StrEnum):
    """Element types a tensor may have; the names numpy uses, and ``string``."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"


# The largest number an element of these types can be; what an image is turned into must fit.
LARGEST = {Dtype.FLOAT16: 65504.0, Dtype.FLOAT32: 3.4e38, Dtype.FLOAT64: 1.7e308}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor.

    Attributes:
        name: Name in the model's graph and in requests.
        dtype: Element type.
        shape: Sizes by axis; -1 is free. A leading -1 is the batch.
        columns: Names of the last axis' entries, when the model was trained with named columns.
        minimum: Smallest value allowed, or None.
        maximum: Largest value allowed, or None.
        categories: Values allowed, or empty for any.
        image: How an image becomes this input, or None when it takes numbers only.
        classes: Names of an output's classes, in the order of its scores or of its labels.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str | int | float | bool, ...] = ()
    image: ImageSpec | None = None
    classes: tuple[str, ...] = ()

    @property
    def has_batch(self) -> bool:
        """Whether the first axis counts rows."""
        return bool(self.shape) and self.shape[0] == -1

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row: everything behind the batch axis."""
        return self.shape[1:] if self.has_batch else self.shape


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of a version, in the model's order.

    ``batchable`` says that rows of several callers may share a run: every tensor has a free batch
    axis and the dry run showed that a row's answer does not depend on its neighbours.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool = True

    def input(self, name: str) -> TensorSpec | None:
        """Find an input by name."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        """Find an output by name."""
        return next((spec for spec in self.outputs if spec.name == name), None)

    @property
    def takes_images(self) -> bool:
        """Whether an input may be sent as an image."""
        return any(spec.image is not None for spec in self.inputs)

    @property
    def is_one_image(self) -> bool:
        """Whether an image alone is a whole question."""
        return len(self.inputs) == 1 and self.takes_images


def signature_from_json(body: object) -> Signature:
    """Read a signature from plain JSON values.

    Raises:
        Invalid: A field is missing or wrong; ``problems`` point at it.
    """
    if not isinstance(body, Mapping):
        raise wrong("", "A signature is an object with `inputs` and `outputs`.")
    sides: dict[str, tuple[TensorSpec, ...]] = {}
    for side in ("inputs", "outputs"):
        specs = body.get(side)
        if not isinstance(specs, list) or not 1 <= len(specs) <= MAX_TENSORS:
            raise wrong(f"/{side}", f"`{side}` is a list of 1 to {MAX_TENSORS} tensors.")
        read = _input if side == "inputs" else _output
        sides[side] = tuple(read(one, f"/{side}/{at}") for at, one in enumerate(specs))
        if len({spec.name for spec in sides[side]}) != len(sides[side]):
            raise wrong(f"/{side}", f"Two of the `{side}` have the same name.")
    batchable = body.get("batchable", True)
    if not isinstance(batchable, bool):
        raise wrong("/batchable", "`batchable` is true or false.")
    return Signature(sides["inputs"], sides["outputs"], batchable)


def signature_to_json(signature: Signature) -> dict[str, Any]:
    """Write a signature as plain JSON values; the inverse of ``signature_from_json``."""
    return {
        "inputs": [_spec_to_json(spec) for spec in signature.inputs],
        "outputs": [_spec_to_json(spec) for spec in signature.outputs],
        "batchable": signature.batchable,
    }


def _spec_to_json(spec: TensorSpec) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": spec.name,
        "dtype": spec.dtype.value,
        "shape": list(spec.shape),
    }
    if spec.columns:
        body["columns"] = list(spec.columns)
    if spec.minimum is not None:
        body["minimum"] = spec.minimum
    if spec.maximum is not None:
        body["maximum"] = spec.maximum
    if spec.categories:
        body["categories"] = list(spec.categories)
    if spec.image is not None:
        body["image"] = image_to_json(spec.image)
    if spec.classes:
        body["classes"] = list(spec.classes)
    return body


def with_image(spec: TensorSpec, body: object) -> TensorSpec:
    """Give an input what is said about its images.

    Raises:
        Invalid: The words cannot be read, or do not fit the tensor; pointers start at the input.
    """
    image = image_from_json(body, "/image", whole_pixels=spec.dtype is Dtype.UINT8)
    _check_image(spec, image, "")
    return replace(spec, image=image)


def _spec(body: object, at: str) -> TensorSpec:
    if not isinstance(body, Mapping):
        raise wrong(at, "A tensor is an object with `name`, `dtype` and `shape`.")
    name = body.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= 500 or not is_text(name):
        raise wrong(f"{at}/name", "`name` is a text of 1 to 500 characters.")
    try:
        dtype = Dtype(str(body.get("dtype")))
    except ValueError as error:
        known = ", ".join(one.value for one in Dtype)
        raise wrong(f"{at}/dtype", f"`dtype` is one of {known}.") from error
    return TensorSpec(
        name=name,
        dtype=dtype,
        shape=_shape(body.get("shape"), f"{at}/shape"),
        columns=_columns(body.get("columns", []), f"{at}/columns"),
        minimum=bound(body.get("minimum"), f"{at}/minimum"),
        maximum=bound(body.get("maximum"), f"{at}/maximum"),
        categories=_categories(body.get("categories", []), f"{at}/categories"),
    )


def _input(body: object, at: str) -> TensorSpec:
    spec = _spec(body, at)
    if isinstance(body, Mapping) and body.get("classes"):
        raise wrong(f"{at}/classes", "`classes` name the values of an output, not of an input.")
    if not isinstance(body, Mapping) or body.get("image") is None:
        return spec
    image = image_from_json(body["image"], f"{at}/image", whole_pixels=spec.dtype is Dtype.UINT8)
    _check_image(spec, image, at)
    return replace(spec, image=image)


def _output(body: object, at: str) -> TensorSpec:
    spec = _spec(body, at)
    if not isinstance(body, Mapping):
        return spec
    if body.get("image") is not None:
        raise wrong(f"{at}/image", "`image` describes an input; an output has none.")
    classes = _classes(body.get("classes", []), f"{at}/classes")
    if classes:
        _check_classes(spec, classes, f"{at}/classes")
    return replace(spec, classes=classes)


# --- Images ---


def _check_image(spec: TensorSpec, image: ImageSpec, at: str) -> None:
    """Hold what is said about images against the tensor that they become."""
    if spec.dtype is not Dtype.UINT8 and spec.dtype not in LARGEST:
        kinds = ", ".join(one.value for one in (Dtype.UINT8, *LARGEST))
        raise wrong(f"{at}/image", f"An image becomes one of {kinds}, not {spec.dtype.value}.")
    if spec.columns or spec.categories or spec.minimum is not None or spec.maximum is not None:
        raise wrong(
            f"{at}/image",
            "An image input has no columns, categories or bounds; its values come from pixels.",
        )
    wanted = image.array_shape
    fits = len(spec.shape) == 4 and spec.shape[0] in (-1, 1)
    if not fits or any(
        size not in (-1, want) for size, want in zip(spec.shape[1:], wanted, strict=True)
    ):
        raise wrong(
            f"{at}/image",
            f"A {image.mode.value} image of {image.height} x {image.width} pixels in the layout "
            f"{image.layout.value} is {[-1, *wanted]}; the input is {list(spec.shape)}.",
        )
    _check_numbers(spec.dtype, image, f"{at}/image")


def _check_numbers(dtype: Dtype, image: ImageSpec, at: str) -> None:
    if dtype is Dtype.UINT8:
        if not image.keeps_pixels:
            detail = "A uint8 input takes the pixels as they are: scale 1, mean 0 and std 1."
            raise wrong(at, detail)
        return
    if any(one == 0 for one in image.std):
        raise wrong(f"{at}/std", "`std` divides, so it is not 0.")
    ends = [
        (pixel * image.scale - mean) / std
        for pixel in (0, 255)
        for mean, std in zip(image.means, image.stds, strict=True)
    ]
    if not all(abs(one) <= LARGEST[dtype] for one in ends):  # also when one is no number
        raise wrong(at, f"With this scale, mean and std a pixel does not fit into {dtype.value}.")


# --- Classes ---


def _classes(value: object, at: str) -> tuple[str, ...]:
    fits = isinstance(value, list) and len(value) <= MAX_CLASSES
    if not isinstance(value, list) or not fits or not all(_is_class(one) for one in value):
        detail = (
            f"`classes` is a list of at most {MAX_CLASSES} names of 1 to {CLASS_CHARACTERS} "
            "characters."
        )
        raise wrong(at, detail)
    if len(set(value)) != len(value):
        raise wrong(at, "Two of the `classes` have the same name.")
    return tuple(value)


def _is_class(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= CLASS_CHARACTERS and is_text(value)


def _check_classes(spec: TensorSpec, classes: tuple[str, ...], at: str) -> None:
    """Classes name the scores of a row, or the number that is its label."""
    if spec.dtype in LARGEST:
        # An only axis that is free counts rows, so that a row has no scores to be named.
        fits = len(spec.shape) in (1, 2) and spec.shape != (-1,)
        if not fits or spec.shape[-1] not in (-1, len(classes)):
            raise wrong(
                at,
                f"There are {len(classes)} classes; `{spec.name}` has the shape "
                f"{list(spec.shape)}, and its last axis must hold one score for each.",
            )
        return
    if spec.dtype in (Dtype.BOOL, Dtype.STRING):
        detail = f"`{spec.name}` is {spec.dtype.value}; classes name scores or whole numbers."
        raise wrong(at, detail)


def _shape(value: object, at: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_RANK:
        raise wrong(at, f"`shape` is a list of at most {MAX_RANK} sizes.")
    for size in value:
        if isinstance(size, bool) or not isinstance(size, int) or not -1 <= size < 2**31:
            raise wrong(at, "A size is a whole number, or -1 for a free axis.")
    return tuple(value)


def _columns(value: object, at: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(one, str) and is_text(one) for one in value
    ):
        raise wrong(at, "`columns` is a list of texts.")
    return tuple(value)


def _categories(value: object, at: str) -> tuple[str | int | float | bool, ...]:
    if not isinstance(value, list) or not all(
        is_text(one) if isinstance(one, str) else isinstance(one, int | float) and is_number(one)
        for one in value
    ):
        raise wrong(at, "`categories` is a list of texts, numbers or booleans.")
    return tuple(value)

"""Named inputs and outputs of a version: what may be asked and what comes back; plain Python.

A signature is data from an upload's report or from a person's form, so reading one checks every
field and says which is wrong.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from apps.core.errors import FieldProblem, Invalid

MAX_TENSORS = 512
MAX_RANK = 8
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


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
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str | int | float | bool, ...] = ()

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


def signature_from_json(body: object) -> Signature:
    """Read a signature from plain JSON values.

    Raises:
        Invalid: A field is missing or wrong; ``problems`` point at it.
    """
    if not isinstance(body, Mapping):
        raise _wrong("", "A signature is an object with `inputs` and `outputs`.")
    sides: dict[str, tuple[TensorSpec, ...]] = {}
    for side in ("inputs", "outputs"):
        specs = body.get(side)
        if not isinstance(specs, list) or not 1 <= len(specs) <= MAX_TENSORS:
            raise _wrong(f"/{side}", f"`{side}` is a list of 1 to {MAX_TENSORS} tensors.")
        sides[side] = tuple(_spec(one, f"/{side}/{at}") for at, one in enumerate(specs))
        if len({spec.name for spec in sides[side]}) != len(sides[side]):
            raise _wrong(f"/{side}", f"Two of the `{side}` have the same name.")
    batchable = body.get("batchable", True)
    if not isinstance(batchable, bool):
        raise _wrong("/batchable", "`batchable` is true or false.")
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
    return body


def _wrong(pointer: str, detail: str) -> Invalid:
    error = Invalid("The signature cannot be read: " + detail)
    error.at([FieldProblem(pointer, detail)])
    return error


def _spec(body: object, at: str) -> TensorSpec:
    if not isinstance(body, Mapping):
        raise _wrong(at, "A tensor is an object with `name`, `dtype` and `shape`.")
    name = body.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= 500 or not _is_text(name):
        raise _wrong(f"{at}/name", "`name` is a text of 1 to 500 characters.")
    try:
        dtype = Dtype(str(body.get("dtype")))
    except ValueError as error:
        known = ", ".join(one.value for one in Dtype)
        raise _wrong(f"{at}/dtype", f"`dtype` is one of {known}.") from error
    return TensorSpec(
        name=name,
        dtype=dtype,
        shape=_shape(body.get("shape"), f"{at}/shape"),
        columns=_columns(body.get("columns", []), f"{at}/columns"),
        minimum=_bound(body.get("minimum"), f"{at}/minimum"),
        maximum=_bound(body.get("maximum"), f"{at}/maximum"),
        categories=_categories(body.get("categories", []), f"{at}/categories"),
    )


def _shape(value: object, at: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_RANK:
        raise _wrong(at, f"`shape` is a list of at most {MAX_RANK} sizes.")
    for size in value:
        if isinstance(size, bool) or not isinstance(size, int) or not -1 <= size < 2**31:
            raise _wrong(at, "A size is a whole number, or -1 for a free axis.")
    return tuple(value)


def _columns(value: object, at: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(one, str) and _is_text(one) for one in value
    ):
        raise _wrong(at, "`columns` is a list of texts.")
    return tuple(value)


def _bound(value: object, at: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_number(value):
        raise _wrong(at, "A bound is a number.")
    return float(value)


def _categories(value: object, at: str) -> tuple[str | int | float | bool, ...]:
    if not isinstance(value, list) or not all(
        _is_text(one) if isinstance(one, str) else isinstance(one, int | float) and _is_number(one)
        for one in value
    ):
        raise _wrong(at, "`categories` is a list of texts, numbers or booleans.")
    return tuple(value)


def _is_text(text: str) -> bool:
    """Whether every database and every writer of JSON takes it: no NUL, no lone surrogate."""
    return UNSTORABLE.search(text) is None


def _is_number(value: int | float) -> bool:
    """Whether JSON can say it: finite, and a whole number within 64 bits."""
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)

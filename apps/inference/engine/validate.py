"""Rows against a signature: JSON values and images become arrays, or every wrong place is named."""

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from apps.core.errors import FieldProblem
from apps.inference.engine.arrays import arrays_of
from apps.inference.engine.errors import WrongMediaType
from apps.inference.engine.forms import columns_of, has_batch, rows_of
from apps.inference.engine.image_files import ImageFile, WrongImage, file_from, is_sent_as_image
from apps.inference.engine.images import Budget, ImageFacts, most_images, read_image
from apps.inference.engine.problems import MOST_PROBLEMS, mismatch
from apps.inference.engine.types import (
    ColumnInputs,
    ImageInputs,
    Inputs,
    RowInputs,
    TensorInputs,
    Tensors,
)
from apps.inference.engine.values import Column, place_of, problems_of, read
from apps.registry.signature import Signature


@dataclass(frozen=True, slots=True)
class Checked:
    """Inputs that fit their signature.

    Attributes:
        tensors: Arrays by input name in signature order, of the signature's dtypes; texts are
            object arrays of ``str``.
        rows: Number of rows; 1 when the signature has no batch axis.
        by_rows: Whether the question came by rows.
        images: What is recorded of each row's image, by the name of an input that came as images.
    """

    tensors: Tensors
    rows: int
    by_rows: bool
    images: Mapping[str, Sequence[ImageFacts]] = field(default_factory=dict)


@dataclass(slots=True)
class _Reading:
    """What was read so far of one question."""

    tensors: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    images: dict[str, Sequence[ImageFacts]] = field(default_factory=dict)
    problems: list[FieldProblem] = field(default_factory=list)
    budget: Budget = field(default_factory=Budget)
    until: float = math.inf

    @property
    def room(self) -> int:
        """How many more wrong places are named."""
        return MOST_PROBLEMS - len(self.problems)


def tensors_of(
    inputs: Inputs, signature: Signature, *, max_rows: int, seconds: float = math.inf
) -> Checked:
    """Check a question against a signature and turn it into arrays.

    Args:
        inputs: Rows, columns, ready arrays, or one image.
        signature: Of the version that answers.
        max_rows: Rows this caller may send.
        seconds: How long the caller still waits; images take long enough to matter.

    Raises:
        TooManyRows: More rows than ``max_rows``.
        SignatureMismatch: Something does not fit; ``problems`` point at the first wrong places.
        WrongMediaType: An image for a model that does not take one.
        Overloaded: Too many images are being decoded in this process.
        DeadlinePassed: The images could not be read in time.
    """
    until = time.monotonic() + seconds
    if isinstance(inputs, TensorInputs):
        tensors, rows = arrays_of(inputs.tensors, signature, max_rows)
        return Checked(tensors, rows, by_rows=False)
    if isinstance(inputs, ImageInputs):
        return _one_image(inputs, signature, until)
    if isinstance(inputs, ColumnInputs):
        columns, rows = columns_of(inputs.columns, signature, max_rows)
    else:
        columns, rows = rows_of(inputs.rows, signature, max_rows)
    found = _Reading(until=until)
    for column in columns:
        array = _array(column, found)
        if array is not None:
            batch = has_batch(signature)
            found.tensors[column.spec.name] = array if batch else array.reshape(array.shape[1:])
        if not found.room:
            break
    if found.problems:
        raise mismatch(found.problems)
    return Checked(found.tensors, rows, isinstance(inputs, RowInputs), found.images)


def _array(column: Column, found: _Reading) -> NDArray[np.generic] | None:
    """Read one input of shape ``(rows, *shape)``; None when something is wrong with it."""
    if column.spec.image is not None and is_sent_as_image(column.values[0]):
        return _image_array(column, found)
    array = read(column)
    if array is None:
        found.problems += itertools.islice(problems_of(column), found.room)
    return array


def _image_array(column: Column, found: _Reading) -> NDArray[np.generic] | None:
    spec, rows = column.spec, len(column.values)
    if spec.image is None or rows > most_images(spec.image, spec.dtype):
        detail = (
            f"Input `{spec.name}` has {rows} images, too many for one call. Send several calls."
        )
        found.problems.append(FieldProblem(column.before, detail))
        return None
    arrays: list[NDArray[np.generic]] = []
    facts: list[ImageFacts] = []
    for row, value in enumerate(column.values):
        try:
            array, about = read_image(file_from(value), spec, found.budget, until=found.until)
        except WrongImage as error:
            detail = f"{place_of(column, row)} {error.detail}"
            found.problems.append(FieldProblem(column.pointer(row) + error.step, detail))
            if not found.room or found.budget.pixels < 0:
                return None
        else:
            arrays.append(array)
            facts.append(about)
    if len(arrays) < rows:
        return None
    found.images[spec.name] = facts
    sizes = spec.image.array_shape
    return np.stack(arrays).reshape(rows, *(sizes if len(column.shape) == 3 else (1, *sizes)))


def _one_image(inputs: ImageInputs, signature: Signature, until: float) -> Checked:
    spec = signature.inputs[0]
    if not signature.is_one_image:
        raise WrongMediaType(
            "This model does not take one image as its whole question. Send JSON with its inputs."
        )
    try:
        file = ImageFile(inputs.content, inputs.content_type)
        array, facts = read_image(file, spec, Budget(), until=until)
    except WrongImage as error:
        raise mismatch([FieldProblem("", f"The image {error.detail}")]) from error
    return Checked({spec.name: array[np.newaxis]}, 1, by_rows=True, images={spec.name: [facts]})

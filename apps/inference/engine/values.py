"""One input's values become an array, or every wrong place is named.

Right values are the common case and are read a whole level at a time. Only when that fails does a
slow search walk the values to find out where, and it stops after a few places. Depth is bounded by
the signature's rank, never by what was sent.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.core.errors import FieldProblem
from apps.inference.engine.problems import escaped, shown
from apps.registry.signature import Dtype, TensorSpec

# Whole numbers written as floats are exact up to here.
EXACT_FLOAT = 2**53

FLOATS = frozenset({Dtype.FLOAT16, Dtype.FLOAT32, Dtype.FLOAT64})
_WANTS = {Dtype.BOOL: "true or false", Dtype.STRING: "a text"}


@dataclass(frozen=True, slots=True)
class Column:
    """One input's values in the question, one per row, and where each of them stands.

    Attributes:
        shape: Of one value.
        before: Pointer up to the row's number.
        after: Pointer from there to the value.
        keys: Names of the value's own entries, when the row was an object of columns.
        whole: The one value is the whole tensor, and its pointer has no row number.
    """

    spec: TensorSpec
    values: Sequence[Any]
    shape: tuple[int, ...]
    before: str
    after: str = ""
    keys: tuple[str, ...] = ()
    whole: bool = False

    def pointer(self, row: int, path: tuple[int, ...] = ()) -> str:
        """Point at one value, or at a place inside it."""
        start = self.before if self.whole else f"{self.before}/{row}"
        inner: tuple[int | str, ...] = path
        if self.keys and path:
            inner = (escaped(self.keys[path[0]]), *path[1:])
        return start + self.after + "".join(f"/{step}" for step in inner)


# --- The quick way: a level at a time ---


def read(column: Column) -> NDArray[np.generic] | None:
    """Turn a column into an array of shape ``(rows, *shape)``; None when anything is wrong."""
    levels = _flattened(column.values, column.shape)
    if levels is None:
        return None
    flat, sizes = levels
    array = array_of(flat, column.spec.dtype)
    if array is None or not _allowed(flat, column.spec):
        return None
    return array.reshape(sizes)


def _flattened(
    values: Sequence[Any], shape: tuple[int, ...]
) -> tuple[Sequence[Any], tuple[int, ...]] | None:
    sizes = [len(values)]
    level = values
    if shape == (1,) and type(values[0]) is not list:
        return values, (len(values), 1)  # a bare value stands for a list of one
    for wanted in shape:
        if set(map(type, level)) != {list}:
            return None
        lengths = set(map(len, level))
        size = lengths.pop()
        if lengths or (size != wanted and (wanted != -1 or size == 0)):
            return None
        sizes.append(size)
        level = list(itertools.chain.from_iterable(level))
        if size == 0:
            return None
    return level, tuple(sizes)


def array_of(flat: Sequence[Any], dtype: Dtype) -> NDArray[np.generic] | None:
    """Turn plain values of one level into an array; None when one does not fit the dtype."""
    types = set(map(type, flat))
    if dtype is Dtype.STRING:
        return _text_array(flat) if types == {str} else None
    if dtype is Dtype.BOOL:
        return np.array(flat, dtype=np.bool_) if types == {bool} else None
    if not types <= {int, float}:
        return None
    try:
        if dtype in FLOATS:
            return _float_array(flat, dtype)
        return _integer_array(flat, dtype, has_floats=float in types)
    except OverflowError:  # beyond the dtype, or beyond any float
        return None


def _text_array(flat: Sequence[Any]) -> NDArray[np.generic] | None:
    try:
        "".join(flat).encode()
    except UnicodeEncodeError:  # a lone surrogate: no runtime could take it
        return None
    return np.array(flat, dtype=object)


def _float_array(flat: Sequence[Any], dtype: Dtype) -> NDArray[np.generic] | None:
    wide = np.array(flat, dtype=np.float64)
    with np.errstate(over="ignore"):
        array = wide.astype(dtype.value, copy=False)
    return array if np.isfinite(array).all() else None


def _integer_array(
    flat: Sequence[Any], dtype: Dtype, *, has_floats: bool
) -> NDArray[np.generic] | None:
    if has_floats:  # 3.0 is how some clients write 3
        if not all(_is_whole(value) for value in flat):
            return None
        flat = [int(value) for value in flat]
    return np.array(flat, dtype=dtype.value)


def _is_whole(value: int | float) -> bool:
    return type(value) is int or (abs(value) <= EXACT_FLOAT and float(value).is_integer())


def _allowed(flat: Sequence[Any], spec: TensorSpec) -> bool:
    # On what was sent, not on the array: 0.1 is within a maximum of 0.1, as a float32 it is not.
    if spec.categories and not set(flat) <= set(spec.categories):
        return False
    if spec.dtype is Dtype.STRING:
        return True
    if spec.minimum is not None and min(flat) < spec.minimum:
        return False
    return spec.maximum is None or max(flat) <= spec.maximum


# --- The slow way: where is it wrong? ---


def problems_of(column: Column) -> Iterator[FieldProblem]:
    """Find the wrong places of a column that could not be read; there is at least one."""
    found = False
    sizes: dict[int, int] = {}  # a free axis has one size in the whole column
    bare = column.shape == (1,) and type(column.values[0]) is not list
    for row, value in enumerate(column.values):
        shape = () if bare else column.shape
        for problem in _inside(column, row, value, shape, sizes=sizes):
            found = True
            yield problem
    if not found:  # never without a place, even should the two ways disagree
        detail = f"Input `{column.spec.name}` cannot be read as {column.spec.dtype.value}."
        yield FieldProblem(column.before, detail)


def _inside(
    column: Column,
    row: int,
    value: Any,
    shape: tuple[int, ...],
    *,
    sizes: dict[int, int],
    path: tuple[int, ...] = (),
) -> Iterator[FieldProblem]:
    if not shape:
        detail = _wrong_value(value, column, row)
        if detail is not None:
            yield FieldProblem(column.pointer(row, path), detail)
        return
    if type(value) is not list:
        yield FieldProblem(
            column.pointer(row, path),
            f"{place_of(column, row)} wants a list{_of_size(shape[0])}; it has {shown(value)}.",
        )
        return
    wanted = shape[0] if shape[0] != -1 else sizes.setdefault(len(path), len(value))
    if len(value) != wanted or not value:
        yield FieldProblem(
            column.pointer(row, path),
            f"{place_of(column, row)} wants a list{_of_size(wanted)}; it has {len(value)} "
            f"{'entry' if len(value) == 1 else 'entries'}.",
        )
        return
    for at, one in enumerate(value):
        yield from _inside(column, row, one, shape[1:], sizes=sizes, path=(*path, at))


def _wrong_value(value: Any, column: Column, row: int) -> str | None:
    spec = column.spec
    place = place_of(column, row)
    if array_of([value], spec.dtype) is None:
        return f"{place} wants {_wants(spec.dtype)}; it has {shown(value)}{_why(value, spec)}."
    if spec.categories and value not in spec.categories:
        known = ", ".join(shown(one) for one in spec.categories[:10])
        return f"{place} wants one of {known}; it has {shown(value)}."
    if spec.dtype is Dtype.STRING:
        return None
    if spec.minimum is not None and value < spec.minimum:
        return f"{place} wants at least {spec.minimum:g}; it has {shown(value)}."
    if spec.maximum is not None and value > spec.maximum:
        return f"{place} wants at most {spec.maximum:g}; it has {shown(value)}."
    return None


def place_of(column: Column, row: int) -> str:
    """Name a value as the subject of a sentence."""
    where = f"Input `{column.spec.name}`"
    return where if column.whole else f"{where}, row {row},"


def _of_size(size: int) -> str:
    return "" if size == -1 else f" of {size}"


def _wants(dtype: Dtype) -> str:
    if dtype in _WANTS:
        return _WANTS[dtype]
    return "a number" if dtype in FLOATS else "a whole number"


def _why(value: object, spec: TensorSpec) -> str:
    if isinstance(value, str):
        return ", which is not valid Unicode" if spec.dtype is Dtype.STRING else ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if spec.dtype in FLOATS or isinstance(value, int) or float(value).is_integer():
        return f", which is outside the range of {spec.dtype.value}"
    return ""

"""Rows against a signature: JSON values become arrays, or every wrong place is named.

Right input is the common case and is read a whole level at a time. Only when that fails does a slow
search walk the values to find out where, and it stops after a few places. Depth is bounded by the
signature's rank, never by what was sent.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from apps.core.errors import FieldProblem
from apps.inference.engine.errors import SignatureMismatch, TooManyRows
from apps.inference.engine.types import ColumnInputs, Inputs, RowInputs, TensorInputs, Tensors
from apps.registry.signature import Dtype, Signature, TensorSpec

MOST_PROBLEMS = 20
SHOWN_CHARACTERS = 40
# Whole numbers written as floats are exact up to here.
EXACT_FLOAT = 2**53

_FLOATS = frozenset({Dtype.FLOAT16, Dtype.FLOAT32, Dtype.FLOAT64})
_WANTS = {Dtype.BOOL: "true or false", Dtype.STRING: "a text"}
_KIND: dict[type, str] = {dict: "an object", list: "a list", bool: "a boolean", str: "the text"}


@dataclass(frozen=True, slots=True)
class Checked:
    """Inputs that fit their signature.

    Attributes:
        tensors: Arrays by input name in signature order, of the signature's dtypes; texts are
            object arrays of ``str``.
        rows: Number of rows; 1 when the signature has no batch axis.
        by_rows: Whether the question came by rows.
    """

    tensors: Tensors
    rows: int
    by_rows: bool


@dataclass(frozen=True, slots=True)
class _Column:
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
            inner = (_escaped(self.keys[path[0]]), *path[1:])
        return start + self.after + "".join(f"/{step}" for step in inner)


def tensors_of(inputs: Inputs, signature: Signature, *, max_rows: int) -> Checked:
    """Check a question against a signature and turn it into arrays.

    Args:
        inputs: Rows, columns, or ready arrays.
        signature: Of the version that answers.
        max_rows: Rows this caller may send.

    Raises:
        TooManyRows: More rows than ``max_rows``.
        SignatureMismatch: Something does not fit; ``problems`` point at the first wrong places.
    """
    if isinstance(inputs, TensorInputs):
        return _from_tensors(inputs.tensors, signature, max_rows)
    if isinstance(inputs, ColumnInputs):
        columns, rows = _columns_of(inputs.columns, signature, max_rows)
    else:
        columns, rows = _rows_of(inputs.rows, signature, max_rows)
    batch = _has_batch(signature)
    tensors: dict[str, NDArray[np.generic]] = {}
    problems: list[FieldProblem] = []
    for column in columns:
        array = _read(column)
        if array is None:
            problems += itertools.islice(_problems(column), MOST_PROBLEMS - len(problems))
        else:
            tensors[column.spec.name] = array if batch else array.reshape(array.shape[1:])
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise _mismatch(problems)
    return Checked(tensors, rows, isinstance(inputs, RowInputs))


def _has_batch(signature: Signature) -> bool:
    return all(spec.has_batch for spec in signature.inputs)


# --- Rows ---


def _rows_of(rows: Sequence[Any], signature: Signature, max_rows: int) -> tuple[list[_Column], int]:
    batch = _has_batch(signature)
    _check_count(len(rows), max_rows, "/instances", batch=batch)
    shapes = {spec.name: spec.row_shape if batch else spec.shape for spec in signature.inputs}
    if type(rows[0]) is dict:
        return _object_rows(rows, signature, shapes), len(rows)
    only = signature.inputs[0]
    if len(signature.inputs) == 1 and not (shapes[only.name] == () and type(rows[0]) is list):
        _same_form(rows)
        return [_Column(only, rows, shapes[only.name], "/instances")], len(rows)
    return _positional_rows(rows, signature, shapes), len(rows)


def _check_count(rows: int, max_rows: int, pointer: str, *, batch: bool) -> None:
    if rows == 0:
        raise _mismatch([FieldProblem(pointer, "There are no rows; send at least one.")])
    if rows > max_rows:
        message = f"There are {rows} rows; one call may carry {max_rows}. Send several calls."
        raise TooManyRows(message, rows=rows, max_rows=max_rows).at(
            [FieldProblem(pointer, message)]
        )
    if not batch and rows > 1:
        raise _mismatch([FieldProblem(pointer, f"This model takes one row per call, not {rows}.")])


def _same_form(rows: Sequence[Any]) -> None:
    """Refuse a mixture: what the first row is, all others are."""
    if len(set(map(type, rows))) == 1:
        return
    first = type(rows[0]) if type(rows[0]) in (dict, list) else None
    problems = [
        FieldProblem(
            f"/instances/{at}",
            f"Row {at} is {_shown(row)}, and row 0 is {_shown(rows[0])}. Use one form for all.",
        )
        for at, row in enumerate(rows)
        if (type(row) if type(row) in (dict, list) else None) is not first
    ]
    if problems:
        raise _mismatch(problems[:MOST_PROBLEMS])


def _object_rows(
    rows: Sequence[Any], signature: Signature, shapes: Mapping[str, tuple[int, ...]]
) -> list[_Column]:
    _same_form(rows)
    names = [spec.name for spec in signature.inputs]
    columns = _column_names(rows[0], signature, shapes)
    wanted = columns or tuple(names)
    if not all(len(row) == len(wanted) and all(name in row for name in wanted) for row in rows):
        raise _mismatch(list(itertools.islice(_key_problems(rows, wanted), MOST_PROBLEMS)))
    if columns:
        spec = signature.inputs[0]
        values = [[row[name] for name in columns] for row in rows]
        return [_Column(spec, values, shapes[spec.name], "/instances", keys=columns)]
    return [
        _Column(
            spec,
            [row[spec.name] for row in rows],
            shapes[spec.name],
            "/instances",
            after=f"/{_escaped(spec.name)}",
        )
        for spec in signature.inputs
    ]


def _column_names(
    row: Mapping[str, Any], signature: Signature, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """Tell rows keyed by the columns of a single input from rows keyed by the input's name."""
    spec = signature.inputs[0]
    if len(signature.inputs) > 1 or shapes[spec.name] not in ((len(spec.columns),), (-1,)):
        return ()
    if spec.name in row and spec.name not in spec.columns:
        return ()
    return spec.columns


def _key_problems(rows: Sequence[Any], wanted: Sequence[str]) -> Iterator[FieldProblem]:
    known = frozenset(wanted)
    listed = ", ".join(f"`{name}`" for name in wanted[:10])
    for at, row in enumerate(rows):
        for name in row:
            if name not in known:
                yield FieldProblem(
                    f"/instances/{at}/{_escaped(name)}",
                    f"Row {at} has the unknown field {_quoted(name)}; the model wants {listed}.",
                )
        for name in wanted:
            if name not in row:
                yield FieldProblem(
                    f"/instances/{at}/{_escaped(name)}", f"Row {at} has no field `{name}`."
                )


def _positional_rows(
    rows: Sequence[Any], signature: Signature, shapes: Mapping[str, tuple[int, ...]]
) -> list[_Column]:
    """Read rows as lists with one value per input, in signature order."""
    wanted = [spec.name for spec in signature.inputs]
    if any(shape not in ((), (1,)) for shape in shapes.values()):
        listed = ", ".join(f"`{name}`" for name in wanted[:10])
        detail = f"The model has several inputs; a row is an object with the fields {listed}."
        raise _mismatch([FieldProblem("/instances/0", detail)])
    problems = [
        FieldProblem(
            f"/instances/{at}",
            f"Row {at} wants a list of {len(wanted)} values; it is {_shown(row)}"
            + (f" of {len(row)}." if type(row) is list else "."),
        )
        for at, row in enumerate(rows)
        if type(row) is not list or len(row) != len(wanted)
    ]
    if problems:
        raise _mismatch(problems[:MOST_PROBLEMS])
    return [
        _Column(spec, [row[at] for row in rows], shapes[spec.name], "/instances", after=f"/{at}")
        for at, spec in enumerate(signature.inputs)
    ]


# --- Columns ---


def _columns_of(
    columns: Mapping[str, Any], signature: Signature, max_rows: int
) -> tuple[list[_Column], int]:
    _check_names(columns, signature)
    if not _has_batch(signature):
        return [
            _Column(
                spec,
                [columns[spec.name]],
                spec.shape,
                f"/inputs/{_escaped(spec.name)}",
                whole=True,
            )
            for spec in signature.inputs
        ], 1
    problems = [
        FieldProblem(
            f"/inputs/{_escaped(spec.name)}",
            f"Input `{spec.name}` wants a list with one entry per row; it is "
            f"{_shown(columns[spec.name])}.",
        )
        for spec in signature.inputs
        if type(columns[spec.name]) is not list
    ]
    if problems:
        raise _mismatch(problems[:MOST_PROBLEMS])
    rows = len(columns[signature.inputs[0].name])
    _check_count(rows, max_rows, f"/inputs/{_escaped(signature.inputs[0].name)}", batch=True)
    _check_lengths({spec.name: len(columns[spec.name]) for spec in signature.inputs})
    return [
        _Column(spec, columns[spec.name], spec.row_shape, f"/inputs/{_escaped(spec.name)}")
        for spec in signature.inputs
    ], rows


def _check_names(given: Mapping[str, Any], signature: Signature) -> None:
    wanted = [spec.name for spec in signature.inputs]
    if len(given) == len(wanted) and all(name in given for name in wanted):
        return
    listed = ", ".join(f"`{name}`" for name in wanted[:10])
    problems = [
        FieldProblem(
            f"/inputs/{_escaped(name)}",
            f"There is no input {_quoted(name)}; the model wants {listed}.",
        )
        for name in itertools.islice((one for one in given if one not in wanted), MOST_PROBLEMS)
    ]
    problems += [
        FieldProblem(f"/inputs/{_escaped(name)}", f"Input `{name}` is missing.")
        for name in wanted
        if name not in given
    ]
    raise _mismatch(problems[:MOST_PROBLEMS])


def _check_lengths(lengths: Mapping[str, int]) -> None:
    """Refuse inputs whose first axes differ; the first input sets the number of rows."""
    rows = next(iter(lengths.values()))
    problems = [
        FieldProblem(
            f"/inputs/{_escaped(name)}",
            f"Input `{name}` has {length} rows, and the first input has {rows}.",
        )
        for name, length in lengths.items()
        if length != rows
    ]
    if problems:
        raise _mismatch(problems[:MOST_PROBLEMS])


# --- The quick way: a level at a time ---


def _read(column: _Column) -> NDArray[np.generic] | None:
    """Turn a column into an array of shape ``(rows, *shape)``; None when anything is wrong."""
    levels = _flattened(column.values, column.shape)
    if levels is None:
        return None
    flat, sizes = levels
    array = _array(flat, column.spec.dtype)
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


def _array(flat: Sequence[Any], dtype: Dtype) -> NDArray[np.generic] | None:
    types = set(map(type, flat))
    if dtype is Dtype.STRING:
        return _text_array(flat) if types == {str} else None
    if dtype is Dtype.BOOL:
        return np.array(flat, dtype=np.bool_) if types == {bool} else None
    if not types <= {int, float}:
        return None
    try:
        if dtype in _FLOATS:
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


def _problems(column: _Column) -> Iterator[FieldProblem]:
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
    column: _Column,
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
            f"{_place(column, row)} wants a list{_of_size(shape[0])}; it has {_shown(value)}.",
        )
        return
    wanted = shape[0] if shape[0] != -1 else sizes.setdefault(len(path), len(value))
    if len(value) != wanted or not value:
        yield FieldProblem(
            column.pointer(row, path),
            f"{_place(column, row)} wants a list{_of_size(wanted)}; it has {len(value)} "
            f"{'entry' if len(value) == 1 else 'entries'}.",
        )
        return
    for at, one in enumerate(value):
        yield from _inside(column, row, one, shape[1:], sizes=sizes, path=(*path, at))


def _wrong_value(value: Any, column: _Column, row: int) -> str | None:
    spec = column.spec
    place = _place(column, row)
    if _array([value], spec.dtype) is None:
        return f"{place} wants {_wants(spec.dtype)}; it has {_shown(value)}{_why(value, spec)}."
    if spec.categories and value not in spec.categories:
        known = ", ".join(_shown(one) for one in spec.categories[:10])
        return f"{place} wants one of {known}; it has {_shown(value)}."
    if spec.dtype is Dtype.STRING:
        return None
    if spec.minimum is not None and value < spec.minimum:
        return f"{place} wants at least {spec.minimum:g}; it has {_shown(value)}."
    if spec.maximum is not None and value > spec.maximum:
        return f"{place} wants at most {spec.maximum:g}; it has {_shown(value)}."
    return None


def _place(column: _Column, row: int) -> str:
    where = f"Input `{column.spec.name}`"
    return where if column.whole else f"{where}, row {row},"


def _of_size(size: int) -> str:
    return "" if size == -1 else f" of {size}"


def _wants(dtype: Dtype) -> str:
    if dtype in _WANTS:
        return _WANTS[dtype]
    return "a number" if dtype in _FLOATS else "a whole number"


def _why(value: object, spec: TensorSpec) -> str:
    if isinstance(value, str):
        return ", which is not valid Unicode" if spec.dtype is Dtype.STRING else ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if spec.dtype in _FLOATS or isinstance(value, int) or float(value).is_integer():
        return f", which is outside the range of {spec.dtype.value}"
    return ""


def _shown(value: object) -> str:
    """Describe a value in a few words; it is shown to whoever sent it."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the text {_quoted(value)}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else "a number of more than 64 bits"
    if isinstance(value, float):
        return f"the number {value!r}" if math.isfinite(value) else "NaN or Infinity"
    return _KIND.get(type(value), "something else")


def _quoted(text: str) -> str:
    short = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    return '"' + short.encode("utf-8", "replace").decode() + '"'


def _escaped(name: str) -> str:
    """Escape one step of a pointer (RFC 6901)."""
    safe = name[:200].encode("utf-8", "replace").decode()
    return safe.replace("~", "~0").replace("/", "~1")


def _mismatch(problems: Sequence[FieldProblem]) -> SignatureMismatch:
    error = SignatureMismatch(problems[0].detail, problems=len(problems))
    error.at(problems)
    return error


# --- Ready arrays ---


def _from_tensors(tensors: Tensors, signature: Signature, max_rows: int) -> Checked:
    _check_names(tensors, signature)
    batch = _has_batch(signature)
    checked: dict[str, NDArray[np.generic]] = {}
    problems: list[FieldProblem] = []
    for spec in signature.inputs:
        tensor, detail = _fitted(tensors[spec.name], spec)
        if detail is not None:
            problems.append(FieldProblem(f"/inputs/{_escaped(spec.name)}", detail))
        checked[spec.name] = tensor
    if problems:
        raise _mismatch(problems[:MOST_PROBLEMS])
    if not batch:
        if any(tensor.size == 0 for tensor in checked.values()):
            raise _mismatch([FieldProblem("/inputs", "An input has no values; send at least one.")])
        return Checked(checked, 1, by_rows=False)
    first = signature.inputs[0].name
    rows = checked[first].shape[0]
    _check_count(rows, max_rows, f"/inputs/{_escaped(first)}", batch=True)
    _check_lengths({name: tensor.shape[0] for name, tensor in checked.items()})
    return Checked(checked, rows, by_rows=False)


def _fitted(
    tensor: NDArray[np.generic], spec: TensorSpec
) -> tuple[NDArray[np.generic], str | None]:
    """Give a tensor the signature's dtype when nothing is lost, and say what is wrong with it."""
    name = f"Input `{spec.name}`"
    if not _same_shape(tensor.shape, spec.shape):
        wanted = ", ".join("any" if size == -1 else str(size) for size in spec.shape)
        return tensor, f"{name} wants the shape [{wanted}]; it has {list(tensor.shape)}."
    if spec.dtype is Dtype.STRING:
        if tensor.dtype != object or _array(tensor.ravel().tolist(), spec.dtype) is None:
            return tensor, f"{name} wants texts; it has something else, or invalid Unicode."
    else:
        wanted_dtype = np.dtype(spec.dtype.value)
        if (tensor.dtype.kind == "b") != (wanted_dtype.kind == "b") or not np.can_cast(
            tensor.dtype, wanted_dtype, "safe"
        ):
            return tensor, f"{name} wants {spec.dtype.value}; it has {tensor.dtype.name}."
        tensor = np.ascontiguousarray(tensor, dtype=wanted_dtype)
    return tensor, _wrong_content(tensor, spec)


def _wrong_content(tensor: NDArray[np.generic], spec: TensorSpec) -> str | None:
    name = f"Input `{spec.name}`"
    if spec.dtype in _FLOATS and not np.isfinite(cast("NDArray[np.float64]", tensor)).all():
        return f"{name} has NaN or Infinity; every value must be a number."
    if spec.categories:
        known = {_as_stored(one, spec) for one in spec.categories}
        if not set(tensor.ravel().tolist()) <= known:
            return f"{name} has a value that is not one of the signature's categories."
    if spec.dtype is Dtype.STRING or not tensor.size:
        return None
    numbers = cast("NDArray[np.float64]", tensor)  # any number compares as one
    if spec.minimum is not None and float(numbers.min()) < _as_stored(spec.minimum, spec):
        return f"{name} has a value below {spec.minimum:g}."
    if spec.maximum is not None and float(numbers.max()) > _as_stored(spec.maximum, spec):
        return f"{name} has a value above {spec.maximum:g}."
    return None


def _as_stored(value: Any, spec: TensorSpec) -> Any:
    """Round a bound as the tensor's values were: 0.1 as a float32 is not more than 0.1."""
    if spec.dtype not in _FLOATS:
        return value
    with np.errstate(over="ignore"):
        return np.dtype(spec.dtype.value).type(value).item()


def _same_shape(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(given) == len(wanted) and all(
        size == want or (want == -1 and (size > 0 or at == 0))
        for at, (size, want) in enumerate(zip(given, wanted, strict=True))
    )

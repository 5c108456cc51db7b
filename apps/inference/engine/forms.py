"""Forms of a question: rows or columns are taken apart into one column of values per input."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apps.core.errors import FieldProblem
from apps.inference.engine.errors import TooManyRows
from apps.inference.engine.image_files import is_sent_as_image
from apps.inference.engine.problems import MOST_PROBLEMS, escaped, mismatch, quoted, shown
from apps.inference.engine.values import Column
from apps.registry.signature import Signature


def has_batch(signature: Signature) -> bool:
    """Whether every input counts rows on its first axis."""
    return all(spec.has_batch for spec in signature.inputs)


# --- Rows ---


def rows_of(rows: Sequence[Any], signature: Signature, max_rows: int) -> tuple[list[Column], int]:
    """Take rows apart; also count them."""
    batch = has_batch(signature)
    check_count(len(rows), max_rows, "/instances", batch=batch)
    shapes = {spec.name: spec.row_shape if batch else spec.shape for spec in signature.inputs}
    only = signature.inputs[0]
    if signature.is_one_image and is_sent_as_image(rows[0]) and only.name != "b64":
        return [Column(only, rows, shapes[only.name], "/instances")], len(rows)
    if type(rows[0]) is dict:
        return _object_rows(rows, signature, shapes), len(rows)
    if len(signature.inputs) == 1 and not (shapes[only.name] == () and type(rows[0]) is list):
        _same_form(rows)
        return [Column(only, rows, shapes[only.name], "/instances")], len(rows)
    return _positional_rows(rows, signature, shapes), len(rows)


def check_count(rows: int, max_rows: int, pointer: str, *, batch: bool) -> None:
    """Refuse no rows, and more rows than a call may carry."""
    if rows == 0:
        raise mismatch([FieldProblem(pointer, "There are no rows; send at least one.")])
    if rows > max_rows:
        message = f"There are {rows} rows; one call may carry {max_rows}. Send several calls."
        raise TooManyRows(message, rows=rows, max_rows=max_rows).at(
            [FieldProblem(pointer, message)]
        )
    if not batch and rows > 1:
        raise mismatch([FieldProblem(pointer, f"This model takes one row per call, not {rows}.")])


def _same_form(rows: Sequence[Any]) -> None:
    """Refuse a mixture: what the first row is, all others are."""
    if len(set(map(type, rows))) == 1:
        return
    first = type(rows[0]) if type(rows[0]) in (dict, list) else None
    problems = [
        FieldProblem(
            f"/instances/{at}",
            f"Row {at} is {shown(row)}, and row 0 is {shown(rows[0])}. Use one form for all.",
        )
        for at, row in enumerate(rows)
        if (type(row) if type(row) in (dict, list) else None) is not first
    ]
    if problems:
        raise mismatch(problems[:MOST_PROBLEMS])


def _object_rows(
    rows: Sequence[Any], signature: Signature, shapes: Mapping[str, tuple[int, ...]]
) -> list[Column]:
    _same_form(rows)
    names = [spec.name for spec in signature.inputs]
    columns = _column_names(rows[0], signature, shapes)
    wanted = columns or tuple(names)
    if not all(len(row) == len(wanted) and all(name in row for name in wanted) for row in rows):
        raise mismatch(list(itertools.islice(_key_problems(rows, wanted), MOST_PROBLEMS)))
    if columns:
        spec = signature.inputs[0]
        values = [[row[name] for name in columns] for row in rows]
        return [Column(spec, values, shapes[spec.name], "/instances", keys=columns)]
    return [
        Column(
            spec,
            [row[spec.name] for row in rows],
            shapes[spec.name],
            "/instances",
            after=f"/{escaped(spec.name)}",
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
                    f"/instances/{at}/{escaped(name)}",
                    f"Row {at} has the unknown field {quoted(name)}; the model wants {listed}.",
                )
        for name in wanted:
            if name not in row:
                yield FieldProblem(
                    f"/instances/{at}/{escaped(name)}", f"Row {at} has no field `{name}`."
                )


def _positional_rows(
    rows: Sequence[Any], signature: Signature, shapes: Mapping[str, tuple[int, ...]]
) -> list[Column]:
    """Read rows as lists with one value per input, in signature order."""
    wanted = [spec.name for spec in signature.inputs]
    if any(shape not in ((), (1,)) for shape in shapes.values()):
        listed = ", ".join(f"`{name}`" for name in wanted[:10])
        detail = f"The model has several inputs; a row is an object with the fields {listed}."
        raise mismatch([FieldProblem("/instances/0", detail)])
    problems = [
        FieldProblem(
            f"/instances/{at}",
            f"Row {at} wants a list of {len(wanted)} values; it is {shown(row)}"
            + (f" of {len(row)}." if type(row) is list else "."),
        )
        for at, row in enumerate(rows)
        if type(row) is not list or len(row) != len(wanted)
    ]
    if problems:
        raise mismatch(problems[:MOST_PROBLEMS])
    return [
        Column(spec, [row[at] for row in rows], shapes[spec.name], "/instances", after=f"/{at}")
        for at, spec in enumerate(signature.inputs)
    ]


# --- Columns ---


def columns_of(
    columns: Mapping[str, Any], signature: Signature, max_rows: int
) -> tuple[list[Column], int]:
    """Take named columns; also count their rows."""
    check_names(columns, signature)
    if not has_batch(signature):
        return [
            Column(
                spec,
                [columns[spec.name]],
                spec.shape,
                f"/inputs/{escaped(spec.name)}",
                whole=True,
            )
            for spec in signature.inputs
        ], 1
    problems = [
        FieldProblem(
            f"/inputs/{escaped(spec.name)}",
            f"Input `{spec.name}` wants a list with one entry per row; it is "
            f"{shown(columns[spec.name])}.",
        )
        for spec in signature.inputs
        if type(columns[spec.name]) is not list
    ]
    if problems:
        raise mismatch(problems[:MOST_PROBLEMS])
    rows = len(columns[signature.inputs[0].name])
    check_count(rows, max_rows, f"/inputs/{escaped(signature.inputs[0].name)}", batch=True)
    check_lengths({spec.name: len(columns[spec.name]) for spec in signature.inputs})
    return [
        Column(spec, columns[spec.name], spec.row_shape, f"/inputs/{escaped(spec.name)}")
        for spec in signature.inputs
    ], rows


def check_names(given: Mapping[str, Any], signature: Signature) -> None:
    """Refuse inputs that the signature does not know, and missing ones."""
    wanted = [spec.name for spec in signature.inputs]
    if len(given) == len(wanted) and all(name in given for name in wanted):
        return
    listed = ", ".join(f"`{name}`" for name in wanted[:10])
    problems = [
        FieldProblem(
            f"/inputs/{escaped(name)}",
            f"There is no input {quoted(name)}; the model wants {listed}.",
        )
        for name in itertools.islice((one for one in given if one not in wanted), MOST_PROBLEMS)
    ]
    problems += [
        FieldProblem(f"/inputs/{escaped(name)}", f"Input `{name}` is missing.")
        for name in wanted
        if name not in given
    ]
    raise mismatch(problems[:MOST_PROBLEMS])


def check_lengths(lengths: Mapping[str, int]) -> None:
    """Refuse inputs whose first axes differ; the first input sets the number of rows."""
    rows = next(iter(lengths.values()))
    problems = [
        FieldProblem(
            f"/inputs/{escaped(name)}",
            f"Input `{name}` has {length} rows, and the first input has {rows}.",
        )
        for name, length in lengths.items()
        if length != rows
    ]
    if problems:
        raise mismatch(problems[:MOST_PROBLEMS])

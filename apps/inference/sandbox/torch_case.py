"""Which questions to try a PyTorch program with, and what they say of its inputs.

An exported program says its inputs and brings an example. TorchScript says names only, so types
and shapes come from the uploader, as a signature or an example row, and a trial run decides where
JSON leaves them open: a 3 may be a number of either precision, or a place in a table.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.core.errors import PlatformError
from apps.inference.engine.types import Tensors
from apps.inference.runtimes.torch import TorchModel
from apps.inference.runtimes.torch_load import Opened, Wanted
from apps.inference.sandbox.report import Noted, Refused, Report, clean
from apps.inference.sandbox.trial import (
    Spec,
    row_count,
    rows_of_example,
    run,
    values_of_example,
    with_images,
)
from apps.inference.sandbox.verify_onnx import generated_rows
from apps.registry.formats import Container
from apps.registry.signature import TensorSpec, signature_from_json

Array = NDArray[np.generic]

ROWS = 96
LEAST_ROWS = 4
MOST_ELEMENTS = 4_000_000
MOST_GUESSES = 64
SPREAD = 0.1
NO_SHAPES = (
    'Upload it with an example row ({"instances": [[...]]} or {"inputs": {...}}) or with a '
    "signature; or save it with torch.export.save, which keeps an example."
)


@dataclass(frozen=True, slots=True)
class Case:
    """The inputs as the signature will say them, and rows that the program answers."""

    specs: list[Spec]
    rows: Tensors


def find_case(model: TorchModel, ask: Mapping[str, Any], report: Report) -> Case:
    """Settle names, types and shapes of the inputs by running the program.

    Raises:
        Refused: Nothing says what its inputs look like, or it raises on all that was tried.
    """
    opened = model.opened
    with report.check("inputs", "It is known what its inputs look like") as noted:
        if not opened.inputs:
            raise Refused("The model's forward takes no tensor.", "Give forward an input.")
        if opened.container is Container.PT2:
            case = _from_program(model, ask, report, noted)
        else:
            case = _from_uploader(model, ask, report)
        said = ", ".join(f"{one.name}: {one.dtype}{one.shape}" for one in case.specs)
        if noted.state == "passed":
            noted.say(said)
    return case


def given_rows(example: str, specs: Sequence[Spec], report: Report) -> Tensors | None:
    """The uploader's rows; one that does not fit is said and left out."""
    if not example:
        return None
    try:
        return rows_of_example(example, specs)
    except Refused as error:
        report.warn("example", "The example fits the inputs", error.message, error.remedy)
        return None


# -- an exported program -----------------------------------------------------------------------


def _from_program(model: TorchModel, ask: Mapping[str, Any], report: Report, noted: Noted) -> Case:
    opened = model.opened
    columns = {name: one.columns for name, one in _said(ask).items()}
    specs = with_images(
        [
            Spec(one.name, str(one.dtype), list(one.shape or ()), columns.get(one.name, ()))
            for one in opened.inputs
        ],
        ask,
    )
    given = given_rows(str(ask.get("example") or ""), specs, report) or opened.example
    if given is None:
        return Case(specs, generated_rows(model, specs))
    if all(one.shape[:1] == [-1] for one in specs):
        return Case(specs, _answered(model, many_like(given), given))
    noted.warn(
        "The first axis has a fixed size, so that rows cannot be asked together.",
        "Export it with dynamic_shapes=({0: torch.export.Dim('rows')},) for each input.",
    )
    return Case(specs, given)


def _answered(model: TorchModel, rows: Tensors, given: Tensors) -> Tensors:
    """The many rows, or the given ones where a program takes no more (``Dim(max=...)``)."""
    try:
        run(model, rows)
    except Refused:
        return given
    return rows


# -- TorchScript -------------------------------------------------------------------------------


def _from_uploader(model: TorchModel, ask: Mapping[str, Any], report: Report) -> Case:
    names = [one.name for one in model.opened.inputs]
    declared = _declared(ask, names)
    example = str(ask.get("example") or "")
    if declared is not None:
        given = given_rows(example, declared, report)
        return _settled(model, declared, given or generated_rows(model, declared))
    if not example:
        raise Refused(
            "A TorchScript file does not say the types and shapes of its inputs "
            f"({', '.join(names)[:200]}).",
            NO_SHAPES,
        )
    return _guessed(model, example)


def _said(ask: Mapping[str, Any]) -> dict[str, TensorSpec]:
    """The inputs of the signature that was sent, by name; none if none was."""
    if not ask.get("signature_file"):
        return {}
    try:
        body = json.loads(Path(str(ask["signature_file"])).read_text(encoding="utf-8"))
        return {one.name: one for one in signature_from_json(body).inputs}
    except (PlatformError, ValueError) as error:
        raise Refused(f"The signature that was sent cannot be read: {clean(error, 300)}") from error


def _declared(ask: Mapping[str, Any], names: Sequence[str]) -> list[Spec] | None:
    """The inputs of the signature that was sent, in the program's order."""
    said = _said(ask)
    if not said:
        return None
    if set(said) != set(names):
        raise Refused(
            f"The signature that was sent names the inputs {clean(', '.join(said), 200)}; the "
            f"model's forward takes {clean(', '.join(names), 200)}.",
            "Name the inputs as forward does.",
        )
    return [
        Spec(
            name,
            said[name].dtype.value,
            list(said[name].shape),
            said[name].columns,
            image=said[name].image,
        )
        for name in names
    ]


def _guessed(model: TorchModel, example: str) -> Case:
    """Try the types that the example's values allow until the program answers."""
    failed: Refused | None = None
    guesses = itertools.islice(_guesses(model.opened, example), MOST_GUESSES)
    for specs in guesses:
        given = rows_of_example(example, specs)
        try:
            run(model, given)
        except Refused as error:
            failed = failed or error
        else:
            return _settled(model, specs, given)
    raise failed or Refused("The example holds no value.", NO_SHAPES)


def _guesses(opened: Opened, example: str) -> Iterator[list[Spec]]:
    values = _values(opened.inputs, example)
    kinds = [_kinds(opened, array) for array in values.values()]
    shapes = [[-1, *array.shape[1:]] for array in values.values()]
    widths = [shapes]
    if all(len(shape) == 1 for shape in shapes):  # a bare value per row may be a column
        widths.append([[-1, 1] for _ in shapes])
    for wide in widths:
        for chosen in itertools.product(*kinds):
            yield [
                Spec(name, kind, shape)
                for name, kind, shape in zip(values, chosen, wide, strict=True)
            ]


def _values(inputs: Sequence[Wanted], example: str) -> dict[str, Array]:
    """The example's values by input, in the type that numpy finds for them."""
    given = values_of_example(example, [Spec(one.name, "", []) for one in inputs])
    arrays: dict[str, Array] = {}
    for one in inputs:
        try:
            arrays[one.name] = np.array(given[one.name])
        except (KeyError, ValueError) as error:
            raise Refused(f"The example does not fit input {clean(one.name, 80)}.") from error
        if arrays[one.name].dtype.kind not in "biuf":
            raise Refused(
                f"The example gives input {clean(one.name, 80)} values that are not numbers.",
                "A PyTorch model takes numbers; turn texts into numbers before asking it.",
            )
    return arrays


def _kinds(opened: Opened, values: Array) -> list[str]:
    """Types the values may stand for, likeliest first."""
    floats = ["float32", "float64"]
    if _parameter_type(opened) == "float64":
        floats.reverse()
    if values.dtype.kind == "b":
        return ["bool", *floats]
    is_whole = values.dtype.kind in "iu" or bool(
        np.all(values == np.rint(values.astype(np.float64)))
    )
    return [*floats, "int64", "int32"] if is_whole else floats


def _parameter_type(opened: Opened) -> str:
    tensors = itertools.chain(opened.program.parameters(), opened.program.buffers())
    found = (str(one.dtype).removeprefix("torch.") for one in tensors if one.is_floating_point())
    return next(found, "")


def _settled(model: TorchModel, specs: list[Spec], given: Tensors) -> Case:
    """Several rows where the program takes them, else the shapes as they were given."""
    if all(one.shape[:1] == [-1] for one in specs):
        rows = many_like(given)
        try:
            run(model, rows)
        except Refused:
            run(model, given)  # what it says of the rows that were given is the reason
        else:
            return Case(specs, rows)
    fixed = [replace(one, shape=list(given[one.name].shape)) for one in specs]
    return Case(fixed, given)


# -- rows --------------------------------------------------------------------------------------


def many_like(given: Tensors) -> dict[str, Array]:
    """Many rows like the few that were given; the given ones come first, unchanged."""
    random = np.random.default_rng(7)
    per_row = sum(array[:1].size for array in given.values())
    count = max(LEAST_ROWS, min(ROWS, MOST_ELEMENTS // max(per_row, 1)), row_count(given))
    out: dict[str, Array] = {}
    for name, array in given.items():
        many: Array = np.resize(array, (count, *array.shape[1:]))
        if many.dtype.kind == "f":
            exact = many.astype(np.float64)
            size = float(np.abs(exact).mean()) or 1.0
            noise = random.normal(0.0, SPREAD, exact.shape) * (np.abs(exact) + size)
            noise[: len(array)] = 0.0
            many = (exact + noise).astype(many.dtype)
        out[name] = many
    return out

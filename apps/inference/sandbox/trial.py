"""Runs a loaded model on a few rows and notes what a person and the engine must know of it.

The same questions to every kind of model, through the one socket: does it answer, are the answers
finite, does a row's answer depend on its neighbours, how long does a row take.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.core.errors import PlatformError
from apps.inference.engine.errors import DeadlinePassed, ModelFailed
from apps.inference.engine.image_files import WrongImage, encoded, file_from, is_sent_as_image
from apps.inference.engine.images import Budget, example_file, most_images, read_image
from apps.inference.engine.protocol import LoadedModel
from apps.inference.engine.types import Tensors
from apps.inference.runtimes.frames import BadFrame, dtype_name
from apps.inference.sandbox.report import Refused, Report, clean
from apps.registry.image_spec import ImageSpec, image_to_json
from apps.registry.signature import Dtype, TensorSpec, signature_from_json, with_image

RUN_SECONDS = 20.0
LATENCY_RUNS = 50
LATENCY_SECONDS = 5.0
BATCH = 4
SAME = 1e-4
MOST_EXAMPLE_VALUES = 2000

Array = NDArray[np.generic]


@dataclass(slots=True)
class Spec:
    """One tensor of the signature, as it goes into the report.

    How an image becomes it is the uploader's word: it is used here and not reported.
    """

    name: str
    dtype: str
    shape: list[int]
    columns: Sequence[str] = ()
    categories: Sequence[Any] = ()
    image: ImageSpec | None = None

    def body(self) -> dict[str, Any]:
        """The plain form that ``registry.signature`` reads."""
        body: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": self.shape}
        if self.columns:
            body["columns"] = list(self.columns)
        if self.categories:
            body["categories"] = list(self.categories)
        return body


def with_images(inputs: Sequence[Spec], ask: Mapping[str, Any]) -> list[Spec]:
    """Say of each input how an image becomes it, where the signature that was sent says so.

    One that is sent and does not fit the model is left out here; the parent refuses it in words.
    """
    if not ask.get("signature_file"):
        return list(inputs)
    try:
        body = json.loads(Path(str(ask["signature_file"])).read_text(encoding="utf-8"))
        said = {one.name: one.image for one in signature_from_json(body).inputs}
    except (PlatformError, ValueError):
        return list(inputs)
    return [replace(one, image=_fitting(one, said.get(one.name))) for one in inputs]


def _fitting(spec: Spec, image: ImageSpec | None) -> ImageSpec | None:
    if image is None:
        return None
    try:
        return with_image(_tensor_spec(spec), image_to_json(image)).image
    except PlatformError:
        return None


def _tensor_spec(spec: Spec) -> TensorSpec:
    return TensorSpec(spec.name, Dtype(spec.dtype), tuple(spec.shape), image=spec.image)


def try_model(
    model: LoadedModel,
    report: Report,
    *,
    inputs: list[Spec],
    rows: Tensors,
    load_seconds: float,
) -> dict[str, Array]:
    """Ask everything, and write signature, measurements and example into the result.

    Args:
        model: The loaded model.
        report: Where checks and results go.
        inputs: What it wants, as far as its file says.
        rows: At least one row for each input; several if the batch axis is free.
        load_seconds: How long loading took.

    Returns:
        Its answer to all the rows.
    """
    with report.check("dry-run", "The model answers a trial run") as noted:
        started = time.perf_counter()
        answer = run(model, rows)
        count = row_count(rows)
        noted.say(f"{count} row(s) in {(time.perf_counter() - started) * 1000:.1f} ms.")
    outputs = _check_outputs(report, answer)
    batchable = _check_rows(_Trial(model, inputs, rows, answer, outputs), report)
    report.result["signature"] = {
        "inputs": [one.body() for one in inputs],
        "outputs": [one.body() for one in outputs],
        "batchable": batchable,
    }
    first = rows if not _has_batch(inputs) else {name: a[:1] for name, a in rows.items()}
    with report.check("latency", "One row is answered quickly") as noted:
        latency = _latency(model, first)
        noted.say(f"p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms.")
    report.result["measurements"] = {
        "load_seconds": round(load_seconds, 4),
        "resident_bytes": int(model.resident_bytes),
        "latency_ms": latency,
    }
    example = example_of(inputs, first)
    if example is not None and any(one.image is not None for one in inputs):
        run(model, rows_of_example(json.dumps(example), inputs))
    report.result["example"] = example
    return answer


def run(model: LoadedModel, rows: Tensors) -> dict[str, Array]:
    """Run once, with the errors in words.

    Raises:
        Refused: The model raised, or ran too long.
    """
    try:
        return {
            name: np.asarray(array)
            for name, array in model.predict(rows, deadline=time.monotonic() + RUN_SECONDS).items()
        }
    except DeadlinePassed as error:
        raise Refused(
            f"The model ran longer than {RUN_SECONDS:.0f} s on {row_count(rows)} row(s).",
            "Look for a loop without an end, or make the model smaller.",
        ) from error
    except ModelFailed as error:
        cause = error.__cause__
        said = f": {clean(cause, 300)}" if cause is not None else "."
        raise Refused(
            f"The model raised an error on the trial rows{said}",
            "If it needs particular values, upload it with an example.",
        ) from error


def row_count(rows: Tensors) -> int:
    """Rows of a set of tensors; 1 where there is no batch axis."""
    return max((len(array) for array in rows.values() if array.ndim), default=1)


def _has_batch(inputs: Sequence[Spec]) -> bool:
    return all(one.shape[:1] == [-1] for one in inputs)


def _check_outputs(report: Report, answer: Tensors) -> list[Spec]:
    with report.check("outputs", "The answers are tensors of known types") as noted:
        try:
            outputs = [
                Spec(name, dtype_name(array), list(array.shape)) for name, array in answer.items()
            ]
        except BadFrame as error:
            raise Refused(str(error), "Convert the output inside the model.") from error
        noted.say(", ".join(f"{one.name}: {one.dtype}" for one in outputs))
    bad = [name for name, array in answer.items() if not is_finite(array)]
    if bad:
        report.warn(
            "finite",
            "The answers are finite numbers",
            f"Output {', '.join(bad)} was NaN or infinite on the trial rows.",
            "JSON shows such values as null. Check the model with rows of your own.",
        )
    return outputs


def is_finite(array: Array) -> bool:
    """Whether no number in it is NaN or infinite."""
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


@dataclass(frozen=True, slots=True)
class _Trial:
    """One run that has happened: the question, the answer, and what both look like."""

    model: LoadedModel
    inputs: list[Spec]
    rows: Tensors
    answer: Tensors
    outputs: list[Spec]


def _check_rows(trial: _Trial, report: Report) -> bool:
    """See whether rows of several callers may share a run; writes -1 into free output axes."""
    title = "A row's answer does not depend on its neighbours"
    count = row_count(trial.rows)
    if not _has_batch(trial.inputs) or count < 2:
        report.warn(
            "rows",
            title,
            "The batch axis is fixed, so calls are run one by one.",
            "Export the model with a free first axis to let it serve more calls at once.",
        )
        return False
    with report.check("rows", title) as noted:
        if any(array.shape[:1] != (count,) for array in trial.answer.values()):
            noted.warn("An output has no row per input row, so calls are run one by one.")
            return False
        for one in trial.outputs:
            one.shape[0] = -1
        compared = min(count, BATCH)
        for at in range(compared):
            name = _dependent_output(trial, at)
            if name is not None:
                noted.warn(
                    f"Output {name} of a row changes with the rows beside it or from run to run, "
                    "so calls are run one by one.",
                )
                return False
        noted.say(f"{compared} rows alone and in a batch of {count} agree.")
    return True


def _dependent_output(trial: _Trial, at: int) -> str | None:
    """Name of an output that differs when row ``at`` is asked alone."""
    alone = run(trial.model, {name: array[at : at + 1] for name, array in trial.rows.items()})
    for name, array in trial.answer.items():
        if alone[name].shape[1:] != array.shape[1:]:
            _free_axes(trial.outputs, name, alone[name], array)
        elif not is_same(alone[name], array[at : at + 1]):
            return name
    return None


def _free_axes(outputs: list[Spec], name: str, one: Array, other: Array) -> None:
    spec = next(spec for spec in outputs if spec.name == name)
    for axis in range(1, min(one.ndim, other.ndim)):
        if one.shape[axis] != other.shape[axis]:
            spec.shape[axis] = -1


def is_same(one: Array, other: Array) -> bool:
    """Equal, but for the rounding that another batch size brings."""
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one, other, rtol=SAME, atol=SAME, equal_nan=True))


def _latency(model: LoadedModel, row: Tensors) -> dict[str, float | int]:
    taken: list[float] = []
    stop = time.perf_counter() + LATENCY_SECONDS
    while len(taken) < LATENCY_RUNS and (not taken or time.perf_counter() < stop):
        started = time.perf_counter()
        run(model, row)
        taken.append((time.perf_counter() - started) * 1000)
    return {
        "p50": round(float(np.percentile(taken, 50)), 4),
        "p99": round(float(np.percentile(taken, 99)), 4),
        "rows": row_count(row),
        "runs": len(taken),
    }


# -- examples ----------------------------------------------------------------------------------


def example_of(inputs: Sequence[Spec], rows: Tensors) -> dict[str, Any] | None:
    """One row in the form the predict API takes; None if it would be too long to show."""
    if sum(rows[one.name].size for one in inputs if one.image is None) > MOST_EXAMPLE_VALUES:
        return None
    if not _has_batch(inputs):
        return {"inputs": {one.name: _sent_image(one) or _json(rows[one.name]) for one in inputs}}
    if len(inputs) == 1 and inputs[0].image is None:
        return {"instances": [_json(rows[inputs[0].name][0])]}
    return {"instances": [{one.name: _cell(one, rows[one.name][0]) for one in inputs}]}


def _sent_image(spec: Spec) -> dict[str, str] | None:
    """An image of our own, since the rows are numbers that no file may give back."""
    if spec.image is None:
        return None
    file = example_file(spec.image)
    return encoded(file.content, file.claimed or "")


def _cell(spec: Spec, value: Any) -> Any:
    """A column of width one is written as the bare value."""
    if spec.image is not None:
        return _sent_image(spec)
    plain = _json(value)
    return plain[0] if spec.shape == [-1, 1] else plain


def _json(value: Any) -> Any:
    plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return _finite(plain)


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else 0.0
    return value


def rows_of_example(text: str, inputs: Sequence[Spec]) -> dict[str, Array]:
    """Read the uploader's example by the model's inputs.

    Raises:
        Refused: It does not fit; the message names the input.
    """
    given = values_of_example(text, inputs)
    return {one.name: _array(one, given) for one in inputs}


def values_of_example(text: str, inputs: Sequence[Spec]) -> dict[str, Any]:
    """The example's plain JSON values by input name, whatever their types and shapes.

    Raises:
        Refused: It is not in one of the two forms.
    """
    remedy = 'Send {"instances": [...]} with a row, or {"inputs": {...}} with arrays by name.'
    try:
        body = json.loads(text)
    except ValueError as error:
        raise Refused("The example is not JSON.", remedy) from error
    if isinstance(body, Mapping) and isinstance(body.get("inputs"), Mapping):
        return dict(body["inputs"])
    if isinstance(body, Mapping) and isinstance(body.get("instances"), list):
        return _by_column(body["instances"], inputs)
    raise Refused("The example holds neither instances nor inputs.", remedy)


def _by_column(instances: list[Any], inputs: Sequence[Spec]) -> dict[str, Any]:
    if not instances:
        raise Refused("The example holds no row.", "Send at least one row.")
    if len(inputs) == 1 and is_sent_as_image(instances[0]) and inputs[0].name != "b64":
        return {inputs[0].name: instances}
    if all(isinstance(row, Mapping) for row in instances):
        if len(inputs) == 1 and inputs[0].columns and inputs[0].name not in instances[0]:
            rows = [[row.get(name) for name in inputs[0].columns] for row in instances]
            return {inputs[0].name: rows}
        return {one.name: [row.get(one.name) for row in instances] for one in inputs}
    if len(inputs) == 1:
        return {inputs[0].name: instances}
    return {
        one.name: [
            row[at] if isinstance(row, list) and at < len(row) else None for row in instances
        ]
        for at, one in enumerate(inputs)
    }


def _array(spec: Spec, given: Mapping[str, Any]) -> Array:
    if spec.image is not None and (images := _sent_images(given.get(spec.name))):
        return _image_array(spec, spec.image, images)
    kind = np.dtype(object) if spec.dtype == "string" else np.dtype(spec.dtype)
    try:
        array = np.asarray(given[spec.name], dtype=kind)
        if len(spec.shape) == array.ndim + 1 and spec.shape[-1] == 1:
            array = array[..., np.newaxis]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Refused(f"The example does not fit input {clean(spec.name, 80)}.") from error
    fits = array.ndim == len(spec.shape) and all(
        want in {-1, have} for want, have in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise Refused(
            f"The example gives input {clean(spec.name, 80)} the shape {list(array.shape)}; "
            f"the model wants {spec.shape}."
        )
    return array


def _sent_images(value: Any) -> list[Any]:
    """The images among the values of an input; empty when they are numbers."""
    values = value if isinstance(value, list) else [value]
    return values if values and is_sent_as_image(values[0]) else []


def _image_array(spec: Spec, image: ImageSpec, values: list[Any]) -> Array:
    tensor, budget = _tensor_spec(spec), Budget()
    most = most_images(image, tensor.dtype)
    try:
        arrays = [read_image(file_from(one), tensor, budget)[0] for one in values[:most]]
    except WrongImage as error:
        place = f"The example's image for input {clean(spec.name, 80)}"
        raise Refused(f"{place} {clean(error.detail, 300)}") from error
    return np.stack(arrays)

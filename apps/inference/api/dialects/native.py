"""The platform's own JSON: rows or columns in, the same form out.

``{"instances": [...]}`` asks by rows, ``{"inputs": {...}}`` by columns. A number that is not one
(NaN, Infinity) has no word in JSON: in an answer it is ``null``.

An image stands in its field as ``{"b64": "..."}``, or is the whole body. An output whose signature
names classes answers ``{"class", "score", "scores"}`` for a row of scores, and a name for a label.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from apps.core import strict_json
from apps.core.strict_json import wrong_at
from apps.inference.engine.types import ColumnInputs, ImageInputs, PredictAnswer, RowInputs
from apps.registry.signature import Signature

MEDIA_TYPE = "application/json"
MAX_TEXT = 200
_FIELDS = frozenset({"instances", "inputs", "unit", "id", "parameters"})
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class Question:
    """What a body asks, before it is known to whom."""

    inputs: RowInputs | ColumnInputs | ImageInputs
    unit: str | None = None
    client_id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def question_of(body: bytes) -> Question:
    """Read a request's body.

    Raises:
        Invalid: It is not a question; ``problems`` point at the wrong place.
    """
    value = strict_json.loads(body)
    if not isinstance(value, dict):
        raise wrong_at("", "The body is a JSON object with `instances` or `inputs`.")
    if not value.keys() <= _FIELDS:
        unknown = next(name for name in value if name not in _FIELDS)
        known = ", ".join(sorted(_FIELDS))
        raise wrong_at(
            strict_json.step(unknown),
            f"There is no field `{unknown[:80]}` here; the fields are {known}.",
        )
    return Question(
        inputs=_inputs(value),
        unit=_text(value, "unit"),
        client_id=_text(value, "id"),
        parameters=_parameters(value),
    )


def image_question(body: bytes, content_type: str) -> Question:
    """Read a body that is one image and nothing else."""
    return Question(ImageInputs(body, content_type))


def body_of(answer: PredictAnswer, signature: Signature | None) -> bytes:
    """Write a reply's body.

    Args:
        answer: What the model said.
        signature: Of the version that answered; says which outputs have a row axis. Without it
            the shapes decide.
    """
    timing = answer.timing
    body: dict[str, Any] = {
        "predictions": _predictions(answer, signature),
        "model": answer.model,
        "version": answer.version,
        "variant": answer.variant,
        "prediction_id": answer.prediction_id,
        "cached": answer.cached,
        "timing_ms": {
            "total": round(timing.total, 3),
            "queue": round(timing.queue, 3),
            "inference": round(timing.inference, 3),
        },
    }
    if answer.client_id is not None:
        body["id"] = answer.client_id
    return orjson.dumps(body, option=_OPTIONS)


def _inputs(value: dict[str, Any]) -> RowInputs | ColumnInputs:
    if ("instances" in value) == ("inputs" in value):
        raise wrong_at(
            "/inputs" if "inputs" in value else "/instances",
            "Send either `instances` (a list of rows) or `inputs` (columns by name).",
        )
    if "instances" in value:
        rows = value["instances"]
        if not isinstance(rows, list):
            raise wrong_at("/instances", "`instances` is a list with one entry per row.")
        return RowInputs(rows)
    columns = value["inputs"]
    if not isinstance(columns, dict):
        raise wrong_at("/inputs", "`inputs` is an object of lists by input name.")
    return ColumnInputs(columns)


def _text(value: dict[str, Any], name: str) -> str | None:
    text = value.get(name)
    if text is None:
        return None
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_TEXT:
        raise wrong_at(f"/{name}", f"`{name}` is a text of 1 to {MAX_TEXT} characters.")
    return text


def _parameters(value: dict[str, Any]) -> Mapping[str, Any]:
    parameters = value.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise wrong_at("/parameters", "`parameters` is an object.")
    return parameters


def _predictions(answer: PredictAnswer, signature: Signature | None) -> Any:
    outputs = answer.outputs
    classes = _classes(signature)
    if not answer.by_rows:
        return {name: _said(array, classes.get(name, ())) for name, array in outputs.items()}
    whole = _whole_outputs(answer, signature)
    if len(outputs) == 1:
        (name,) = outputs
        said = _said(outputs[name], classes.get(name, ()))
        return [said] * answer.rows if name in whole else said
    columns = [
        [_said(array, classes.get(name, ()))] * answer.rows
        if name in whole
        else _rows(array, classes.get(name, ()))
        for name, array in outputs.items()
    ]
    return [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _classes(signature: Signature | None) -> dict[str, tuple[str, ...]]:
    return {spec.name: spec.classes for spec in signature.outputs} if signature else {}


def _said(array: NDArray[np.generic], classes: tuple[str, ...]) -> Any:
    """Say an output, by the names of its classes where it has some and they fit."""
    if classes and array.dtype.kind == "f" and array.ndim and array.shape[-1] == len(classes):
        return _ranked(array, classes)
    if classes and array.dtype.kind in "iu":
        return _named(array.tolist(), classes)
    return _writable(array)


def _ranked(array: NDArray[np.generic], classes: tuple[str, ...]) -> Any:
    if array.ndim > 1:
        return [_ranked(one, classes) for one in array]
    scores = dict(zip(classes, _number_list(array), strict=True))
    known = {name: score for name, score in scores.items() if score is not None}
    best = max(known, key=lambda name: known[name], default=None)
    return {"class": best, "score": scores[best] if best else None, "scores": scores}


def _number_list(array: NDArray[np.generic]) -> list[float | None]:
    # Through the writer, which says a single-precision 0.1 as 0.1 and not in 17 digits.
    numbers: list[float | None] = orjson.loads(orjson.dumps(_writable(array), option=_OPTIONS))
    return numbers


def _named(value: Any, classes: tuple[str, ...]) -> Any:
    """Put names in the place of labels; a label without a name stays the number that it is."""
    if isinstance(value, list):
        return [_named(one, classes) for one in value]
    return classes[value] if 0 <= value < len(classes) else value


def _whole_outputs(answer: PredictAnswer, signature: Signature | None) -> set[str]:
    """Name the outputs that belong to the call as a whole and not to its rows.

    A free first axis is a row axis only when it counts the rows: a model that takes one question
    at a time may answer it with any number of findings.
    """
    fixed = {spec.name for spec in signature.outputs if not spec.has_batch} if signature else set()
    return fixed | {
        name
        for name, array in answer.outputs.items()
        if array.ndim == 0 or array.shape[0] != answer.rows
    }


def _writable(array: NDArray[np.generic]) -> Any:
    """Return what the JSON writer takes: an array it can read in place, else plain values."""
    if array.dtype == object or array.ndim == 0:
        return array.tolist()
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _rows(array: NDArray[np.generic], classes: tuple[str, ...]) -> list[Any]:
    if classes:
        said = _said(array, classes)
        return said if isinstance(said, list) else list(said)
    if array.ndim == 1 and array.dtype.kind in "iub":
        # ONNX Runtime's 64-bit integers are C's `long long`, whose scalars the writer refuses.
        plain: list[Any] = array.tolist()
        return plain
    ready = _writable(array)
    return ready if isinstance(ready, list) else list(ready)

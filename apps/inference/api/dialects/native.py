"""The platform's own JSON: rows or columns in, the same form out.

``{"instances": [...]}`` asks by rows, ``{"inputs": {...}}`` by columns. A number that is not one
(NaN, Infinity) has no word in JSON: in an answer it is ``null``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from apps.inference.api.dialects import strict_json
from apps.inference.api.dialects.strict_json import wrong_at
from apps.inference.engine.types import ColumnInputs, PredictAnswer, RowInputs
from apps.registry.signature import Signature

MEDIA_TYPE = "application/json"
MAX_TEXT = 200
_FIELDS = frozenset({"instances", "inputs", "unit", "id", "parameters"})
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class Question:
    """What a body asks, before it is known to whom."""

    inputs: RowInputs | ColumnInputs
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
    if not answer.by_rows:
        return {name: _writable(array) for name, array in outputs.items()}
    whole = _whole_outputs(answer, signature)
    if len(outputs) == 1:
        (name,) = outputs
        array = _writable(outputs[name])
        return [array] * answer.rows if name in whole else array
    columns = [
        [_writable(array)] * answer.rows if name in whole else _rows(array)
        for name, array in outputs.items()
    ]
    return [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]


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


def _rows(array: NDArray[np.generic]) -> list[Any]:
    if array.ndim == 1 and array.dtype.kind in "iub":
        # ONNX Runtime's 64-bit integers are C's `long long`, whose scalars the writer refuses.
        plain: list[Any] = array.tolist()
        return plain
    ready = _writable(array)
    return ready if isinstance(ready, list) else list(ready)

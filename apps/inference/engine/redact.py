"""What the log may hold of a prediction: redaction first, then the record mode, then the size rule.

Redaction fails closed: when a field that must not be kept cannot be found in its place, nothing of
the inputs is kept. An image is never kept, only what it was: kind, size, digest, width and height.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from apps.inference.engine.images import ImageFacts
from apps.inference.engine.types import (
    ColumnInputs,
    ImageInputs,
    Inputs,
    RowInputs,
    TensorInputs,
    Tensors,
)
from apps.registry.signature import Signature, TensorSpec
from apps.registry.snapshot import ModelSettings, RecordMode, Redaction

FIRST_VALUES = 16
FIRST_TEXT = 64
# What a number takes in JSON at most, with its share of brackets and quotes; and the outer object.
NUMBER_BYTES = 64
FRAME_BYTES = 1024
# What one character of a name takes in JSON at most.
ESCAPED_BYTES = 6
UNIT = "unit"
# A longer text in a question that did not fit an image model may be a piece of the image.
SHORT_TEXT = 64
SHORT_NAME = 32

Images = Mapping[str, Sequence[ImageFacts]]
NO_IMAGES: Images = {}


@dataclass(frozen=True, slots=True)
class RecordRules:
    """The installation's own rules.

    Attributes:
        hmac_key: Key of ``hash`` redaction; equal values hash alike, nobody else can try values.
        limit_bytes: JSON bytes up to which inputs (and outputs) are kept whole.
    """

    hmac_key: bytes = field(repr=False)
    limit_bytes: int = 65536


def hashed(value: object, key: bytes) -> str:
    """Replace a value by its keyed hash, which can still be joined on."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # a lone surrogate, or a number beyond 64 bits
        text = repr(value).encode("utf-8", "surrogatepass")
    return "hmac:" + hmac.digest(key, text, "sha256").hex()


def keeps_whole(settings: ModelSettings, prediction_id: str) -> bool:
    """Whether this call is kept in full; a sample is drawn by the random end of its id."""
    if settings.record is RecordMode.SAMPLE:
        return int(prediction_id[-8:], 16) / 2**32 < settings.sample_share
    return settings.record is RecordMode.FULL


def recorded_unit(unit: str | None, settings: ModelSettings, rules: RecordRules) -> str | None:
    """Return the unit as the log may hold it."""
    how = settings.redact.get(UNIT)
    if unit is None or how is Redaction.DROP:
        return None
    return unit if how is None else hashed(unit, rules.hmac_key)


def recorded_inputs(
    inputs: Inputs,
    tensors: Tensors | None,
    signature: Signature,
    *,
    settings: ModelSettings,
    rules: RecordRules,
    whole: bool,
    images: Images = NO_IMAGES,
) -> Any:
    """Return the inputs as the log may hold them: JSON values.

    Args:
        inputs: As the caller sent them.
        tensors: As they were understood, or None when they did not fit the signature.
        signature: Of the version that was chosen.
        settings: The model's rules for recording.
        rules: The installation's rules.
        whole: Whether this call is kept in full.
        images: What is known of each row's image, by the name of an input that came as images.

    Returns:
        The rows or columns as sent, with what is known of an image in its place; with a redacted
        field, an object of fields instead; a digest when they are too large or are not to be kept;
        None when they could not be redacted.
    """
    if tensors is None:
        if settings.redact:
            return None
        return _unread(inputs, rules, whole=whole, may_be_images=signature.takes_images)
    hidden = _hidden(settings, signature)
    if _may_hold_another(settings, signature, hidden):
        return None
    if not hidden:
        names = _name_bytes(signature)
        return _bounded(
            lambda: _as_sent(inputs, images),
            tensors,
            rules,
            whole=whole,
            name_bytes=names,
            images=images,
        )
    shown = _without(tensors, signature, hidden)
    hashes = _hashes(tensors, signature, hidden, rules.hmac_key, images)
    kept = _bounded(
        lambda: _lists(shown, images),
        shown,
        rules,
        whole=whole,
        name_bytes=_name_bytes(signature),
        images=images,
    )
    return {**kept, **hashes} if _fits(hashes, rules.limit_bytes) else kept


def recorded_outputs(outputs: Tensors, *, rules: RecordRules, whole: bool) -> Any:
    """Return the outputs as the log may hold them: nested lists by name, or a digest."""
    names = max(map(len, outputs), default=0) * ESCAPED_BYTES
    return _bounded(lambda: _lists(outputs), outputs, rules, whole=whole, name_bytes=names)


def _name_bytes(signature: Signature) -> int:
    return ESCAPED_BYTES * max(
        len(name) for spec in signature.inputs for name in (spec.name, *spec.columns)
    )


def _hidden(settings: ModelSettings, signature: Signature) -> dict[str, Redaction]:
    if not settings.redact:
        return {}
    fields = {spec.name for spec in signature.inputs}
    fields |= {column for spec in signature.inputs for column in spec.columns}
    return {name: how for name, how in settings.redact.items() if name in fields}


def _may_hold_another(
    settings: ModelSettings, signature: Signature, hidden: Mapping[str, Redaction]
) -> bool:
    """Whether a field to be hidden may stand, unnamed, among the values of one input."""
    missing = settings.redact.keys() - hidden.keys() - {UNIT}
    return bool(missing) and any(
        not spec.columns and spec.row_shape not in ((), (1,)) for spec in signature.inputs
    )


def _as_sent(inputs: Inputs, images: Images = NO_IMAGES) -> Any:
    if isinstance(inputs, RowInputs):
        return [_row(row, at, images) for at, row in enumerate(inputs.rows)]
    if isinstance(inputs, ColumnInputs):
        return {name: _column(name, one, images) for name, one in inputs.columns.items()}
    if isinstance(inputs, TensorInputs):
        return _lists(inputs.tensors)
    return [one.body() for facts in images.values() for one in facts]


def _row(row: Any, at: int, images: Images) -> Any:
    if not images or not isinstance(row, dict):
        return row
    # In a field of its own an image is an object; else the row is the image itself.
    if not any(isinstance(row.get(name), dict) for name in images):
        return next(iter(images.values()))[at].body()
    return {
        name: images[name][at].body() if name in images else value for name, value in row.items()
    }


def _column(name: str, value: Any, images: Images) -> Any:
    if name not in images:
        return value
    bodies = [one.body() for one in images[name]]
    return bodies if isinstance(value, list) else bodies[0]


def _lists(tensors: Tensors, images: Images = NO_IMAGES) -> dict[str, Any]:
    return {
        name: [one.body() for one in images[name]] if name in images else array.tolist()
        for name, array in tensors.items()
    }


def _bounded(
    make: Callable[[], Any],
    tensors: Tensors,
    rules: RecordRules,
    *,
    whole: bool,
    name_bytes: int,
    images: Images = NO_IMAGES,
) -> Any:
    # A JSON value takes two bytes at least, so a tensor over the limit need not be written to know.
    written = {name: array for name, array in tensors.items() if name not in images}
    count = sum(array.size for array in written.values())
    if whole and count * 2 <= rules.limit_bytes:
        value = make()
        sure = not images and _surely_fits(tensors, count, name_bytes, rules.limit_bytes)
        if sure or _fits(value, rules.limit_bytes):
            return value
    return {"digest": _digests(tensors, images)}


def _digests(tensors: Tensors, images: Images) -> dict[str, Any]:
    return {
        name: _digest(array)
        | ({"images": [one.body() for one in images[name]]} if name in images else {})
        for name, array in tensors.items()
    }


def _surely_fits(tensors: Tensors, count: int, name_bytes: int, limit: int) -> bool:
    # Names are counted once per number, as in rows that are objects: too much, never too little.
    numbers = all(array.dtype != object for array in tensors.values())
    return numbers and count * (NUMBER_BYTES + name_bytes) + FRAME_BYTES <= limit


def _fits(value: object, limit: int) -> bool:
    try:
        return len(orjson.dumps(value)) <= limit
    except orjson.JSONEncodeError:
        return False


def _digest(array: NDArray[np.generic]) -> dict[str, Any]:
    flat = array.ravel()
    if array.dtype == object:
        texts = [str(one) for one in flat]
        content = repr(texts).encode("utf-8", "surrogatepass")
        first: list[Any] = [one[:FIRST_TEXT] for one in texts[:FIRST_VALUES]]
    else:
        content = np.ascontiguousarray(flat).tobytes()
        first = flat[:FIRST_VALUES].tolist()
    return {
        "dtype": "string" if array.dtype == object else array.dtype.name,
        "shape": list(array.shape),
        "sha256": hashlib.sha256(content).hexdigest(),
        "first": first,
    }


def _unread(inputs: Inputs, rules: RecordRules, *, whole: bool, may_be_images: bool) -> Any:
    """Keep inputs that did not fit the signature, so that their sender's bug can be found."""
    if isinstance(inputs, TensorInputs):
        return {"digest": _digests(inputs.tensors, NO_IMAGES)}
    if isinstance(inputs, ImageInputs):
        return {"image": _file_facts(inputs.content)}
    value = _as_sent(inputs)
    if may_be_images:
        value = _without_files(value)
    if whole and _fits(value, rules.limit_bytes):
        return value
    return {"digest": None}


def _without_files(value: Any) -> Any:
    """Put what it was in the place of each long text: a file, in whatever field it came."""
    if isinstance(value, str) and len(value) > SHORT_TEXT:
        return _file_facts(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, dict):
        return {name[:SHORT_NAME]: _without_files(one) for name, one in value.items()}
    return [_without_files(one) for one in value] if isinstance(value, list) else value


def _file_facts(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _without(
    tensors: Tensors, signature: Signature, hidden: Mapping[str, Redaction]
) -> dict[str, NDArray[np.generic]]:
    """Leave out hidden inputs, and split inputs with hidden columns into the other columns."""
    shown: dict[str, NDArray[np.generic]] = {}
    for spec in signature.inputs:
        if spec.name in hidden:
            continue
        if not hidden.keys() & set(spec.columns):
            shown[spec.name] = tensors[spec.name]
            continue
        columns = _columns(spec, tensors[spec.name])
        shown.update({name: one for name, one in columns.items() if name not in hidden})
    return shown


def _hashes(
    tensors: Tensors,
    signature: Signature,
    hidden: Mapping[str, Redaction],
    key: bytes,
    images: Images,
) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for spec in signature.inputs:
        if spec.name in images:  # equal files hash alike, also when the model sees no difference
            if hidden.get(spec.name) is Redaction.HASH:
                found[spec.name] = [hashed(one.sha256, key) for one in images[spec.name]]
            continue
        fields = {spec.name: tensors[spec.name], **_columns(spec, tensors[spec.name])}
        for name, array in fields.items():
            if hidden.get(name) is Redaction.HASH:
                values = array.tolist() if array.ndim else [array.tolist()]
                found[name] = [hashed(value, key) for value in values]
    return found


def _columns(spec: TensorSpec, array: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
    if not spec.columns or array.ndim == 0 or array.shape[-1] != len(spec.columns):
        return {}
    return {name: array[..., at] for at, name in enumerate(spec.columns)}

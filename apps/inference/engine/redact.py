"""What the log may hold of a prediction: redaction first, then the record mode, then the size rule.

Redaction fails closed: when a field that must not be kept cannot be found in its place, nothing of
the inputs or outputs that may hold it is kept. An image is never kept, only what it was: kind,
size, digest, width and height.
"""

import hashlib
import hmac
from collections.abc import Callable, Collection, Mapping, Sequence
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
# What a question calls the caller's own id.
CLIENT_ID = "id"
# A masked text shows so many of its first characters at most, and never more than this part.
MASK = "***"
MASK_CHARACTERS = 2
MASK_PART = 4
# A longer text in a question that did not fit an image model may be a piece of the image.
SHORT_TEXT = 64
SHORT_NAME = 32

# Stands for an error that may quote a value.
NOT_TOLD = "Not recorded, because it may quote a field that is redacted."

Images = Mapping[str, Sequence[ImageFacts]]
NO_IMAGES: Images = {}
PLAIN = ModelSettings()


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


def masked(value: Any) -> Any:
    """Hide what a value says and keep its form: lists stay lists, "marta@x.org" is "ma***".

    A number has no half that could be shown, so it is None; the same for anything but a text.
    """
    if isinstance(value, list):
        return [masked(one) for one in value]
    if not isinstance(value, str):
        return None
    return value[: min(MASK_CHARACTERS, len(value) // MASK_PART)] + MASK


def recorded_unit(unit: str | None, settings: ModelSettings, rules: RecordRules) -> str | None:
    """Return the unit as the log may hold it."""
    return _recorded_text(unit, settings.redact.get(UNIT), rules)


def recorded_client_id(
    client_id: str | None, settings: ModelSettings, rules: RecordRules
) -> str | None:
    """Return the caller's own id as the log may hold it."""
    return _recorded_text(client_id, settings.redact.get(CLIENT_ID), rules)


def _recorded_text(text: str | None, how: Redaction | None, rules: RecordRules) -> str | None:
    if text is None or how is None:
        return text
    if how is Redaction.DROP:
        return None
    return hashed(text, rules.hmac_key) if how is Redaction.HASH else str(masked(text))


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
    hidden = _hidden(settings, signature.inputs)
    if may_hold_another(settings.redact, signature, signature.inputs):
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
    return _with_hidden(
        tensors,
        signature.inputs,
        hidden,
        rules=rules,
        whole=whole,
        name_bytes=_name_bytes(signature),
        images=images,
    )


def recorded_outputs(
    outputs: Tensors,
    *,
    rules: RecordRules,
    whole: bool,
    settings: ModelSettings = PLAIN,
    signature: Signature | None = None,
) -> Any:
    """Return the outputs as the log may hold them: nested lists by name, or a digest.

    Args:
        outputs: What the model answered.
        rules: The installation's rules.
        whole: Whether this call is kept in full.
        settings: The model's rules for recording.
        signature: Of the version that answered; without it nothing can be redacted.

    Returns:
        None when a field that must not be kept may stand, unnamed, among their values.
    """
    names = max(map(len, outputs), default=0) * ESCAPED_BYTES
    if signature is not None and settings.redact:
        if may_hold_another(settings.redact, signature, signature.outputs):
            return None
        hidden = _hidden(settings, signature.outputs)
        if hidden:
            return _with_hidden(
                outputs, signature.outputs, hidden, rules=rules, whole=whole, name_bytes=names
            )
    return _bounded(lambda: _lists(outputs), outputs, rules, whole=whole, name_bytes=names)


def _with_hidden(
    tensors: Tensors,
    specs: Sequence[TensorSpec],
    hidden: Mapping[str, Redaction],
    *,
    rules: RecordRules,
    whole: bool,
    name_bytes: int,
    images: Images = NO_IMAGES,
) -> dict[str, Any]:
    """Record the other fields as usual, and beside them what may be kept of the hidden ones."""
    shown = _without(tensors, specs, hidden)
    replaced = _replaced(tensors, specs, hidden, rules.hmac_key, images)
    kept: dict[str, Any] = _bounded(
        lambda: _lists(shown, images),
        shown,
        rules,
        whole=whole,
        name_bytes=name_bytes,
        images=images,
    )
    return {**kept, **replaced} if _fits(replaced, rules.limit_bytes) else kept


def _name_bytes(signature: Signature) -> int:
    return ESCAPED_BYTES * max(
        len(name) for spec in signature.inputs for name in (spec.name, *spec.columns)
    )


def _names(specs: Sequence[TensorSpec]) -> set[str]:
    return {name for spec in specs for name in (spec.name, *spec.columns)}


def _hidden(settings: ModelSettings, specs: Sequence[TensorSpec]) -> dict[str, Redaction]:
    if not settings.redact:
        return {}
    fields = _names(specs)
    return {name: how for name, how in settings.redact.items() if name in fields}


def may_hold_another(
    fields: Collection[str], signature: Signature, specs: Sequence[TensorSpec]
) -> bool:
    """Whether a field to be hidden may stand, unnamed, among the values of one tensor."""
    if not fields:
        return False
    known = _names(signature.inputs) | _names(signature.outputs) | {UNIT, CLIENT_ID}
    return not known.issuperset(fields) and any(
        not spec.columns and spec.row_shape not in ((), (1,)) for spec in specs
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
    tensors: Tensors, specs: Sequence[TensorSpec], hidden: Mapping[str, Redaction]
) -> dict[str, NDArray[np.generic]]:
    """Leave out hidden tensors, and split those with hidden columns into the other columns.

    What has a column to hide and cannot be split is left out whole.
    """
    shown: dict[str, NDArray[np.generic]] = {}
    for spec in specs:
        if spec.name in hidden or spec.name not in tensors:
            continue
        if not hidden.keys() & set(spec.columns):
            shown[spec.name] = tensors[spec.name]
            continue
        columns = _columns(spec, tensors[spec.name])
        shown.update({name: one for name, one in columns.items() if name not in hidden})
    return shown


def _replaced(
    tensors: Tensors,
    specs: Sequence[TensorSpec],
    hidden: Mapping[str, Redaction],
    key: bytes,
    images: Images,
) -> dict[str, list[Any]]:
    """Return what stands for the hidden fields; a field that is dropped is not among them."""
    found: dict[str, list[Any]] = {}
    for spec in specs:
        if spec.name in images:  # equal files hash alike, also when the model sees no difference
            digests = [one.sha256 for one in images[spec.name]]
            how = hidden.get(spec.name)
            found |= _stand_ins({spec.name: how} if how else {}, spec.name, digests, key)
            continue
        if spec.name not in tensors:
            continue
        fields = {spec.name: tensors[spec.name], **_columns(spec, tensors[spec.name])}
        for name, array in fields.items():
            found |= _stand_ins(hidden, name, array.tolist() if array.ndim else [array.item()], key)
    return found


def _stand_ins(
    hidden: Mapping[str, Redaction], name: str, values: list[Any], key: bytes
) -> dict[str, list[Any]]:
    how = hidden.get(name)
    if how is Redaction.HASH:
        return {name: [hashed(value, key) for value in values]}
    return {name: [masked(value) for value in values]} if how is Redaction.MASK else {}


def _columns(spec: TensorSpec, array: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
    if not spec.columns or array.ndim == 0 or array.shape[-1] != len(spec.columns):
        return {}
    return {name: array[..., at] for at, name in enumerate(spec.columns)}

"""A signature as a form for one row, and a filled-in form as the question it asks; plain Python.

The form says what a value must be, and the engine decides whether it is: what was typed goes into
the question as it stands, so that a page and a program get the same refusal for the same mistake.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from apps.registry.signature import Dtype, Signature, TensorSpec

# A longer list of numbers is typed as JSON.
MOST_LISTED = 32
MOST_FIELDS = 200
WHOLE = frozenset(one for one in Dtype if one.value.startswith(("int", "uint")))


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to fill in.

    Attributes:
        name: Its name in the posted form; position, because names of inputs are strangers' texts.
        label: Name of the input, or of the column.
        kind: ``number``, ``text``, ``choice``, ``list`` (numbers by comma), ``json`` or ``image``.
        help: Type and bounds in words.
        value: What stands in it.
        pointer: Where its value stands in the question.
        choices: Values allowed, as JSON and as words.
        accept: Kinds of file that an image field takes.
        error: What is wrong with the value.
    """

    name: str
    label: str
    kind: str
    help: str
    value: str
    pointer: str
    dtype: Dtype
    choices: tuple[tuple[str, str], ...] = ()
    accept: str = ""
    error: str = ""

    @property
    def preview(self) -> str:
        """The example's image as an address that a page can draw."""
        return f"data:image/png;base64,{self.value}" if self.kind == "image" and self.value else ""


def fields_of(signature: Signature, example: Any) -> tuple[Field, ...]:
    """Return the form of one row, filled in from an example; empty when it would be too long.

    Args:
        signature: Of the version.
        example: The question that the version's uploader gave, or None.
    """
    row = _first_row(signature, example)
    fields: list[Field] = []
    for spec in signature.inputs:
        if _by_column(signature, spec):
            fields += [
                _field(f"f{len(fields) + at}", spec, column, row.get(column), ())
                for at, column in enumerate(spec.columns)
            ]
        else:
            value = row.get(spec.name)
            shape = spec.row_shape if _has_batch(signature) else spec.shape
            fields.append(_field(f"f{len(fields)}", spec, spec.name, value, shape))
    return tuple(fields) if len(fields) <= MOST_FIELDS else ()


def question_from(
    fields: tuple[Field, ...],
    typed: Mapping[str, str],
    images: Mapping[str, bytes],
) -> tuple[dict[str, Any], tuple[Field, ...]]:
    """Return the question that a filled-in form asks, and the form as it was filled in.

    Values that cannot be read have their sentence in ``error``; the question is then not whole.
    """
    row: dict[str, Any] = {}
    filled: list[Field] = []
    for one in fields:
        said, value, error = _read(one, typed.get(one.name, ""), images.get(one.name))
        row[one.label] = value
        filled.append(replace(one, value=said, error=error))
    return {"instances": [row]}, tuple(filled)


def with_problems(
    fields: tuple[Field, ...], problems: Mapping[str, str]
) -> tuple[tuple[Field, ...], list[str]]:
    """Put each problem's sentence at its field; return also those that belong to none.

    Args:
        fields: The form.
        problems: Pointer into the question to the sentence.
    """
    left = dict(problems)
    marked = []
    for one in fields:
        mine = [
            pointer
            for pointer in left
            if pointer == one.pointer or pointer.startswith(f"{one.pointer}/")
        ]
        sentences = [left.pop(pointer) for pointer in mine]
        marked.append(replace(one, error=" ".join(sentences) or one.error))
    return tuple(marked), list(left.values())


# --- signature to form ------------------------------------------------------------------------


def _has_batch(signature: Signature) -> bool:
    return all(spec.has_batch for spec in signature.inputs)


def _by_column(signature: Signature, spec: TensorSpec) -> bool:
    """Whether a row may be an object by the columns of the only input."""
    shape = spec.row_shape if _has_batch(signature) else spec.shape
    fits = shape in ((len(spec.columns),), (-1,))
    return len(signature.inputs) == 1 and bool(spec.columns) and fits


def _first_row(signature: Signature, example: Any) -> dict[str, Any]:
    """Read the first row of an example, whatever its form, by the names of inputs or columns."""
    example = example if isinstance(example, Mapping) else {}
    only = signature.inputs[0]
    rows = example.get("instances")
    if isinstance(rows, list) and rows:
        return _named(signature, rows[0])
    columns = example.get("inputs")
    if not isinstance(columns, Mapping):
        return {}
    batch = _has_batch(signature)
    found = {
        name: value[0] if batch and isinstance(value, list) and value else value
        for name, value in columns.items()
    }
    return _named(signature, found[only.name]) if set(found) == {only.name} else found


def _named(signature: Signature, row: Any) -> dict[str, Any]:
    only = signature.inputs[0]
    is_image = isinstance(row, Mapping) and "b64" in row and only.name != "b64"
    if isinstance(row, Mapping) and not is_image:
        return dict(row)
    if len(signature.inputs) > 1:
        values = row if isinstance(row, list) else []
        return dict(zip((one.name for one in signature.inputs), values, strict=False))
    if _by_column(signature, only) and isinstance(row, list):
        return dict(zip(only.columns, row, strict=False))
    return {only.name: row}


def _field(name: str, spec: TensorSpec, label: str, value: Any, shape: tuple[int, ...]) -> Field:
    kind = _kind(spec, shape)
    text = _text(kind, value)
    choices = tuple((_json(one), str(one)) for one in spec.categories) if kind == "choice" else ()
    if kind == "choice" and value is not None:
        text = _json(value)
    return Field(
        name=name,
        label=label,
        kind=kind,
        help=_help(spec, kind, shape),
        value=text,
        pointer=f"/instances/0/{_escaped(label)}",
        dtype=spec.dtype,
        choices=choices,
        accept=",".join(spec.image.content_types) if spec.image else "",
    )


def _kind(spec: TensorSpec, shape: tuple[int, ...]) -> str:
    if spec.image is not None:
        return "image"
    if shape in ((), (1,)):
        if spec.categories or spec.dtype is Dtype.BOOL:
            return "choice" if spec.categories else "text"
        return "text" if spec.dtype is Dtype.STRING else "number"
    if len(shape) == 1 and spec.dtype is not Dtype.STRING and shape[0] <= MOST_LISTED:
        return "list"
    return "json"


def _help(spec: TensorSpec, kind: str, shape: tuple[int, ...]) -> str:
    if spec.image is not None:
        kinds = " or ".join(one.removeprefix("image/").upper() for one in spec.image.content_types)
        size = f"{spec.image.width} × {spec.image.height}"  # noqa: RUF001 - the sign of a size
        return f"An image ({kinds}); it becomes {size} pixels, {spec.image.mode.value}."
    words = [spec.dtype.value]
    if kind == "list":
        words.append(f"{shape[0]} numbers, by comma" if shape[0] > 0 else "numbers, by comma")
    if kind == "json":
        words.append(f"a list of shape {list(shape)} as JSON".replace("-1", "any"))
    if spec.minimum is not None:
        words.append(f"at least {spec.minimum:g}")
    if spec.maximum is not None:
        words.append(f"at most {spec.maximum:g}")
    return ", ".join(words)


def _text(kind: str, value: Any) -> str:
    if value is None:
        return ""
    if kind == "image":
        return str(value.get("b64", "")) if isinstance(value, Mapping) else ""
    if kind == "list" and isinstance(value, list):
        return ", ".join(_json(one) for one in value)
    if kind in ("number", "text") and isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) and kind == "text" else _json(value)


# --- form to question -------------------------------------------------------------------------


def _read(one: Field, text: str, image: bytes | None) -> tuple[str, Any, str]:
    """Return what stands in the field, its value in the question, and what is wrong with it."""
    if one.kind == "image":
        encoded = base64.b64encode(image).decode() if image else one.value
        wrong = "" if encoded else "Choose an image."
        return encoded, {"b64": encoded}, wrong
    text = text.strip() if one.kind != "text" else text
    if one.dtype is Dtype.STRING and one.kind == "text":
        return text, text, ""
    if not text:
        return text, None, "Fill this in."
    source = f"[{text}]" if one.kind == "list" and not text.startswith("[") else text
    try:
        said = source.lower() if one.dtype is Dtype.BOOL else source
        value = json.loads(said, parse_constant=_no_number)
        orjson.dumps(value)  # Python reads numbers and signs that a question cannot hold
    except (ValueError, TypeError, RecursionError):
        return text, None, _unreadable(one)
    if one.kind == "number" and isinstance(value, bool | list | dict | str | type(None)):
        return text, None, _unreadable(one)
    return text, value, ""


def _unreadable(one: Field) -> str:
    if one.kind == "list":
        return "Write numbers by comma, as 5.1, 3.5."
    if one.kind == "json":
        return "This is not JSON. Write lists in brackets, as [[1, 2], [3, 4]]."
    if one.dtype is Dtype.BOOL:
        return "Write true or false."
    return "Write a whole number, as 3." if one.dtype in WHOLE else "Write a number, as 3.5."


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number in JSON.")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")

"""Named arrays as bytes: what travels between a runner and its child, and rests in a file.

A frame is two lengths, a JSON head and the raw little-endian arrays one behind the other; texts
travel as JSON. There is no pickle in it, and whoever reads it believes nothing: the other side may
have been taken over by the model it opened.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.inference.engine.types import Tensors

LENGTHS = struct.Struct("<IQ")
MOST_HEAD = 1 << 20
MOST_BODY = 1 << 30
MOST_TENSORS = 512
MOST_RANK = 8
WHOLE = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
NUMBERS = frozenset((*WHOLE, "float16", "float32", "float64"))
TEXT = "string"


class BadFrame(ValueError):
    """The bytes are no frame."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: a few plain facts and some named arrays."""

    facts: Mapping[str, Any]
    tensors: Tensors = field(default_factory=dict)


def encode(frame: Frame) -> bytes:
    """Write one frame.

    Raises:
        BadFrame: An array has a type that no signature can say.
    """
    parts = [_pack(array) for array in frame.tensors.values()]
    listed = [
        {"name": name, "dtype": dtype_name(array), "shape": list(array.shape), "bytes": len(part)}
        for (name, array), part in zip(frame.tensors.items(), parts, strict=True)
    ]
    head = json.dumps({"facts": dict(frame.facts), "tensors": listed}).encode()
    body = b"".join(parts)
    return LENGTHS.pack(len(head), len(body)) + head + body


def lengths(start: bytes) -> tuple[int, int]:
    """Read how long head and body are.

    Raises:
        BadFrame: Longer than anything we send.
    """
    head, body = LENGTHS.unpack(start)
    if head > MOST_HEAD or body > MOST_BODY:
        raise BadFrame("The frame is too long.")
    return head, body


def decode(head: bytes, body: bytes) -> Frame:
    """Read one frame.

    Raises:
        BadFrame: Head and body do not agree, or are of another kind.
    """
    try:
        written = json.loads(head)
        facts, listed = written["facts"], written["tensors"]
        if not isinstance(facts, dict) or not isinstance(listed, list):
            raise BadFrame("The head has another form.")
        if len(listed) > MOST_TENSORS:
            raise BadFrame("There are too many arrays.")
        tensors: dict[str, NDArray[np.generic]] = {}
        at = 0
        for one in listed:
            size = _whole(one["bytes"])
            tensors[str(one["name"])] = _unpack(one, body[at : at + size])
            at += size
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadFrame(str(error)) from error
    if at != len(body):
        raise BadFrame("There are bytes behind the last array.")
    return Frame(facts, tensors)


def decode_all(data: bytes) -> Frame:
    """Read a frame that is a whole file.

    Raises:
        BadFrame: It is none.
    """
    if len(data) < LENGTHS.size:
        raise BadFrame("The file is too short.")
    head, body = lengths(data[: LENGTHS.size])
    end = LENGTHS.size + head
    if len(data) != end + body:
        raise BadFrame("The lengths do not fit the file.")
    return decode(data[LENGTHS.size : end], data[end:])


def dtype_name(array: NDArray[np.generic]) -> str:
    """Name of the element type, as signatures write it.

    Raises:
        BadFrame: A type that no signature can say.
    """
    if array.dtype.kind in "OUT":
        return TEXT
    if array.dtype.name not in NUMBERS:
        raise BadFrame(f"Arrays of {array.dtype.name} cannot be sent.")
    return str(array.dtype.name)


def _pack(array: NDArray[np.generic]) -> bytes:
    if dtype_name(array) == TEXT:
        return json.dumps([str(one) for one in array.reshape(-1).tolist()]).encode()
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def _unpack(one: Mapping[str, Any], part: bytes) -> NDArray[np.generic]:
    shape = tuple(_whole(size) for size in one["shape"])
    if len(shape) > MOST_RANK:
        raise BadFrame("An array has too many axes.")
    if one["dtype"] == TEXT:
        return _texts(json.loads(part), shape)
    if one["dtype"] not in NUMBERS:
        raise BadFrame("An array has an unknown type.")
    kind = np.dtype(one["dtype"]).newbyteorder("<")
    if math.prod(shape) * kind.itemsize != len(part):
        raise BadFrame("An array is not as long as its shape says.")
    return np.frombuffer(part, kind).reshape(shape)


def _texts(values: object, shape: tuple[int, ...]) -> NDArray[np.generic]:
    if not isinstance(values, list) or len(values) != math.prod(shape):
        raise BadFrame("A text array is not as long as its shape says.")
    if not all(isinstance(value, str) for value in values):
        raise BadFrame("A text array holds something else.")
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadFrame("A size is not a whole number.")
    return value

"""Small PyTorch programs, good and hostile, as files."""

import io
import json
import logging
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Scores(nn.Module):
    """Elementwise only, so that a row's bits do not depend on the rows beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.arange(1.0, 5.0))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": x * self.weights, "high": (x * self.weights).sum(1) > 1}


class Layers(nn.Module):
    """An honest little network with batch statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.layers(x), 1)


class Solves(nn.Module):
    """A triangular system, for which ONNX has no operator."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.eye(4, dtype=torch.float64) * 2 + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.factor, x.T, upper=False).T


class TwoInputs(nn.Module):
    """A place in a table and a number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(5, 3)
        self.layer = nn.Linear(2, 3)

    def forward(self, kind: Tensor, sizes: Tensor) -> Tensor:
        return self.table(kind) + self.layer(sizes)


class Reads(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_file(self.path, False, 8, dtype=torch.uint8).sum()


class Writes(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.path)
        return x


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Endless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while bool((x * x).sum() >= 0):
            x = x * 1.0
        return x


class Huge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros([1 << 34], dtype=torch.float32).sum()


def script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module.eval()), str(path))
    return path


def exported(
    module: nn.Module, path: Path, *inputs: Any, free: bool = True, training: bool = False
) -> Path:
    """Save with ``torch.export``; the first axis of each input is free unless asked otherwise."""
    rows = torch.export.Dim("rows")
    shapes = tuple({0: rows} for _ in inputs) if free else None
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.export.export(module.train(training), inputs, dynamic_shapes=shapes)
            torch.export.save(made, str(path))
    finally:
        logging.disable(logging.NOTSET)
    return path


def rewritten(path: Path, ending: str, change: Callable[[bytes], bytes]) -> Path:
    """Change the members whose names end so, and nothing else."""
    with zipfile.ZipFile(path) as archive:
        members = [(one.filename, archive.read(one)) for one in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, change(data) if name.endswith(ending) else data)
    return path


def renamed(path: Path, change: Callable[[str], str]) -> Path:
    """Give the members other names, and change nothing else."""
    with zipfile.ZipFile(path) as archive:
        members = [(change(one.filename), archive.read(one)) for one in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def two_faced(shown: Path, hidden: Path, path: Path) -> Path:
    """A zip with two lists: Python's reader finds the first file's, PyTorch's the second's.

    The pointer at the end leads to the second list; the first stands where the pointer leads in
    an honest file.
    """
    out = bytearray()
    first, second = _put(out, shown), _put(out, hidden)
    pointed_at = _put_list(out, second)
    _put_list(out, first)
    out += struct.pack("<4sLQL", b"PK\6\7", 0, pointed_at, 1)
    out += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(out)
    return path


def _put(out: bytearray, path: Path) -> list[bytes]:
    """Write the members of a zip; returns their entries for a list."""
    entries = []
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            name, data = one.filename.encode(), archive.read(one)
            facts = struct.pack("<4H3L", 0, 0, 0, 33, one.CRC, len(data), len(data))
            facts += struct.pack("<2H", len(name), 0)
            place = struct.pack("<3H2L", 0, 0, 0, 0, len(out))
            entries.append(b"PK\1\2" + struct.pack("<2H", 20, 20) + facts + place + name)
            out += b"PK\3\4" + struct.pack("<H", 20) + facts + name + data
    return entries


def _put_list(out: bytearray, entries: list[bytes]) -> int:
    """Write a list and its record; returns where the record is."""
    start, listed = len(out), b"".join(entries)
    out += listed
    place = len(out)
    count = len(entries)
    facts = (44, 45, 45, 0, 0, count, count, len(listed), start)
    out += struct.pack("<4sQ2H2L4Q", b"PK\6\6", *facts)
    return place


def in_graph(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Change the graph of an exported program."""

    def changed(data: bytes) -> bytes:
        body = json.loads(data)
        change(body)
        return json.dumps(body).encode()

    return rewritten(path, "models/model.json", changed)


class Call:
    """Unpickles as a call of any function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def touching(target: Path) -> bytes:
    """What torch.save writes of an object that runs a command when it is unpickled."""
    buffer = io.BytesIO()
    torch.save(((Call(os.system, f"touch {target}"),), {}), buffer)
    return buffer.getvalue()

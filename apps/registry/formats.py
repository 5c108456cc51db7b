"""Tells what a file is from its content, never from its name; plain Python.

It reads structure only: the top fields of a protobuf, the first operations of a pickle, the list
of a zip. Nothing is unpacked, imported or run. Even so, an upload is read only inside the sandbox;
outside it this module knows names and families.
"""

import bz2
import gzip
import itertools
import lzma
import mmap
import pickletools
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import IO

from apps.core.errors import Invalid

MEBIBYTE = 1 << 20
MOST_MEMBERS = 10_000
MOST_UNPACKED = 5 << 30
MOST_RATIO = 100
FREE_UNPACKED = 64 * MEBIBYTE


class Format(StrEnum):
    """What kind of model a version is."""

    ONNX = "onnx"
    SKLEARN = "sklearn"
    TORCH = "torch"


class Container(StrEnum):
    """How the model is written down."""

    ONNX = "onnx"
    PICKLE = "pickle"
    JOBLIB = "joblib"
    SKOPS = "skops"
    TORCHSCRIPT = "torchscript"
    PT2 = "pt2"


FORMAT_OF: dict[Container, Format] = {
    Container.ONNX: Format.ONNX,
    Container.PICKLE: Format.SKLEARN,
    Container.JOBLIB: Format.SKLEARN,
    Container.SKOPS: Format.SKLEARN,
    Container.TORCHSCRIPT: Format.TORCH,
    Container.PT2: Format.TORCH,
}

# Opening these may run code, so they need the permission of DESIGN.md section 4.4. A skops file is
# opened by a list of types and needs no permission.
CODE_BEARING = frozenset({Container.PICKLE, Container.JOBLIB, Container.TORCHSCRIPT, Container.PT2})
# Lists of types have been walked around before: these are opened only behind walls that hold code.
NEEDS_WALLS = CODE_BEARING | {Container.SKOPS}

# Endings people use, by family; an ending that is not here says nothing.
ENDINGS: dict[str, str] = {
    ".onnx": "ONNX",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".joblib": "pickle",
    ".skops": "skops",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".pt2": "PyTorch",
    ".torchscript": "PyTorch",
    ".h5": "Keras",
    ".hdf5": "Keras",
    ".keras": "Keras",
    ".pb": "TensorFlow",
    ".tflite": "TensorFlow Lite",
    ".safetensors": "safetensors",
}
FAMILY: dict[Container, str] = {
    Container.ONNX: "ONNX",
    Container.PICKLE: "pickle",
    Container.JOBLIB: "pickle",
    Container.SKOPS: "skops",
    Container.TORCHSCRIPT: "PyTorch",
    Container.PT2: "PyTorch",
}
# What an uploader may call the formats.
SAID: dict[str, Format] = {
    "onnx": Format.ONNX,
    "sklearn": Format.SKLEARN,
    "scikit-learn": Format.SKLEARN,
    "pickle": Format.SKLEARN,
    "joblib": Format.SKLEARN,
    "torch": Format.TORCH,
    "pytorch": Format.TORCH,
    "torchscript": Format.TORCH,
    "pt2": Format.TORCH,
}

TO_ONNX = "Export the model to ONNX and upload that."
# The two lines that make a good file out of a model and one example input.
TO_TORCH = (
    "Build the model, load the weights, and save the program with it: "
    "program = torch.export.export(model.eval(), (example,), "
    "dynamic_shapes=({0: torch.export.Dim('rows')},)); "
    "torch.export.save(program, 'model.pt2'). "
    "Or, as TorchScript: torch.jit.save(torch.jit.script(model.eval()), 'model.pt')."
)
FORMATS_WE_TAKE = (
    "Upload an ONNX file, a scikit-learn model as .joblib, .pkl or .skops, or a PyTorch program "
    "as .pt2 (torch.export) or TorchScript .pt."
)


class NotAModel(Invalid):
    """The file is not one of the formats we take; the message says what it is instead."""

    code = "not_a_model"

    def __init__(self, message: str, remedy: str = FORMATS_WE_TAKE) -> None:
        """Keep both sentences."""
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a file is.

    Attributes:
        container: How it is written down.
        compressed: Which compression lies around it, or an empty text.
    """

    container: Container
    compressed: str = ""

    @property
    def format(self) -> Format:
        """The kind of model it should hold."""
        return FORMAT_OF[self.container]


def recognise(path: Path) -> Recognised:
    """Say what the file is by its content.

    Raises:
        NotAModel: It is empty, cut off, or something else.
    """
    if path.stat().st_size == 0:
        raise NotAModel("The file is empty.", "Upload the file again.")
    with path.open("rb") as file:
        head = file.read(4096)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _zip(path)
        if (compression := _compression(head)) is not None:
            return _compressed(file, compression)
        if head.startswith(OLD_TORCH):
            raise NotAModel(ONLY_WEIGHTS, TO_TORCH)
        if _is_pickle(head):
            return Recognised(_kind_of_pickle(file))
    if (other := _other_kind(head)) is not None:
        raise other
    _check_onnx(path)
    return Recognised(Container.ONNX)


def check_name(name: str, found: Container) -> None:
    """Refuse a file whose name says it is of another kind.

    Raises:
        NotAModel: The ending belongs to another family than the content.
    """
    ending = PurePosixPath(name).suffix.lower()
    said, is_really = ENDINGS.get(ending), FAMILY[found]
    if said is not None and said != is_really:
        raise NotAModel(
            f"The name ends in {ending}, which says {said}, but the content is {is_really}.",
            "Check that this is the file you mean, and give it the ending of its kind.",
        )


def check_declared(declared: str, found: Format) -> None:
    """Refuse a file that is of another format than the uploader said.

    Raises:
        NotAModel: The two differ.
    """
    said = declared.lower()
    if said not in {"", "auto"} and SAID.get(said) is not found:
        raise NotAModel(
            f"The upload was declared as {declared[:40]}, but the content is {found.value}.",
            "Leave the format out, or name the one the file has.",
        )


# -- PyTorch -----------------------------------------------------------------------------------

ONLY_WEIGHTS = (
    "The file is what PyTorch's torch.save writes: weights (a state dict) or a pickled module, "
    "not a program that can run without your classes."
)
# The number that torch.save wrote first before it wrote zips, itself a pickle.
OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
# Members of the tar archives that the first versions of torch.save wrote.
OLD_TORCH_TAR = frozenset({b"sys_info", b"pickle", b"storages", b"tensors"})


# -- pickles -----------------------------------------------------------------------------------


def _is_pickle(head: bytes) -> bool:
    if head[:1] == b"\x80" and len(head) > 1:
        return 2 <= head[1] <= 5
    if head[:1] not in {b"(", b"c", b"]", b"}"}:
        return False
    try:  # protocols 0 and 1 have no magic; their first operations are text-like but strict
        first = [op.name for op, _, _ in itertools.islice(pickletools.genops(head), 4)]
    except ValueError:
        return False
    return len(first) == 4 or first[-1] == "STOP"


def _kind_of_pickle(file: IO[bytes]) -> Container:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        is_joblib = view.find(b"NumpyArrayWrapper") >= 0
    return Container.JOBLIB if is_joblib else Container.PICKLE


def _compression(head: bytes) -> str | None:
    if head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
        return "zlib"
    for magic, name in (
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bz2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"\x5d\x00\x00", "lzma"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ):
        if head.startswith(magic):
            return name
    return None


def _compressed(file: IO[bytes], compression: str) -> Recognised:
    """See that a compressed file holds a pickle, by its first bytes."""
    if compression == "lz4":
        raise NotAModel(
            "The file is compressed with lz4, which is not read here.",
            "Save it with joblib.dump(model, file, compress=('zlib', 3)).",
        )
    file.seek(0)
    try:
        head = _unpacked_head(file, compression)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise NotAModel(
            f"The file begins like {compression} data, but is damaged or ends too early.",
            "Save the model again and upload the whole file.",
        ) from error
    if not _is_pickle(head):
        raise NotAModel(f"The file is {compression} data that holds no pickled model.")
    return Recognised(Container.JOBLIB, compression)


def _unpacked_head(file: IO[bytes], compression: str) -> bytes:
    if compression == "zlib":
        return zlib.decompressobj().decompress(file.read(65536), 4096)
    if compression == "gzip":
        with gzip.open(file) as unpacked:
            return unpacked.read(4096)
    with bz2.open(file) if compression == "bz2" else lzma.open(file) as stream:
        return bytes(stream.read(4096))


# -- zips --------------------------------------------------------------------------------------

# The record of a large archive, the pointer to it, and the end with its comment.
RECORD_BYTES, POINTER_BYTES = 56, 20
LONGEST_TAIL = POINTER_BYTES + 22 + (1 << 16)


def _zip(path: Path) -> Recognised:
    try:
        _check_one_list(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_own_list(members)
            container = _kind_of_zip([one.filename for one in members])
            check_members(members)
            _check_unpacked_size(archive, path.stat().st_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise NotAModel(
            "The file begins like a zip, but is damaged or ends too early.",
            "Save the model again and upload the whole file.",
        ) from error
    return Recognised(container)


def _check_one_list(path: Path) -> None:
    """See that all readers of zips find the same list of members.

    Large archives end in a record and a pointer to it. Some readers, PyTorch's among them, follow
    the pointer; Python's took what stands before it. A file where the two differ shows each reader
    other members.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        tail_at = max(0, size - LONGEST_TAIL)
        file.seek(tail_at)
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - 18))
    pointer = tail[end - POINTER_BYTES : end] if end >= POINTER_BYTES else b""
    if not pointer.startswith(b"PK\x06\x07"):
        return
    before = tail_at + end - POINTER_BYTES - RECORD_BYTES
    if int.from_bytes(pointer[8:16], "little") != before:
        raise zipfile.BadZipFile


def _check_own_list(members: list[zipfile.ZipInfo]) -> None:
    """See that the list found is that of the file, not of an archive inside a cut-off one."""
    if min((one.header_offset for one in members), default=0) != 0:
        raise zipfile.BadZipFile


def _kind_of_zip(names: list[str]) -> Container:
    if "schema.json" in names:
        return Container.SKOPS
    container = torch_container(names)
    if container is None:
        raise _other_zip(names)
    return container


def torch_container(names: list[str]) -> Container | None:
    """Say which kind of PyTorch program has these members, or None if it is no PyTorch file.

    Raises:
        NotAModel: A PyTorch file that holds no program, or one compiled for a single machine.
    """
    # PyTorch puts everything into one folder, named after the file.
    inner = {name.partition("/")[2] for name in names} | set(names)
    if any(name.startswith("data/aotinductor/") for name in inner):
        raise NotAModel(
            "The file holds machine code compiled by AOTInductor, which runs only on machines "
            "like the one that made it, and is never opened here.",
            TO_TORCH,
        )
    if "archive_format" in inner or "serialized_exported_program.json" in inner:
        return Container.PT2
    if "constants.pkl" in inner and "data.pkl" in inner:
        return Container.TORCHSCRIPT
    if "data.pkl" in inner:
        raise NotAModel(ONLY_WEIGHTS, TO_TORCH)
    return None


def _other_zip(names: list[str]) -> NotAModel:
    if any(name.startswith("MAR-INF/") for name in names):
        return NotAModel(
            "The file is a TorchServe archive (.mar): weights, and a handler that is a program.",
            TO_TORCH,
        )
    if "model.weights.h5" in names or "config.json" in names:
        return NotAModel("The file is a Keras file, which is not accepted yet.", TO_ONNX)
    if any(name.startswith("[Content_Types]") for name in names):
        return NotAModel("The file is an office document, not a model.")
    if names and all(name.endswith(".npy") for name in names):
        return NotAModel("The file holds numpy arrays (.npz), not a model.")
    return NotAModel("The file is a zip archive without a model that we know.")


def check_members(members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive whose list alone is hostile.

    Raises:
        NotAModel: Too many members, links, or names that lead out or collide.
    """
    if len(members) > MOST_MEMBERS:
        raise NotAModel(f"The archive holds {len(members)} files; {MOST_MEMBERS} are allowed.")
    seen: set[str] = set()
    for one in members:
        name = one.filename
        parts = PurePosixPath(name).parts
        if not name or name.startswith("/") or "\\" in name or "\0" in name or ".." in parts:
            raise NotAModel("The archive holds a name that leads out of its folder.")
        mode = one.external_attr >> 16
        if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise NotAModel("The archive holds a link or a device.")
        if name.lower() in seen:
            raise NotAModel("The archive holds the same name twice.")
        seen.add(name.lower())


def _check_unpacked_size(archive: zipfile.ZipFile, packed: int) -> None:
    """Count what really comes out; the sizes written in a zip may lie."""
    most = min(MOST_UNPACKED, max(FREE_UNPACKED, MOST_RATIO * packed))
    total = 0
    for one in archive.infolist():
        with archive.open(one) as member:
            while part := member.read(MEBIBYTE):
                total += len(part)
                if total > most:
                    raise NotAModel(
                        f"The archive unpacks to more than {most // MEBIBYTE} MB from "
                        f"{packed} bytes: it looks like a zip bomb."
                    )


# -- ONNX --------------------------------------------------------------------------------------

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# Fields of ModelProto and how each is written.
ONNX_FIELDS = {
    **dict.fromkeys((1, 5), VARINT),
    **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), BYTES),
}
IR_VERSION, GRAPH, OPSETS = 1, 7, 8


def _check_onnx(path: Path) -> None:
    """See that the top fields are those of an ONNX model and reach to the end of the file."""
    fields: set[int] = set()
    try:
        fields.update(_fields(path))
    except _CutOff as error:
        if IR_VERSION in error.fields:
            raise NotAModel(
                "The file begins like ONNX, but ends too early.",
                "Upload the whole file again.",
            ) from error
        raise NotAModel("The file is of no kind that we know.") from error
    if not {IR_VERSION, GRAPH, OPSETS} <= fields:
        if IR_VERSION in fields and fields & {2, 3, 8}:
            raise NotAModel(
                "The file begins like ONNX, but holds no graph; it may be cut off.",
                "Upload the whole file again.",
            )
        raise NotAModel("The file is of no kind that we know.")


class _CutOff(Exception):
    def __init__(self, fields: set[int]) -> None:
        super().__init__()
        self.fields = fields


def _fields(path: Path) -> Iterator[int]:
    size = path.stat().st_size
    fields: set[int] = set()
    with path.open("rb") as file:
        while (at := file.tell()) < size:
            key = _varint(file)
            number, wire = (key >> 3, key & 7) if key is not None else (0, 7)
            if ONNX_FIELDS.get(number) != wire:
                raise _CutOff(fields if at else set())
            value = _varint(file)
            if value is None:
                raise _CutOff(fields)
            fields.add(number)
            yield number
            if wire == BYTES:
                if file.tell() + value > size:
                    raise _CutOff(fields)
                file.seek(value, 1)


def _varint(file: IO[bytes]) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


# -- everything else ---------------------------------------------------------------------------

MAGICS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "a Keras or HDF5 file, which is not accepted yet", TO_ONNX),
    (b"\x89PNG", "a PNG image", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"GIF8", "a GIF image", ""),
    (b"%PDF", "a PDF document", ""),
    (b"\x7fELF", "a Linux program", ""),
    (b"MZ", "a Windows program", ""),
    (b"GGUF", "a GGUF file, which is not accepted", TO_ONNX),
    (b"PAR1", "a Parquet table", ""),
    (b"\x93NUMPY", "a numpy array", ""),
    (b"#!", "a script", ""),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", ""),
    (b"Rar!", "a RAR archive", ""),
)


def _other_kind(head: bytes) -> NotAModel | None:
    for magic, words, remedy in MAGICS:
        if head.startswith(magic):
            return NotAModel(f"The file is {words}.", remedy or FORMATS_WE_TAKE)
    if head[4:8] == b"TFL3":
        return NotAModel("The file is a TensorFlow Lite file, which is not accepted.", TO_ONNX)
    if head[8:9] == b"{" and head[1:8].strip(b"\0") == head[1:3].strip(b"\0"):
        return NotAModel("The file is a safetensors file: weights without a model.", TO_TORCH)
    if len(head) > 262 and head[257:262] == b"ustar":
        if head[:100].rstrip(b"\0").removeprefix(b"./") in OLD_TORCH_TAR:
            return NotAModel(ONLY_WEIGHTS, TO_TORCH)
        return NotAModel("The file is a tar archive, not a model.")
    return _text(head)


def _text(head: bytes) -> NotAModel | None:
    try:
        words = head[:1024].decode("utf-8").lstrip("\ufeff").lstrip()
    except UnicodeDecodeError:
        return None
    if not all(c.isprintable() or c in "\r\n\t" for c in words):
        return None
    kind = "an HTML page" if words[:200].lower().startswith(("<!doctype", "<html")) else "text"
    if words[:1] in {"{", "["}:
        kind = "JSON text"
    if words.startswith("version https://git-lfs"):
        return NotAModel(
            "The file is a Git LFS pointer, not the model itself.", "Run git lfs pull first."
        )
    return NotAModel(f"The file is {kind}, not a model.")

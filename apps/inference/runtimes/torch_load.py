"""Opens a PyTorch program, TorchScript or ``.pt2``; only inside a confined process.

The walls around this process are what holds. What is checked here is the second wall, and says in
words what a hostile or odd file wanted: before PyTorch reads a ``.pt2``, the names of its operators
and its formulas are held against a list, and none of its pickles may hold more than tensors.
"""

import ast
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.inference.engine.errors import ModelFailed
from apps.inference.engine.types import Tensors
from apps.registry.formats import Container, NotAModel, torch_container

Array = NDArray[np.generic]

SAVE_AGAIN = "Save the model again with a current PyTorch, and upload the whole file."
TENSORS_ONLY = (
    "Let forward take tensors, or values with a default: wrap the model in a module whose forward "
    "has tensors only."
)
MOST_GRAPH_BYTES = 256 << 20


class Unloadable(ModelFailed):
    """The file cannot be opened as a PyTorch program; ``remedy`` says what to do."""

    def __init__(self, message: str, remedy: str = SAVE_AGAIN) -> None:
        """Keep both sentences."""
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Wanted:
    """One input tensor.

    Attributes:
        name: Name in the program's graph, else its place.
        dtype: Element type, where the file says it.
        shape: Sizes, -1 where free, where the file says them.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A program that can be called, and what its file says of it.

    Attributes:
        container: TorchScript or ``.pt2``.
        inputs: The tensors to call it with, in its order.
        call: Runs it on tensors by name; returns whatever it returns.
        program: The library's own object, for the converters.
        example: Inputs that the file brought along, or None.
        made_with: Version of PyTorch that wrote it, where the file says it.
    """

    container: Container
    inputs: tuple[Wanted, ...]
    call: Callable[[Mapping[str, Any]], Any]
    program: Any
    example: Tensors | None = None
    made_with: str = ""


def open_program(path: Path) -> Opened:
    """Open one file.

    Raises:
        Unloadable: It is no program, or holds more than tensors and known operators.
    """
    names = _members(path)
    try:
        container = torch_container(names)
    except NotAModel as error:
        raise Unloadable(error.message, error.remedy) from error
    if container is None:
        raise Unloadable("The file is no PyTorch program.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if container is Container.TORCHSCRIPT:
            return _open_script(path, names)
        return _open_exported(path, names)


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise Unloadable("The file is damaged or ends too early.") from error


def _unreadable(kind: str, error: Exception) -> Unloadable:
    words = _words(error)
    remedy = "Move model and example to the CPU before saving." if "CUDA" in words else SAVE_AGAIN
    return Unloadable(f"PyTorch cannot open this {kind}: {words}", remedy)


def _words(error: BaseException) -> str:
    """The first lines of what the library says; the rest is its own stack."""
    said = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines() or [""]
    return f"{type(error).__name__}: {' '.join(said[:4])}"[:400]


# -- TorchScript -------------------------------------------------------------------------------

# The built-in operators that reach outside: the file system and other machines.
REACHES_OUT = re.compile(
    rb"\b(?:torch|ops\.\w+)\.(from_file|save|load|rpc_\w+|to_here)\b|\b(rpc_\w+)\("
)


def _open_script(path: Path, names: list[str]) -> Opened:
    import torch

    _check_code(path, names)
    library: Any = torch.jit  # it says no types
    try:
        module = library.load(str(path), map_location="cpu").eval()
        arguments = module.forward.schema.arguments[1:]
    except (RuntimeError, ValueError, AttributeError) as error:
        raise _unreadable("TorchScript", error) from error
    wanted = tuple(_script_inputs(arguments))

    def call(tensors: Mapping[str, Any]) -> Any:
        return module(*(tensors[one.name] for one in wanted))

    return Opened(Container.TORCHSCRIPT, wanted, call, module)


def _check_code(path: Path, names: list[str]) -> None:
    """Look for operators that reach outside; the code in the file is text."""
    with zipfile.ZipFile(path) as archive:
        for name in names:
            if "/code/" not in name or not name.endswith(".py"):
                continue
            found = REACHES_OUT.search(archive.read(name))
            if found is not None:
                operator = (found[1] or found[2]).decode("ascii", "replace")
                raise Unloadable(
                    f"This TorchScript uses the operator {operator}, which reads or writes "
                    "outside the model. Nothing of it was run.",
                    "Keep everything the model needs in its parameters and buffers.",
                )


def _script_inputs(arguments: Any) -> Iterator[Wanted]:
    for at, one in enumerate(arguments):
        if str(one.type) != "Tensor":
            if one.has_default_value():
                return
            raise Unloadable(
                f"Input {one.name or at} of forward is {one.type}, not a tensor.", TENSORS_ONLY
            )
        yield Wanted(str(one.name or f"input_{at}"))


# -- .pt2 --------------------------------------------------------------------------------------

# Operators that compute. What PyTorch would find under any other name (``torch.os.system``) is
# not asked for.
TARGET = re.compile(
    r"torch\.ops\.(?:aten|prims|quantized_decomposed)\.(?!from_file\b)"
    r"(?:__i?(?:and|or|xor|lshift|rshift)__|_?[A-Za-z]\w*)\.\w+"
    r"|torch\.ops\.higher_order\.[a-z]\w*"
    r"|torch\._?sym_[a-z]\w*|math\.[a-z]\w*"
    r"|_operator\.(?:add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge"
    r"|and_|or_|xor|not_|getitem|lshift|rshift|matmul)"
)
# What a formula on sizes may be made of: PyTorch hands it to an evaluator of Python. Names are
# those that PyTorch writes (sympy's srepr); a text stands only as the name of a symbol.
FORMULA_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.keyword,
    ast.Name, ast.Load, ast.Constant, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
FORMULA_FUNCTIONS = frozenset(
    """
    Symbol Integer Rational Float Add Mul Pow Max Min Abs And Or Not Equality Unequality
    GreaterThan LessThan StrictGreaterThan StrictLessThan Eq Ne Lt Le Gt Ge Piecewise
    ExprCondPair FloorDiv ModularIndexing Where PythonMod Mod CleanDiv CeilToInt FloorToInt
    CeilDiv LShift RShift PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt
    RoundToInt RoundDecimal ToFloat Identity IsNonOverlappingAndDenseIndicator
    """.split()  # noqa: SIM905  forty names read better as words
)
SYMBOL = re.compile(r"[a-z]{1,5}\d{1,9}")


def _open_exported(path: Path, names: list[str]) -> Opened:
    import torch.export

    _check_exported(path, names)
    try:
        with path.open("rb") as file, _tensors_only():
            program = torch.export.load(file)
            # Its guards are Python source out of the file; sizes are checked without them.
            module = program.module(check_guards=False)
    except Unloadable:
        raise
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable("exported program", error) from error
    return _exported(program, module, _made_with(path, names))


def _check_exported(path: Path, names: list[str]) -> None:
    """Hold operators and formulas against the lists before PyTorch looks them up."""
    with zipfile.ZipFile(path) as archive:
        for name in names:
            short = name.rpartition("/")[2]
            if "/data/constants/" in name and not short.startswith(("tensor_", "model_")):
                raise Unloadable(
                    "This exported program carries a custom object, which is a pickle of any kind.",
                    "Export a module whose constants are tensors and numbers.",
                )
            if "/models/" in name or short == "serialized_exported_program.json":
                _check_graph(archive, name)


def _check_graph(archive: zipfile.ZipFile, name: str) -> None:
    if archive.getinfo(name).file_size > MOST_GRAPH_BYTES:
        raise Unloadable(f"The graph is larger than {MOST_GRAPH_BYTES >> 20} MB.")
    try:
        body = json.loads(archive.read(name))
    except (ValueError, RecursionError) as error:
        raise Unloadable("The graph of this exported program cannot be read.") from error
    for key, value in _said(body):
        if key == "target" and not TARGET.fullmatch(value):
            raise Unloadable(
                f"This exported program wants {value[:120]}, which is not on the list of what a "
                "graph may compute with. Nothing of it was run.",
                "Export the model with PyTorch's own operators only.",
            )
        if key == "expr_str" and not _is_plain(value):
            raise Unloadable(
                f"A size in this exported program is no plain formula: {value[:120]}. Nothing of "
                "it was run.",
            )


def _said(body: Any) -> Iterator[tuple[str, str]]:
    """Every text in a JSON document with the key above it."""
    waiting: list[tuple[str, Any]] = [("", body)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, one) for one in value]


def _is_plain(formula: str) -> bool:
    try:
        tree = ast.parse(formula, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_plain_node(one) for one in ast.walk(tree))


def _is_plain_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in FORMULA_FUNCTIONS
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return bool(SYMBOL.fullmatch(str(node.value)))
    if isinstance(node, ast.Name):
        return "__" not in node.id
    return isinstance(node, FORMULA_NODES)


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Make every unpickling inside PyTorch's reader one of tensors, also where it falls back.

    ``torch.export.load`` tries tensors first and then unpickles anything. The process that does
    this has no other threads that load.
    """
    import torch
    from torch.export.pt2_archive import _package

    library: Any = torch
    reader: Any = _package
    load = library.load

    def load_tensors(file: Any, **_: Any) -> Any:
        try:
            return load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise Unloadable(
                f"The example inputs or weights of this exported program hold more than tensors: "
                f"{_what(error)}. Nothing of it was run.",
                "Export with example inputs that are tensors, numbers, and lists or dicts of them.",
            ) from error

    kept = reader.pickle
    library.load = load_tensors
    reader.pickle = None  # nothing of this module may unpickle by itself
    try:
        yield
    finally:
        library.load = load
        reader.pickle = kept


def _what(error: Exception) -> str:
    """The name that a pickle asked for, out of PyTorch's long advice."""
    found = re.search(r"(?:GLOBAL|global|function|class) ([\w.]+\.[\w.]+)", str(error))
    return found[1] if found else _words(error)[:200]


def _made_with(path: Path, names: list[str]) -> str:
    with zipfile.ZipFile(path) as archive:
        for name in names:
            if "/models/" in name:
                version = json.loads(archive.read(name)).get("torch_version")
                return version[:40] if isinstance(version, str) else ""
    return ""


def _exported(program: Any, module: Any, made_with: str) -> Opened:
    from torch.utils import _pytree as pytree

    holders = _placeholders(program)
    wanted = tuple(one for one in holders if isinstance(one, Wanted))
    in_spec = program.call_spec.in_spec

    def call(tensors: Mapping[str, Any]) -> Any:
        flat = [tensors[one.name] if isinstance(one, Wanted) else one.value for one in holders]
        positional, named = pytree.tree_unflatten(flat, in_spec)
        return module(*positional, **named)

    return Opened(Container.PT2, wanted, call, program, _example_of(program, holders), made_with)


@dataclass(frozen=True, slots=True)
class _Fixed:
    """An input that is no tensor: the value it was exported with."""

    value: Any


def _placeholders(program: Any) -> list[Wanted | _Fixed]:
    """What it is called with, in order: tensors, and values fixed at export."""
    from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument

    values = {one.name: one.meta.get("val") for one in program.graph.nodes
              if one.op == "placeholder"}  # fmt: skip
    found: list[Wanted | _Fixed] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, ConstantArgument):
            found.append(_Fixed(spec.arg.value))
        elif isinstance(spec.arg, TensorArgument):
            found.append(_wanted(spec.arg.name, values[spec.arg.name]))
        else:
            raise Unloadable(f"Input {spec.arg.name} is not a tensor.", TENSORS_ONLY)
    return found


def _wanted(name: str, value: Any) -> Wanted:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return Wanted(name, str(value.dtype).removeprefix("torch."), shape)


def _example_of(program: Any, holders: list[Wanted | _Fixed]) -> dict[str, Array] | None:
    from torch.utils import _pytree as pytree

    if not program.example_inputs:
        return None
    flat = pytree.tree_leaves(program.example_inputs)
    if len(flat) != len(holders):
        return None
    pairs = zip(holders, flat, strict=True)
    return {one.name: value.detach().numpy() for one, value in pairs if isinstance(one, Wanted)}

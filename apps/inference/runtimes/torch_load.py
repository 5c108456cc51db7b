"""Opens a PyTorch program, TorchScript or ``.pt2``; only inside a confined process.

The walls around this process are what holds. What is checked here is the second wall, and says in
words what a hostile or odd file wanted: before PyTorch reads a ``.pt2``, the names of its operators
and its formulas are held against a list, and none of its pickles may hold more than tensors.

What is checked is what PyTorch's own reader of zips gives, beside what Python's gives: a file can
be made that shows each of them other members.
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
    views = _views(path)
    kinds = {_container_of(one) for one in views}
    container = kinds.pop()
    if kinds:
        raise Unloadable("The file shows PyTorch's reader another content than Python's.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if container is Container.TORCHSCRIPT:
            if len(views) < 2:  # its reader lists nothing that could be checked
                raise Unloadable("PyTorch's reader cannot list what this TorchScript holds.")
            return _open_script(path, views)
        return _open_exported(path, views)


@dataclass(frozen=True, slots=True)
class _View:
    """One reader's members.

    PyTorch finds most members whatever the case of their names, so the checks do too.

    Attributes:
        names: Each member as ``/<folder>/.../<name>``, without PyTorch's one outer folder.
        read: Gives the content of one of the names.
    """

    names: tuple[str, ...]
    read: Callable[[str], bytes]


def _container_of(view: _View) -> Container:
    try:
        container = torch_container([name.removeprefix("/") for name in view.names])
    except NotAModel as error:
        raise Unloadable(error.message, error.remedy) from error
    if container is None:
        raise Unloadable("The file is no PyTorch program.")
    return container


def _views(path: Path) -> list[_View]:
    """The members as Python's reader gives them, and as PyTorch's does if it opens the file."""
    views = [_python_view(path)]
    own = _own_view(path)
    if own is not None:
        views.append(own)
    return views


def _python_view(path: Path) -> _View:
    try:
        with zipfile.ZipFile(path) as archive:
            full = {_without_root(name): name for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise Unloadable("The file is damaged or ends too early.") from error

    def read(name: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(full[name])

    return _View(tuple(full), read)


def _without_root(name: str) -> str:
    """PyTorch puts everything into one folder; files of torch 2.7 and before have none."""
    _, slash, inner = name.partition("/")
    return f"/{inner}" if slash else f"/{name}"


def _own_view(path: Path) -> _View | None:
    from torch import _C

    library: Any = _C  # it says no types
    try:
        reader = library.PyTorchFileReader(str(path))
        names = [str(name) for name in reader.get_all_records()]
    except RuntimeError:  # an exported program without the folder is read by Python's reader
        return None
    if len({name.lower() for name in names}) != len(names):
        raise Unloadable("The file holds the same name twice.")

    def read(name: str) -> bytes:
        content: bytes = reader.get_record(name.removeprefix("/"))
        return content

    return _View(tuple(f"/{name}" for name in names), read)


def _unreadable(kind: str, error: Exception) -> Unloadable:
    words = _words(error)
    remedy = "Move model and example to the CPU before saving." if "CUDA" in words else SAVE_AGAIN
    return Unloadable(f"PyTorch cannot open this {kind}: {words}", remedy)


def _words(error: BaseException) -> str:
    """The first lines of what the library says; the rest is its own stack."""
    said = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines() or [""]
    return f"{type(error).__name__}: {' '.join(said[:4])}"[:400]


# -- TorchScript -------------------------------------------------------------------------------

# The built-in operators that reach outside, the file system and other machines, as words anywhere
# in the code: `t = torch` gives them another owner, and blanks and comments may stand before them.
# `getattr` takes a name as a text, which has many spellings; PyTorch writes it for the members of a
# sequence, `getattr(layers, "0")`, and only the plain spelling is let through.
REACHES_OUT = re.compile(
    rb"\b(from_file|save|load_tensor|to_here|rpc_\w+"
    rb"|getattr(?!\([\w.()]+, \"[^\"\\]*\"\)))\b"
)


def _open_script(path: Path, views: list[_View]) -> Opened:
    import torch

    for view in views:
        _check_code(view)
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


def _check_code(view: _View) -> None:
    """Look for operators that reach outside; the code in the file is text."""
    for name in view.names:
        if not name.lower().endswith(".py"):
            continue
        found = REACHES_OUT.search(view.read(name))
        if found is not None:
            raise Unloadable(
                f"The code of this TorchScript says {found[1].decode('ascii', 'replace')}, the "
                "name of an operator that reads or writes outside the model. Nothing of it was "
                "run.",
                "Keep everything the model needs in its parameters and buffers. If it is only a "
                "name of your own or a word in a text, choose another.",
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


def _open_exported(path: Path, views: list[_View]) -> Opened:
    import torch.export

    for view in views:
        _check_exported(view)
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
    return _exported(program, module, _made_with(views[0]))


CONSTANTS = "/data/constants/"
OLD_GRAPH = "/serialized_exported_program.json"
CUSTOM_OBJECT = (
    "This exported program carries a custom object, which is a pickle of any kind.",
    "Export a module whose constants are tensors and numbers.",
)


def _check_exported(view: _View) -> None:
    """Hold operators and formulas against the lists before PyTorch looks them up."""
    for name in view.names:
        low = name.lower()
        constant = low.removeprefix(CONSTANTS)
        if constant != low and not constant.startswith(("tensor_", "model_")):
            raise Unloadable(*CUSTOM_OBJECT)
        if low.startswith("/models/") or low.endswith(OLD_GRAPH):
            _check_graph(view.read(name))


def _check_graph(content: bytes) -> None:
    if len(content) > MOST_GRAPH_BYTES:
        raise Unloadable(f"The graph is larger than {MOST_GRAPH_BYTES >> 20} MB.")
    try:
        body = json.loads(content)
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
    from torch import _C
    from torch.export.pt2_archive import _package

    library: Any = torch
    reader: Any = _package
    native = vars(_C)
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

    def no_object(_: Any) -> Any:
        raise Unloadable(*CUSTOM_OBJECT)

    # Nothing of this module may unpickle by itself, and no object of C++ is made from bytes.
    kept, kept_object = reader.pickle, native["_pickle_load_obj"]
    library.load = load_tensors
    reader.pickle = None
    native["_pickle_load_obj"] = no_object
    try:
        yield
    finally:
        library.load = load
        reader.pickle = kept
        native["_pickle_load_obj"] = kept_object


def _what(error: Exception) -> str:
    """The name that a pickle asked for, out of PyTorch's long advice."""
    found = re.search(r"(?:GLOBAL|global|function|class) ([\w.]+\.[\w.]+)", str(error))
    return found[1] if found else _words(error)[:200]


def _made_with(view: _View) -> str:
    for name in view.names:
        if name.startswith("/models/"):
            version = json.loads(view.read(name)).get("torch_version")
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

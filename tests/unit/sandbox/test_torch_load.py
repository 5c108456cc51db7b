"""PyTorch files: told apart by content, refused with the lines that help, opened by lists."""

import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.inference.runtimes import torch_load
from apps.inference.runtimes.torch_load import Unloadable, open_program
from apps.registry.formats import (
    CODE_BEARING,
    NEEDS_WALLS,
    Container,
    Format,
    NotAModel,
    check_declared,
    check_name,
    recognise,
)
from tests.unit.runtimes import programs

FOUR = torch.rand(2, 4)


def test_torchscript_and_exported_programs_are_recognised_and_carry_code(tmp_path: Path) -> None:
    script = recognise(programs.script(programs.Scores(), tmp_path / "a"))
    exported = recognise(programs.exported(programs.Scores(), tmp_path / "b", FOUR))
    assert (script.container, exported.container) == (Container.TORCHSCRIPT, Container.PT2)
    assert script.format is exported.format is Format.TORCH
    assert {script.container, exported.container} <= CODE_BEARING & NEEDS_WALLS


def _saved(what: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(what, buffer, **how)
    return buffer.getvalue()


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


WEIGHTS = "torch.save"
OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a state dict": (lambda: _saved(programs.Layers().state_dict()), WEIGHTS),
    "a pickled module": (lambda: _saved(programs.Layers()), WEIGHTS),
    "an old state dict": (
        lambda: _saved(programs.Layers().state_dict(), _use_new_zipfile_serialization=False),
        WEIGHTS,
    ),
    "a very old state dict": (_tar, WEIGHTS),
    "safetensors": (lambda: (64).to_bytes(8, "little") + b'{"a":{}}' + b" " * 60, "safetensors"),
    "TorchServe": (lambda: _zip("MAR-INF/MANIFEST.json", "model.pt", "handler.py"), "TorchServe"),
    "machine code": (
        lambda: _zip("m/archive_format", "m/data/aotinductor/model/a.so"),
        "machine code",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_program_is_refused_with_the_lines_that_make_one(
    kind: str, tmp_path: Path
) -> None:
    make, words = OTHERS[kind]
    (tmp_path / "upload").write_bytes(make())
    with pytest.raises(NotAModel, match=words) as caught:
        recognise(tmp_path / "upload")
    assert "torch.export.save(" in caught.value.remedy
    assert "torch.jit.save(" in caught.value.remedy


def test_name_and_declared_format_must_fit_the_content() -> None:
    check_name("m.pt2", Container.PT2)
    check_name("m.pt", Container.TORCHSCRIPT)
    for said in ("", "auto", "torch", "PyTorch", "torchscript"):
        check_declared(said, Format.TORCH)
    with pytest.raises(NotAModel, match=r"name ends in \.onnx"):
        check_name("m.onnx", Container.PT2)
    with pytest.raises(NotAModel, match="declared as sklearn"):
        check_declared("sklearn", Format.TORCH)


def test_a_program_says_its_inputs_as_far_as_its_file_does(tmp_path: Path) -> None:
    exported = open_program(programs.exported(programs.Scores(), tmp_path / "a", FOUR))
    script = open_program(programs.script(programs.TwoInputs(), tmp_path / "b"))
    (x,) = exported.inputs
    assert (x.name, x.dtype, x.shape) == ("x", "float32", (-1, 4))
    assert exported.example is not None
    assert exported.made_with == torch.__version__
    assert [(one.name, one.dtype, one.shape) for one in script.inputs] == [
        ("kind", None, None),
        ("sizes", None, None),
    ]


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.hub.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.__class__.mro",
        "torch.ops.evil.op.default",
        "_operator.attrgetter",
        "math.__loader__",
        "builtins.exec",
    ],
)
def test_an_operator_that_is_not_on_the_list_is_named_and_not_looked_up(
    target: str, tmp_path: Path
) -> None:
    path = programs.exported(programs.Scores(), tmp_path / "m.pt2", FOUR)
    programs.in_graph(
        path, lambda body: body["graph_module"]["graph"]["nodes"][0].update(target=target)
    )
    with pytest.raises(Unloadable, match="not on the list") as caught:
        open_program(path)
    assert target in caught.value.message


@pytest.mark.parametrize(
    ("formula", "plain"),
    [
        ("Symbol('s31', positive=True, integer=True)", True),
        ("Add(Mul(Integer(2), Symbol('s0', integer=True)), Integer(-1))", True),
        ("Max(Integer(1), FloorDiv(Symbol('s0'), Integer(2)))", True),
        ("__import__('os').system('true')", False),
        ("Symbol.__class__", False),
        ("().__class__.__base__.__subclasses__()", False),
        ('Max(\'__import__("os").system("true")\', Integer(1))', False),
        ("exec('1')", False),
        ("[x for x in (1,)]", False),
        ("lambda: 0", False),
        ("(", False),
    ],
)
def test_a_formula_is_made_of_listed_parts_only(formula: str, plain: bool) -> None:
    assert torch_load._is_plain(formula) is plain


def test_a_formula_of_code_is_refused_before_pytorch_evaluates_it(tmp_path: Path) -> None:
    path = programs.exported(programs.Scores(), tmp_path / "m.pt2", FOUR)
    formula = f"open({str(tmp_path / 'touched')!r}, 'w')"

    def change(body: dict[str, Any]) -> None:
        value = body["graph_module"]["graph"]["tensor_values"]["x"]
        value["sizes"][0]["as_expr"]["expr_str"] = formula

    with pytest.raises(Unloadable, match="no plain formula"):
        open_program(programs.in_graph(path, change))
    assert not (tmp_path / "touched").exists()


def test_the_guards_of_a_file_are_never_run(tmp_path: Path) -> None:
    path = programs.exported(programs.Scores(), tmp_path / "m.pt2", FOUR)
    guard = f"open({str(tmp_path / 'touched')!r}, 'w')"
    programs.in_graph(path, lambda body: body.update(guards_code=[guard]))
    opened = open_program(path)
    opened.call({"x": FOUR})
    assert not (tmp_path / "touched").exists()


def test_a_pickle_in_an_exported_program_may_hold_tensors_only(tmp_path: Path) -> None:
    path = programs.exported(programs.Scores(), tmp_path / "m.pt2", FOUR)
    target = tmp_path / "touched"
    programs.rewritten(path, "sample_inputs/model.pt", lambda _: programs.touching(target))
    with pytest.raises(Unloadable, match="more than tensors") as caught:
        open_program(path)
    assert "system" in caught.value.message
    assert not target.exists()


def test_the_library_unpickles_as_before_after_a_file_was_opened(tmp_path: Path) -> None:
    before = torch.load
    open_program(programs.exported(programs.Scores(), tmp_path / "m.pt2", FOUR))
    assert torch.load is before


@pytest.mark.parametrize("kind", [programs.Reads, programs.Writes])
def test_torchscript_that_reaches_files_is_refused_by_name(kind: Any, tmp_path: Path) -> None:
    path = programs.script(kind(str(tmp_path / "file")), tmp_path / "m.pt")
    with pytest.raises(Unloadable, match="reads or writes outside the model"):
        open_program(path)


# Other ways to write what ``torch.from_file`` says; the compiler takes each of them.
WRITTEN_OTHERWISE = {
    "blanks": "return torch. from_file({0!r}, False, 8)",
    "another owner": "t = torch\n    return t.from_file({0!r}, False, 8)",
    "a comment": "return (torch.# of its own\n    from_file)({0!r}, False, 8)",
    "a name as text": 'return getattr(torch, "from\\137file")({0!r}, False, 8)',
    "a plain name as text": 'return getattr(torch, "from_file")({0!r}, False, 8)',
    "another name for getattr": (
        "of = getattr\n    return of(torch, 'from\\137file')({0!r}, False, 8)"
    ),
    "another owner that writes": "t = ops.aten\n    t.save(x, {0!r})\n    return x",
}


def _saying(code: str, path: Path) -> Path:
    programs.script(programs.Twice(), path)
    changed = code.encode()
    return programs.rewritten(
        path, ".py", lambda said: said.replace(b"return torch.mul(x, 2)", changed)
    )


@pytest.mark.parametrize("way", WRITTEN_OTHERWISE)
def test_an_operator_on_files_is_found_however_it_is_written(way: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\0" * 64)
    code = WRITTEN_OTHERWISE[way].format(str(tmp_path / "file"))
    path = _saying(code, tmp_path / "m.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load: Any = torch.jit.load  # it says no types
        assert load(str(path))(FOUR) is not None, "the compiler takes it"
    with pytest.raises(Unloadable, match="reads or writes outside the model"):
        open_program(path)


@pytest.mark.parametrize(("here", "there"), [("/code/", "/CODE/"), (".py", ".PY")])
def test_code_is_found_whatever_the_case_of_its_name(here: str, there: str, tmp_path: Path) -> None:
    path = programs.script(programs.Reads(str(tmp_path / "file")), tmp_path / "m.pt")
    programs.renamed(path, lambda name: name.replace(here, there))
    with pytest.raises(Unloadable, match="reads or writes outside the model"):
        open_program(path)


def _two_faced_script(folder: Path) -> Path:
    shown = programs.script(programs.Twice(), folder / "shown.pt")
    hidden = programs.script(programs.Reads(str(folder / "file")), folder / "hidden.pt")
    return programs.two_faced(shown, hidden, folder / "two.pt")


def _two_faced_program(folder: Path) -> Path:
    formula = f"open({str(folder / 'touched')!r}, 'w')"

    def change(body: dict[str, Any]) -> None:
        value = body["graph_module"]["graph"]["tensor_values"]["x"]
        value["sizes"][0]["as_expr"]["expr_str"] = formula

    shown = programs.exported(programs.Scores(), folder / "shown.pt2", FOUR)
    hidden = programs.exported(programs.Scores(), folder / "hidden.pt2", FOUR)
    return programs.two_faced(shown, programs.in_graph(hidden, change), folder / "two.pt2")


@pytest.mark.parametrize("make", [_two_faced_script, _two_faced_program])
def test_a_file_that_shows_each_reader_other_members_is_refused(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None, "to Python's reader it is a good archive"
    with pytest.raises(NotAModel, match="damaged"):
        recognise(path)
    with pytest.raises(Unloadable, match=r"outside the model|no plain formula"):
        open_program(path)
    assert not (tmp_path / "touched").exists()


def test_torchscript_whose_members_pytorch_does_not_list_is_not_opened(tmp_path: Path) -> None:
    path = programs.script(programs.Twice(), tmp_path / "m.pt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("in_no_folder", b"x")
    with pytest.raises(Unloadable, match="cannot list"):
        open_program(path)


@pytest.mark.parametrize("name", ["custom_obj_0", "custom_obj_0/tensor_0", "opaque_obj_0/model_0"])
def test_an_object_among_the_constants_is_refused_wherever_it_lies(
    name: str, tmp_path: Path
) -> None:
    path = programs.exported(programs.Scores(), tmp_path / "m.pt2", FOUR)
    root = zipfile.ZipFile(path).namelist()[0].partition("/")[0]
    for folder in ("data/constants", "DATA/Constants"):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{root}/{folder}/{name}", b"x")
        with pytest.raises(Unloadable, match="custom object"):
            open_program(path)
        programs.exported(programs.Scores(), path, FOUR)


def test_no_object_is_made_from_bytes_while_a_program_is_read() -> None:
    with torch_load._tensors_only(), pytest.raises(Unloadable, match="custom object"):
        torch._C._pickle_load_obj(b"")
    with pytest.raises(RuntimeError):
        torch._C._pickle_load_obj(b"")

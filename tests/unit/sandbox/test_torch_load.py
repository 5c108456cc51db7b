"""PyTorch files: told apart by content, refused with the lines that help, opened by lists."""

import io
import tarfile
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

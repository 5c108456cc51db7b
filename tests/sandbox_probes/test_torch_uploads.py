"""PyTorch files from upload to verdict through the real sandbox, honest and hostile."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from apps.core.confined import Limits, run_confined, work_folder
from apps.inference.runtimes.runner import TorchRunner
from tests.sandbox_probes.test_uploads import judged, states
from tests.unit.runtimes import programs
from tests.unit.runtimes.test_torch import soon

ROWS = np.random.default_rng(5).normal(size=(64, 4)).astype(np.float32)
EXAMPLE = b'{"instances": [[0.5, -1, 2, 0.25]]}'
NATIVE = frozenset({"torch"})
CHILD = "tests.sandbox_probes.torch_child"


def _answer(module: nn.Module, rows: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        answer: np.ndarray = module.eval()(torch.from_numpy(rows)).numpy()
    return answer


@pytest.mark.parametrize("kind", ["script", "exported"])
def test_a_program_is_converted_and_answers_as_pytorch_does(kind: str, tmp_path: Path) -> None:
    module = programs.Layers()
    if kind == "script":
        path = programs.script(module, tmp_path / "m.pt")
    else:
        path = programs.exported(module, tmp_path / "m.pt2", torch.rand(2, 4))
    with judged(path, example=EXAMPLE) as verdict:
        assert verdict.ready, verdict.reason
        assert verdict.served is not None
        session = ort.InferenceSession(verdict.served.read_bytes())
        (got,) = session.run(["output_0"], {"x": ROWS})
        report = verdict.report
    np.testing.assert_allclose(got, _answer(module, ROWS), atol=1e-5)
    assert report["served"]["runtime"] == "onnx"
    assert report["conversion"]["recomputed"] is True
    assert report["conversion"]["max_abs_difference"] <= 1e-5
    assert report["signature"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 4]}]
    assert report["signature"]["batchable"] is True
    assert report["example"] == {"instances": [[0.5, -1.0, 2.0, 0.25]]}


def test_an_exported_program_needs_no_example(tmp_path: Path) -> None:
    path = programs.exported(programs.Layers(), tmp_path / "m.pt2", torch.rand(2, 4))
    with judged(path) as verdict:
        assert verdict.ready, verdict.reason
        assert len(verdict.report["example"]["instances"][0]) == 4


def test_torchscript_without_example_or_signature_is_refused_with_advice(tmp_path: Path) -> None:
    with judged(programs.script(programs.Layers(), tmp_path / "m.pt")) as verdict:
        assert "does not say the types and shapes of its inputs (x)" in (verdict.reason or "")
        assert "example row" in (verdict.reason or "")


def test_what_does_not_convert_is_served_by_pytorch_where_allowed(tmp_path: Path) -> None:
    module = programs.Solves()
    path = programs.script(module, tmp_path / "m.pt")
    with judged(path, example=EXAMPLE, native_formats=NATIVE) as verdict:
        assert verdict.ready, verdict.reason
        assert verdict.served == path
        assert verdict.report["served"]["runtime"] == "torch"
        assert verdict.report["conversion"] is None
        assert verdict.report["signature"]["inputs"][0]["dtype"] == "float64"
        warned = next(c for c in verdict.report["checks"] if c["name"] == "conversion")
    assert "linalg_solve_triangular" in warned["message"]
    rows = ROWS.astype(np.float64)
    model = TorchRunner().load(path, threads=1)
    got = model.predict({"x": rows}, deadline=soon())["output_0"]
    model.close()
    np.testing.assert_array_equal(got, _answer(module, rows))


def test_what_does_not_convert_is_rejected_where_not_allowed(tmp_path: Path) -> None:
    path = programs.script(programs.Solves(), tmp_path / "m.pt")
    with judged(path, example=EXAMPLE, native_formats=frozenset({"sklearn"})) as verdict:
        assert "add torch to MLP_NATIVE_FORMATS" in (verdict.reason or "")
        assert "linalg_solve_triangular" in (verdict.reason or "")


def test_types_that_json_leaves_open_are_settled_by_a_trial(tmp_path: Path) -> None:
    path = programs.script(programs.TwoInputs(), tmp_path / "m.pt")
    with judged(path, example=b'{"instances": [{"kind": 2, "sizes": [1, 2]}]}') as verdict:
        assert verdict.ready, verdict.reason
        inputs = verdict.report["signature"]["inputs"]
    assert [(one["dtype"], one["shape"]) for one in inputs] == [
        ("int64", [-1]),
        ("float32", [-1, 2]),
    ]


def test_a_declared_signature_says_what_torchscript_does_not(tmp_path: Path) -> None:
    path = programs.script(programs.Layers(), tmp_path / "m.pt")
    signature: dict[str, Any] = {
        "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 4], "columns": list("abcd")}],
        "outputs": [{"name": "output_0", "dtype": "float32", "shape": [-1, 3]}],
    }
    example = b'{"instances": [{"a": 1, "b": 2, "c": 3, "d": 4}]}'
    with judged(path, signature=signature, example=example) as verdict:
        assert verdict.ready, verdict.reason
        assert states(verdict).get("example") != "warning"
        assert verdict.report["example"] == {"instances": [[1.0, 2.0, 3.0, 4.0]]}


def test_a_fixed_first_axis_and_training_mode_are_said(tmp_path: Path) -> None:
    path = programs.exported(
        programs.Layers(), tmp_path / "m.pt2", torch.rand(2, 4), free=False, training=True
    )
    with judged(path, native_formats=NATIVE) as verdict:
        found = {c["name"]: c for c in verdict.report["checks"] if c["state"] == "warning"}
    assert "model.eval()" in found["mode"]["remedy"]
    assert "dynamic_shapes" in found["inputs"]["remedy"]


def test_a_program_from_somebody_without_the_permission_is_not_opened(tmp_path: Path) -> None:
    path = programs.script(programs.Layers(), tmp_path / "m.pt")
    with judged(path, allow_code=False, example=EXAMPLE) as verdict:
        assert "permission" in (verdict.reason or "")
        assert "open" not in states(verdict)


def _hidden_in_inputs(folder: Path) -> Path:
    path = programs.exported(programs.Layers(), folder / "m.pt2", torch.rand(2, 4))
    target = folder / "touched"
    return programs.rewritten(path, "sample_inputs/model.pt", lambda _: programs.touching(target))


def _truncated(folder: Path) -> Path:
    path = programs.exported(programs.Layers(), folder / "m.pt2", torch.rand(2, 4))
    path.write_bytes(path.read_bytes()[:-200])
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "reads a file": (
        lambda at: programs.script(programs.Reads("/etc/passwd"), at / "m.pt"),
        "from_file",
    ),
    "writes a file": (
        lambda at: programs.script(programs.Writes(str(at / "touched")), at / "m.pt"),
        "save",
    ),
    "runs a command when its inputs are read": (_hidden_in_inputs, "more than tensors"),
    "wants 64 GB": (lambda at: programs.script(programs.Huge(), at / "m.pt"), "memory"),
    "is cut off": (_truncated, "damaged"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_program_is_rejected_in_words_and_does_nothing(kind: str, tmp_path: Path) -> None:
    make, words = HOSTILE[kind]
    with judged(make(tmp_path), native_formats=NATIVE, example=EXAMPLE) as verdict:
        assert not verdict.ready
        assert words in (verdict.reason or "")
        assert verdict.report["checks"][-1]["state"] == "failed"
    assert not (tmp_path / "touched").exists()


def test_an_endless_program_is_rejected_at_its_deadline(tmp_path: Path) -> None:
    path = programs.script(programs.Endless(), tmp_path / "m.pt")
    with judged(path, example=EXAMPLE, native_formats=NATIVE, stage_seconds=20.0) as verdict:
        assert "It ran longer than 20 s." in (verdict.reason or "")


def _behind_walls(file: Path, how: str, **more: str) -> str:
    with work_folder() as work:
        ask = json.dumps({"file": str(file), "how": how, **more})
        limits = Limits.for_file(0, cpu_seconds=60)
        ended = run_confined(["--ask", ask], work=work, limits=limits, seconds=60, module=CHILD)
        assert ended.report is not None, ended.sentence()
        return str(json.loads(ended.report)["said"])


@pytest.mark.parametrize("kind", [programs.Reads, programs.Writes])
def test_the_walls_alone_hold_torchscript_that_reaches_for_files(kind: Any, tmp_path: Path) -> None:
    target = tmp_path / "target"
    path = programs.script(kind(str(target)), tmp_path / "m.pt")
    if kind is programs.Reads:
        target.write_bytes(b"01234567")
    said = _behind_walls(path, "script")
    if kind is programs.Reads:
        assert re.search(r"[Pp]ermi(ssion denied|tted)", said), said
    else:  # PyTorch does not say that it could not write
        assert not target.exists()
    assert _behind_walls(path, "script", open="yes") == "done"
    assert target.exists()


def test_the_walls_alone_hold_a_pickle_that_runs_a_command(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "m.pt").write_bytes(programs.touching(target))
    _behind_walls(tmp_path / "m.pt", "unpickle")
    assert not target.exists()
    _behind_walls(tmp_path / "m.pt", "unpickle", open="yes")
    assert target.exists()

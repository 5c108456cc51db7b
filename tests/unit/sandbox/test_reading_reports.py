"""What a stage says is hostile data: checked, bounded, and never enough by itself."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.core.confined import Ending, Limits, Outcome
from apps.inference.sandbox.verify_onnx import difference
from apps.registry.clients import sandbox
from apps.registry.clients.sandbox import Policy, Verdict, inspect_upload

SIGNATURE = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 2]}],
    "outputs": [{"name": "label", "dtype": "int64", "shape": [-1]}],
    "batchable": True,
}
TRIED = {"signature": SIGNATURE, "measurements": {}, "example": None}
CONVERTED = {"conversion": {"converter": "skl2onnx"}, "metadata": {}, "inputs": []}
AGREES = {"agrees": True, "rows": 96, "max_abs_difference": 1e-7}

Stages = dict[str, Any]


def report(result: object, **more: object) -> bytes:
    return json.dumps({"checks": [], "result": result, "refused": None, **more}).encode()


def stages(**changed: Any) -> Stages:
    """An honest run of a pickle through all stages, with some of them changed."""
    walls = {"holds_code": True}
    found = {"format": "sklearn", "container": "pickle", "walls": walls}
    return {
        "recognise": report(found),
        "scan": report({"findings": []}),
        "convert-sklearn": report(CONVERTED),
        "onnx-check": report({}),
        "verify-onnx": report({**TRIED, "parity": AGREES}),
        "measure-native": report(TRIED),
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }


@pytest.fixture
def judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Verdict, bytes | None]]:
    """Judge an upload whose stages say what the test wants; nothing is started."""

    def run(
        said: Stages,
        native: frozenset[str] = frozenset(),
        leave: Callable[[Path], None] | None = None,
    ) -> tuple[Verdict, bytes | None]:
        def confined(args: Sequence[str], *, work: Path, limits: Limits, seconds: float) -> Outcome:
            if args[0] == "convert-sklearn":
                (leave or _leave)(work)
            told = said[args[0]]
            ending = told if isinstance(told, Ending) else Ending.FINISHED
            written = None if isinstance(told, Ending) else told
            return Outcome(ending, -11, 1.0, limits, seconds, written)

        monkeypatch.setattr(sandbox, "run_confined", confined)
        (tmp_path / "m.pkl").write_bytes(b"upload")
        policy = Policy(allow_code=True, native_formats=native, folder=tmp_path)
        with inspect_upload(tmp_path / "m.pkl", display_name="m.pkl", policy=policy) as verdict:
            served = verdict.served.read_bytes() if verdict.served else None
        return verdict, served

    return run


def _leave(work: Path) -> None:
    (work / "model.onnx").write_bytes(b"graph")
    (work / "reference.frame").write_bytes(b"answers")


Judge = Callable[..., tuple[Verdict, bytes | None]]


def test_an_honest_run_is_ready_with_the_converted_file(judge: Judge) -> None:
    verdict, served = judge(stages())
    assert verdict.ready, verdict.reason
    assert served == b"graph"
    assert verdict.report["conversion"]["max_abs_difference"] == 1e-7


@pytest.mark.parametrize(
    "parity", [None, {}, {"agrees": False}, {"agrees": "yes"}, {"agrees": 1}, "agrees"]
)
def test_without_agreement_computed_again_nothing_converted_is_served(
    judge: Judge, parity: object
) -> None:
    said = stages(verify_onnx=report({**TRIED, "parity": parity}))
    verdict, served = judge(said)
    assert served is None
    assert "does not give the answers of the original" in (verdict.reason or "")
    verdict, served = judge(said, native=frozenset({"sklearn"}))
    assert served == b"upload"
    assert verdict.report["served"]["runtime"] == "sklearn"


def test_a_converted_graph_that_fails_a_check_is_not_served(judge: Judge) -> None:
    refused = {"reason": "It keeps its data elsewhere.", "remedy": ""}
    verdict, served = judge(stages(onnx_check=report({}, refused=refused)))
    assert served is None
    assert "elsewhere" in (verdict.reason or "")


@pytest.mark.parametrize("name", ["model.onnx", "reference.frame"])
def test_a_link_left_in_the_place_of_a_file_is_not_followed(
    judge: Judge, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret").write_text("secret")

    def leave(work: Path) -> None:
        _leave(work)
        (work / name).unlink()
        (work / name).symlink_to(tmp_path / "secret")

    verdict, served = judge(stages(), leave=leave)
    assert served is None
    assert "plain file" in (verdict.reason or "")


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"not json",
        b"[]",
        b'{"checks": [], "result": []}',
        b'{"checks": [{"state": "excellent"}], "result": {}}',
        b'{"checks": "many", "result": {}}',
        b'{"checks": [], "result": {"x": NaN}}',
        b'{"checks": [], "result": {}, "refused": "yes"}',
        b"[" * 100_000,
        None,
        json.dumps({"checks": [{}] * 1000, "result": {}}).encode(),
    ],
)
def test_a_report_of_another_form_is_a_rejection(judge: Judge, written: bytes | None) -> None:
    verdict, served = judge(stages(convert_sklearn=written))
    assert served is None
    assert "left no report that can be read" in (verdict.reason or "")


def test_texts_and_numbers_of_a_report_are_bounded(judge: Judge) -> None:
    check = {
        "name": "x" * 9000,
        "title": "t\x00\x1b[2J" * 900,
        "state": "passed",
        "message": "<script>" * 9000,
        "remedy": 7,
        "seconds": -1e308,
    }
    metadata = {"deep": json.loads("[" * 50 + "]" * 50), "long": "y" * 100_000, "n": 10**400}
    converted = {**CONVERTED, "metadata": metadata}
    verdict, _ = judge(stages(convert_sklearn=report(converted, checks=[check])))
    assert verdict.ready
    kept = next(one for one in verdict.report["checks"] if one["name"].startswith("xxx"))
    assert all(len(str(value)) <= 700 for value in kept.values())
    assert kept["seconds"] == 0
    assert "\x1b" not in kept["title"]
    assert len(json.dumps(verdict.report)) < 10_000


def test_a_signature_of_another_form_is_a_rejection(judge: Judge) -> None:
    bad = {"inputs": [{"name": "x", "dtype": "object", "shape": [-1]}], "outputs": []}
    verdict, served = judge(
        stages(verify_onnx=report({**TRIED, "signature": bad, "parity": AGREES}))
    )
    assert served is None
    assert "signature" in (verdict.reason or "")


@pytest.mark.parametrize("ending", [Ending.CRASHED, Ending.DEADLINE, Ending.MEMORY, Ending.DISK])
def test_a_killed_stage_is_named_with_its_end(judge: Judge, ending: Ending) -> None:
    verdict, served = judge(stages(convert_sklearn=ending))
    assert served is None
    assert "opening and converting the model" in (verdict.reason or "")
    assert verdict.report["checks"][-1]["state"] == "failed"


def test_a_scanner_that_dies_changes_nothing_but_its_own_line(judge: Judge) -> None:
    verdict, _ = judge(stages(scan=Ending.DEADLINE))
    assert verdict.ready
    assert "error" in verdict.report["scanners"][0]


@pytest.mark.parametrize(
    ("got", "wanted", "agrees"),
    [
        ([1.0, 2.0], [1.0, 2.00001], True),
        ([1.0, 2.0], [1.0, 2.0001], False),
        ([1e6], [1e6 + 5], True),
        ([np.nan], [np.nan], True),
        ([np.nan], [1.0], False),
        ([np.inf], [np.inf], True),
        ([np.inf], [-np.inf], False),
    ],
)
def test_numbers_agree_within_the_tolerance_and_nan_only_with_nan(
    got: list[float], wanted: list[float], agrees: bool
) -> None:
    assert difference(np.array(got), np.array(wanted), 1e-5)[1] is agrees


def test_labels_agree_only_if_all_are_equal() -> None:
    assert difference(np.array(["a", "b"]), np.array(["a", "b"]), 1e-5) == (0.0, True)
    assert not difference(np.array([1, 2]), np.array([1, 3]), 1e-5)[1]


@pytest.mark.parametrize(
    "more",
    [
        {"name": "a\x00"},
        {"name": "\ud800"},
        {"columns": ["a", "\x00"]},
        {"categories": ["\udfff"]},
        {"categories": [2**64]},
        {"minimum": 10**400},
    ],
)
def test_a_signature_that_could_not_be_stored_is_a_rejection(
    judge: Judge, more: dict[str, Any]
) -> None:
    inputs = [{**SIGNATURE["inputs"][0], **more}]  # type: ignore[index]
    bad = {**TRIED, "signature": {**SIGNATURE, "inputs": inputs}, "parity": AGREES}
    assert judge(stages(verify_onnx=report(bad)))[1] is None


def test_whole_numbers_of_a_report_stay_within_what_can_be_stored(judge: Judge) -> None:
    huge = {"resident_bytes": 10**30, "latency_ms": {"rows": 10**400}}
    tried = {**TRIED, "measurements": huge, "example": [2**63, 2**62], "parity": AGREES}
    verdict, _ = judge(stages(verify_onnx=report(tried)))
    assert verdict.report["measurements"]["resident_bytes"] == 0
    assert verdict.report["example"] == [None, 2**62]

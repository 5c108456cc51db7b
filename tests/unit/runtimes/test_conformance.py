"""What every runtime must do alike, whichever library is behind it."""

import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from apps.inference.engine.errors import DeadlinePassed, ModelFailed
from apps.inference.engine.protocol import LoadedModel, Runtime
from apps.inference.engine.types import Tensors
from apps.inference.runtimes.onnx import OnnxRuntime
from apps.inference.runtimes.runner import SklearnRunner, TorchRunner
from apps.inference.runtimes.sklearn import SklearnRuntime
from apps.inference.runtimes.table import INSIDE_THE_RUNNER, RUNTIMES, runtime_for
from apps.inference.runtimes.torch import TorchRuntime
from tests.unit.runtimes import graphs, programs

RUNTIMES_TRIED = ["onnx", "sklearn", "runner", "torch script", "torch exported", "torch runner"]


def soon() -> float:
    return time.monotonic() + 60


@dataclass(frozen=True, slots=True)
class Case:
    runtime: Runtime
    file: Path
    rows: Tensors
    bad: Tensors
    kinds: dict[str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    graphs.save(graphs.linear(), folder / "linear.onnx")
    features, labels = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"], dtype=object)[labels]
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=1))
    (folder / "forest.pkl").write_bytes(pickle.dumps(forest.fit(features, names)))
    programs.script(programs.Scores(), folder / "scores.pt")
    programs.exported(programs.Scores(), folder / "scores.pt2", torch.rand(2, 4))
    return folder


def _case(name: str, folder: Path) -> Case:
    random = np.random.default_rng(1)
    if name == "onnx":
        return Case(
            OnnxRuntime(),
            folder / "linear.onnx",
            {"x": random.normal(size=(5, 3)).astype(np.float32)},
            {"x": np.zeros((2, 9), np.float32)},
            {"y": "float32", "big": "bool"},
        )
    if name.startswith("torch"):
        return Case(
            TorchRunner() if name == "torch runner" else TorchRuntime(),
            folder / ("scores.pt2" if name == "torch exported" else "scores.pt"),
            {"x": random.normal(size=(5, 4)).astype(np.float32)},
            {"x": np.zeros((2, 9), np.float32)},
            {"scores": "float32", "high": "bool"},
        )
    return Case(
        SklearnRuntime() if name == "sklearn" else SklearnRunner(),
        folder / "forest.pkl",
        {"x": random.uniform(0, 7, size=(5, 4))},
        {"x": np.zeros((2, 9))},
        {"label": "object", "probabilities": "float64"},
    )


@pytest.fixture(scope="module", params=RUNTIMES_TRIED)
def case(request: pytest.FixtureRequest, folder: Path) -> Case:
    return _case(request.param, folder)


@pytest.fixture(scope="module")
def model(case: Case) -> Iterator[LoadedModel]:
    loaded = case.runtime.load(case.file, threads=1)
    yield loaded
    loaded.close()


def test_outputs_keep_their_types_and_rows(case: Case, model: LoadedModel) -> None:
    answer = model.predict(case.rows, deadline=soon())
    assert {name: array.dtype.name for name, array in answer.items()} == case.kinds
    assert {len(array) for array in answer.values()} == {5}


def test_one_row_equals_the_same_row_in_a_batch(case: Case, model: LoadedModel) -> None:
    together = model.predict(case.rows, deadline=soon())
    for at in range(5):
        row = {name: array[at : at + 1] for name, array in case.rows.items()}
        alone = model.predict(row, deadline=soon())
        for name, array in alone.items():
            np.testing.assert_array_equal(array, together[name][at : at + 1])


def test_an_empty_batch_is_answered_with_nothing_of_the_right_kind(
    case: Case, model: LoadedModel
) -> None:
    empty = model.predict({n: a[:0] for n, a in case.rows.items()}, deadline=soon())
    full = model.predict(case.rows, deadline=soon())
    assert {n: (a.dtype, (0, *a.shape[1:])) for n, a in full.items()} == {
        n: (a.dtype, a.shape) for n, a in empty.items()
    }


def test_the_librarys_own_error_does_not_get_out(case: Case, model: LoadedModel) -> None:
    with pytest.raises(ModelFailed) as caught:
        model.predict(case.bad, deadline=soon())
    assert caught.value.message == "The model raised an error on this input."
    assert model.predict(case.rows, deadline=soon())


def test_no_time_left_is_a_passed_deadline(case: Case, model: LoadedModel) -> None:
    with pytest.raises(DeadlinePassed):
        model.predict(case.rows, deadline=time.monotonic() - 1)


def test_a_file_that_is_no_model_is_a_failed_load(case: Case, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no model at all")
    with pytest.raises(ModelFailed):
        case.runtime.load(tmp_path / "file", threads=1)


def test_a_closed_model_gives_its_memory_back_and_does_not_answer(case: Case) -> None:
    loaded = case.runtime.load(case.file, threads=1)
    assert loaded.resident_bytes > 0
    loaded.close()
    loaded.close()
    with pytest.raises(ModelFailed):
        loaded.predict(case.rows, deadline=soon())


def test_every_runtime_in_the_table_can_be_made() -> None:
    for name in RUNTIMES:
        assert hasattr(runtime_for(name), "load")


def test_the_serving_table_never_opens_a_native_file_in_this_process() -> None:
    inside = {path.partition(":")[0] for path in INSIDE_THE_RUNNER.values()}
    assert not inside & {path.partition(":")[0] for path in RUNTIMES.values()}

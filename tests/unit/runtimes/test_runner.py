"""A native model in a child of its own: whatever it does, callers get an answer or an error."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from apps.core import confined
from apps.inference.engine.errors import DeadlinePassed, ModelFailed
from apps.inference.runtimes.runner import SklearnRunner
from tests.unit.runtimes.crashing import crashing_tree

ROWS = {"x": np.array([[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 5.0, 2.0]])}


def soon() -> float:
    return time.monotonic() + 60


def _pickled(folder: Path, estimator: object) -> Path:
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(estimator))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    features, labels = load_iris(return_X_y=True)
    return _pickled(tmp_path, LogisticRegression(max_iter=500).fit(features, labels))


def test_it_answers_like_the_original(file: Path) -> None:
    model = SklearnRunner().load(file, threads=1)
    answer = model.predict(ROWS, deadline=soon())
    original = pickle.loads(file.read_bytes())
    np.testing.assert_array_equal(answer["probabilities"], original.predict_proba(ROWS["x"]))
    model.close()


def test_a_killed_child_costs_one_call_and_the_next_starts_another(file: Path) -> None:
    model = SklearnRunner().load(file, threads=1)
    first = model.pid
    assert first is not None
    os.kill(first, signal.SIGSEGV)
    with pytest.raises(ModelFailed):
        model.predict(ROWS, deadline=soon())
    assert model.predict(ROWS, deadline=soon())["label"].tolist() == [0, 2]
    assert model.pid != first
    model.close()


def test_a_stopped_child_is_ended_at_the_deadline(file: Path) -> None:
    model = SklearnRunner().load(file, threads=1)
    first = model.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(DeadlinePassed):
        model.predict(ROWS, deadline=time.monotonic() + 0.3)
    assert not Path(f"/proc/{first}").exists()
    assert model.predict(ROWS, deadline=soon())["label"].tolist() == [0, 2]
    model.close()


def test_a_model_that_crashes_its_process_is_a_failed_model(tmp_path: Path) -> None:
    model = SklearnRunner().load(_pickled(tmp_path, crashing_tree()), threads=1)
    with pytest.raises(ModelFailed, match=r"crashed \(signal 11\)"):
        model.predict(ROWS, deadline=soon())
    model.close()


def test_a_call_while_another_runs_waits_only_to_its_deadline(file: Path) -> None:
    model = SklearnRunner().load(file, threads=1)
    assert model.pid is not None
    os.kill(model.pid, signal.SIGSTOP)
    ended: list[Exception] = []

    def first() -> None:
        try:
            model.predict(ROWS, deadline=time.monotonic() + 1.5)
        except DeadlinePassed as error:
            ended.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    while not model._turn.locked():
        time.sleep(0.001)
    with pytest.raises(DeadlinePassed, match="busy"):
        model.predict(ROWS, deadline=time.monotonic() + 0.1)
    thread.join()
    assert len(ended) == 1
    model.close()


def test_closing_ends_the_child_also_in_the_middle_of_a_call(file: Path) -> None:
    model = SklearnRunner().load(file, threads=1)
    pid = model.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    ended: list[ModelFailed] = []

    def call() -> None:
        try:
            model.predict(ROWS, deadline=soon())
        except ModelFailed as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not model._turn.locked():
        time.sleep(0.001)
    model.close()
    thread.join(timeout=30)
    assert [error.message for error in ended] == ["The model has been closed."]
    assert not Path(f"/proc/{pid}").exists()


def test_a_child_outlives_the_thread_that_asked_for_it(file: Path) -> None:
    loaded: list[object] = []
    thread = threading.Thread(target=lambda: loaded.append(SklearnRunner().load(file, threads=1)))
    thread.start()
    thread.join()
    model = loaded[0]
    assert model.predict(ROWS, deadline=soon())["label"].tolist() == [0, 2]  # type: ignore[attr-defined]
    model.close()  # type: ignore[attr-defined]


def test_a_child_dies_with_the_serving_process(file: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from apps.inference.runtimes.runner import SklearnRunner\n"
        f"model = SklearnRunner().load(Path({str(file)!r}), threads=1)\n"
        "print(model.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        cwd=confined.PROJECT_ROOT,
        env={**os.environ, "TMPDIR": str(file.parent)},  # a killed parent cannot tidy up
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(500):
        if not Path(f"/proc/{child}").exists():
            break
        time.sleep(0.01)
    assert not Path(f"/proc/{child}").exists()


def test_a_file_that_asks_for_a_forbidden_name_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(ModelFailed, match=r"posix\.system"):
        SklearnRunner().load(path, threads=1)


@pytest.mark.parametrize("kind", [DecisionTreeClassifier, KNeighborsClassifier])
def test_no_folder_is_left_when_a_model_is_closed(
    kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    features, labels = load_iris(return_X_y=True)
    model = SklearnRunner().load(_pickled(tmp_path, kind().fit(features, labels)), threads=1)
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    model.close()
    assert list((tmp_path / "tmp").iterdir()) == []

"""ONNX Runtime behind its guards."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from apps.inference.engine.errors import DeadlinePassed, ModelFailed
from apps.inference.runtimes.onnx import OnnxRuntime
from tests.unit.runtimes import graphs


def test_an_endless_loop_is_ended_at_its_deadline(tmp_path: Path) -> None:
    loop = OnnxRuntime().load(graphs.save(graphs.endless_loop(), tmp_path / "m"), threads=1)
    rows = {"x": np.ones((1, 2), np.float32)}
    with pytest.raises(DeadlinePassed):
        loop.predict(rows, deadline=time.monotonic() + 0.3)


def test_a_model_beside_an_endless_loop_keeps_answering(tmp_path: Path) -> None:
    loop = OnnxRuntime().load(graphs.save(graphs.endless_loop(), tmp_path / "l"), threads=1)
    good = OnnxRuntime().load(graphs.save(graphs.linear(), tmp_path / "g"), threads=1)
    ended: list[Exception] = []

    def run_loop() -> None:
        try:
            loop.predict({"x": np.ones((1, 2), np.float32)}, deadline=time.monotonic() + 1)
        except DeadlinePassed as error:
            ended.append(error)

    thread = threading.Thread(target=run_loop)
    thread.start()
    answer = good.predict({"x": np.ones((2, 3), np.float32)}, deadline=time.monotonic() + 30)
    assert answer["y"].tolist() == [[7.0], [7.0]]
    thread.join()
    assert len(ended) == 1


def test_a_huge_allocation_asked_for_by_a_request_is_an_error(tmp_path: Path) -> None:
    model = OnnxRuntime().load(
        graphs.save(graphs.grows_with_its_input(), tmp_path / "m"), threads=1
    )
    with pytest.raises(ModelFailed):
        model.predict({"n": np.array([1 << 34])}, deadline=time.monotonic() + 60)
    small = model.predict({"n": np.array([4])}, deadline=time.monotonic() + 60)
    assert small["y"] == 0


def test_texts_come_back_as_objects(tmp_path: Path) -> None:
    model = OnnxRuntime().load(graphs.save(graphs.texts(), tmp_path / "m"), threads=1)
    rows = np.array([["æøå"], ["b"]], dtype=object)
    answer = model.predict({"t": rows}, deadline=time.monotonic() + 30)
    assert answer["same"].dtype == object
    assert answer["same"].tolist() == rows.tolist()

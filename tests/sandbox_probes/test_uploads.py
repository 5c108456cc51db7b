"""From an uploaded file to a verdict, through the real sandbox."""

import json
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
import skops.io
from onnx import helper
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from apps.registry.clients.sandbox import Policy, Verdict, inspect_upload
from tests.unit.runtimes import graphs

IRIS, SPECIES = load_iris(return_X_y=True, as_frame=True)


@contextmanager
def judged(path: Path, name: str = "", **more: Any) -> Iterator[Verdict]:
    """Judge a file, and see that nothing is left behind."""
    given = {name: more.pop(name) for name in ("example", "signature") if name in more}
    folder = path.parent / "work"
    folder.mkdir(exist_ok=True)
    policy = Policy(**{"allow_code": True, "folder": folder, **more})
    with inspect_upload(path, display_name=name or path.name, policy=policy, **given) as v:
        json.dumps(v.report, allow_nan=False)
        yield v
    assert list(folder.iterdir()) == []


def states(verdict: Verdict) -> dict[str, str]:
    return {one["name"]: one["state"] for one in verdict.report["checks"]}


def test_an_onnx_file_is_described_tried_and_served_as_it_is(tmp_path: Path) -> None:
    path = graphs.save(graphs.linear(), tmp_path / "m.onnx")
    with judged(path, allow_code=False) as verdict:
        assert verdict.ready, verdict.reason
        assert verdict.served == path
        report = verdict.report
    assert report["signature"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 3]}]
    assert [one["dtype"] for one in report["signature"]["outputs"]] == ["float32", "bool"]
    assert report["signature"]["batchable"] is True
    assert report["served"]["runtime"] == "onnx"
    assert report["measurements"]["resident_bytes"] > 0
    assert len(report["example"]["instances"][0]) == 3


def test_a_pipeline_is_converted_and_its_answers_are_computed_again(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(IRIS, SPECIES)
    joblib.dump(model, tmp_path / "m.joblib", compress=3)
    with judged(tmp_path / "m.joblib") as verdict:
        assert verdict.ready, verdict.reason
        assert verdict.served is not None
        session = ort.InferenceSession(verdict.served.read_bytes())
        rows = IRIS.to_numpy(np.float32)
        labels, chances = session.run(["label", "probabilities"], {"x": rows})
        report = verdict.report
    np.testing.assert_allclose(chances, model.predict_proba(IRIS), atol=1e-5)
    np.testing.assert_array_equal(labels, model.predict(IRIS))
    assert report["conversion"]["recomputed"] is True
    assert report["conversion"]["rows"] >= 64
    assert report["signature"]["inputs"][0]["columns"] == list(IRIS.columns)
    assert report["scanners"][0]["name"] == "picklescan"


def test_a_table_with_texts_is_asked_by_column(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": random.integers(18, 80, 200),
            "plan": random.choice(["free", "pro"], 200),
            "city": random.choice(["Oslo", "Rome", "Wien"], 200),
        }
    )
    bought = (table["age"] > 40) ^ (table["plan"] == "pro")
    encode = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            ("open", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("closed", OneHotEncoder(), ["plan"]),
        ]
    )
    model = make_pipeline(encode, LogisticRegression()).fit(table, bought.astype(int))
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(model))
    with judged(tmp_path / "m.pkl") as verdict:
        assert verdict.ready, verdict.reason
        report = verdict.report
    assert report["signature"]["inputs"] == [
        {"name": "age", "dtype": "float32", "shape": [-1, 1]},
        {"name": "plan", "dtype": "string", "shape": [-1, 1], "categories": ["free", "pro"]},
        {"name": "city", "dtype": "string", "shape": [-1, 1]},
    ]
    assert set(report["example"]["instances"][0]) == {"age", "plan", "city"}


def test_a_skops_file_needs_no_permission(tmp_path: Path) -> None:
    data, target = load_diabetes(return_X_y=True)
    model = HistGradientBoostingRegressor(max_iter=10).fit(data, target)
    skops.io.dump(model, tmp_path / "m.skops")
    with judged(tmp_path / "m.skops", allow_code=False) as verdict:
        assert verdict.ready, verdict.reason
        assert verdict.report["served"]["runtime"] == "onnx"
        assert verdict.report["signature"]["outputs"][0]["shape"] == [-1]


@pytest.fixture
def unconvertible(tmp_path: Path) -> Path:
    model = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(IRIS, SPECIES)
    joblib.dump(model, tmp_path / "m.joblib")
    return tmp_path / "m.joblib"


def test_a_model_that_does_not_convert_is_served_natively_where_allowed(
    unconvertible: Path,
) -> None:
    with judged(unconvertible, native_formats=frozenset({"sklearn"})) as verdict:
        assert verdict.ready, verdict.reason
        assert verdict.served == unconvertible
        assert verdict.report["served"]["runtime"] == "sklearn"
        assert verdict.report["conversion"] is None
        assert states(verdict)["conversion"] == "warning"
        assert verdict.report["signature"]["inputs"][0]["dtype"] == "float64"


def test_a_model_that_does_not_convert_is_rejected_where_not(unconvertible: Path) -> None:
    with judged(unconvertible) as verdict:
        assert not verdict.ready
        assert "MLP_NATIVE_FORMATS" in (verdict.reason or "")


def test_a_pickle_from_somebody_without_the_permission_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(
        pickle.dumps(LogisticRegression(max_iter=1000).fit(IRIS, SPECIES))
    )
    with judged(tmp_path / "m.pkl", allow_code=False) as verdict:
        assert "permission" in (verdict.reason or "")
        assert "unpickle" not in states(verdict)


def test_a_row_that_depends_on_its_neighbours_is_never_batched(tmp_path: Path) -> None:
    path = graphs.save(graphs.mean_of_all_rows(), tmp_path / "m.onnx")
    with judged(path) as verdict:
        assert verdict.ready, verdict.reason
        assert verdict.report["signature"]["batchable"] is False
        assert states(verdict)["rows"] == "warning"


def test_the_uploaders_example_is_used(tmp_path: Path) -> None:
    path = graphs.save(graphs.linear(), tmp_path / "m.onnx")
    with judged(path, example=b'{"instances": [[1, 2, 3]]}') as verdict:
        assert verdict.ready, verdict.reason
        assert verdict.report["example"] == {"instances": [[1.0, 2.0, 3.0]]}
    with judged(path, example=b'{"instances": [[1, 2]]}') as verdict:
        assert verdict.ready, verdict.reason
        assert states(verdict)["example"] == "warning"


def test_a_zip_map_is_taken_out_of_the_served_copy(tmp_path: Path) -> None:
    made = graphs.model(
        [
            helper.make_node("Identity", ["x"], ["p"]),
            helper.make_node(
                "ZipMap", ["p"], ["map"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
            ),
        ],
        [graphs.value("x", graphs.FLOAT, ["rows", 2])],
        [],
        opsets={"": 18, "ai.onnx.ml": 3},
    )
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(graphs.INT64, helper.make_tensor_type_proto(graphs.FLOAT, []))
    )
    made.graph.output.append(helper.make_value_info("map", kind))
    with judged(graphs.save(made, tmp_path / "m.onnx")) as verdict:
        assert verdict.ready, verdict.reason
        assert verdict.served != tmp_path / "m.onnx"
        assert verdict.report["signature"]["outputs"][0]["dtype"] == "float32"


def test_a_function_of_ones_own_is_named_in_the_reason(tmp_path: Path) -> None:
    model = FunctionTransformer(time.sleep).fit(IRIS)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(model))
    with judged(tmp_path / "m.pkl") as verdict:
        assert "time.sleep" in (verdict.reason or "")

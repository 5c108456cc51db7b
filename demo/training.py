"""Trains the demo's models on data sets that ship with scikit-learn.

``wine`` is exported here as ONNX, the form that is served as it is. ``diabetes`` leaves as a
scikit-learn pipeline with named columns, which the platform opens in its sandbox and converts.
"""

import hashlib
import io
from typing import Any

import joblib
import sklearn
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from demo.digits import digits
from demo.files import Trained, examples
from demo.torch_models import progression, tumour

SEED = 20
HOLD_OUT = 0.25


def wine() -> Trained:
    """Tell three cultivars of wine apart by 13 chemical measurements."""
    data = load_wine()
    parts = train_test_split(
        data.data, data.target, test_size=HOLD_OUT, random_state=SEED, stratify=data.target
    )
    rows, held_rows, labels, held_labels = parts
    params = {"C": 1.0, "max_iter": 1000}
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(**params)).fit(rows, labels)
    graph = to_onnx(
        pipeline,
        initial_types=[("features", FloatTensorType([None, rows.shape[1]]))],
        options={id(pipeline): {"zipmap": False}},
    )
    return Trained(
        name="wine",
        filename="wine.onnx",
        content=graph.SerializeToString(),
        description=(
            "# Wine\n\nTells three cultivars apart by 13 chemical measurements of a wine.\n\n"
            "Logistic regression on standardised values, exported as ONNX."
        ),
        metrics={
            "accuracy": float(accuracy_score(held_labels, pipeline.predict(held_rows))),
            "log_loss": float(log_loss(held_labels, pipeline.predict_proba(held_rows))),
        },
        params={"estimator": "LogisticRegression", **params},
        tags={"origin": "demo", "task": "classification"},
        lineage=_lineage("load_wine", data.data, data.target, len(rows)),
        example=examples()["wine"],
    )


def diabetes() -> Trained:
    """Foresee the progression of diabetes after a year from ten named columns."""
    data = load_diabetes(as_frame=True, scaled=False)
    parts = train_test_split(data.data, data.target, test_size=HOLD_OUT, random_state=SEED)
    rows, held_rows, targets, held_targets = parts
    params = {"alpha": 10.0}
    pipeline = make_pipeline(StandardScaler(), Ridge(**params)).fit(rows, targets)
    foreseen = pipeline.predict(held_rows)
    file = io.BytesIO()
    joblib.dump(pipeline, file)
    return Trained(
        name="diabetes",
        filename="diabetes.joblib",
        content=file.getvalue(),
        description=(
            "# Diabetes\n\nForesees the progression of the disease one year after a visit.\n\n"
            "Ridge regression on standardised values, a scikit-learn pipeline."
        ),
        metrics={
            "r2": float(r2_score(held_targets, foreseen)),
            "mean_absolute_error": float(mean_absolute_error(held_targets, foreseen)),
        },
        params={"estimator": "Ridge", **params},
        tags={"origin": "demo", "task": "regression"},
        lineage=_lineage("load_diabetes", data.data.to_numpy(), data.target.to_numpy(), len(rows)),
        example=examples()["diabetes"],
    )


def _lineage(loader: str, rows: Any, labels: Any, trained_on: int) -> dict[str, Any]:
    digest = hashlib.sha256(rows.tobytes() + labels.tobytes()).hexdigest()
    return {
        "code": "demo/training.py",
        "data": f"sklearn.datasets.{loader}",
        "data_sha256": digest,
        "rows": {"trained": trained_on, "held_out": len(rows) - trained_on},
        "seed": SEED,
        "scikit-learn": sklearn.__version__,
    }


TRAINERS = {
    "wine": wine,
    "diabetes": diabetes,
    "digits": digits,
    "tumour": tumour,
    "progression": progression,
}

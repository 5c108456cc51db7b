"""Stage ``measure-native``: opens a native model as its runner would, and measures it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.inference.runtimes.sklearn import NUMBER, SklearnModel, SklearnRuntime
from apps.inference.runtimes.sklearn_load import Unloadable
from apps.inference.sandbox.convert_sklearn import metadata_of, rows_for
from apps.inference.sandbox.report import Refused, Report
from apps.inference.sandbox.trial import Spec, try_model


def run_stage(ask: Mapping[str, Any], report: Report) -> None:
    """Write signature, metadata, measurements and example."""
    started = time.perf_counter()
    with report.check("native-load", "scikit-learn opens the file in a fresh process") as noted:
        try:
            model = SklearnRuntime().load(Path(ask["file"]), threads=1)
        except Unloadable as error:
            raise Refused(error.message, error.remedy) from error
        took = time.perf_counter() - started
        noted.say(f"Opened in {took:.2f} s.")
    rows = rows_for(model.estimator, model.face, ask.get("example"), NUMBER, report)
    report.result["metadata"] = metadata_of(model.estimator)
    try_model(model, report, inputs=_specs(model), rows=rows, load_seconds=took)


def _specs(model: SklearnModel) -> list[Spec]:
    return [
        Spec(one.name, one.dtype, [-1, one.width], one.columns, one.allowed)
        for one in model.face.inputs
    ]

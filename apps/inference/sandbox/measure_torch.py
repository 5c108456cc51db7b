"""Stage ``measure-torch``: opens a PyTorch program as its runner would, and measures it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.inference.sandbox.convert_torch import metadata_of, open_model
from apps.inference.sandbox.report import Report
from apps.inference.sandbox.torch_case import find_case
from apps.inference.sandbox.trial import try_model


def run_stage(ask: Mapping[str, Any], report: Report) -> None:
    """Write signature, metadata, measurements and example."""
    model, took = open_model(Path(ask["file"]), report)
    report.result["metadata"] = metadata_of(model.opened)
    case = find_case(model, ask, report)
    try_model(model, report, inputs=case.specs, rows=case.rows, load_seconds=took)

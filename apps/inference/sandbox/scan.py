"""Stage ``scan``: what a pickle scanner thinks. Advice for the reader, never the verdict."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.inference.sandbox.report import Report, clean


def run(ask: Mapping[str, Any], report: Report) -> None:
    """Write the scanner's findings into the result."""
    from picklescan.scanner import scan_file_path

    logging.disable(logging.CRITICAL)  # it logs every file it cannot read
    found = scan_file_path(str(Path(ask["file"])))
    report.result["findings"] = [
        {
            "name": clean(f"{one.module}.{one.name}", 200),
            "safety": clean(getattr(one.safety, "value", one.safety), 40),
        }
        for one in list(found.globals)[:100]
    ]

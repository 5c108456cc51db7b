"""Stage ``recognise``: what the file is, by its content."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.inference.sandbox.report import Refused, Report
from apps.registry.formats import NotAModel, check_declared, check_name, recognise


def run(ask: Mapping[str, Any], report: Report) -> None:
    """Write format, container and compression into the result."""
    with report.check("format", "The content is a known kind of model") as noted:
        try:
            found = recognise(Path(ask["file"]))
            check_name(str(ask.get("name", "")), found.container)
            check_declared(str(ask.get("declared") or ""), found.format)
        except NotAModel as error:
            raise Refused(error.message, error.remedy) from error
        around = f", compressed with {found.compressed}" if found.compressed else ""
        noted.say(f"{found.format.value}, written as {found.container.value}{around}.")
    report.result["format"] = found.format.value
    report.result["container"] = found.container.value

"""``python -m apps.inference.sandbox <stage>``: one stage in one fresh, locked process.

``probe`` says which walls this machine offers. Every other stage locks itself in first and only
then imports what it needs.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apps.inference.sandbox.enter import Confinement, Walls, enter, probe
from apps.inference.sandbox.report import Refused, Report, clean

STAGES = {
    "recognise": "apps.inference.sandbox.recognise:run",
    "scan": "apps.inference.sandbox.scan:run",
    "onnx-check": "apps.inference.sandbox.onnx_check:run",
    "verify-onnx": "apps.inference.sandbox.verify_onnx:run_stage",
    "convert-sklearn": "apps.inference.sandbox.convert_sklearn:run_stage",
    "measure-native": "apps.inference.sandbox.measure_native:run_stage",
    "convert-torch": "apps.inference.sandbox.convert_torch:run_stage",
    "measure-torch": "apps.inference.sandbox.measure_torch:run_stage",
}
SERVE = "apps.inference.sandbox.serve"
EXIT_OUT_OF_MEMORY = 77


def main(argv: Sequence[str]) -> int:
    asked = _parse(argv)
    if asked.stage == "probe":
        walls = probe()
        sys.stdout.write(json.dumps({**asdict(walls), "holds_code": walls.holds_code}) + "\n")
        return 0
    walls = enter(_confinement(asked.confine, asked.read))
    # PyTorch asks for the temporary folder, and the search for one tries to delete in it.
    tempfile.tempdir = os.fspath(Path.cwd())
    ask = json.loads(asked.ask)
    if "example_file" in ask:  # too long for a command line
        ask["example"] = Path(ask["example_file"]).read_text(encoding="utf-8")
    try:
        if asked.stage == "serve":
            unsafe = "" if walls.holds_code else NO_WALLS
            return int(importlib.import_module(SERVE).run(ask, unsafe))
        return _judge(asked.stage, ask, walls)
    except MemoryError:
        # No clean-up: there is no memory to do it with.
        os._exit(EXIT_OUT_OF_MEMORY)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m apps.inference.sandbox")
    parser.add_argument("stage", choices=["probe", "serve", *STAGES])
    parser.add_argument("--read", action="append", default=[], help="a further path to read")
    parser.add_argument("--ask", default="{}", help="the stage's own arguments, as JSON")
    parser.add_argument("--confine", default="", help="limits, as core.confined writes them")
    asked = parser.parse_args(argv)
    if asked.stage != "probe" and not asked.confine:
        parser.error("A stage runs only as the confined child of core.confined.")
    return asked


def _confinement(text: str, read: Sequence[str]) -> Confinement:
    facts = json.loads(text)
    return Confinement(
        work=facts["work"],
        parent=facts["parent"],
        memory_bytes=facts["memory_bytes"],
        cpu_seconds=facts["cpu_seconds"],
        file_bytes=facts["file_bytes"],
        open_files=facts["open_files"],
        may_write=facts["may_write"],
        inputs=tuple(read),
    )


def _judge(stage: str, ask: Mapping[str, Any], walls: Walls) -> int:
    """Run one stage and leave its report, whatever the file did to it."""
    report = Report(result={"walls": {**asdict(walls), "holds_code": walls.holds_code}})
    if ask.get("needs_walls") and not walls.holds_code:
        report.refuse(Refused(NO_WALLS, NO_WALLS_REMEDY))
        report.write(Path.cwd())
        return 0
    module, function = STAGES[stage].split(":")
    try:
        getattr(importlib.import_module(module), function)(ask, report)
    except MemoryError:
        raise
    except Refused as error:
        report.refuse(error)
    except RecursionError:
        report.refuse(Refused("The file is nested too deeply to be read."))
    except Exception as error:  # noqa: BLE001  a hostile file may raise anything; it is a verdict
        report.refuse(Refused(f"The file could not be read: {clean(_words(error))}"))
    report.write(Path.cwd())
    return 0


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


NO_WALLS = (
    "This machine cannot lock in a file that may run code: its kernel offers neither Landlock "
    "with seccomp nor seccomp with a user of its own."
)
NO_WALLS_REMEDY = "Export the model to ONNX, or run the validator on Linux 5.13 or later."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Show that the import contract catches what it is meant to catch.

    python scripts/plant_violations.py

Copies the code to a temporary folder, sees every contract kept there, then breaks each contract
once and runs it alone. The working tree is never touched.
"""

import configparser
import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ".importlinter"
LINT = Path(sys.executable).parent / "lint-imports"


@dataclass(frozen=True, slots=True)
class Violation:
    """A line that, put into a file, breaks one contract."""

    contract: str
    file: str
    line: str


VIOLATIONS = (
    Violation("floors", "apps/core/errors.py", "import apps.accounts.keys"),
    Violation("rooms", "apps/registry/states.py", "import apps.registry.models"),
    Violation("core", "apps/core/errors.py", "import apps.core.models"),
    Violation("settings", "mlplatform/settings/base.py", "import apps.core.errors"),
    Violation("pure", "apps/inference/engine/types.py", "import django"),
    Violation("ml-libraries", "apps/registry/states.py", "import onnxruntime"),
    Violation(
        "runtimes", "apps/inference/runtimes/onnx.py", "import apps.inference.runtimes.sklearn"
    ),
    Violation("engine", "apps/inference/engine/errors.py", "import apps.inference.engine.pipeline"),
    Violation("serving-door", "mlplatform/urls_serving.py", "import apps.inference.tasks"),
    Violation("cycles", "apps/inference/models.py", "import apps.inference.services"),
)


def contracts() -> set[str]:
    """Return the ids of all contracts in the file."""
    config = configparser.ConfigParser()
    config.read(ROOT / CONFIG, encoding="utf-8")
    sections = (name.split(":") for name in config.sections())
    return {parts[2] for parts in sections if parts[:2] == ["importlinter", "contract"]}


def lint(folder: Path, *contract: str) -> "subprocess.CompletedProcess[str]":
    """Run the linter on a copy; all contracts, or the one named."""
    chosen = [word for one in contract for word in ("--contract", one)]
    return subprocess.run(
        [LINT, "--config", CONFIG, "--no-cache", "--no-logo", *chosen],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def planted(folder: Path, violation: Violation) -> Iterator[None]:
    """Append the line to the file, and take it away again."""
    file = folder / violation.file
    before = file.read_text(encoding="utf-8")
    file.write_text(f"{before}\n{violation.line}\n", encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(before, encoding="utf-8")


def is_caught(folder: Path, violation: Violation) -> bool:
    """Plant one violation and return whether its contract is reported as broken."""
    with planted(folder, violation):
        done = lint(folder, violation.contract)
    # A status alone could also mean that the linter itself could not run.
    return done.returncode == 1 and "0 kept, 1 broken" in done.stdout


def main() -> int:
    """Check every contract; return how many were not caught."""
    without = contracts() ^ {one.contract for one in VIOLATIONS}
    if without:
        print(f"No violation is known for: {', '.join(sorted(without))}")
        return 1
    with tempfile.TemporaryDirectory(prefix="mlplatform-violations-") as name:
        folder = Path(name)
        for part in ("apps", "mlplatform"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignore)
        shutil.copy(ROOT / CONFIG, folder)
        kept = lint(folder)
        if kept.returncode != 0:
            print(kept.stdout, kept.stderr, "Already without a planted violation.", sep="\n")
            return 1
        missed = 0
        for one in VIOLATIONS:
            caught = is_caught(folder, one)
            missed += not caught
            print(f"{'caught' if caught else 'MISSED'}  {one.contract:<13} {one.file}: {one.line}")
    return missed


if __name__ == "__main__":
    sys.exit(main())

"""``.env.example`` names every setting, and nothing that is not one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
READERS = {
    "choice",
    "integer",
    "integers",
    "number",
    "rate",
    "secret",
    "switch",
    "text",
    "words",
}
# Read where they are used, because Django itself gives them their names and meaning.
BOOTSTRAP = ROOT / "apps" / "accounts" / "management" / "commands" / "bootstrap.py"


def names_read_in_settings() -> set[str]:
    return {name for file in (ROOT / "mlplatform").rglob("*.py") for name in names_read_by(file)}


def names_read_by(file: Path) -> Iterator[str]:
    """Yield the first argument of every call like ``env.text("NAME", ...)``."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "env"
            and node.func.attr in READERS
        ):
            assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno} hides a name"
            yield str(node.args[0].value)


def names_in_example() -> list[str]:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return re.findall(r"^#?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE)


def test_the_example_names_every_setting_and_no_other() -> None:
    of_django = re.findall(r'"(DJANGO_[A-Z_]+)"', BOOTSTRAP.read_text(encoding="utf-8"))
    settings = names_read_in_settings()
    assert len(settings) > 30
    assert set(names_in_example()) == settings | set(of_django)


def test_the_example_names_nothing_twice() -> None:
    names = names_in_example()
    assert len(names) == len(set(names))


def test_everything_in_the_example_is_commented_out_so_that_a_copy_changes_nothing() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []

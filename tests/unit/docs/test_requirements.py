"""The documents keep their word: every requirement is answered, every reference leads somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = ROOT / "docs" / "requirements.md"
CONFIGURE = ROOT / "docs" / "operations" / "configure.md"
EXPECTED = [f"R{n}" for n in range(1, 186)] + [f"K{n}" for n in range(1, 34)]
STATES = {"done", "part", "not yet"}
ROW = re.compile(r"^\| ([RK]\d+) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
FILE_OF_TESTS = re.compile(r"`(tests/[\w./-]+\.py)(?:::(\w+))?`")
COMMAND = re.compile(r"`(?:\.venv/bin/python )?manage\.py (\w+)")
TARGET = re.compile(r"`make ([\w-]+)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
READ = re.compile(r"env\.(?:text|integer|number|switch|words|secret)\(\s*\"([A-Z0-9_]+)\"")
DJANGO_COMMANDS = {"migrate", "collectstatic", "check", "shell", "test"}


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def rows() -> list[tuple[str, str, str, str]]:
    return ROW.findall(REQUIREMENTS.read_text(encoding="utf-8"))


def names(path: Path) -> Iterator[str]:
    """Anchors of a page, as a forge makes them from its headings."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"#+ (.*)", line):
            plain = re.sub(r"[^\w\- ]", "", heading[1].lower())
            yield plain.strip().replace(" ", "-")


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_requirement_and_conflict_is_answered_once() -> None:
    assert [row[0] for row in rows()] == EXPECTED


def test_every_requirement_has_a_known_state() -> None:
    assert {row[2] for row in rows()} <= STATES


def test_what_is_done_names_a_test_or_a_command() -> None:
    shown = re.compile(r"`(tests/|make |manage\.py |\.ci/run|docs/)|\]\(")
    assert [row[0] for row in rows() if row[2] == "done" and not shown.search(row[3])] == []


def test_what_is_not_done_says_what_is_missing() -> None:
    silent = [row[0] for row in rows() if row[2] != "done" and len(row[3]) < 8]
    assert silent == []


@pytest.mark.parametrize("page", documents(), ids=by_name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    missing = []
    for path, name in FILE_OF_TESTS.findall(page.read_text(encoding="utf-8")):
        file = ROOT / path
        if not file.is_file() or (name and f"def {name}(" not in file.read_text(encoding="utf-8")):
            missing.append(f"{path}::{name}" if name else path)
    assert missing == []


@pytest.mark.parametrize("page", documents(), ids=by_name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ours = {path.stem for path in ROOT.glob("apps/*/management/commands/*.py")}
    in_blocks = re.findall(r"manage\.py (\w+)", "\n".join(FENCE.findall(text)))
    assert {*COMMAND.findall(text), *in_blocks} - ours - DJANGO_COMMANDS == set()


@pytest.mark.parametrize("page", documents(), ids=by_name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(TARGET.findall(page.read_text(encoding="utf-8"))) - targets == set()


@pytest.mark.parametrize("page", documents(), ids=by_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    lost = []
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in set(names(target))):
            lost.append(link)
    assert lost == []


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = {path.name for path in folder.glob("[0-9]*.md")}
    assert set(LINK.findall((folder / "README.md").read_text(encoding="utf-8"))) == pages


def test_no_two_decisions_have_one_number() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))


def test_every_setting_that_is_read_is_explained() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "mlplatform").rglob("*.py")
    )
    told = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", CONFIGURE.read_text(encoding="utf-8")))
    assert set(READ.findall(source)) - told == set()


def test_every_setting_that_is_explained_is_used() -> None:
    used = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("mlplatform", "apps", "demo")
        for path in (ROOT / folder).rglob("*.py")
    )
    told = set(re.findall(r"`([A-Z]+_[A-Z0-9_]+)`", CONFIGURE.read_text(encoding="utf-8")))
    assert [name for name in sorted(told) if name not in used] == []

"""The lock files: pinned with hashes, and of nobody's machine."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "requirements"
NAMES = ("base", "worker", "dev", "runtimes-sklearn")


def pins(name: str) -> dict[str, str]:
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    return dict(
        re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z0-9,-]+\])?==([^\s;\\]+)", text, re.MULTILINE)
    )


def wishes(name: str) -> dict[str, tuple[str, str]]:
    text = (FOLDER / f"{name}.in").read_text(encoding="utf-8")
    rows = re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[[^]]+\])?==(\S+)[ ]*(?:# (.*))?$", text, re.MULTILINE
    )
    return {package.lower().replace("_", "-"): (version, why) for package, version, why in rows}


@pytest.mark.parametrize("name", NAMES)
def test_every_pin_has_a_hash(name: str) -> None:
    blocks = re.split(r"\n(?=[a-z0-9])", (FOLDER / f"{name}.txt").read_text(encoding="utf-8"))
    assert [block.split()[0] for block in blocks[1:] if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_lock_file_names_a_host_or_a_folder_of_a_machine(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert re.findall(r"https?://\S+|file:\S+|--index\S*|--find-links|(?<=\s)/\S+", text) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_wish_says_why_and_is_locked_at_its_version(name: str) -> None:
    locked = pins(name)
    asked = wishes(name)
    assert asked
    for package, (version, why) in asked.items():
        assert why, f"{package} enters without a reason"
        assert locked[package] == version


def test_what_one_lock_shares_with_another_has_the_same_version() -> None:
    base, worker, dev, sklearn = (pins(name) for name in NAMES)
    assert base.items() <= worker.items() <= dev.items()
    assert base.items() <= sklearn.items() <= worker.items()

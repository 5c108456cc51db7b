"""Every import contract has a violation that ``make violations`` plants."""

from pathlib import Path

from scripts import plant_violations

ROOT = Path(__file__).resolve().parents[3]


def test_a_violation_is_known_for_every_contract() -> None:
    assert {one.contract for one in plant_violations.VIOLATIONS} == plant_violations.contracts()


def test_violations_are_planted_in_files_that_exist() -> None:
    files = {one.file for one in plant_violations.VIOLATIONS}
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_a_planted_line_is_taken_away_again(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one = 1\n")
    with plant_violations.planted(tmp_path, plant_violations.Violation("x", "a.py", "import b")):
        assert "import b" in (tmp_path / "a.py").read_text()
    assert (tmp_path / "a.py").read_text() == "one = 1\n"

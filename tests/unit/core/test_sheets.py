"""No cell of a download is run as a formula, and numbers stay numbers."""

import csv
import io

import pytest

from apps.core.sheets import csv_lines, safe_cell


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\uff1d1",
        " =1",
        "\u00a0=1",
        "-a",
    ],
)
def test_a_cell_that_could_be_a_formula_becomes_text(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1, "-1", "+2.5", -0.25, "1e-9", "-3E+4", "wine", "", 0])
def test_numbers_and_plain_words_stay_as_they_are(value: object) -> None:
    assert safe_cell(value) == str(value)


def test_nothing_is_an_empty_cell() -> None:
    assert safe_cell(None) == ""


def test_commas_quotes_and_lines_survive_the_way_to_the_sheet() -> None:
    rows = [['a "quoted", word', "two\nlines"]]
    text = "".join(csv_lines(["one", "two"], rows))
    assert list(csv.reader(io.StringIO(text))) == [["one", "two"], *rows]

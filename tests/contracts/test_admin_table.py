"""The table of the admin's addresses x method x caller: each has a row, and every row is true."""

import pytest

from tests.contracts.access import World, patterns
from tests.contracts.admin_access import clients_of, settle, wrong_cells
from tests.contracts.admin_rows import ROWS

# Rows of one test: enough that making the world costs little, few enough to share the work.
AT_ONCE = 24
PARTS = [ROWS[at : at + AT_ONCE] for at in range(0, len(ROWS), AT_ONCE)]
# The admin's last address catches what is none; the pages of one app are links to their lists.
NOT_ASKED = ("(?P<url>", "^(?P<app_label>", "admin/r/<")

pytestmark = pytest.mark.timeout(600)


def _routes() -> set[str]:
    return {
        f"{route}/".replace("//", "/")
        for route, _ in patterns()
        if route.startswith("admin") and not any(one in route for one in NOT_ASKED)
    }


def test_every_address_of_the_admin_has_a_row() -> None:
    missing = sorted(_routes() - {row.route for row in ROWS})
    assert not missing, f"Add rows to tests/contracts/admin_rows.py: {missing}"


def test_every_row_of_the_admin_belongs_to_an_address() -> None:
    assert sorted({row.route for row in ROWS} - _routes()) == []


def test_every_row_of_the_admin_is_there_once() -> None:
    names = [str(row) for row in ROWS]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.django_db
@pytest.mark.parametrize("part", range(len(PARTS)))
def test_each_caller_opens_and_presses_what_the_table_says(part: int) -> None:
    world = settle(World.make())
    clients = clients_of(world)
    wrong = {str(row): wrong_cells(row, world, clients) for row in PARTS[part]}
    assert {name: cells for name, cells in wrong.items() if cells} == {}

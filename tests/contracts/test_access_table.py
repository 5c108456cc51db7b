"""The table of URL x method x caller: every address has a row, and every row is true."""

from typing import Any

import pytest

from tests.contracts.access import CALLERS, Row, World, all_rows, patterns, status_of

GUARDED = ("api/", "v2", "health", "metrics")


ROWS = all_rows()


def _methods(callback: Any) -> set[str]:
    actions = getattr(callback, "actions", None)
    if actions:
        return {name.upper() for name in actions}
    view = getattr(callback, "cls", None) or getattr(callback, "view_class", None)
    if view is None:
        return {"GET"}
    names = set(view.http_method_names) - {"options", "head", "trace"}
    return {name.upper() for name in names if hasattr(view, name)}


def _addresses() -> set[tuple[str, str]]:
    found = {
        (method, route)
        for route, callback in patterns()
        if route.startswith(GUARDED)
        for method in _methods(callback)
    }
    return {one for one in found if not _is_alias(one, found)}


def _is_alias(address: tuple[str, str], found: set[tuple[str, str]]) -> bool:
    method, route = address
    if not route.startswith("api/") or route.startswith("api/v1/"):
        return False
    return (method, f"api/v1/{route.removeprefix('api/')}") in found


def test_every_address_and_method_has_a_row() -> None:
    covered = {(row.method, row.route) for row in ROWS}
    missing = sorted(_addresses() - covered)
    assert not missing, f"Add rows to tests/contracts/access_<app>.py: {missing}"


def test_every_row_belongs_to_an_address() -> None:
    gone = sorted(
        str(row) for row in ROWS if row.send is None and (row.method, row.route) not in _addresses()
    )
    assert not gone, f"These addresses are no more: {gone}"


def test_every_row_is_there_once() -> None:
    names = [f"{row}{row.query}" for row in ROWS]
    assert len(set(names)) == len(names)


@pytest.mark.django_db
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_caller_gets_the_status_of_the_table(row: Row) -> None:
    world = World.make()
    if row.prepare is not None:
        row.prepare(world)
    found = {caller: status_of(caller, row, world) for caller in CALLERS}
    assert found == row.statuses

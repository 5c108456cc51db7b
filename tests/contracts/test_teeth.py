"""The table notices when a permission is no longer checked.

A few checks are taken away in every run. ``MLP_TEETH=1`` takes all of them away, one at a time:
each place in the sources that asks, and each part of each rule. It takes minutes, and prints a line
for each (``-s``). What it found last is told in docs/roles.md.
"""

import os
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from apps.accounts.policies import RULES, Action, Who
from tests.contracts import teeth
from tests.contracts.teeth import Cell, Seen, Site, Tables

pytestmark = pytest.mark.django_db
WHOLE = os.environ.get("MLP_TEETH") == "1"


def _cell(tables: Tables, name: str, caller: str) -> Cell:
    names = [f"{row}" for row in tables.rows["api"]]
    return Cell("api", names.index(name), caller)


def _without_role(action: Action) -> AbstractContextManager[None]:
    return teeth.with_rule(action, replace(RULES[action], who=Who.ANYONE))


def _without_scope(action: Action) -> AbstractContextManager[None]:
    return teeth.with_rule(action, replace(RULES[action], scope=Who.ANYONE))


@pytest.mark.parametrize(
    ("broken", "row", "caller"),
    [
        (_without_role(Action.VERSION_DOWNLOAD), "artifact", "contributor"),
        (_without_scope(Action.VERSION_DOWNLOAD), "artifact", "bare_key"),
        (_without_role(Action.PEOPLE_READ), "people", "maintainer"),
        (_without_scope(Action.PEOPLE_READ), "people", "key"),
        (teeth.without_walls(), "artifact", "stranger"),
    ],
    ids=["role of a download", "scope of a download", "role of people", "keys of people", "walls"],
)
def test_a_check_that_is_gone_is_noticed(
    broken: AbstractContextManager[None], row: str, caller: str
) -> None:
    tables = Tables()
    route = {
        "artifact": "GET api/v1/models/<str:model>/versions/<int:number>/artifact",
        "people": "GET api/v1/people",
    }[row]
    cells = {_cell(tables, route, caller)}
    assert teeth.notices(tables, cells) is None
    with broken:
        assert teeth.notices(tables, cells) == next(iter(cells))


def test_a_place_that_no_longer_asks_is_noticed() -> None:
    tables = Tables()
    cells = {_cell(tables, "GET api/v1/people", "viewer")}
    asking = [one for one in teeth.sites() if one.file == "apps/accounts/api/people.py"]
    noticed = []
    for site in asking:
        with teeth.without_site(site):
            noticed.append(teeth.notices(tables, cells))
    assert [one for one in noticed if one] == list(cells)


def test_every_excuse_is_still_one() -> None:
    names = {site.file for site in teeth.sites()} | {str(action) for action in Action}
    gone = [
        one
        for one in teeth.EXCUSED
        if not any(name.startswith(one.split(":")[0]) for name in names)
    ]
    assert gone == []


@pytest.mark.skipif(not WHOLE, reason="MLP_TEETH=1 takes all checks away, one at a time")
@pytest.mark.timeout(3600)
def test_each_check_that_is_gone_is_noticed() -> None:
    tables, seen = Tables(), Seen()
    asking: list[Site] = list(teeth.sites())
    untrue = [cell for name in tables.rows for cell in teeth.watched(tables, name, seen)]
    assert untrue == []
    cells = sum(1 for name in tables.rows for _ in tables.cells(name))
    rows = sum(map(len, tables.rows.values()))
    changes: list[tuple[str, AbstractContextManager[None], set[Cell]]] = [
        (str(site), teeth.without_site(site), seen.at(site)) for site in asking
    ]
    changes += [
        (what, teeth.with_rule(action, rule), seen.by_action.get(action, set()))
        for action in Action
        for what, rule in teeth.weaker(action)
    ]
    noticed, excused, missed = 0, 0, []
    for what, change, refused in changes:
        with change:
            found = teeth.notices(tables, refused)
        why = "" if found else teeth.excuse(what)
        noticed, excused = noticed + bool(found), excused + bool(why)
        told = f"{tables.rows[found.table][found.row]}, {found.caller}" if found else why
        print(f"{what}: {told or 'NOBODY NOTICES'}")  # noqa: T201 - the record of the run
        if not told:
            missed.append(what)
    print(  # noqa: T201 - the record of the run
        f"{rows} rows, {cells} cells; {len(changes)} checks taken away, {noticed} noticed, "
        f"{excused} excused, {len(missed)} missed"
    )
    assert missed == []

"""Another team's thing looks like one that is not there, and takes as many questions to miss.

The table of ``access`` says that a stranger gets a 404. Here each id of the blue team is put into
each address, beside one that nobody has: status, words and queries must not tell the two apart.
"""

import re
from typing import Any

import orjson
import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.accounts.policies import ENVIRONMENTS, Scope
from tests.contracts.access import Row, World, all_rows
from tests.factories.accounts import api_key, bearer, make_key

ROWS = [
    row for row in all_rows() if row.fill and row.send is None and row.statuses["stranger"] == 404
]
NOBODYS = {int: 987_654, str: "nothing"}
# One more question is a row found before its team is asked about.
MOST_MORE = 1


def _values(row: Row, world: World) -> dict[str, Any]:
    return dict(row.fill(world) if callable(row.fill) else row.fill)


def _unknown(values: dict[str, Any]) -> dict[str, Any]:
    """Put an id that nobody has in the place of the first, which is what belongs to a team."""
    name, value = next(iter(values.items()))
    is_number = isinstance(value, int)
    other = NOBODYS[int] if is_number else "0198" + str(value)[4:] if "-" in str(value) else None
    return {**values, name: other or NOBODYS[str]}


def _url(row: Row, values: dict[str, Any]) -> str:
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda part: str(values[part[1]]), row.route)
    return f"/{path}{row.query}"


def _asked(row: Row, world: World, values: dict[str, Any], headers: Any) -> tuple[int, str, int]:
    """Return status, words and number of queries of one call, which is undone."""
    with transaction.atomic():
        with CaptureQueriesContext(connection) as captured:
            reply = Client(raise_request_exception=False).generic(
                row.method,
                _url(row, values),
                data=row.json(world),
                content_type="application/json",
                headers=dict(headers),
            )
        transaction.set_rollback(True)
    told = reply.json() if reply.content else {}
    told.pop("request_id", None)
    text = orjson.dumps(told).decode()
    for value in values.values():
        text = text.replace(f"`{value}`", "`it`")
    return reply.status_code, text, len(captured)


@pytest.mark.django_db
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row}{row.query}")
@pytest.mark.parametrize("credential", ["token", "key"])
def test_another_teams_thing_is_not_told_from_none(row: Row, credential: str) -> None:
    world = World.make()
    if row.prepare is not None:
        row.prepare(world)
    stranger = world.users["stranger"]
    headers = bearer(stranger)
    if credential == "key":
        _, text = make_key(world.red, stranger, scopes=list(Scope), environments=ENVIRONMENTS)
        headers = api_key(text)
    theirs = _values(row, world)
    _asked(row, world, _unknown(theirs), headers)  # a key's first use in a while is noted
    status, words, queries = _asked(row, world, theirs, headers)
    none = _asked(row, world, _unknown(theirs), headers)
    assert (status, words) == none[:2]
    # Where no key may come, it is told so before anything is looked for.
    assert status == 404 or (credential, status) == ("key", 403)
    assert abs(queries - none[2]) <= MOST_MORE

"""Who may call what: the shape of the table's rows, and the callers that are its columns.

Each app has a file ``access_<app>.py`` beside this one, with a list ``ROWS``::

    Row("GET", "api/v1/teams/<slug:slug>/members", "401 404 200 200 200 200 200 403",
        scope="admin:*", fill={"slug": "blue"})

The eight statuses are those of CALLERS, in their order:

    nobody       presents no credential
    stranger     maintainer of another team (``red``)
    viewer, contributor, maintainer
                 members of the team ``blue`` whose things the row is about
    admin        of the platform, in no team
    key          of the team ``blue``, with the row's scope(s) and all environments; its owner is
                 the maintainer, or who ``key_owner`` names
    bare_key     the same with every scope but the row's

``route`` is written as the URLconf writes it (no leading and no trailing slash; an address below
``api/`` that is an alias of one below ``api/v1/`` has no row of its own). ``fill`` gives the values
of its ``<...>`` parts, ``body`` the JSON body; both may be functions of the ``World``. A route that
is a regular expression names an address that it matches in ``path``. ``prepare``
makes what the row needs (a model, a loaded engine); what it learns goes into ``world.things``.
``send`` replaces Django's test client, for doors that are not Django's.

Every caller's call is undone before the next one comes, so all meet the same world.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from apps.accounts.models import Team, User
from apps.accounts.policies import ENVIRONMENTS, Scope
from apps.accounts.snapshot import Role
from tests.factories.accounts import api_key, bearer, make_key, make_member, make_team, make_user

CALLERS = (
    "nobody",
    "stranger",
    "viewer",
    "contributor",
    "maintainer",
    "admin",
    "key",
    "bare_key",
)
Headers = Mapping[str, str]


@dataclass
class World:
    """Two teams, their people, and what rows add."""

    blue: Team
    red: Team
    users: Mapping[str, User]
    things: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls) -> "World":
        blue, red = make_team("blue"), make_team("red")
        users = {role.value: make_member(blue, role, role.value) for role in Role}
        users["stranger"] = make_member(red, Role.MAINTAINER, "stranger")
        users["admin"] = make_user("boss", is_admin=True)
        return cls(blue, red, users)


@dataclass(frozen=True)
class Row:
    """One address and method, and what each caller gets there."""

    method: str
    route: str
    expected: str
    scope: str | tuple[str, ...] = ()
    fill: Mapping[str, Any] | Callable[[World], Mapping[str, Any]] = field(default_factory=dict)
    body: Any = None
    query: str = ""
    key_owner: str = "maintainer"
    path: str = ""
    prepare: Callable[[World], None] | None = None
    send: Callable[[World, "Row", Headers], int] | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.route}"

    @cached_property
    def statuses(self) -> dict[str, int]:
        numbers = [int(one) for one in self.expected.split()]
        if len(numbers) != len(CALLERS):
            raise ValueError(f"{self}: {len(numbers)} statuses for {len(CALLERS)} callers")
        return dict(zip(CALLERS, numbers, strict=True))

    @property
    def scopes(self) -> tuple[str, ...]:
        return (self.scope,) if isinstance(self.scope, str) else self.scope

    def url(self, world: World) -> str:
        if self.path:
            return f"{self.path}{self.query}"
        values = self.fill(world) if callable(self.fill) else self.fill
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda part: str(values[part[1]]), self.route)
        return f"/{path}{self.query}"

    def json(self, world: World) -> bytes:
        body = self.body(world) if callable(self.body) else self.body
        return b"" if body is None else orjson.dumps(body)


def all_rows() -> list[Row]:
    """Return the rows of every ``access_<app>.py``."""
    files = sorted(Path(__file__).parent.glob("access_*.py"))
    modules = [importlib.import_module(f"tests.contracts.{file.stem}") for file in files]
    return [row for module in modules for row in module.ROWS]


def patterns(resolver: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return every address of the URLconf with its view, however deep it is included."""
    for one in (resolver or get_resolver()).url_patterns:
        route = prefix + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from patterns(one, route)
        elif isinstance(one, URLPattern):
            yield route.removeprefix("^").rstrip("/"), one.callback


def headers_of(caller: str, row: Row, world: World) -> Headers:
    """Return what a caller presents."""
    if caller == "nobody":
        return {}
    if caller not in {"key", "bare_key"}:
        return bearer(world.users[caller])
    scopes = row.scopes
    if caller == "bare_key":
        scopes = tuple(one for one in Scope if one not in row.scopes)
    owner = world.users[row.key_owner]
    _, text = make_key(world.blue, owner, scopes=scopes, environments=ENVIRONMENTS)
    return api_key(text)


def status_of(caller: str, row: Row, world: World) -> int:
    """Make one call and undo it; return the status of its reply."""
    send = row.send or by_client
    with transaction.atomic():
        status = send(world, row, headers_of(caller, row, world))
        transaction.set_rollback(True)
    return status


def by_client(world: World, row: Row, headers: Headers) -> int:
    """Call a door of Django's."""
    reply = Client(raise_request_exception=False).generic(
        row.method,
        row.url(world),
        data=row.json(world),
        content_type="application/json",
        headers=dict(headers),
    )
    return reply.status_code

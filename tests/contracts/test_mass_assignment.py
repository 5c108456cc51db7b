"""What the server owns cannot be sent: each such field is refused, or changes nothing.

And no answer holds what hashes a password or a key.
"""

from typing import Any

import orjson
import pytest
from django.db import transaction
from django.test import Client

from apps.accounts.models import ApiKey, Membership, RefreshToken, Team, User
from apps.registry.models import Alias, ModelVersion, RegisteredModel, Release
from tests.contracts.access import Row, World, all_rows, headers_of
from tests.factories.accounts import make_key

# Values that nobody would send by mistake, so that they are known again in the tables.
OWNED: dict[str, Any] = {
    "id": 987_654,
    "pk": 987_654,
    "team_id": 1,
    "owner": "stranger",
    "owner_id": 1,
    "created_by": "mallory",
    "created": "1999-01-01T00:00:00Z",
    "revoked_at": None,
    "revoked_by": "mallory",
    "sha256": "f" * 64,
    "last4": "zzzz",
    "key": "mlp_live_forged",
    "state": "ready",
    "number": 987_654,
    "actor": "mallory",
    "approver": "mallory",
    "requested_by": 1,
    "is_superuser": True,
    "is_staff": True,
    "token_version": 777,
    "password_hash": "forged",
    "user_permissions": [1],
    "may_carry_code": True,
    "deleted_at": None,
}
ROWS = [row for row in all_rows() if row.method in {"POST", "PUT", "PATCH"} and row.send is None]
TABLES = (User, Team, Membership, ApiKey, RegisteredModel, ModelVersion, Alias, Release)
# Differs from one call to the next, whatever was sent.
OWN_WAY = {
    "id", "pk", "sha256", "last4", "created", "date_joined", "last_login", "password",
    "expires_at", "decided", "invitation", "team_id", "replaces_id", "endpoint_id",
}  # fmt: skip
CREDENTIALS = {"api/v1/auth/login", "api/v1/auth/refresh", "api/v1/auth/register"}


def _state() -> list[list[tuple[str, str]]]:
    """Return what the tables hold, but for what differs in every call."""
    return [
        sorted((name, str(value)) for name, value in row.items() if name not in OWN_WAY)
        for table in TABLES
        for row in table._default_manager.order_by("pk").values()
    ]


def _caller(row: Row) -> str:
    """Return somebody who may do it."""
    return next((one for one, status in row.statuses.items() if 200 <= status < 300), "maintainer")


def _sent(row: Row, world: World, body: dict[str, Any]) -> tuple[int, Any, Any]:
    """Return status, answer and the tables after one call, which is undone."""
    with transaction.atomic():
        reply = Client(raise_request_exception=False).generic(
            row.method,
            row.url(world),
            data=orjson.dumps(body),
            content_type="application/json",
            headers=dict(headers_of(_caller(row), row, world)),
        )
        state = _state()
        answer = b"" if reply.streaming else reply.content  # a file is no answer of ours
        transaction.set_rollback(True)
    return reply.status_code, answer, state


@pytest.mark.django_db
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row}{row.query}")
def test_what_the_server_owns_is_refused_or_changes_nothing(row: Row) -> None:
    world = World.make()
    if row.prepare is not None:
        row.prepare(world)
    body = orjson.loads(row.json(world) or b"{}")
    usual, _, after = _sent(row, world, body)
    for name, value in OWNED.items():
        if name in body:
            continue
        status, answer, state = _sent(row, world, {**body, name: value})
        assert status < 500, name
        if status != 400:
            assert (status, state) == (usual, after), f"{name} was taken: {answer!r}"


@pytest.mark.django_db
@pytest.mark.parametrize("row", [one for one in all_rows() if one.send is None], ids=str)
def test_no_answer_holds_what_hashes_a_secret(row: Row) -> None:
    world = World.make()
    if row.prepare is not None:
        row.prepare(world)
    make_key(world.blue, world.users["contributor"])
    body = orjson.loads(row.json(world) or b"{}")
    with transaction.atomic():
        _, answer, _ = _sent(row, world, body)
        transaction.set_rollback(True)
    text = answer.decode()
    hashes = [*User.objects.values_list("password", flat=True)]
    hashes += ApiKey.objects.values_list("sha256", flat=True)
    hashes += RefreshToken.objects.values_list("id", flat=True)
    assert [one for one in hashes if one in text] == []
    assert '"password"' not in text
    if row.route not in CREDENTIALS:
        assert '"refresh"' not in text

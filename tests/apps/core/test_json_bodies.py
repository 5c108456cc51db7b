"""The API reads JSON as strictly as the prediction door does, whichever address is asked."""

import pytest
from django.test import Client

from tests.factories.accounts import bearer, make_user

pytestmark = pytest.mark.django_db
BAD = {
    "a name twice": b'{"name": "a", "name": "b"}',
    "a name twice, deep": b'{"name": {"x": [[{"y": 1, "y": 2}]]}}',
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": -Infinity}',
    "nested too deep": b'{"name": ' + b"[" * 40 + b"]" * 40 + b"}",
    "a million brackets": b"[" * 1_000_000,
    "half a character": b'{"name": "\\ud800"}',
    "not UTF-8": b'{"name": "\xff"}',
    "cut off": b'{"name": ',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("path", ["/api/v1/models", "/api/v1/keys", "/api/v1/auth/login"])
def test_a_body_that_is_not_plain_json_is_400_with_a_code(path: str, body: bytes) -> None:
    headers = bearer(make_user("boss", is_admin=True))
    reply = Client().post(path, body, content_type="application/json", headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_json")


def test_thirty_two_levels_are_taken() -> None:
    headers = bearer(make_user("boss", is_admin=True))
    body = b'{"name": ' + b"[" * 31 + b"]" * 31 + b"}"
    reply = Client().post("/api/v1/models", body, content_type="application/json", headers=headers)
    assert reply.json()["code"] == "invalid", "read, and then refused for what it says"

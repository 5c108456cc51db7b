"""Who may call what of accounts. The columns are explained in ``access``."""
# ruff: noqa: E501 - a row of the table is one line

from typing import Any

from tests.contracts.access import Row, World
from tests.factories.accounts import PASSWORD, make_key, make_user

ADMIN = "admin:*"


def _newcomer(world: World) -> None:
    make_user("newcomer")


def _a_key(world: World) -> None:
    """A key of the contributor; the maintainer manages it, the owner may look and revoke."""
    key, _ = make_key(world.blue, world.users["contributor"])
    world.things["key"] = key.pk


_KEY: dict[str, Any] = {
    "prepare": _a_key,
    "fill": lambda world: {"key": world.things["key"]},
    "scope": ADMIN,
}
_TEAM: dict[str, Any] = {"fill": {"slug": "blue"}, "scope": ADMIN}
_VIEWER: dict[str, Any] = {"fill": {"slug": "blue", "username": "viewer"}, "scope": ADMIN}
_SIGN_IN = {"username": "viewer", "password": PASSWORD}
_NEW_MEMBER = {"username": "newcomer", "role": "viewer"}
_WISH = {"name": "mine", "team": "blue", "scopes": ["predict"]}

# fmt: off
ROWS = [
    #                                                nobody stranger viewer contributor maintainer admin key bare_key
    Row("POST",   "api/v1/auth/login",                    "200 200 200 200 200 200 200 200", body=_SIGN_IN),
    Row("POST",   "api/v1/auth/refresh",                  "401 401 401 401 401 401 401 401", body={"refresh": "x"}),
    Row("POST",   "api/v1/auth/logout",                   "401 401 401 401 401 401 401 401", body={"refresh": "x"}),
    Row("GET",    "api/v1/auth/me",                       "401 200 200 200 200 200 200 200", scope="predict"),
    Row("PATCH",  "api/v1/auth/me",                       "401 200 200 200 200 200 403 403", scope=ADMIN, body={"first_name": "Ada"}),

    Row("GET",    "api/v1/keys",                          "401 200 200 200 200 200 200 403", scope=ADMIN),
    Row("POST",   "api/v1/keys",                          "401 404 403 201 201 201 201 403", scope=(ADMIN, "predict"), body=_WISH),
    Row("GET",    "api/v1/keys/<slug:key>",               "401 404 403 200 200 200 200 403", **_KEY),
    Row("DELETE", "api/v1/keys/<slug:key>",               "401 404 403 204 204 204 204 403", **_KEY),

    Row("GET",    "api/v1/teams",                         "401 200 200 200 200 200 200 403", scope=ADMIN),
    Row("POST",   "api/v1/teams",                         "401 403 403 403 403 201 403 403", scope=ADMIN, body={"slug": "new", "name": "New"}),
    Row("GET",    "api/v1/teams/<slug:slug>",             "401 404 200 200 200 200 200 403", **_TEAM),
    Row("GET",    "api/v1/teams/<slug:slug>/members",     "401 404 200 200 200 200 200 403", **_TEAM),
    Row("POST",   "api/v1/teams/<slug:slug>/members",     "401 404 403 403 201 201 201 403", **_TEAM, prepare=_newcomer, body=_NEW_MEMBER),
    Row("PATCH",  "api/v1/teams/<slug:slug>/members/<str:username>",
                                                          "401 404 403 403 200 200 200 403", **_VIEWER, body={"role": "contributor"}),
    Row("DELETE", "api/v1/teams/<slug:slug>/members/<str:username>",
                                                          "401 404 403 403 204 204 204 403", **_VIEWER),
]
# fmt: on

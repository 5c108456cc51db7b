"""Who may call what of accounts. The columns are explained in ``access``."""
# ruff: noqa: E501 - a row of the table is one line

from typing import Any

from apps.accounts.models import Team
from apps.accounts.services import invitations, plans
from apps.accounts.snapshot import Role
from apps.core.models import Event
from tests.contracts.access import Row, World
from tests.factories.accounts import PASSWORD, SYSTEM, make_key, make_user

ADMIN = "admin:*"


def _an_event(world: World) -> None:
    """What happened in the team."""
    event = Event.objects.filter(team_id=world.blue.pk).first()
    world.things["event"] = event.pk if event else 0


def _newcomer(world: World) -> None:
    make_user("newcomer")


def _a_key(world: World) -> None:
    """A key of the contributor; the maintainer manages it, the owner may look and revoke."""
    key, _ = make_key(world.blue, world.users["contributor"])
    world.things["key"] = key.pk


def _a_plan(world: World) -> None:
    """A plan that nobody is on."""
    plans.make_plan("gold", wish=plans.PlanWish("Gold"), actor=SYSTEM)


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

_NEWCOMER = {"username": "eve", "email": "eve@example.org", "password": PASSWORD}
_INVITED = {"email": "eve@example.org"}


def _invite(world: World, team: Team | None, role: Role | None) -> None:
    made, _ = invitations.invite(email="eve@example.org", team=team, role=role, actor=SYSTEM)
    world.things["invitation"] = made.pk


_INVITATION: dict[str, Any] = {
    "prepare": lambda world: _invite(world, None, None),
    "fill": lambda world: {"invitation": world.things["invitation"]},
    "scope": ADMIN,
    "key_owner": "admin",
}
_TEAM_INVITATION: dict[str, Any] = {
    "prepare": lambda world: _invite(world, world.blue, Role.VIEWER),
    "fill": lambda world: {"slug": "blue", "invitation": world.things["invitation"]},
    "scope": ADMIN,
}

# fmt: off
ROWS = [
    #                                                nobody stranger viewer contributor maintainer admin key bare_key
    Row("GET",    "api/v1/audit",                         "401 200 403 403 200 200 200 403", scope=ADMIN),
    Row("GET",    "api/v1/audit/<int:event>",             "401 404 403 403 200 200 200 403", scope=ADMIN, prepare=_an_event, fill=lambda world: {"event": world.things["event"]}),

    Row("POST",   "api/v1/auth/register",                 "201 201 201 201 201 201 201 201", body=_NEWCOMER),
    Row("POST",   "api/v1/auth/login",                    "200 200 200 200 200 200 200 200", body=_SIGN_IN),
    Row("POST",   "api/v1/auth/refresh",                  "401 401 401 401 401 401 401 401", body={"refresh": "x"}),
    Row("POST",   "api/v1/auth/logout",                   "401 401 401 401 401 401 401 401", body={"refresh": "x"}),
    Row("GET",    "api/v1/auth/me",                       "401 200 200 200 200 200 200 200", scope="predict"),
    Row("PATCH",  "api/v1/auth/me",                       "401 200 200 200 200 200 403 403", scope=ADMIN, body={"first_name": "Ada"}),

    Row("GET",    "api/v1/keys",                          "401 200 200 200 200 200 200 403", scope=ADMIN),
    # A key gives what it has itself: this one has `admin:*` only, and the bare one all but that.
    Row("POST",   "api/v1/keys",                          "401 404 403 201 201 201 403 403", scope=ADMIN, body=_WISH, query="?by=halves"),
    Row("POST",   "api/v1/keys",                          "401 404 403 201 201 201 201 403", scope=(ADMIN, "predict"), body=_WISH),
    Row("GET",    "api/v1/keys/<slug:key>",               "401 404 403 200 200 200 200 403", **_KEY),
    Row("PATCH",  "api/v1/keys/<slug:key>",               "401 404 403 200 200 200 200 403", **{**_KEY, "scope": (ADMIN, "predict")}, body={"name": "other"}),
    Row("POST",   "api/v1/keys/<slug:key>/rotate",        "401 404 403 201 201 201 201 403", **{**_KEY, "scope": (ADMIN, "predict")}, body={"overlap_hours": 1}),
    Row("DELETE", "api/v1/keys/<slug:key>",               "401 404 403 204 204 204 204 403", **_KEY),

    Row("GET",    "api/v1/plans",                         "401 200 200 200 200 200 200 200", scope="predict"),
    Row("POST",   "api/v1/plans",                         "401 403 403 403 403 201 403 403", scope=ADMIN, body={"name": "gold", "title": "Gold"}),
    Row("GET",    "api/v1/plans/<slug:name>",             "401 200 200 200 200 200 200 200", scope="predict", fill={"name": "standard"}),
    Row("PATCH",  "api/v1/plans/<slug:name>",             "401 403 403 403 403 200 403 403", scope=ADMIN, fill={"name": "standard"}, body={"title": "Usual"}),
    Row("DELETE", "api/v1/plans/<slug:name>",             "401 403 403 403 403 204 403 403", scope=ADMIN, fill={"name": "gold"}, prepare=_a_plan),

    Row("GET",    "api/v1/people",                        "401 403 403 403 403 200 403 403", scope=ADMIN, key_owner="admin"),
    Row("GET",    "api/v1/people/<str:username>",         "401 403 403 403 403 200 403 403", scope=ADMIN, key_owner="admin", fill={"username": "viewer"}),
    Row("PATCH",  "api/v1/people/<str:username>",         "401 403 403 403 403 200 403 403", scope=ADMIN, key_owner="admin", fill={"username": "viewer"}, body={"is_active": False, "reason": "left"}),

    Row("GET",    "api/v1/teams",                         "401 200 200 200 200 200 200 403", scope=ADMIN),
    Row("POST",   "api/v1/teams",                         "401 403 403 403 403 201 201 403", scope=ADMIN, key_owner="admin", body={"slug": "new", "name": "New"}),
    Row("GET",    "api/v1/teams/<slug:slug>",             "401 404 200 200 200 200 200 403", **_TEAM),
    Row("PATCH",  "api/v1/teams/<slug:slug>",             "401 404 403 403 200 200 200 403", **_TEAM, body={"name": "Azure"}),
    Row("GET",    "api/v1/teams/<slug:slug>/invitations", "401 404 403 403 200 200 200 403", **_TEAM),
    Row("POST",   "api/v1/teams/<slug:slug>/invitations", "401 404 403 403 201 201 201 403", **_TEAM, body=_INVITED | {"role": "viewer"}),
    Row("DELETE", "api/v1/teams/<slug:slug>/invitations/<int:invitation>",
                                                          "401 404 403 403 204 204 204 403", **_TEAM_INVITATION),
    Row("GET",    "api/v1/invitations",                   "401 403 403 403 403 200 200 403", scope=ADMIN, key_owner="admin"),
    Row("POST",   "api/v1/invitations",                   "401 403 403 403 403 201 201 403", scope=ADMIN, key_owner="admin", body=_INVITED),
    Row("DELETE", "api/v1/invitations/<int:invitation>",  "401 403 403 403 403 204 204 403", **_INVITATION),
    Row("GET",    "api/v1/teams/<slug:slug>/members",     "401 404 200 200 200 200 200 403", **_TEAM),
    Row("POST",   "api/v1/teams/<slug:slug>/members",     "401 404 403 403 201 201 201 403", **_TEAM, prepare=_newcomer, body=_NEW_MEMBER),
    Row("PATCH",  "api/v1/teams/<slug:slug>/members/<str:username>",
                                                          "401 404 403 403 200 200 200 403", **_VIEWER, body={"role": "contributor"}),
    Row("DELETE", "api/v1/teams/<slug:slug>/members/<str:username>",
                                                          "401 404 403 403 204 204 204 403", **_VIEWER),
]
# fmt: on

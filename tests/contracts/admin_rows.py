"""Who may open and press what in the admin. The columns are explained in ``admin_access``."""

from typing import Any

from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

from apps.accounts.services import guards, invitations
from apps.accounts.snapshot import Role
from apps.core.events import Actor
from tests.contracts.access import World
from tests.contracts.admin_access import Row, screen


def _of(**names: str) -> Any:
    """Return a filler: parts of an address -> things of the world, by their keys."""

    def fill(world: World) -> dict[str, Any]:
        return {part: _key(world, name) for part, name in names.items()}

    return fill


def _key(world: World, name: str) -> Any:
    if name == "blue":
        return world.blue.pk
    found = world.users[name[1:]] if name.startswith("@") else world.things[name]
    return found.pk


def _invitation(*, of_team: bool) -> Any:
    """Return a filler with an open invitation, of the team or of none."""

    def fill(world: World) -> dict[str, Any]:
        team, role = (world.blue, Role.VIEWER) if of_team else (None, None)
        made, _ = invitations.invite(
            email="invited@example.org", team=team, role=role, actor=Actor.system()
        )
        return {"team": world.blue.pk, "number": made.pk}

    return fill


def _locked_out(world: World) -> dict[str, Any]:
    """Return a filler with somebody whose sign-in is locked."""
    viewer = world.users["viewer"]
    for _ in range(5):
        guards.failed(viewer.username, viewer)
    return {"object_id": viewer.pk}


def _with_factors(world: World) -> dict[str, Any]:
    """Return a filler with somebody who has a second factor."""
    viewer = world.users["viewer"]
    TOTP.activate(viewer, generate_totp_secret())
    return {"object_id": viewer.pk}


WINE = {"model": "wine", "number": 1, "environment": "production"}
# fmt: off
#                 nobody stranger viewer contributor maintainer admin
ALL =            "in     200      200    200         200        200"
MEMBERS =        "in     404      200    200         200        200"
CONTRIBUTORS =   "in     404      403    200         200        200"
MAINTAINERS =    "in     404      403    403         200        200"
OPERATORS =      "in     403      403    403         403        200"
NEVER =          "in     403      403    403         403        403"
KEY_HOLDERS =    "in     404      404    200         200        200"
UNSEEN =         "in     404      403    403         403        403"
NO_POST =        "in     405      405    405         405        405"
NO_GET =         "in     405      405    405         405        405"
# fmt: on
BECAUSE = {"reason": "because"}


def _get(at: str, expected: str, fill: Any = None, **more: Any) -> list[Row]:
    """Return the rows of a page or part of one that is only looked at."""
    return [
        Row("GET", at, expected, fill or {}, **more),
        Row("POST", at, NO_POST, fill or {}, **{k: v for k, v in more.items() if k == "query"}),
    ]


def _post(at: str, expected: str, fill: Any, form: Any) -> list[Row]:
    """Return the rows of a door that only takes what is sent."""
    return [Row("GET", at, NO_GET, fill), Row("POST", at, expected, fill, form)]


def _dialog(at: str, expected: str, pk: str, form: Any = None) -> list[Row]:
    """Return the rows of a dialog that asks for a reason before it acts."""
    fill = _of(object_id=pk)
    return [Row("GET", at, expected, fill), Row("POST", at, expected, fill, form or BECAUSE)]


def _thing(name: str) -> Any:
    return lambda world: _key(world, name)


PARTS, FRAGMENTS = "admin/inference-pages", "admin/registry-pages"
TEAM = "admin/accounts/team/<int:team>/members/"

ROWS: list[Row] = [
    # --- what is everybody's -------------------------------------------------------------------
    Row("GET", "admin/", ALL),
    Row("POST", "admin/", ALL),
    Row("GET", "admin/login/", "200 302 302 302 302 302"),
    Row("POST", "admin/login/", "200 200 200 200 200 200"),
    Row("GET", "admin/logout/", "302 405 405 405 405 405"),
    Row("POST", "admin/logout/", "302 200 200 200 200 200"),
    Row("GET", "admin/password_change/", ALL),
    Row("POST", "admin/password_change/", ALL),
    *_get("admin/password_change/done/", ALL),
    Row("GET", "admin/autocomplete/", NEVER),
    *_get("admin/jsi18n/", ALL),
    *_get(
        "admin/search/",
        ALL,
        query="?s=wine",
        marks={
            "/registry/registeredmodel/": "viewer contributor maintainer admin",
        },
    ),
    *_get("admin/monitoring/bell/", ALL),
    *_get(
        "admin/search/",
        ALL,
        query="?s=blue-lorry",
        marks={
            "/accounts/apikey/{key}/": "contributor maintainer admin",
        },
    )[:1],
    *_get(
        "admin/search/",
        ALL,
        query="?s=audit",
        marks={
            "/admin/core/event/": "stranger maintainer admin",
        },
    )[:1],
    *_post("admin/monitoring/bell/read/", "in 302 302 302 302 302", {}, {}),
    *_get("admin/monitoring/notifications/", ALL),
    *_get(
        "admin/monitoring/notifications/<int:notification>/",
        "in 404 302 404 404 404",
        _of(notification="notification"),
    ),
    # --- people, teams, keys -------------------------------------------------------------------
    *screen(
        "accounts/user",
        _thing("@viewer"),
        everything=OPERATORS,
        view=OPERATORS,
        add=OPERATORS,
        change=OPERATORS,
    ),
    Row("GET", "admin/accounts/user/<id>/password/", OPERATORS, _of(id="@viewer")),
    Row("POST", "admin/accounts/user/<id>/password/", OPERATORS, _of(id="@viewer")),
    *screen(
        "accounts/team",
        _thing("blue"),
        view=MEMBERS,
        add=OPERATORS,
        change=MAINTAINERS,
        listed={"Blue": "viewer contributor maintainer admin"},
        marks={
            'name="_save"': "maintainer admin",
            "/admin/accounts/team/{blue}/members/": "maintainer admin",
            "apikey/add/?team={blue}": "contributor maintainer admin",
            "core/event/?team={blue}": "maintainer admin",
        },
    ),
    *_post(TEAM, "in 404 404 404 302 302", _of(team="blue"), {"user": "boss", "role": "viewer"}),
    *_post(
        f"{TEAM}<int:member>/role/",
        "in 404 404 404 302 302",
        _of(team="blue", member="member"),
        {"role": "contributor"},
    ),
    *_post(
        f"{TEAM}<int:member>/remove/",
        "in 404 404 404 302 302",
        _of(team="blue", member="member"),
        {},
    ),
    Row(
        "GET",
        "admin/accounts/team/<int:team>/invite/",
        "in 404 404 404 200 200",
        _of(team="blue"),
    ),
    Row(
        "POST",
        "admin/accounts/team/<int:team>/invite/",
        "in 404 404 404 200 200",
        _of(team="blue"),
        {"email": "eve@example.org", "role": "viewer"},
    ),
    *_post(
        "admin/accounts/team/<int:team>/invitations/<int:number>/revoke/",
        "in 404 404 404 302 302",
        _invitation(of_team=True),
        {},
    ),
    Row("GET", "admin/accounts/user/invite/", OPERATORS),
    Row("POST", "admin/accounts/user/invite/", OPERATORS, {}, {"email": "eve@example.org"}),
    *_post(
        "admin/accounts/user/invitations/<int:number>/revoke/",
        "in 403 403 403 403 302",
        _invitation(of_team=False),
        {},
    ),
    Row("GET", "admin/accounts/user/<path:object_id>/unlock/", OPERATORS, _locked_out),
    Row("POST", "admin/accounts/user/<path:object_id>/unlock/", OPERATORS, _locked_out, BECAUSE),
    Row("GET", "admin/accounts/user/<path:object_id>/remove-factors/", OPERATORS, _with_factors),
    Row(
        "POST",
        "admin/accounts/user/<path:object_id>/remove-factors/",
        OPERATORS,
        _with_factors,
        BECAUSE,
    ),
    Row("GET", "admin/me/", ALL),
    Row("POST", "admin/me/", ALL),
    *_post("admin/me/end-others/", "in 302 302 302 302 302", {}, {}),
    *screen(
        "accounts/apikey",
        _thing("key"),
        view="in 404 404 200 200 200",
        add="in 200 403 200 200 200",
        change="in 404 404 403 403 403",
        listed={"blue-lorry": "contributor maintainer admin"},
    ),
    *_dialog("admin/accounts/apikey/<path:object_id>/revoke/", "in 404 404 200 200 200", "key"),
    Row("GET", "admin/accounts/apikey/<str:object_id>/edit/", KEY_HOLDERS, _of(object_id="key")),
    Row("POST", "admin/accounts/apikey/<str:object_id>/edit/", KEY_HOLDERS, _of(object_id="key")),
    *_post(
        "admin/accounts/apikey/<str:object_id>/rotate/",
        KEY_HOLDERS,
        _of(object_id="key"),
        {"overlap": "1"},
    ),
    *screen(
        "accounts/plan",
        lambda world: "standard",
        everything=OPERATORS,
        view=OPERATORS,
        add=OPERATORS,
        change=OPERATORS,
    ),
    Row("GET", "admin/accounts/plan/<path:object_id>/delete_plan/", NEVER, {"object_id": "trial"}),
    Row("POST", "admin/accounts/plan/<path:object_id>/delete_plan/", NEVER, {"object_id": "trial"}),
    *_dialog(
        "admin/accounts/user/<path:object_id>/give_plan/", OPERATORS, "@viewer", {"plan": "trial"}
    ),
    # --- models, versions, endpoints, releases -------------------------------------------------
    *screen(
        "registry/registeredmodel",
        _thing("model"),
        view=MEMBERS,
        add="in 200 403 200 200 200",
        change=CONTRIBUTORS,
        listed={"wine": "viewer contributor maintainer admin"},
        marks={
            "delete_model": "maintainer admin",
            "modelversion/add/?model=wine": "contributor maintainer admin",
        },
    ),
    *_dialog("admin/registry/registeredmodel/<path:object_id>/delete_model/", MAINTAINERS, "model"),
    *screen(
        "registry/modelversion",
        _thing("version"),
        view=MEMBERS,
        add="in 200 403 200 200 200",
        change=UNSEEN,
        listed={"wine": "viewer contributor maintainer admin"},
        marks={
            "/artifact?role=": "maintainer admin",
            "/inference-pages/try/": "contributor maintainer admin",
            "/modelversion/{version}/release/": "contributor maintainer admin",
        },
    ),
    Row("GET", "admin/registry/modelversion/<int:pk>/release/", CONTRIBUTORS, _of(pk="version")),
    Row(
        "POST",
        "admin/registry/modelversion/<int:pk>/release/",
        "in 404 403 302 302 302",
        _of(pk="free"),
        {"environment": "staging", "share": "100", **BECAUSE},
    ),
    Row(
        "POST",
        "admin/registry/modelversion/<int:pk>/release/",
        "in 404 403 403 302 302",
        _of(pk="free"),
        {"environment": "production", "share": "100", **BECAUSE},
        query="?in=production",
    ),
    *_dialog("admin/registry/modelversion/<path:object_id>/deprecate/", CONTRIBUTORS, "free"),
    *_dialog("admin/registry/modelversion/<path:object_id>/archive/", CONTRIBUTORS, "free"),
    *_dialog("admin/registry/modelversion/<path:object_id>/restore/", CONTRIBUTORS, "deprecated"),
    *screen(
        "registry/endpoint",
        _thing("endpoint"),
        view=MEMBERS,
        add=NEVER,
        change=UNSEEN,
        listed={"wine": "viewer contributor maintainer admin"},
        marks={
            "/roll-back/": "maintainer admin",
            "/release/?environment=production": "contributor maintainer admin",
        },
    ),
    *screen(
        "registry/release",
        _thing("waiting"),
        view=MEMBERS,
        add=NEVER,
        change=UNSEEN,
        listed={"wine": "viewer contributor maintainer admin"},
        marks={"/decide/": "maintainer admin"},
    ),
    Row(
        "GET",
        "admin/registry/release/<path:object_id>/change/",
        MEMBERS,
        _of(object_id="replaced"),
        query="?of=replaced",
        marks={"/release/{replaced}/roll-back/": "maintainer admin"},
    ),
    Row(
        "GET",
        "admin/registry/modelversion/add/",
        "in 200 403 200 200 200",
        query="?who=code",
        marks={"carry code and need a permission": "contributor"},
    ),
    Row(
        "GET",
        "admin/registry/registeredmodel/add/",
        "in 200 403 200 200 200",
        query="?of=teams",
        marks={">Blue</option>": "contributor maintainer admin"},
    ),
    Row("GET", "admin/registry/release/<int:pk>/roll-back/", MAINTAINERS, _of(pk="replaced")),
    Row(
        "POST",
        "admin/registry/release/<int:pk>/roll-back/",
        "in 404 403 403 302 302",
        _of(pk="replaced"),
        BECAUSE,
    ),
    *_post(
        "admin/registry/release/<int:pk>/decide/",
        "in 404 403 403 302 302",
        _of(pk="waiting"),
        {"decision": "reject", **BECAUSE},
    ),
    Row(
        "GET",
        f"{FRAGMENTS}/models/<int:pk>/aliases/",
        MEMBERS,
        _of(pk="model"),
        marks={
            "<form": "contributor maintainer admin",
        },
    ),
    Row(
        "POST",
        f"{FRAGMENTS}/models/<int:pk>/aliases/",
        CONTRIBUTORS,
        _of(pk="model"),
        {"name": "champion", "version": "2"},
    ),
    *_get(f"{FRAGMENTS}/teams/<int:team>/models/", MEMBERS, _of(team="blue")),
    *_get(f"{FRAGMENTS}/teams/<int:team>/model-names/", MEMBERS, _of(team="blue")),
    *_get(f"{FRAGMENTS}/teams/counts/", ALL),
    *_get(f"{FRAGMENTS}/keys/<str:key>/curl/", "in 404 404 200 200 200", _of(key="key")),
    *_get(f"{FRAGMENTS}/versions/<int:pk>/progress/", MEMBERS, _of(pk="version")),
    *_get(f"{FRAGMENTS}/uploads/<str:model>/<int:number>/progress/", MEMBERS, WINE),
    # --- predictions and traffic ---------------------------------------------------------------
    *screen(
        "inference/prediction",
        _thing("prediction"),
        view=MEMBERS,
        add=NEVER,
        change=UNSEEN,
        listed={"wine 1": "viewer contributor maintainer admin"},
    ),
    *screen(
        "inference/predictionrejected",
        _thing("rejected"),
        everything=OPERATORS,
        view=OPERATORS,
        add=NEVER,
        change=NEVER,
    ),
    *screen(
        "inference/erasure",
        _thing("erasure"),
        everything="in 200 403 403 200 200",
        view="in 404 403 403 200 200",
        add="in 200 403 403 200 200",
        change=UNSEEN,
        listed={"all models of the team": "maintainer admin"},
        marks={"blue asked for it": "maintainer admin"},
    ),
    Row(
        "GET",
        "admin/inference/erasure/add/",
        "in 200 403 403 200 200",
        query="?of=teams",
        marks={">Blue</option>": "maintainer admin", ">All teams</option>": "admin"},
    ),
    Row(
        "POST",
        "admin/inference/erasure/add/",
        "in 200 403 403 302 302",
        form=lambda world: {"unit": "u-1", "team": world.blue.pk, **BECAUSE},
        query="?of=blue",
    ),
    Row(
        "POST",
        "admin/inference/erasure/add/",
        "in 200 403 403 200 302",
        form={"unit": "u-1", "team": "", **BECAUSE},
        query="?of=all",
    ),
    *_get(f"{PARTS}/rollout/<str:model>/<str:environment>/<int:number>/", MEMBERS, WINE),
    Row(
        "GET",
        f"{PARTS}/try/<str:model>/<int:number>/",
        MEMBERS,
        WINE,
        marks={
            "<form": "contributor maintainer admin",
        },
    ),
    Row(
        "POST",
        f"{PARTS}/try/<str:model>/<int:number>/",
        CONTRIBUTORS,
        WINE,
        {
            "mode": "json",
            "body": "no JSON: the answer says so, to those who may ask",
        },
    ),
    *_get(f"{PARTS}/traffic/", ALL),
    *_get(f"{PARTS}/traffic/", MEMBERS, query="?model=wine"),
    *_get(f"{PARTS}/traffic/models/", ALL),
    *_get(f"{PARTS}/traffic/download/", ALL),
    *_get(f"{PARTS}/traffic/download/", MEMBERS, query="?team=blue"),
    *_get(f"{PARTS}/traffic/model/<str:model>/", MEMBERS, WINE),
    *_get(f"{PARTS}/traffic/version/<str:model>/<int:number>/", MEMBERS, WINE),
    *_get(f"{PARTS}/traffic/endpoint/<str:model>/<str:environment>/", MEMBERS, WINE),
    *_get(f"{PARTS}/rate/<str:model>/<str:environment>/", MEMBERS, WINE),
    *_get(f"{PARTS}/usage/key/<str:key>/", MEMBERS, _of(key="key")),
    *_get(f"{PARTS}/usage/team/<int:team>/", MEMBERS, _of(team="blue")),
    *_get(
        f"{PARTS}/cells/",
        ALL,
        query="?what=model-rates&ids=wine",
        marks={
            "model-rates-wine": "viewer contributor maintainer admin",
        },
    ),
    *_get(
        f"{PARTS}/cells/",
        ALL,
        query="?what=endpoint-rates&ids=production:wine",
        marks={
            "production:wine": "viewer contributor maintainer admin",
        },
    )[:1],
    *_get(f"{PARTS}/predictions/<str:model>/", MEMBERS, WINE),
    *_get(f"{PARTS}/match-rate/", ALL),
    # --- audit and operations ------------------------------------------------------------------
    *screen(
        "core/event",
        _thing("event"),
        everything="in 200 403 403 200 200",
        view="in 404 403 403 200 200",
        add=NEVER,
        change=UNSEEN,
    ),
    Row("GET", "admin/core/event/chain/", "in 200 404 404 200 200"),
    Row("GET", "admin/core/event/export/", "in 200 404 404 200 200"),
    *_post("admin/core/event/verify/", "in 404 404 404 404 302", {}, {}),
    *screen(
        "core/work",
        _thing("work"),
        everything=OPERATORS,
        view=OPERATORS,
        add=NEVER,
        change=NEVER,
    ),
    *_get("admin/core/work/<int:work>/progress/", OPERATORS, _of(work="work")),
]

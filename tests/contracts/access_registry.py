"""Who may call what of the registry."""

from typing import Any

from django.test import override_settings

from apps.accounts.policies import Scope
from apps.registry.api.upload import upload
from apps.registry.services import aliases, releases
from tests.contracts.access import Headers, Row, World, by_client
from tests.factories.registry import (
    SYSTEM,
    endpoint_of,
    make_model,
    make_release,
    make_version,
    tiny_onnx,
)
from tests.fakes.asgi import call, form, part

READ, WRITE, DEPLOY = Scope.MODELS_READ.value, Scope.MODELS_WRITE.value, Scope.DEPLOY.value
MODEL = "api/v1/models/<str:model>"
VERSION = f"{MODEL}/versions/<int:number>"
ALIAS = f"{MODEL}/aliases/<str:alias>"
ENDPOINT = f"{MODEL}/endpoints/<str:environment>"
RELEASE = f"{ENDPOINT}/releases/<int:number>"

WINE = {"model": "wine", "number": 1, "alias": "champion"}
STAGING = WINE | {"environment": "staging"}
PRODUCTION = WINE | {"environment": "production"}

#                 nobody stranger viewer contributor maintainer admin key bare_key
READS = "401 404 200 200 200 200 200 403"
WRITES = "401 404 403 200 200 200 200 403"


def wine(world: World) -> None:
    """A model of the blue team with a ready version and an alias."""
    version = make_version(make_model("wine", team=world.blue))
    aliases.set_alias(version.model, "champion", version=1, actor=SYSTEM)
    world.things["version"] = version


def deprecated(world: World) -> None:
    wine(world)
    type(world.things["version"]).objects.update(state="deprecated")


def free(world: World) -> None:
    """A version that nothing points to."""
    make_version(make_model("wine", team=world.blue))


def released(world: World) -> None:
    """Two releases in production, so that there is something to go back to."""
    wine(world)
    make_version(world.things["version"].model)
    for number in (1, 2):
        releases.make_release(
            endpoint_of(world.things["version"].model), version=number, reason="x", actor=SYSTEM
        )


def waiting(world: World) -> None:
    wine(world)
    with override_settings(REQUIRE_APPROVAL=True):
        make_release(world.things["version"])


def _upload(world: World, row: Row, headers: Headers) -> int:
    body = form(part("name", "wine"), part("file", tiny_onnx(), "wine.onnx"))
    return call(upload, row.url(world), body, headers=headers).status


def _asking(world: World, row: Row, headers: Headers) -> int:
    """Ask for a release where a second person approves."""
    with override_settings(REQUIRE_APPROVAL=True):
        return by_client(world, row, headers)


def _move(name: str, prepare: Any) -> Row:
    return Row("POST", f"{VERSION}/{name}", WRITES, WRITE, WINE, {}, prepare=prepare)


RELEASE_BODY = {"version": 1, "reason": "because"}
ROWS = [
    Row("GET", "api/v1/models", "401 200 200 200 200 200 200 403", READ, prepare=wine),
    Row(
        "POST",
        "api/v1/models",
        "401 404 403 201 201 201 201 403",
        WRITE,
        body={"name": "tea", "team": "blue"},
    ),
    Row(
        "POST",
        "api/v1/models/upload",
        "401 404 403 202 202 202 202 403",
        WRITE,
        prepare=wine,
        send=_upload,
    ),
    Row("GET", MODEL, READS, READ, WINE, prepare=wine),
    Row("PATCH", MODEL, WRITES, WRITE, WINE, {"description": "A card"}, prepare=wine),
    Row(
        "DELETE",
        MODEL,
        "401 404 403 403 204 204 204 403",
        (WRITE, DEPLOY),
        WINE,
        prepare=wine,
    ),
    Row("GET", f"{MODEL}/versions", READS, READ, WINE, prepare=wine),
    Row("GET", VERSION, READS, READ, WINE, prepare=wine),
    Row(
        "GET",
        f"{VERSION}/artifact",
        "401 404 403 403 200 200 200 403",
        READ,
        WINE,
        prepare=wine,
    ),
    _move("deprecate", wine),
    _move("archive", free),
    _move("restore", deprecated),
    Row("GET", ALIAS, READS, READ, WINE, prepare=wine),
    Row("PUT", ALIAS, WRITES, DEPLOY, WINE, {"version": 1}, prepare=wine),
    Row("DELETE", ALIAS, "401 404 403 204 204 204 204 403", DEPLOY, WINE, prepare=wine),
    Row("GET", ENDPOINT, READS, READ, PRODUCTION, prepare=released),
    Row("GET", f"{ENDPOINT}/releases", READS, READ, PRODUCTION, prepare=released),
    Row(
        "POST",
        f"{ENDPOINT}/releases",
        "401 404 403 201 201 201 201 403",
        DEPLOY,
        STAGING,
        RELEASE_BODY,
        prepare=wine,
    ),
    Row(
        "POST",
        f"{ENDPOINT}/releases",
        "401 404 403 403 201 201 201 403",
        DEPLOY,
        PRODUCTION,
        RELEASE_BODY,
        query="?in=production",
        prepare=wine,
    ),
    Row(
        "POST",
        f"{ENDPOINT}/releases",
        "401 404 403 202 202 202 202 403",
        DEPLOY,
        PRODUCTION,
        RELEASE_BODY,
        query="?with=approval",
        prepare=wine,
        send=_asking,
    ),
    Row(
        "POST",
        f"{RELEASE}/approve",
        "401 404 403 403 200 200 200 403",
        DEPLOY,
        PRODUCTION,
        {},
        prepare=waiting,
    ),
    Row(
        "POST",
        f"{RELEASE}/reject",
        "401 404 403 403 200 200 200 403",
        DEPLOY,
        PRODUCTION,
        {"reason": "no"},
        prepare=waiting,
    ),
    Row(
        "POST",
        f"{ENDPOINT}/rollback",
        "401 404 403 403 201 201 201 403",
        DEPLOY,
        PRODUCTION,
        {},
        prepare=released,
    ),
]

"""The doors of accounts over HTTP: shapes, errors, and who is let in by what."""

from typing import Any

import pytest
from django.test import Client
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from apps.accounts.models import ApiKey, Team, User
from apps.accounts.services import people
from apps.accounts.snapshot import Role
from apps.core.models import Event
from tests.factories.accounts import (
    PASSWORD,
    SYSTEM,
    api_key,
    bearer,
    make_key,
    make_member,
    make_team,
    make_user,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def ada(team: Team) -> User:
    return make_member(team, Role.MAINTAINER, "ada")


class Http:
    """A client that speaks JSON."""

    def __init__(self, headers: dict[str, str] | None = None) -> None:
        self.client = Client(raise_request_exception=False)
        self.headers = headers or {}

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        return self.client.generic(
            method,
            f"/api/v1/{path}",
            data=b"" if body is None else _json(body),
            content_type="application/json",
            headers=self.headers,
        )


def _json(body: Any) -> bytes:
    import orjson

    return body if isinstance(body, bytes) else orjson.dumps(body)


def pointers(reply: Any) -> list[str]:
    assert reply.headers["Content-Type"] == "application/problem+json"
    return [one["pointer"] for one in reply.json()["errors"]]


# -- signing in ----------------------------------------------------------------------------------


def test_a_whole_life_of_a_sign_in(ada: User) -> None:
    http = Http()
    pair = http("POST", "auth/login", {"username": "ada@example.org", "password": PASSWORD}).json()
    assert set(pair) == {"access", "refresh"}
    me = Http({"Authorization": f"Bearer {pair['access']}"})
    assert me("GET", "auth/me").json()["teams"] == [
        {"slug": "blue", "name": "Blue", "role": "maintainer"}
    ]
    newer = http("POST", "auth/refresh", {"refresh": pair["refresh"]}).json()
    assert http("POST", "auth/logout", {"refresh": newer["refresh"]}).status_code == 204
    reply = me("GET", "auth/me")
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert reply.json()["code"] == "invalid_token"


def test_a_wrong_password_is_401_with_its_own_code(ada: User) -> None:
    reply = Http()("POST", "auth/login", {"username": "ada", "password": "x"})
    assert (reply.status_code, reply.json()["code"]) == (401, "wrong_password")


def test_sign_in_does_not_look_at_stale_credentials_in_the_headers(ada: User) -> None:
    http = Http({"Authorization": "Bearer stale"})
    assert http("POST", "auth/login", {"username": "ada", "password": PASSWORD}).status_code == 200


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, ["/username", "/password"]),
        ({"username": "ada", "password": "x", "otp": 1}, ["/otp"]),
        ({"username": ["ada"], "password": "x"}, ["/username"]),
        ({"username": "a\x00", "password": "x"}, ["/username"]),
        ([1], [""]),
    ],
)
def test_a_wrong_form_names_the_place(ada: User, body: Any, found: list[str]) -> None:
    reply = Http()("POST", "auth/login", body)
    assert reply.status_code == 400
    assert pointers(reply) == found


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"username": NaN}'])
def test_what_is_no_json_is_400(body: bytes) -> None:
    assert Http()("POST", "auth/login", body).status_code == 400


def test_a_trailing_slash_is_answered_without_a_redirect(ada: User) -> None:
    reply = Http()("POST", "auth/login/", {"username": "ada", "password": PASSWORD})
    assert reply.status_code == 200


# -- who am I ------------------------------------------------------------------------------------


def test_a_key_says_whose_it_is_and_what_it_may(team: Team, ada: User) -> None:
    key, text = make_key(team, ada, models=("wine",))
    body = Http(api_key(text))("GET", "auth/me").json()
    assert body["username"] == "ada"
    assert body["key"] == {
        "id": key.pk,
        "scopes": ["predict"],
        "models": ["wine"],
        "environments": ["production"],
    }


def test_nobody_makes_themselves_an_admin(ada: User) -> None:
    http = Http(bearer(ada))
    for name in ("is_superuser", "is_admin", "is_staff", "email", "token_version", "teams"):
        reply = http("PATCH", "auth/me", {name: True})
        assert pointers(reply) == [f"/{name}"]
    ada.refresh_from_db()
    assert not ada.is_superuser


def test_a_new_password_needs_the_current_one_and_ends_all_tokens(ada: User) -> None:
    http = Http(bearer(ada))
    new = "another-long-password"
    assert pointers(http("PATCH", "auth/me", {"password": new})) == ["/current_password"]
    wrong = http("PATCH", "auth/me", {"password": new, "current_password": "x"})
    assert pointers(wrong) == ["/current_password"]
    weak = http("PATCH", "auth/me", {"password": "123", "current_password": PASSWORD})
    assert set(pointers(weak)) == {"/password"}
    body = {"password": new, "current_password": PASSWORD}
    assert http("PATCH", "auth/me", body).status_code == 200
    assert http("GET", "auth/me").status_code == 401
    assert Http()("POST", "auth/login", {"username": "ada", "password": new}).status_code == 200


# -- credentials ---------------------------------------------------------------------------------


def test_a_bad_key_is_403_and_a_missing_credential_401(team: Team, ada: User) -> None:
    _, text = make_key(team, ada, scopes=("admin:*",))
    assert Http()("GET", "keys").json()["code"] == "not_authenticated"
    assert Http(api_key(text))("GET", "keys").status_code == 200
    assert Http(api_key("mlp_live_x"))("GET", "keys").json()["code"] == "invalid_key"
    people.set_active(ada, active=False, actor=SYSTEM)
    reply = Http(api_key(text))("GET", "keys")
    assert (reply.status_code, reply.json()["code"]) == (403, "invalid_key")


def test_a_session_opens_the_doors_too_but_changes_nothing_without_its_csrf_token(
    ada: User,
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    assert client.get("/api/v1/auth/me").status_code == 200
    refused = client.patch("/api/v1/auth/me", b"{}", content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    assert "X-CSRFToken" in refused.json()["detail"]
    client.cookies["csrftoken"] = "a" * 32
    taken = client.patch(
        "/api/v1/auth/me",
        b"{}",
        content_type="application/json",
        headers={"X-CSRFToken": "a" * 32},
    )
    assert taken.status_code == 200


def test_a_session_of_a_disabled_user_opens_nothing(ada: User) -> None:
    client = Client()
    client.force_login(ada)
    people.set_active(ada, active=False, actor=SYSTEM)
    assert client.get("/api/v1/auth/me").status_code == 401


# -- keys ----------------------------------------------------------------------------------------


def test_a_made_key_is_shown_once_and_works(ada: User) -> None:
    http = Http(bearer(ada))
    made = http("POST", "keys", {"name": "mine", "scopes": ["admin:*", "predict"]})
    assert made.status_code == 201
    body = made.json()
    assert {"id", "key", "name", "scopes", "expires_at"} <= set(body)
    assert body["environments"] == ["production"]
    assert Http(api_key(body["key"]))("GET", f"keys/{body['id']}").status_code == 200
    for reply in (http("GET", f"keys/{body['id']}"), http("GET", "keys")):
        assert body["key"][-38:-6] not in reply.content.decode()
        assert "sha256" not in reply.content.decode()
    assert http("DELETE", f"keys/{body['id']}?reason=done").status_code == 204
    assert Http(api_key(body["key"]))("GET", "keys").json()["code"] == "invalid_key"
    assert Event.objects.get(verb="key.revoked").reason == "done"


def test_a_test_key_gets_everything_but_production(ada: User) -> None:
    http = Http(bearer(ada))
    made = http("POST", "keys", {"name": "t", "scopes": ["predict"], "kind": "test"}).json()
    assert made["key"].startswith("mlp_test_")
    assert made["environments"] == ["development", "staging"]
    wish = {"name": "t", "scopes": ["predict"], "kind": "test", "environments": ["production"]}
    assert pointers(http("POST", "keys", wish)) == ["/environments"]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"scopes": []}, ["/scopes"]),
        ({"scopes": ["fly"]}, ["/scopes/0"]),
        ({"environments": ["moon"]}, ["/environments/0"]),
        ({"models": ["../x"]}, ["/models/0"]),
        ({"expires_at": "2020-01-01T00:00:00Z"}, ["/expires_at"]),
        ({"owner": "boss"}, ["/owner"]),
        ({"sha256": "0"}, ["/sha256"]),
        ({"kind": "gold"}, ["/kind"]),
    ],
)
def test_a_key_that_cannot_be_is_refused_at_the_place(
    ada: User, more: dict[str, Any], found: list[str]
) -> None:
    reply = Http(bearer(ada))("POST", "keys", {"name": "k", "scopes": ["predict"]} | more)
    assert reply.status_code == 400
    assert pointers(reply) == found
    assert not ApiKey.objects.exists()


def test_whoever_is_in_several_teams_names_the_one(team: Team, ada: User) -> None:
    boss = make_user("boss", is_admin=True)
    make_team("red")
    http = Http(bearer(boss))
    wish = {"name": "k", "scopes": ["predict"]}
    assert pointers(http("POST", "keys", wish)) == ["/team"]
    assert http("POST", "keys", wish | {"team": "red"}).json()["team"] == "red"


def test_another_teams_key_looks_like_none(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada)
    stranger = Http(bearer(make_member(make_team("red"), Role.MAINTAINER)))
    theirs, nothing = stranger("GET", f"keys/{key.pk}"), stranger("GET", "keys/nokey")
    assert theirs.status_code == nothing.status_code == 404
    assert theirs.json()["detail"] == nothing.json()["detail"]
    assert stranger("GET", "keys").json()["results"] == []


def test_a_list_of_keys_comes_in_pages(team: Team, ada: User) -> None:
    made = [make_key(team, ada)[0].pk for _ in range(3)]
    http = Http(bearer(ada))
    first = http("GET", "keys?page_size=2").json()
    rest = http.client.get(first["next"], headers=http.headers).json()
    ids = [one["id"] for one in first["results"] + rest["results"]]
    assert sorted(ids) == sorted(made)
    assert rest["next"] is None


def test_the_list_of_keys_asks_as_often_for_many_as_for_one(
    team: Team, ada: User, django_assert_max_num_queries: Any
) -> None:
    for _ in range(20):
        make_key(team, ada)
    http = Http(bearer(ada))
    with django_assert_max_num_queries(6):
        assert len(http("GET", "keys").json()["results"]) == 20


# -- teams ---------------------------------------------------------------------------------------


def test_members_are_added_changed_and_removed(team: Team, ada: User) -> None:
    make_user("eve")
    http = Http(bearer(ada))
    members = "teams/blue/members"
    made = http("POST", members, {"username": "eve", "role": "viewer"})
    assert (made.status_code, made.json()["role"]) == (201, "viewer")
    assert http("POST", members, {"username": "eve", "role": "viewer"}).status_code == 409
    assert http("PATCH", f"{members}/eve", {"role": "contributor"}).json()["role"] == "contributor"
    assert pointers(http("PATCH", f"{members}/eve", {"role": "king"})) == ["/role"]
    names = [one["username"] for one in http("GET", members).json()["results"]]
    assert names == ["eve", "ada"]
    assert http("DELETE", f"{members}/eve").status_code == 204
    assert http("DELETE", f"{members}/eve").status_code == 404
    assert http("DELETE", f"{members}/e%00ve").status_code == 404
    assert pointers(http("POST", members, {"username": "eva", "role": "viewer"})) == ["/username"]


def test_another_team_looks_like_none(ada: User) -> None:
    make_team("red")
    http = Http(bearer(ada))
    details = [
        http("GET", path).json()["detail"].replace(slug, "?")
        for slug in ("red", "none")
        for path in (f"teams/{slug}", f"teams/{slug}/members")
    ]
    assert len(set(details)) == 1
    assert [one["slug"] for one in http("GET", "teams").json()["results"]] == ["blue"]


def test_an_admin_makes_teams(team: Team) -> None:
    http = Http(bearer(make_user("boss", is_admin=True)))
    made = http("POST", "teams", {"slug": "green", "name": "Green"})
    assert (made.status_code, made.json()["slug"]) == (201, "green")
    assert http("POST", "teams", {"slug": "green", "name": "Green"}).status_code == 409
    assert pointers(http("POST", "teams", {"slug": "Gr een", "name": "x"})) == ["/slug"]


# -- the default ---------------------------------------------------------------------------------


class Forgetful(APIView):
    """A view whose author thought of no permission at all."""

    def get(self, request: Request) -> Response:
        return Response({})


def test_a_view_that_says_nothing_is_closed_to_strangers_of_the_platform(ada: User) -> None:
    view = Forgetful.as_view()
    ask = APIRequestFactory()
    assert view(ask.get("/")).status_code == 401
    known = ask.get("/", HTTP_AUTHORIZATION=bearer(ada)["Authorization"])
    assert view(known).status_code == 200

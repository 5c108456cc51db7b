"""A browser's page may call the API from the operator's list of origins and from nowhere else."""

from collections.abc import Mapping
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from pytest_django.fixtures import Settings

from mlplatform.asgi import application
from mlplatform.settings import env, serving
from tests.fakes.asgi import call

pytestmark = pytest.mark.django_db
APP, EVIL = "https://app.example.org", "https://evil.example.org"
UPLOAD = "/api/v1/models/upload"
API = ("/api/v1/predict/wine", "/api/v1/models", UPLOAD, "/api/predict/wine", "/health")
WANTED = {
    "RateLimit-Limit",
    "RateLimit-Policy",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "X-Request-ID",
}


@pytest.fixture(autouse=True)
def listed(settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = [APP]


@pytest.fixture(params=["web", "serving"])
def role(request: Any, settings: Settings) -> str:
    if request.param == "serving":
        settings.ROOT_URLCONF, settings.MIDDLEWARE = serving.ROOT_URLCONF, serving.MIDDLEWARE
    return str(request.param)


def preflight(path: str, origin: str, method: str = "POST") -> Any:
    return Client().options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "x-api-key, content-type",
        },
    )


def cors(headers: Mapping[str, str]) -> dict[str, str]:
    lines = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lines.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", API)
def test_a_preflight_of_a_listed_origin_is_answered_without_a_credential(
    path: str, role: str
) -> None:
    reply = preflight(path, APP)
    assert (reply.status_code, reply.content) == (200, b"")
    said = cors(reply.headers)
    assert said["access-control-allow-origin"] == APP
    assert "POST" in said["access-control-allow-methods"]
    assert {"x-api-key", "authorization"} <= set(said["access-control-allow-headers"].split(", "))
    assert said["access-control-max-age"] == "600"
    assert "access-control-allow-credentials" not in said
    assert "origin" in reply["Vary"].lower()


@pytest.mark.parametrize("path", API)
def test_another_origin_is_told_nothing_but_that_replies_differ(path: str, role: str) -> None:
    for reply in (preflight(path, EVIL), Client().post(path, headers={"Origin": EVIL})):
        assert cors(reply.headers) == {}
        assert "origin" in reply["Vary"].lower()


@pytest.mark.parametrize(
    "origin",
    ["null", f"{APP}.evil.example", f"{APP}:8443", APP.replace("https", "http"), "https://", "x"],
)
def test_an_origin_is_listed_letter_by_letter(origin: str) -> None:
    assert cors(preflight(API[0], origin).headers) == {}


def test_an_error_can_be_read_by_the_page_that_caused_it(role: str) -> None:
    reply = Client().post(API[0], headers={"Origin": APP})
    assert reply.status_code >= 400
    said = cors(reply.headers)
    assert said["access-control-allow-origin"] == APP
    assert set(said["access-control-expose-headers"].split(", ")) == WANTED


def test_the_lean_upload_door_and_django_say_the_same() -> None:
    asked = {"Origin": APP}
    lean = call(application, UPLOAD, b"", headers=asked)
    django = Client().post("/api/v1/models", headers=asked)
    assert (lean.status, django.status_code) == (401, 401)
    assert cors(lean.headers) == cors(django.headers)
    assert cors(lean.headers)["access-control-allow-origin"] == APP
    assert lean.headers["vary"].lower() == "origin"
    assert cors(call(application, UPLOAD, b"", headers={"Origin": EVIL}).headers) == {}


def test_a_refusal_in_front_of_django_can_be_read_too(settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    reply = call(application, API[0], b"x" * 20, headers={"Origin": APP})
    assert reply.status == 413
    assert cors(reply.headers)["access-control-allow-origin"] == APP


@pytest.mark.parametrize("path", ["/admin/", "/admin/login/", "/docs", "/metrics", "/"])
def test_pages_and_numbers_are_for_no_other_origin(path: str) -> None:
    assert cors(preflight(path, APP).headers) == {}


def test_files_of_our_pages_are_for_no_other_origin() -> None:
    reply = Client().get("/static/core/platform.css", headers={"Origin": EVIL})
    reply.close()
    assert reply.status_code == 200
    assert "access-control-allow-origin" not in cors(reply.headers)


def test_without_a_list_no_origin_is_let_in(settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = []
    assert cors(preflight(API[0], APP).headers) == {}


def test_a_session_is_not_taken_from_another_origin(settings: Settings) -> None:
    assert settings.CORS_ALLOW_CREDENTIALS is False
    assert settings.SESSION_COOKIE_SAMESITE == "Lax"


@pytest.mark.parametrize(
    "word", ["*", "https://*.example.org", "https://a.example/", "a.example", "https://a.example/x"]
)
def test_what_is_no_exact_origin_stops_the_start(word: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="MLP_CORS_ORIGINS"):
        env.origins("MLP_CORS_ORIGINS", (word,))
    good = (APP, "http://localhost:5173", "http://[::1]:3000")
    assert env.origins("MLP_CORS_ORIGINS", good) == good

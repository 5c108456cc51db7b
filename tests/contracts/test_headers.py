"""Every address of every role tells browsers what they may do with its reply."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from pytest_django.fixtures import Settings

from apps.core.headers import ADMIN, ANSWERS, headers_for
from mlplatform.asgi import application
from mlplatform.settings import production, serving
from tests.factories.accounts import PASSWORD, make_user
from tests.fakes.asgi import call

pytestmark = pytest.mark.django_db
URLCONFS = ("mlplatform.urls", "mlplatform.urls_serving")
VALUES = {"int": "1", "uuid": "019365a2-6c1c-7b3e-9d0c-3a4f6f1e2b10"}
ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
}
API_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@pytest.fixture(autouse=True)
def production_settings(settings: Settings) -> None:
    for name in ("HSTS_SECONDS", "HSTS_INCLUDE_SUBDOMAINS", "HSTS_PRELOAD", "PROXY_SSL_HEADER"):
        setattr(settings, f"SECURE_{name}", getattr(production, f"SECURE_{name}"))


def _routes(resolver: Any, prefix: str = "") -> Iterator[str]:
    for one in resolver.url_patterns:
        route = prefix + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from _routes(one, route)
        elif isinstance(one, URLPattern):
            yield route


def _path(route: str) -> str:
    """Make an address out of a route; what its parts name need not be there."""
    plain = re.sub(r"<(?:(\w+):)?\w+>", lambda part: VALUES.get(part[1] or "", "x"), route)
    plain = plain.replace("(?:/.*)?", "").replace("(?P.+)", "x").replace("(?Px.+)", "x")
    return "/" + re.sub(r"\(\?P?<?[^)]*\)|[\^$\\]", "", plain)


def _paths(urlconf: str) -> list[str]:
    return sorted({_path(route) for route in _routes(get_resolver(urlconf))})


def _faults(path: str, headers: Any) -> dict[str, Any]:
    said = {name.lower(): value for name, value in headers.items()}
    wanted = dict(ALWAYS)
    if path.startswith(ANSWERS):
        wanted |= {"content-security-policy": API_POLICY, "cache-control": "no-store"}
    faults = {name: said.get(name) for name, value in wanted.items() if said.get(name) != value}
    policy = said.get("content-security-policy", "")
    if "frame-ancestors 'none'" not in policy:
        faults["policy"] = policy
    if not path.startswith(ADMIN) and "unsafe-eval" in policy:
        faults["unsafe-eval"] = policy
    if "no-store" not in said.get("cache-control", ""):
        faults["cache-control"] = said.get("cache-control")
    return faults


@pytest.mark.parametrize("urlconf", URLCONFS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_every_address_says_it_all_over_tls(urlconf: str, method: str, settings: Settings) -> None:
    settings.ROOT_URLCONF = urlconf
    if urlconf.endswith("serving"):
        settings.MIDDLEWARE = serving.MIDDLEWARE
    client = Client(raise_request_exception=False)
    found = {}
    for path in _paths(urlconf):
        reply = client.generic(method, path, secure=True)
        if faults := _faults(path, reply.headers):
            found[f"{method} {path} {reply.status_code}"] = faults
    assert len(_paths(urlconf)) > (100 if urlconf == "mlplatform.urls" else 10)
    assert found == {}


def test_the_pages_of_a_person_who_signed_in_say_it_too(settings: Settings) -> None:
    make_user("boss", is_admin=True)
    client = Client()
    assert client.login(username="boss", password=PASSWORD)
    for path in ("/admin/", "/docs", "/redoc", "/redoc?script", "/api/schema", "/nowhere"):
        reply: Any = client.get(path, secure=True)
        faults = _faults(path, reply.headers)
        assert faults == {}, (path, reply.status_code)
        if reply.streaming:
            b"".join(reply.streaming_content)


@pytest.mark.parametrize("path", ["/api/v1/models/upload", "/api/models/upload"])
def test_the_lean_upload_door_says_what_django_says(path: str) -> None:
    reply = call(application, path, b"", headers={"X-Forwarded-Proto": "https"})
    assert reply.status == 401
    assert _faults(path, reply.headers) == {}


@pytest.mark.parametrize("path", ["/api/v1/predict/wine", "/admin/login/", "/nowhere"])
def test_a_refusal_in_front_of_django_says_what_django_says(path: str, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    tls = {"X-Forwarded-Proto": "https"}
    reply = call(application, path, b"x" * 20, headers=tls)
    assert reply.status == 413
    assert _faults(path, reply.headers) == {}


def test_files_redirects_and_refused_hosts_say_it_too(settings: Settings) -> None:
    client = Client()
    replies: dict[int, Any] = {
        200: client.get("/static/core/platform.css", secure=True),
        404: client.get("/static/nowhere.css", secure=True),
        400: client.get("/api/v1/models", secure=True, headers={"Host": "evil.example"}),
    }
    settings.SECURE_SSL_REDIRECT = True
    replies[301] = Client().get("/nowhere")
    for status, reply in replies.items():
        wanted = dict(ALWAYS)
        if status == 301:  # browsers believe what is said of TLS over TLS alone
            del wanted["strict-transport-security"]
        said = {name.lower(): value for name, value in reply.headers.items()}
        assert reply.status_code == status
        assert {name: said.get(name) for name in wanted} == wanted, status
        assert "frame-ancestors 'none'" in said["content-security-policy"]
        reply.close()


def test_without_tls_nothing_is_said_about_tls() -> None:
    assert "Strict-Transport-Security" not in Client().get("/health/live").headers


def test_evaluating_is_for_the_admin_alone_and_no_policy_names_another_host() -> None:
    paths = ("/api/v1/models", "/docs", "/redoc", "/register", "/nowhere", "/static/x.svg", "/")
    for path in (*paths, "/admin/"):
        policy = headers_for(path)["Content-Security-Policy"]
        assert ("'unsafe-eval'" in policy) is (path == "/admin/"), path
        assert "*" not in policy
        assert "http" not in policy
        assert "script-src 'self' 'unsafe-inline'" not in policy
        styles = path in {"/admin/", "/docs", "/redoc"}  # whose makers write styles into the page
        assert ("'unsafe-inline'" in policy) is styles, path

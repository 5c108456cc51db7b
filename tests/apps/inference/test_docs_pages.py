"""The API's documentation: behind a login, offline, without a script in a page."""

import re
from typing import Any

import pytest
from django.test import Client

from tests.factories.accounts import PASSWORD, make_user

pytestmark = pytest.mark.django_db
FOREIGN = re.compile(r"https?://(?!localhost|testserver)")
INLINE = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>")


@pytest.fixture
def reader() -> Client:
    make_user("ada")
    client = Client()
    assert client.login(username="ada", password=PASSWORD)
    return client


def content(reply: Any) -> bytes:
    return b"".join(reply.streaming_content if reply.streaming else [reply.content])


def text(reply: Any) -> str:
    return content(reply).decode()


@pytest.mark.parametrize("path", ["/docs", "/docs/", "/redoc"])
def test_a_page_asks_for_a_login(path: str) -> None:
    reply = Client().get(path)
    assert reply.status_code == 302
    assert reply.headers["Location"].startswith("/admin/login/?next=")


def test_the_schema_asks_for_a_credential() -> None:
    assert Client().get("/api/schema").status_code == 401


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/api/schema"])
def test_the_operator_may_open_the_docs(path: str, settings: Any) -> None:
    settings.PUBLIC_DOCS = True
    assert Client().get(path).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_page_asks_no_other_host_and_carries_no_script(reader: Client, path: str) -> None:
    page = text(reader.get(path))
    assert not FOREIGN.search(page)
    assert not INLINE.search(page)
    for source in re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]+)"', page):
        reply = reader.get(source.replace("&amp;", "&"))
        assert reply.status_code == 200, source
        assert content(reply)


def test_the_scripts_of_the_pages_load_no_picture_from_another_host(reader: Client) -> None:
    script = text(reader.get("/redoc?script"))
    assert "cdn.redoc.ly" not in script
    assert len(script) > 100_000


def test_the_document_describes_the_prediction_once_and_with_its_problems(reader: Client) -> None:
    document = reader.get("/api/schema", headers={"Accept": "application/json"}).json()
    paths = [path for path in document["paths"] if "predict/" in path]
    assert paths == ["/api/v1/predict/{model}"]
    responses = document["paths"][paths[0]]["post"]["responses"]
    assert {"200", "400", "401", "403", "404", "409", "413", "502", "503", "504"} <= set(responses)


def test_the_root_leads_to_the_admin() -> None:
    assert Client().get("/").headers["Location"] == "/admin/"

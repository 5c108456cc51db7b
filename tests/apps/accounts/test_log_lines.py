"""What a whole story leaves in the log: who, as a number, and nothing that says who that is."""

import logging
from collections.abc import Iterator
from io import StringIO

import orjson
import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.snapshot import Role
from apps.core.logs import ContextFilter, JsonFormatter, RefusalFilter
from tests.factories.accounts import PASSWORD, bearer, make_key, make_member, make_team

pytestmark = pytest.mark.django_db
NAME = "ada-lovelace"
EMAIL = f"{NAME}@example.org"


@pytest.fixture
def lines() -> Iterator[StringIO]:
    """Collect every line as the platform writes it."""
    written, root = StringIO(), logging.getLogger()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(ContextFilter())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def ada() -> User:
    return make_member(make_team("blue"), Role.MAINTAINER, NAME)


def test_no_line_of_a_whole_story_names_a_person_or_holds_a_secret(
    ada: User, lines: StringIO
) -> None:
    client = Client(raise_request_exception=False)
    signed = client.post(
        "/api/v1/auth/login",
        {"username": EMAIL, "password": PASSWORD},
        content_type="application/json",
    ).json()
    wrong = {"username": NAME, "password": "not-the-password"}
    client.post("/api/v1/auth/login", wrong, content_type="application/json")
    _, key = make_key(ada.teams.get(), ada)
    for path in (
        "/api/v1/auth/me",
        f"/api/v1/teams/blue/members/{NAME}",
        f"/api/v1/nowhere?email={EMAIL}",
        "/api/v1/keys",
        "/admin/",
    ):
        client.get(path, headers=bearer(ada))
        client.get(path, headers={"X-API-Key": str(key)})
        client.get(path, headers={"X-API-Key": "mlp_live_" + "a" * 12 + "_" + "b" * 38})
    client.patch(
        f"/api/v1/teams/blue/members/{NAME}",
        {"role": "maintainer"},
        content_type="application/json",
        headers=bearer(ada),
    )
    client.force_login(ada)
    client.get(reverse("admin:accounts_user_changelist"))
    text = lines.getvalue()
    secrets = (signed["access"], signed["refresh"], str(key).rsplit("_", 1)[1], "b" * 38)
    private = (NAME, EMAIL, PASSWORD, "not-the-password", *secrets)
    assert [one for one in private if one in text] == []


def test_a_line_of_a_request_has_the_fields_that_are_promised(ada: User, lines: StringIO) -> None:
    Client().get("/api/v1/auth/me", headers=bearer(ada))
    told = [orjson.loads(one) for one in lines.getvalue().splitlines()]
    (line,) = [one for one in told if one["logger"] == "mlplatform.access"]
    assert line["user_id"] == ada.pk
    assert (line["endpoint"], line["method"]) == ("/api/v1/auth/me", "GET")
    assert (line["status_code"], line["level"]) == (200, "INFO")
    assert {"timestamp", "response_time_ms", "request_id"} <= line.keys()


def test_the_user_of_a_page_is_named_by_number(ada: User, lines: StringIO) -> None:
    User.objects.filter(pk=ada.pk).update(is_staff=True)
    client = Client()
    client.force_login(ada)
    client.get("/admin/")
    told = [orjson.loads(one) for one in lines.getvalue().splitlines()]
    assert [one["user_id"] for one in told if one["logger"] == "mlplatform.access"] == [ada.pk]


def test_a_refused_person_leaves_no_traceback(ada: User, lines: StringIO) -> None:
    assert any(
        isinstance(one, RefusalFilter) for one in logging.getLogger("django.request").filters
    )
    User.objects.filter(pk=ada.pk).update(is_staff=True)
    client = Client()
    client.force_login(ada)
    assert client.get(reverse("admin:accounts_user_changelist")).status_code == 403
    assert client.get("/admin/accounts/team/999/change/").status_code == 404
    assert "Traceback" not in lines.getvalue()
    assert [one for one in lines.getvalue().splitlines() if "django.request" in one] == []

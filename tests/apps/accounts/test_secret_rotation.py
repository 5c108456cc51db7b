"""A new secret key ends nobody's session while the former one is still named beside it."""

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from mlplatform.settings import base
from tests.factories.accounts import PASSWORD, make_user

pytestmark = pytest.mark.django_db
OLD, NEW = "the-former-key-" * 5, "the-next-key-" * 5


@pytest.fixture
def reader(settings: Settings) -> Client:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = OLD, []
    make_user("boss", is_admin=True)
    client = Client(enforce_csrf_checks=True)
    form = client.get("/admin/login/")
    token = form.context["csrf_token"]
    reply = client.post(
        "/admin/login/",
        {"username": "boss", "password": PASSWORD, "csrfmiddlewaretoken": str(token)},
    )
    assert reply.status_code == 302, "signed in"
    return client


def test_a_session_outlives_the_change_of_the_key(reader: Client, settings: Settings) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    assert reader.get("/admin/").status_code == 200
    # It was signed anew on that request, so that the former key may leave now.
    settings.SECRET_KEY_FALLBACKS = []
    assert reader.get("/admin/").status_code == 200


def test_a_form_that_was_open_during_the_change_is_taken(
    reader: Client, settings: Settings
) -> None:
    token = reader.cookies["csrftoken"].value
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    reply = reader.post("/admin/logout/", {"csrfmiddlewaretoken": token})
    assert reply.status_code != 403


def test_without_the_former_key_everybody_signs_in_again(
    reader: Client, settings: Settings
) -> None:
    settings.SECRET_KEY = NEW
    assert reader.get("/admin/").status_code == 302


def test_the_former_key_comes_from_the_environment() -> None:
    assert isinstance(base.SECRET_KEY_FALLBACKS, list)

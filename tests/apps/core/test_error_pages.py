"""Pages for what went wrong: in our look, with a next step; programs get a problem document."""

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from apps.core.api import exceptions


def asked(path: str) -> HttpRequest:
    return RequestFactory().get(path)


def answers(path: str) -> list[tuple[int, HttpResponse]]:
    return [
        (403, exceptions.not_allowed(asked(path), PermissionDenied())),
        (404, exceptions.page_not_found(asked(path), Http404())),
        (500, exceptions.server_error(asked(path))),
    ]


def test_a_person_gets_a_page_with_a_next_step() -> None:
    for status, reply in answers("/admin/x/"):
        assert reply.status_code == status
        assert "Go to Home" in reply.content.decode()


def test_a_program_gets_a_problem_document() -> None:
    for status, reply in answers("/api/v1/x"):
        assert reply.status_code == status
        assert reply.headers["Content-Type"] == "application/problem+json"


def test_the_page_for_an_error_asks_nothing_of_the_database() -> None:
    # No database mark: a query would fail this test.
    assert "tell your operator" in exceptions.server_error(asked("/admin/")).content.decode()


@pytest.mark.django_db
def test_an_address_without_a_page_is_answered_in_our_look() -> None:
    reply = Client().get("/nothing-is-here/")
    assert reply.status_code == 404
    assert "There is nothing here" in reply.content.decode()


@pytest.mark.django_db
def test_a_form_that_is_too_old_says_what_to_do() -> None:
    reply = Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "x"})
    assert reply.status_code == 403
    assert "This form is too old" in reply.content.decode()

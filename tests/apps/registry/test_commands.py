"""``release`` and ``rollback``: the same actions for an operator, errors as one sentence."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from apps.core.models import Event
from apps.registry.models import RegisteredModel, Release
from tests.factories.registry import make_model, make_version

pytestmark = pytest.mark.django_db


@pytest.fixture
def wine() -> RegisteredModel:
    model = make_model("wine")
    make_version(model)
    make_version(model)
    return model


def run(*args: str) -> str:
    out = StringIO()
    call_command(*args, stdout=out)
    return out.getvalue().strip()


def test_an_operator_releases_and_rolls_back(wine: RegisteredModel) -> None:
    assert run("release", "wine", "1", "--reason", "a") == "wine 1 is live in production: release 1"
    run("release", "wine", "2", "--reason", "b", "--expected-release", "1")
    said = run("rollback", "wine", "--reason", "worse")
    assert said == "wine in production serves version 1 again: release 3"
    assert run("rollback", "wine", "--to", "2", "--reason", "x").endswith("release 4")
    assert set(Event.objects.filter(verb="release.live").values_list("actor_kind", flat=True)) == {
        "operator"
    }


def test_where_approval_is_asked_the_operators_release_waits_too(
    wine: RegisteredModel, settings: Settings
) -> None:
    settings.REQUIRE_APPROVAL = True
    assert "awaits approval" in run("release", "wine", "1", "--reason", "a")
    assert Release.objects.get().state == "awaiting_approval"


@pytest.mark.parametrize(
    "args",
    [
        ("release", "beer", "1", "--reason", "x"),
        ("release", "wine", "9", "--reason", "x"),
        ("release", "wine", "1"),
        ("release", "wine", "1", "--reason", "x", "--expected-release", "5"),
        ("rollback", "wine", "--reason", "x"),
        ("rollback", "wine", "--to", "7", "--reason", "x"),
    ],
)
def test_what_cannot_be_done_ends_with_a_sentence(
    args: tuple[str, ...], wine: RegisteredModel
) -> None:
    with pytest.raises(CommandError):
        run(*args)

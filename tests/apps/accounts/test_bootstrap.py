"""A new installation gets its admin and its team once, and a second run loses nothing."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from apps.accounts.callers import caller_of
from apps.accounts.models import Team, User
from apps.accounts.selectors import DatabaseDirectory, token_verifier
from apps.accounts.services import sessions

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_names_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "EMAIL", "PASSWORD"):
        monkeypatch.delenv(f"DJANGO_SUPERUSER_{name}", raising=False)


def run(*args: str) -> str:
    out = StringIO()
    call_command("bootstrap", *args, stdout=out)
    return out.getvalue()


def test_the_first_run_makes_an_admin_whose_password_is_said_once() -> None:
    first = json.loads(run("--json"))
    assert sessions.sign_in(first["admin"], first["password"])
    second = json.loads(run("--json"))
    assert set(second) == {"admin", "token"}
    assert User.objects.get().is_superuser
    assert Team.objects.get().slug == "demo"
    assert sessions.sign_in(first["admin"], first["password"])


def test_the_token_is_the_admins() -> None:
    token = json.loads(run("--json"))["token"]
    caller = caller_of(
        {"authorization": f"Bearer {token}"},
        directory=DatabaseDirectory(),
        verifier=token_verifier(),
        now=User.objects.get().date_joined.timestamp(),
    )
    assert caller.is_admin


def test_djangos_standard_variables_name_the_admin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_USERNAME", "root")
    monkeypatch.setenv("DJANGO_SUPERUSER_EMAIL", "root@example.org")
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a-long-given-password")
    assert "a-long-given-password" not in run()
    assert sessions.sign_in("root@example.org", "a-long-given-password")
    assert "there already" in run()


def test_a_password_that_is_too_weak_stops_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "123")
    with pytest.raises(CommandError, match="too short"):
        run()
    assert not User.objects.exists()

"""`check --deploy` is silent about a production installation, and names what makes it none."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
PRODUCTION = {
    "MLP_ENV_FILE": "0",
    "MLP_SECRET_KEY": "3kFv9x" * 12,
    "DATABASE_URL": "postgres://mlp:word@127.0.0.1:9/mlp",
    "REDIS_URL": "redis://cache.example.org/0",
    "MLP_ALLOWED_HOSTS": "ml.example.org",
    "MLP_PUBLIC_URL": "https://ml.example.org",
    "MLP_AUDIT_ANCHOR": "s3://anchors/mlp",
    "MLP_AUDIT_ANCHOR_KEY_ID": "id",
    "MLP_AUDIT_ANCHOR_SECRET": "word",
    "MLP_MIGRATE_DATABASE_URL": "postgres://owner:word@127.0.0.1:9/mlp",
}
WRONG = {
    "mlplatform.W001": {"DATABASE_URL": ""},
    "mlplatform.W002": {"MLP_DEBUG": "1"},
    "mlplatform.W003": {"MLP_SECRET_KEY": ""},
    "mlplatform.W004": {"MLP_REQUIRE_APPROVAL": "0"},
    "mlplatform.W005": {"MLP_REGISTRATION": "open"},
    "mlplatform.W006": {"MLP_PUBLIC_DOCS": "1"},
    "mlplatform.W007": {"MLP_CORS_ORIGINS": "http://app.example.org"},
    "mlplatform.E001": {"MLP_ALLOWED_HOSTS": "ml.example.org,*"},
}


ROLES = ("web", "serving", "worker")


def check(role: str, folder: Path, **more: str) -> Any:
    line = ("manage.py", "check", "--deploy", "--fail-level", "WARNING")
    return run(line, role, folder, **more)


def run(line: Sequence[str], role: str, folder: Path, **more: str) -> Any:
    """Run Python as a role of a production installation; ``more`` is its environment besides."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, *line],
        cwd=ROOT,
        env={
            **kept,
            **PRODUCTION,
            **more,
            "MLP_DATA_DIR": str(folder),
            "DJANGO_SETTINGS_MODULE": f"mlplatform.settings.{role}",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("role", ROLES)
def test_a_production_installation_is_silent(role: str, tmp_path: Path) -> None:
    found = check(role, tmp_path)
    assert found.returncode == 0, found.stderr
    assert "no issues" in found.stdout


@pytest.mark.parametrize("role", ROLES)
def test_production_waits_for_a_second_person_in_every_role(role: str, tmp_path: Path) -> None:
    """Whichever process makes a release, none of them has a default of its own for this."""
    line = ("-c", "from django.conf import settings; print(settings.REQUIRE_APPROVAL)")
    found = run(line, role, tmp_path)
    assert found.stdout == "True\n", found.stderr


def test_all_that_is_wrong_is_named_with_its_variable(tmp_path: Path) -> None:
    wrong = {name: value for one in WRONG.values() for name, value in one.items()}
    found = check("web", tmp_path, **wrong)
    assert found.returncode == 1
    missing = [code for code in WRONG if code not in found.stderr]
    assert missing == []
    silent = [name for name in wrong if name not in found.stderr]
    assert silent == []


@pytest.mark.parametrize(
    "wrong", [{"MLP_CORS_ORIGINS": "*"}, {"MLP_SESSIONS": "cached", "REDIS_URL": ""}]
)
def test_what_cannot_be_meant_stops_the_start(wrong: dict[str, str], tmp_path: Path) -> None:
    found = check("web", tmp_path, **wrong)
    assert found.returncode == 1
    assert next(iter(wrong)) in found.stderr

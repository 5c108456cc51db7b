"""The services of ``make test``, started for real: they answer, and they end with the command."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from scripts import services

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "services.py"
SAYS = (
    "import json, os, sys\n"
    "print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('MLP_TEST_')}),"
    " flush=True)\n"
)

pytestmark = pytest.mark.skipif(
    any(services.find_program(one) is None for one in ("postgres", "redis-server")),
    reason="PostgreSQL and Redis are not installed; `make test` installs them",
)


def begin(tmp_path: Path, text: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "run", "--", sys.executable, "-c", SAYS + text],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def pids_below(folder: Path) -> list[int]:
    """Pids of the services whose files lie in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                here = (entry / "cwd").readlink()
            except (OSError, PermissionError):
                continue
            if str(folder).encode() in command or here.is_relative_to(folder):
                found.append(int(entry.name))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that PostgreSQL's own user may pass through."""
    for one in (tmp_path, *tmp_path.parents):
        if one.owner() == "root" and one.stat().st_mode & 0o001 == 0:
            one.chmod(one.stat().st_mode | 0o011)
    return tmp_path


def test_both_services_answer_at_the_addresses_given_to_the_command(folder: Path) -> None:
    with begin(folder, "import signal; signal.pause()") as process:
        assert process.stdout is not None
        given = json.loads(process.stdout.readline())
        with psycopg.connect(given["MLP_TEST_POSTGRES_URL"]) as link:
            assert link.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        with redis.from_url(given["MLP_TEST_REDIS_URL"]) as client:
            assert client.ping()
        assert pids_below(folder)
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM
    assert pids_below(folder) == []
    assert list(folder.iterdir()) == []


def test_the_commands_own_status_is_passed_on_and_the_services_end(folder: Path) -> None:
    with begin(folder, "sys.exit(3)") as process:
        assert process.wait() == 3
    assert pids_below(folder) == []
    assert list(folder.iterdir()) == []


def test_strangers_without_the_password_are_refused(folder: Path) -> None:
    with begin(folder, "import signal; signal.pause()") as process:
        assert process.stdout is not None
        given = json.loads(process.stdout.readline())
        wrong = given["MLP_TEST_POSTGRES_URL"].replace("mlplatform:", "mlplatform:x")
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(wrong)
        process.terminate()


def test_what_is_missing_is_named_with_the_words_that_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services, "find_program", lambda name: None if name == "node" else name)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(services.ServiceError, match=r"lacks.*apt-get install .* nodejs"):
        services.install()

"""What runs inside a container before our own code: the entry point and the health question."""

import importlib.util
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "docker"
PROGRAMS = ("gunicorn", "celery", "python")


@pytest.fixture
def health() -> ModuleType:
    spec = importlib.util.spec_from_file_location("health", FOLDER / "health.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs the entry point with programs that only say how they were called."""
    for name in PROGRAMS:
        program = tmp_path / name
        said = (
            f'echo "{name} $* settings=$DJANGO_SETTINGS_MODULE password=$DJANGO_SUPERUSER_PASSWORD"'
        )
        program.write_text(f"#!/bin/sh\n{said}\n", encoding="ascii")
        program.chmod(0o755)

    def enter(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        path = f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return subprocess.run(
            ["sh", str(FOLDER / "entrypoint"), *words],
            env={"PATH": path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return enter


@pytest.mark.parametrize(
    ("role", "program", "settings"),
    [
        ("web", "gunicorn -c mlplatform/gunicorn.py", "web"),
        ("serving", "gunicorn -c mlplatform/gunicorn.py", "serving"),
        ("agent", "python manage.py agent", "worker"),
        ("work", "celery -A mlplatform.celery worker -Q work", "worker"),
        ("ticks", "celery -A mlplatform.celery worker -Q ticks", "worker"),
        ("beat", "celery -A mlplatform.celery beat", "worker"),
        ("migrate", "python manage.py migrate", "web"),
    ],
)
def test_a_word_starts_its_role_with_its_settings(
    run: Any, role: str, program: str, settings: str
) -> None:
    said = run(role).stdout
    assert said.startswith(program)
    assert f"settings=mlplatform.settings.{settings} " in said


@pytest.mark.parametrize("role", ["web", "serving"])
def test_the_server_has_no_socket_through_which_it_could_be_steered(run: Any, role: str) -> None:
    assert "--no-control-socket" in run(role).stdout


@pytest.mark.parametrize("role", ["web", "serving", "agent", "work", "ticks", "beat"])
def test_a_start_migrates_nothing(run: Any, role: str) -> None:
    assert "migrate" not in run(role).stdout


def test_settings_that_were_given_win_over_those_of_the_role(run: Any) -> None:
    said = run("web", DJANGO_SETTINGS_MODULE="house.settings").stdout
    assert "settings=house.settings " in said


def test_the_first_administrators_password_comes_from_a_file(run: Any, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse\n", encoding="ascii")
    said = run("init", DJANGO_SUPERUSER_PASSWORD_FILE=str(tmp_path / "password")).stdout
    *_, last = said.strip().splitlines()
    assert last.startswith("python manage.py bootstrap")
    assert last.endswith("password=correct horse")


def test_init_ends_at_the_first_step_that_fails(run: Any, tmp_path: Path) -> None:
    (tmp_path / "python").write_text(
        '#!/bin/sh\necho "$2"\n[ "$2" != migrate ]\n', encoding="ascii"
    )
    done = run("init")
    assert done.returncode != 0
    assert done.stdout.split() == ["check", "migrate"]


def test_an_unknown_word_is_answered_with_those_that_there_are(run: Any) -> None:
    done = run("wbe")
    assert done.returncode == 64
    script = (FOLDER / "entrypoint").read_text(encoding="utf-8")
    words = re.findall(r"^([a-z][a-z| -]*)\)$", script, re.MULTILINE)
    for word in (one.strip() for line in words for one in line.split("|")):
        assert word in done.stderr


# --- health ---------------------------------------------------------------------------------------


class Answering(BaseHTTPRequestHandler):
    """Answers with the status that its address names, and remembers who was asked for."""

    hosts: list[str] = []

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        self.send_response(int(self.path.rpartition("/")[2]))
        self.end_headers()
        self.wfile.write(b"a word\n")

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    Answering.hosts.clear()
    one = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=one.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("MLP_BIND", f"0.0.0.0:{one.server_port}")
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (301, 1), (400, 1), (503, 1)])
def test_only_a_yes_is_well(
    health: ModuleType, server: HTTPServer, status: int, expected: int
) -> None:
    assert health.main(f"/health/{status}") == expected


def test_it_asks_by_a_name_that_the_process_answers_to(
    health: ModuleType, server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLP_ALLOWED_HOSTS", "ml.example.org,other.example.org")
    assert health.main("/health/200") == 0
    assert Answering.hosts == ["ml.example.org"]


def test_a_process_that_is_not_there_is_not_well(
    health: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = HTTPServer(("127.0.0.1", 0), Answering)
    one.server_close()
    monkeypatch.setenv("MLP_BIND", f"127.0.0.1:{one.server_port}")
    assert health.main() == 1


@pytest.mark.parametrize(
    ("allowed", "name"),
    [("", "localhost"), ("*", "localhost"), (".example.org", "example.org"), ("a.b, c.d", "a.b")],
)
def test_a_pattern_of_names_becomes_a_name(health: ModuleType, allowed: str, name: str) -> None:
    assert health.host_header(allowed) == name

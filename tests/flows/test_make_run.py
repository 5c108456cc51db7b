"""``manage.py dev`` as a whole, on an empty data folder: what README promises of ``make run``."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql

ROOT = Path(__file__).resolve().parents[2]
GIVE_UP_SECONDS = 240.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@contextlib.contextmanager
def database() -> Iterator[str]:
    """A database of its own on the suite's PostgreSQL; nothing (SQLite) when it runs without."""
    server = os.environ.get("DATABASE_URL", "")
    if not server:
        yield ""
        return
    name = f"run_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as link:
        link.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        finally:
            link.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with database() as url:
        yield {
            **inherited,
            "MLP_DATA_DIR": str(tmp_path / "data"),
            "MLP_BIND": f"127.0.0.1:{port}",
            "MLP_ENV_FILE": "0",
            "DATABASE_URL": url,
            "REDIS_URL": os.environ.get("REDIS_URL", ""),
        }


class Run:
    """One ``manage.py dev``: its lines, gathered by a thread, and waits for one of them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._more = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "dev"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first line that matches; what was said instead is in the failure."""
        at, until = 0, time.monotonic() + GIVE_UP_SECONDS
        with self._more:
            while True:
                for line in self.lines[at:]:
                    if found := re.search(pattern, line):
                        return found
                    assert "could not be set up" not in line, self.said(pattern)
                at = len(self.lines)
                assert self._reader.is_alive(), self.said(pattern)
                assert time.monotonic() < until, self.said(pattern)
                self._more.wait(timeout=1)

    def said(self, pattern: str) -> str:
        return "\n".join([f"never said {pattern}; its last lines:", *self.lines[-40:]])

    def children(self) -> dict[int, str]:
        """The pids below the supervisor, with their command lines."""
        found, todo = {}, [self.process.pid]
        while todo:
            for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
                for pid in map(int, task.read_text().split()):
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                    found[pid] = command.decode(errors="replace")
                    todo.append(pid)
        return found

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self._reader.join()

    def curl(self) -> list[str]:
        """The request that the demo printed, to be copied as it is, as words."""
        self.wait_for(r"^It answers: ")
        at = next(at for at, line in enumerate(self.lines) if line.startswith("curl "))
        return shlex.split("\n".join(self.lines[at : at + 3]))


@contextlib.contextmanager
def running(environment: dict[str, str]) -> Iterator[Run]:
    run = Run(environment)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
        run.process.wait()
        run._reader.join(timeout=10)
        assert run.process.stdout is not None
        run.process.stdout.close()


def ask(words: list[str]) -> httpx.Response:
    """Send what the printed ``curl`` would."""
    assert words[0] == "curl"
    url = next(word for word in words if word.startswith("http"))
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    return httpx.post(url, headers=headers, content=words[words.index("-d") + 1], timeout=30)


def wait_until_ready(url: str) -> None:
    """Ask until it answers 200; a master that was killed may reset what its listener had queued."""
    until = time.monotonic() + GIVE_UP_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=30).status_code == 200:
                return
        assert time.monotonic() < until, f"{url} never answered 200"
        time.sleep(0.2)


def test_make_run_ends_in_a_curl_that_works_survives_a_death_and_leaves_nothing_behind(
    environment: dict[str, str],
) -> None:
    data = Path(environment["MLP_DATA_DIR"])
    with running(environment) as run:
        run.wait_for(r"Admin 'admin' was made\. Password: \S{12,}")
        printed = run.curl()
        first = ask(printed)
        assert first.status_code == 200
        assert (first.json()["model"], first.json()["version"]) == ("wine", 1)
        assert (data / "demo.key").stat().st_mode & 0o777 == 0o600
        assert data.stat().st_mode & 0o777 == 0o700

        master = next(pid for pid, command in run.children().items() if "gunicorn" in command)
        os.kill(master, signal.SIGKILL)
        run.wait_for(r"^web was ended by signal 9")
        wait_until_ready(f"http://{environment['MLP_BIND']}/health/ready")
        assert ask(printed).json()["predictions"] == first.json()["predictions"]

        before = run.children()
        run.end()
        assert run.process.returncode == 0
        assert [before[pid] for pid in before if Path(f"/proc/{pid}").exists()] == []

    with running(environment) as again:
        assert again.curl() == printed
        assert not [line for line in again.lines if "Password" in line or "Trained" in line]
        answer = ask(printed)
        assert answer.json()["predictions"] == first.json()["predictions"]
        again.end()

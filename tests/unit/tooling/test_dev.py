"""What ``manage.py dev`` does before it starts anything."""

import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from apps.core.management.changes import Changes
from apps.core.management.commands import dev


@pytest.mark.parametrize("text", ["8000", "localhost:", ":8000", "localhost:http", "a:70000", ""])
def test_a_bad_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(CommandError, match=r"Write host:port"):
        dev.Address.parse(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:8000", "http://[::1]:8000"),
        ("localhost:9000", "http://localhost:9000"),
    ],
)
def test_an_address_says_how_this_machine_reaches_it(text: str, url: str) -> None:
    assert dev.Address.parse(text).url == url


def test_a_taken_port_is_refused_with_a_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CommandError, match=rf"127\.0\.0\.1:{port} is taken.*MLP_BIND="):
            dev.refuse_taken(dev.Address("127.0.0.1", port))
    dev.refuse_taken(dev.Address("127.0.0.1", port))


def test_two_runs_on_one_data_folder_are_refused_and_a_dead_one_is_forgotten(
    tmp_path: Path,
) -> None:
    holds = (
        "import sys; from pathlib import Path\n"
        "from apps.core.management.commands.dev import only_one\n"
        "with only_one(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holds, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(dev.__file__).parents[4],
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(CommandError, match=rf"process {other.pid}.*MLP_DATA_DIR="),
            dev.only_one(tmp_path),
        ):
            pass
        other.kill()
        other.wait()
    with dev.only_one(tmp_path):
        pass


def test_a_backup_holds_what_is_still_in_the_write_ahead_log(tmp_path: Path) -> None:
    file = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(file)) as writer:
        writer.executescript(
            "PRAGMA journal_mode=WAL; CREATE TABLE t (n); INSERT INTO t VALUES (7);"
        )
        assert file.with_name("db.sqlite3-wal").stat().st_size > 0
        copy = dev.back_up(file, tmp_path / "backup")
    assert copy.parent == tmp_path / "backup"
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as reader:
        assert reader.execute("SELECT n FROM t").fetchall() == [(7,)]


def test_every_queue_that_settings_name_has_a_worker() -> None:
    commands = [" ".join(part.command) for part in dev.parts()]
    for queue in ("ticks", "work"):
        assert sum(f"-Q {queue} " in command for command in commands) == 1


def test_the_agent_ends_last_so_that_the_last_records_are_shipped() -> None:
    assert [part.name for part in dev.parts() if part.last] == ["agent"]


def test_the_secrets_of_the_demo_are_on_no_command_line() -> None:
    known = dev.Bootstrapped("admin", "secret-password", "secret-token")
    part = dev.demo(dev.Address("127.0.0.1", 1), known)
    assert "secret" not in " ".join(part.command)
    assert part.environment["MLP_DEMO_TOKEN"] == "secret-token"


def test_a_changed_new_or_removed_source_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.core.management.changes.LOOK_SECONDS", 0)
    changes = Changes([tmp_path])
    assert not changes.any()
    (tmp_path / "notes.txt").write_text("no source file")
    assert not changes.any()
    (tmp_path / "new.py").write_text("one")
    assert changes.any()
    assert not changes.any()
    (tmp_path / "new.py").unlink()
    assert changes.any()

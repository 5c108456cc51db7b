"""Nothing gets out: each probe enters the sandbox as the product does and tries one way out."""

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apps.core import confined
from apps.core.confined import Ending, Limits, Outcome, run_confined, work_folder

CHILD = "tests.sandbox_probes.child"
MEGABYTE = 1 << 20
LIMITS = Limits(
    memory_bytes=2 << 30,
    cpu_seconds=20,
    file_bytes=16 * MEGABYTE,
    folder_bytes=64 * MEGABYTE,
    open_files=64,
    threads=32,
)

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the raw calls of the probes are those of x86_64"
)

CONTAINED = [
    "read_a_secret_file",
    "list_a_foreign_folder",
    "read_the_password_file",
    "read_the_projects_settings",
    "read_the_parents_environment",
    "read_the_parents_memory",
    "find_a_secret_in_the_environment",
    "open_a_tcp_connection",
    "listen_on_a_port",
    "send_a_datagram",
    "open_an_abstract_socket",
    "make_a_socket_pair",
    "fork",
    "clone_a_process_by_the_new_call",
    "run_a_program",
    "run_a_program_from_memory",
    "kill_the_parent",
    "kill_everyone",
    "leave_the_session",
    "forget_the_death_signal",
    "trace_the_parent",
    "write_outside",
    "change_our_own_code",
    "link_to_a_secret",
    "link_a_secret_hard",
    "hide_a_file_by_deleting_it",
    "hide_a_file_without_a_name",
    "make_a_namespace",
    "mount_something",
    "set_up_io_uring",
    "add_a_key",
    "load_a_bpf_program",
    "keep_shared_memory",
    "write_to_shared_memory_files",
    "raise_the_limits",
    "become_someone_else",
    "allocate_64_gigabytes",
    "fill_the_disk_with_one_file",
]

# Probes that do no harm and work for any user when the door stands open.
BITES = [
    "read_a_secret_file",
    "list_a_foreign_folder",
    "read_the_password_file",
    "read_the_projects_settings",
    "open_a_tcp_connection",
    "listen_on_a_port",
    "send_a_datagram",
    "open_an_abstract_socket",
    "make_a_socket_pair",
    "fork",
    "clone_a_process_by_the_new_call",
    "kill_everyone",
    "forget_the_death_signal",
    "write_outside",
    "change_our_own_code",
    "link_to_a_secret",
    "link_a_secret_hard",
    "hide_a_file_by_deleting_it",
]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A world worth attacking: a secret, a listening port, a process of ours."""
    monkeypatch.setenv("MLP_SECRET_KEY", "do-not-leak")
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    abstract = f"probe-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0" + abstract)
        local.listen()
        yield {
            "secret": str(secret),
            "settings": str(confined.PROJECT_ROOT / "pyproject.toml"),
            "code": confined.__file__,
            "outside": str(tmp_path / "outside.txt"),
            "port": str(server.getsockname()[1]),
            "abstract": abstract,
            "victim": str(victim.pid),
        }
    assert victim.poll() is None, "a process outside was hit"
    victim.kill()
    victim.wait()


def _try(name: str, ask: dict[str, str], work: Path, seconds: float = 30) -> Outcome:
    return run_confined(
        [name, "--ask", json.dumps(ask)], work=work, limits=LIMITS, seconds=seconds, module=CHILD
    )


def _said(outcome: Outcome) -> dict[str, object]:
    assert outcome.report is not None, outcome.sentence()
    said = json.loads(outcome.report)
    assert isinstance(said, dict)
    return said


@pytest.mark.parametrize("name", CONTAINED)
def test_a_confined_child_cannot(name: str, ask: dict[str, str], tmp_path: Path) -> None:
    with work_folder(tmp_path) as work:
        outcome = _try(name, ask, work)
        if outcome.ending is Ending.FINISHED:
            assert _said(outcome)["escaped"] is False
        else:
            # Some calls (the other call numbers, a broken limit) end the child at once.
            assert outcome.report is None
    assert not Path(ask["outside"]).exists()


@pytest.mark.parametrize("name", BITES)
def test_the_probe_bites_when_the_door_stands_open(
    name: str, ask: dict[str, str], tmp_path: Path
) -> None:
    with work_folder(tmp_path) as work:
        assert _said(_try(name, {**ask, "open": "yes"}, work))["escaped"] is True


def test_the_other_call_numbers_end_the_child(ask: dict[str, str], tmp_path: Path) -> None:
    with work_folder(tmp_path) as work:
        outcome = _try("use_the_other_call_numbers", ask, work)
    assert outcome.ending is Ending.CRASHED
    assert "SIGSYS" in outcome.sentence()


def test_an_endless_loop_that_ignores_signals_ends_at_the_deadline(
    ask: dict[str, str], tmp_path: Path
) -> None:
    with work_folder(tmp_path) as work:
        outcome = _try("loop_for_ever_and_ignore_signals", ask, work, seconds=2)
    assert outcome.ending is Ending.DEADLINE
    assert outcome.sentence() == "It ran longer than 2 s."


def test_processor_time_is_limited_although_the_first_warning_is_ignored(
    ask: dict[str, str], tmp_path: Path
) -> None:
    limits = Limits(memory_bytes=2 << 30, cpu_seconds=1, file_bytes=MEGABYTE, folder_bytes=MEGABYTE)
    with work_folder(tmp_path) as work:
        outcome = run_confined(
            ["loop_for_ever_and_ignore_signals", "--ask", json.dumps(ask)],
            work=work,
            limits=limits,
            seconds=60,
            module=CHILD,
        )
    assert outcome.ending is Ending.CPU


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("fill_the_disk_with_many_files", Ending.DISK),
        ("start_many_threads", Ending.THREADS),
        ("sleep_for_ever", Ending.DEADLINE),
    ],
)
def test_what_no_limit_of_the_kernel_stops_the_parent_ends(
    name: str, ending: Ending, ask: dict[str, str], tmp_path: Path
) -> None:
    with work_folder(tmp_path) as work:
        assert _try(name, ask, work, seconds=5).ending is ending


def test_a_report_that_is_too_large_is_no_report(ask: dict[str, str], tmp_path: Path) -> None:
    with work_folder(tmp_path) as work:
        outcome = _try("leave_a_huge_report", ask, work)
    assert outcome.ending is Ending.FINISHED
    assert outcome.report is None


def test_a_report_that_is_a_link_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("{}")
    (tmp_path / "report.json").symlink_to(tmp_path / "target")
    assert confined.read_plain_file(tmp_path / "report.json", 100) is None
    (tmp_path / "hard.json").hardlink_to(tmp_path / "target")
    assert confined.read_plain_file(tmp_path / "hard.json", 100) is None


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(),
    reason="only root can become nobody, and only where a stranger can read the interpreter",
)
def test_root_becomes_nobody_where_nobody_can_read_the_interpreter(
    ask: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    with work_folder() as work:
        assert _said(_try("say_who_it_is", ask, work))["said"] == "65534 65534 [] "
    with work_folder() as work:
        assert _said(_try("read_a_secret_file", ask, work))["escaped"] is False


def test_a_child_that_stays_cannot_make_a_file(ask: dict[str, str], tmp_path: Path) -> None:
    limits = replace(LIMITS, may_write=False)
    with work_folder(tmp_path) as work:
        run_confined(
            ["hide_a_file_by_deleting_it", "--ask", json.dumps(ask)],
            work=work,
            limits=limits,
            seconds=30,
            module=CHILD,
        )
        assert {one.name for one in work.iterdir()} == {confined.STDERR_NAME}


def test_threads_work_inside(ask: dict[str, str], tmp_path: Path) -> None:
    with work_folder(tmp_path) as work:
        assert _said(_try("start_one_thread", ask, work))["said"] == "threads work"


def test_processes_that_stay_in_the_folder_are_ended_with_it(tmp_path: Path) -> None:
    with work_folder(tmp_path) as work:
        left = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            cwd=work,
            start_new_session=True,
        )
    assert left.wait(timeout=10) < 0
    assert not work.exists()


def test_only_abandoned_folders_are_swept(tmp_path: Path) -> None:
    abandoned = tmp_path / f"{confined.FOLDER_PREFIX}dead"
    abandoned.mkdir()
    (tmp_path / "something-else").mkdir()
    with work_folder(tmp_path) as work:
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], cwd=work)
        for folder in (abandoned, work):
            os.utime(folder, (0, 0))
        assert confined.remove_abandoned(tmp_path, older_than_seconds=60) == 1
        assert work.exists()
        assert not abandoned.exists()
    assert worker.wait(timeout=10) < 0
    assert (tmp_path / "something-else").exists()


def test_the_work_folder_is_private_and_leaves_nothing(tmp_path: Path) -> None:
    with work_folder(tmp_path) as work:
        assert work.stat().st_mode & 0o777 == 0o700
        (work / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []

"""The supervisor of ``manage.py dev``, run for real on small children."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.core.management.supervisor import LONGEST_PAUSE_SECONDS, pause_after

ROOT = Path(__file__).resolve().parents[3]

# A supervisor in a process of its own: signals and deaths are its subject.
PROGRAM = """
import sys
from pathlib import Path
from apps.core.management.supervisor import Part, Supervisor

def child(text):
    return (sys.executable, "-c", text)

def say(line):
    print(line, flush=True)

supervisor = Supervisor(folder=Path.cwd(), say=say, stop_seconds={stop_seconds})
{body}
"""
DEAF = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('pid', os.getpid(), flush=True); time.sleep(600)"
)
STAYS = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"


class Session:
    """A supervisor under test: its lines as they come, and its end."""

    def __init__(self, body: str, *, stop_seconds: float = 30.0) -> None:
        text = PROGRAM.format(body=textwrap.dedent(body), stop_seconds=stop_seconds)
        self.process = subprocess.Popen(
            [sys.executable, "-c", text],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def line(self, containing: str) -> str:
        """Read until a line holds a text; the suite's own timeout ends a vain wait."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if containing in line:
                return line
        raise AssertionError(f"the supervisor ended and never said {containing!r}")

    def pid(self, name: str) -> int:
        return int(self.line(f"{name:<6} | pid ").split()[-1])

    def rest(self) -> str:
        return self.process.communicate()[0]


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    started: list[Session] = []
    yield started
    for one in started:
        one.process.kill()
        one.process.wait()
        assert one.process.stdout is not None
        one.process.stdout.close()


def begin(sessions: list[Session], body: str, *, stop_seconds: float = 30.0) -> Session:
    sessions.append(Session(body, stop_seconds=stop_seconds))
    return sessions[-1]


def wait_gone(pid: int) -> None:
    """Return when a process is gone or a zombie; the suite's own timeout ends a vain wait."""
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.01)


def test_a_dead_child_is_started_again(sessions: list[Session]) -> None:
    session = begin(
        sessions,
        f"""
        supervisor.keep(Part("web", child({STAYS!r})))
        supervisor.run(lambda: None)
        """,
    )
    first = session.pid("web")
    os.kill(first, signal.SIGKILL)
    assert "was ended by signal 9; it starts again in 1 s" in session.line("web was ended")
    assert session.pid("web") != first


def test_the_end_takes_every_child_along(sessions: list[Session]) -> None:
    session = begin(
        sessions,
        f"""
        for name in ("one", "two"):
            supervisor.keep(Part(name, child({STAYS!r})))
        supervisor.run(lambda: None)
        """,
    )
    pids = [int(session.line("| pid").split()[-1]) for _ in range(2)]
    session.process.send_signal(signal.SIGTERM)
    session.rest()
    assert session.process.returncode == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_last_part_ends_after_the_others(sessions: list[Session]) -> None:
    says_its_end = (
        "import signal, sys, time\n"
        "def end(*_): time.sleep({wait}); print('gone', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(600)"
    )
    session = begin(
        sessions,
        f"""
        supervisor.keep(Part("agent", child({says_its_end.format(wait=0)!r}), last=True))
        supervisor.keep(Part("web", child({says_its_end.format(wait=0.5)!r})))
        supervisor.run(lambda: None)
        """,
    )
    seen = {session.line("up").split()[0], session.line("up").split()[0]}
    assert seen == {"agent", "web"}
    session.process.send_signal(signal.SIGTERM)
    assert [line.split()[0] for line in session.rest().splitlines()] == ["web", "agent"]


def test_a_child_that_ignores_the_polite_word_is_killed(sessions: list[Session]) -> None:
    session = begin(
        sessions,
        f"""
        supervisor.keep(Part("web", child({DEAF!r})))
        supervisor.run(lambda: None)
        """,
        stop_seconds=0.2,
    )
    pid = session.pid("web")
    session.process.send_signal(signal.SIGTERM)
    session.rest()
    assert not Path(f"/proc/{pid}").exists()


def test_what_a_dead_child_left_behind_ends_with_it(sessions: list[Session]) -> None:
    leaves_one = (
        "import subprocess, sys, time\n"
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('pid', one.pid, flush=True); time.sleep(600)"
    )
    session = begin(
        sessions,
        f"""
        supervisor.keep(Part("web", child({leaves_one!r})))
        supervisor.run(lambda: None)
        """,
    )
    grandchild = session.pid("web")
    parent = int(Path(f"/proc/{grandchild}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    session.line("web was ended")
    wait_gone(grandchild)


def test_children_do_not_outlive_a_killed_supervisor(sessions: list[Session]) -> None:
    session = begin(
        sessions,
        f"""
        supervisor.keep(Part("web", child({STAYS!r})))
        supervisor.run(lambda: None)
        """,
    )
    pid = session.pid("web")
    session.process.kill()
    wait_gone(pid)


def test_a_part_that_runs_once_is_not_started_again_and_tells_its_status(
    sessions: list[Session],
) -> None:
    session = begin(
        sessions,
        f"""
        supervisor.keep(Part("web", child({STAYS!r})))
        supervisor.once(Part("demo", child("import sys; print('done'); sys.exit(3)")),
                        lambda status: say(f"it ended with {{status}}"))
        supervisor.run(lambda: None)
        """,
    )
    session.line("it ended with 3")
    session.process.send_signal(signal.SIGINT)
    assert "done" not in session.rest()


def test_renewed_parts_start_again_without_a_pause(sessions: list[Session]) -> None:
    session = begin(
        sessions,
        f"""
        looks = []
        def look():
            looks.append(1)
            if len(looks) == 8:
                supervisor.renew()
        supervisor.keep(Part("web", child({STAYS!r})))
        supervisor.run(look)
        """,
    )
    first, second = session.pid("web"), session.pid("web")
    assert first != second
    session.process.send_signal(signal.SIGTERM)
    assert "it starts again in" not in session.rest()


def test_a_renewed_part_that_does_not_end_is_killed_and_started_again(
    sessions: list[Session],
) -> None:
    session = begin(
        sessions,
        f"""
        looks = []
        def look():
            looks.append(1)
            if len(looks) == 8:
                supervisor.renew()
        supervisor.keep(Part("web", child({DEAF!r})))
        supervisor.run(look)
        """,
        stop_seconds=0.2,
    )
    assert session.pid("web") != session.pid("web")
    session.process.send_signal(signal.SIGTERM)  # what is deaf would outlive a killed supervisor
    session.rest()


def test_a_last_line_without_an_end_is_passed_on(sessions: list[Session]) -> None:
    session = begin(
        sessions,
        """
        supervisor.keep(Part("web", child("print('half', end='')")))
        supervisor.run(lambda: None)
        """,
    )
    assert session.line("half") == "web    | half\n"


def test_the_lines_of_a_bare_part_can_be_copied_as_they_are(sessions: list[Session]) -> None:
    session = begin(
        sessions,
        """
        supervisor.once(Part("demo", child("print('curl x')"), bare=True), lambda status: None)
        supervisor.run(lambda: None)
        """,
    )
    assert session.line("curl") == "curl x\n"


def test_pauses_double_up_to_half_a_minute_and_begin_anew_after_a_healthy_life() -> None:
    pauses, pause = [], 1.0
    for _ in range(7):
        now, pause = pause_after(pause, lived_seconds=0.5)
        pauses.append(now)
    assert pauses == [1, 2, 4, 8, 16, 30, LONGEST_PAUSE_SECONDS]
    assert pause_after(30, lived_seconds=31)[0] == 1

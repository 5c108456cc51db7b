"""The parts of the sandbox that can be looked at from outside it."""

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from apps.core import confined
from apps.core.confined import Ending, Limits, Outcome
from apps.inference.sandbox import privileges, seccomp
from apps.inference.sandbox.enter import Walls, probe, readable_paths
from apps.inference.sandbox.report import Refused, Report, clean


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_every_jump_of_the_filter_lands_inside_it(machine: str) -> None:
    code = seccomp.program(machine, 4242)
    count = len(code) // 8
    assert count < 4096  # the kernel's limit
    for at in range(count):
        kind, if_true, if_false, _ = struct.unpack_from("=HBBI", code, at * 8)
        if kind & 0x07 == 0x05:
            assert at + 1 + max(if_true, if_false) < count
    assert struct.unpack_from("=HBBI", code, (count - 1) * 8)[3] == seccomp.REFUSE


def _verdict(code: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Run the filter as the kernel would."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    call = struct.pack("=iIQ6Q", number, architecture, 0, *padded)
    at, loaded = 0, 0
    while True:
        kind, if_true, if_false, operand = struct.unpack_from("=HBBI", code, at * 8)
        at += 1
        if kind == 0x20:
            loaded = struct.unpack_from("=I", call, operand)[0]
        elif kind == 0x15:
            at += if_true if loaded == operand else if_false
        elif kind == 0x35:
            at += if_true if loaded >= operand else if_false
        elif kind == 0x45:
            at += if_true if loaded & operand else if_false
        else:
            return int(operand)


@pytest.mark.parametrize(
    ("numbers", "arguments", "allowed"),
    [
        ((0, 63), (), True),  # read
        ((41, 198), (), False),  # socket
        ((59, 221), (), False),  # execve
        ((322, 281), (), False),  # execveat
        ((58, None), (), False),  # vfork
        ((57, None), (), False),  # fork
        ((56, 220), (0x3D0F00,), True),  # clone of a thread
        ((56, 220), (17,), False),  # clone of a process
        ((62, 129), (4242, 9), True),  # kill itself
        ((62, 129), (1, 9), False),  # kill another
        ((62, 129), (2**64 - 1, 9), False),  # kill everyone
        ((257, 56), (0, 0, 0o100), True),  # openat
        ((257, 56), (0, 0, 0o20200000), False),  # openat of a file without a name
        ((157, 167), (1, 0), False),  # prctl: forget the death signal
        ((157, 167), (15, 0), True),  # prctl: thread name
        ((302, 261), (1,), False),  # prlimit64 of another
        ((425, 425), (), False),  # io_uring_setup
        ((272, 97), (), False),  # unshare
        ((101, 117), (), False),  # ptrace
        ((87, None), (), False),  # unlink
        ((263, 35), (), False),  # unlinkat
        ((999, 999), (), False),  # whatever a later kernel brings
    ],
)
@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_the_filter_allows_what_a_model_needs_and_nothing_else(
    machine: str, numbers: tuple[int | None, int | None], arguments: tuple[int, ...], allowed: bool
) -> None:
    number = numbers[list(seccomp.ARCHITECTURES).index(machine)]
    if number is None:
        pytest.skip("this processor has no such call")
    code = seccomp.program(machine, 4242)
    verdict = _verdict(code, seccomp.ARCHITECTURES[machine], number, *arguments)
    assert (verdict == seccomp.ALLOW) is allowed


def test_calls_of_another_architecture_end_the_process() -> None:
    code = seccomp.program("x86_64", 1)
    assert _verdict(code, seccomp.ARCHITECTURES["aarch64"], 63) == seccomp.KILL_PROCESS
    assert _verdict(code, seccomp.ARCHITECTURES["x86_64"], 0x40000000) == seccomp.KILL_PROCESS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has powers to give up")
def test_root_keeps_no_capability() -> None:
    code = (
        "from apps.inference.sandbox import privileges as p\n"
        "p.drop_bounding_set(); p.drop_capabilities()\n"
        "print(open('/proc/self/status').read())\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=confined.PROJECT_ROOT,
    ).stdout
    held = {
        line.split(":")[0]: int(line.split()[1], 16)
        for line in said.splitlines()
        if line.startswith("Cap")
    }
    assert set(held.values()) == {0}


def test_a_path_is_readable_for_a_stranger_only_if_all_its_folders_are() -> None:
    # Not tmp_path: pytest keeps that one private.
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        inner = Path(top) / "a" / "b"
        inner.mkdir(parents=True)
        (inner / "file").write_text("x")
        assert privileges.is_readable_by(str(inner / "file"), privileges.NOBODY)
        (Path(top) / "a").chmod(0o700)
        assert not privileges.is_readable_by(str(inner / "file"), privileges.NOBODY)


def test_what_stays_readable_is_libraries_and_our_code_only() -> None:
    root = str(confined.PROJECT_ROOT)
    for path in readable_paths():
        assert path not in {"/", "/root", "/home", "/etc", root}
        assert path == f"{root}/apps" or "python" in path


def test_code_is_held_only_behind_walls_that_cut_off_network_and_files() -> None:
    assert Walls(7, seccomp=True, nobody=False).holds_code
    assert Walls(0, seccomp=True, nobody=True).holds_code
    assert not Walls(0, seccomp=True, nobody=False).holds_code
    assert not Walls(7, seccomp=False, nobody=True).holds_code
    assert not Walls(0, seccomp=False, nobody=False).holds_code


def test_the_probe_says_what_this_machine_has() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "apps.inference.sandbox", "probe"],
        capture_output=True,
        text=True,
        check=True,
        cwd=confined.PROJECT_ROOT,
    ).stdout
    assert f'"holds_code": {str(probe().holds_code).lower()}' in said


def test_a_stage_does_not_run_outside_the_sandbox() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "apps.inference.sandbox", "recognise"],
        capture_output=True,
        text=True,
        check=False,
        cwd=confined.PROJECT_ROOT,
    )
    assert ended.returncode == 2
    assert "confined child" in ended.stderr


def test_limits_grow_with_the_file() -> None:
    limits = Limits.for_file(5 << 30, cpu_seconds=1)
    assert limits.memory_bytes >= 3 * (5 << 30) + (2 << 30)


@pytest.mark.parametrize("ending", Ending)
def test_every_ending_has_a_sentence(ending: Ending) -> None:
    limits = Limits.for_file(0, cpu_seconds=3)
    outcome = Outcome(ending, -11, 1.0, limits, 2.0, None)
    assert outcome.sentence().endswith(".")


def test_a_failed_check_keeps_its_reason_and_remedy() -> None:
    report = Report()

    def fail() -> None:
        with report.check("load", "It loads"):
            raise Refused("It does not.", "Try again.")

    with pytest.raises(Refused):
        fail()
    assert report.checks[0]["state"] == "failed"
    assert report.checks[0]["remedy"] == "Try again."


def test_text_from_a_file_is_made_short_and_printable() -> None:
    assert clean("a\x00b\n\n\x1b[31mc") == "a b [31mc"
    assert len(clean("x" * 10_000, 100)) == 100

"""The counters of a node: exact among its processes, and in nobody's way."""

import fcntl
import os
import random
from pathlib import Path

import pytest

from apps.accounts.counters import node_file
from apps.accounts.counters.node_file import NodeCounters
from apps.accounts.limits import Stage
from tests.factories.limits import NOW, ask, counted_window, passed_by_processes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "serving" / "limits-1.bin"


def used(counters: NodeCounters, counter: str = "requests:key:k1") -> int:
    return counters.take([ask(counter, need=0)], NOW)[0].used


def test_two_processes_with_threads_are_counted_exactly(path: Path) -> None:
    passed = passed_by_processes(
        f"file:{path}", processes=2, calls=1000, threads=4, requests_per_minute=500
    )
    assert sum(passed) == 500
    stands = ask("requests:key:counted", need=0, window=counted_window())
    assert NodeCounters(path).take([stands], NOW)[0].used == 500


def test_counts_outlive_the_process(path: Path) -> None:
    first = NodeCounters(path)
    first.take([ask(need=4)], NOW)
    first.close()
    assert used(NodeCounters(path)) == 4


def test_what_does_not_fit_is_not_counted(path: Path) -> None:
    counters = NodeCounters(path)
    counters.take([ask(need=8)], NOW)
    assert [one.given for one in counters.take([ask(need=3)], NOW)] == [0]
    assert used(counters) == 8


def test_a_later_stage_waits_for_an_earlier_one(path: Path) -> None:
    counters = NodeCounters(path)
    full, rows = ask("a", need=11), ask("b", need=1, stage=Stage.ROWS)
    assert [one.given for one in counters.take([full, rows], NOW)] == [0, 0]
    fits, many = ask("a", need=1), ask("b", need=11, stage=Stage.ROWS)
    assert [one.given for one in counters.take([fits, many], NOW)] == [1, 0]


def test_what_was_known_before_counts_after_a_loss(path: Path) -> None:
    NodeCounters(path).take([ask(need=9)], NOW)
    path.unlink()
    assert [one.given for one in NodeCounters(path).take([ask(need=2, known=9)], NOW)] == [0]


def test_windows_that_are_over_make_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_file, "BUCKETS", 1)
    monkeypatch.setattr(
        node_file, "SIZE", node_file.HEADER.size + node_file.SLOTS_OF_A_NAME * node_file.SLOT.size
    )
    counters = NodeCounters(path)
    for number in range(node_file.SLOTS_OF_A_NAME):
        counters.take([ask(f"old{number}", need=9)], NOW)
    counters.take([ask("new", window=99, ends=NOW + 90)], NOW + 31)
    assert counters.take([ask("new", window=99, need=0, ends=NOW + 90)], NOW + 31)[0].used == 1


def test_a_flood_of_names_does_not_push_out_who_used_much(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_file, "BUCKETS", 1)
    monkeypatch.setattr(
        node_file, "SIZE", node_file.HEADER.size + node_file.SLOTS_OF_A_NAME * node_file.SLOT.size
    )
    counters = NodeCounters(path)
    counters.take([ask(need=9)], NOW)
    for number in range(100):
        counters.take([ask(f"flood{number}")], NOW)
    assert used(counters) == 9


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 100])
def test_a_damaged_file_is_made_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    counters = NodeCounters(path)
    counters.take([ask(need=3)], NOW)
    assert used(NodeCounters(path)) == 3


def test_noise_in_the_slots_is_survived(path: Path) -> None:
    NodeCounters(path).close()
    noise = random.Random(7).randbytes(path.stat().st_size - node_file.HEADER.size)
    with path.open("r+b") as file:
        file.seek(node_file.HEADER.size)
        file.write(noise)
    counters = NodeCounters(path)
    for number in range(200):
        assert counters.take([ask(f"name{number}")], NOW)[0].given == 1


def test_the_file_has_all_of_its_blocks(path: Path) -> None:
    """A hole that is written to on a full disk would end the process."""
    NodeCounters(path)
    about = path.stat()
    assert about.st_blocks * 512 >= about.st_size == node_file.SIZE


def test_where_no_file_can_be_the_process_counts_by_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    counters = NodeCounters(tmp_path / "file" / "limits-1.bin")
    counters.take([ask(need=9)], NOW)
    assert counters.take([ask(need=2)], NOW)[0].given == 0
    assert counters.nodes == 0


def test_nobody_waits_long_for_a_process_that_holds_the_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_file, "WAIT_SECONDS", 0.01)
    counters = NodeCounters(path)
    counters.take([ask(need=9)], NOW)
    other = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert counters.take([ask(need=2, known=9)], NOW)[0].given == 0
        assert counters.take([ask(need=1, known=9)], NOW)[0].given == 1
    finally:
        os.close(other)


def test_the_number_of_nodes_survives_a_restart(path: Path) -> None:
    counters = NodeCounters(path)
    counters.remember_nodes(3)
    counters.close()
    assert NodeCounters(path).nodes == 3

"""The journal on local files: what was acknowledged is readable, whatever happens to the writer."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from apps.inference.engine import spool as module
from apps.inference.engine.errors import SpoolFull
from apps.inference.engine.journal import PredictionRecord
from apps.inference.engine.spool import (
    HEAD,
    Segment,
    Spool,
    adopt,
    count_bytes,
    frame,
    frames,
    orphans,
    record_from,
    sealed_segments,
)
from apps.registry.snapshot import FullSpool
from tests.fakes.clock import FakeClock

ROOT = Path(__file__).parents[3]
REQUIRED, BEST_EFFORT = FullSpool.REQUIRED, FullSpool.BEST_EFFORT


def record(**changes: Any) -> PredictionRecord:
    fields: dict[str, Any] = {
        "id": "0190a000-0000-7000-8000-000000000001",
        "ts_ms": 1,
        "model": "wine",
        "environment": "production",
        "team_id": 7,
        "version": 1,
        "release": 1,
        "arm": "primary",
        "variant": None,
        "experiment": None,
        "unit": None,
        "key_id": "k",
        "user_id": None,
        "source": "api",
        "status": "ok",
        "rows": 1,
        "cached": False,
        "total_ms": 1.0,
        "queue_ms": 0.0,
        "inference_ms": 1.0,
        "inputs": [[1.0]],
        "outputs": {"y": [1.0]},
        "error": None,
        "request_id": "r",
        "client_id": None,
    }
    return PredictionRecord(**{**fields, **changes})


def make(folder: Path, **settings: Any) -> Spool:
    # The sealer's own turns are switched off: tests call for them.
    return Spool(folder, **{"seal_seconds": 3600.0, **settings})


def fill_up(spool: Spool) -> int:
    """Note records until one is refused; return how many were taken."""
    for taken in range(100):
        try:
            spool.note(record(), policy=REQUIRED)
        except SpoolFull:
            return taken
    raise AssertionError("it never became full")


def everything(folder: Path) -> list[dict[str, Any]]:
    for orphan in orphans(folder):
        adopt(orphan)
    return [
        record_from(one) for segment in sealed_segments(folder) for one in segment.read().payloads
    ]


def test_a_record_comes_back_as_it_was_noted_with_writer_and_number(tmp_path: Path) -> None:
    spool = make(tmp_path)
    for rows in (1, 2, 3):
        spool.note(record(rows=rows), policy=REQUIRED)
    spool.close()
    found = everything(tmp_path)
    assert [(one["rows"], one["seq"], one["writer"]) for one in found] == [
        (1, 1, spool.writer),
        (2, 2, spool.writer),
        (3, 3, spool.writer),
    ]
    assert found[0]["outputs"] == {"y": [1.0]}


def test_a_record_is_in_the_file_when_note_returns(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.note(record(), policy=REQUIRED)
    (path,) = tmp_path.glob("*.open")
    assert len(list(frames(path.read_bytes()))) == 1
    spool.close()


@pytest.mark.parametrize(
    "tail",
    [b"", b"\x01", b"\x00" * 64, frame(b"lost")[:-1], HEAD.pack(4, 0) + b"lost", b"\xff" * 20],
)
def test_reading_ends_at_the_first_bad_frame(tail: bytes) -> None:
    good = frame(b"one") + frame(b"two")
    assert list(frames(good + tail)) == [b"one", b"two"]
    assert list(frames(good + tail + frame(b"never")))[:2] == [b"one", b"two"]


def test_bytes_that_could_not_be_read_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "w-00000001.sealed"
    path.write_bytes(frame(b"one") + b"torn")
    content = Segment(path).read()
    assert (content.payloads, content.torn_bytes) == ((b"one",), 4)


@pytest.mark.parametrize("payload", [b"[1]", b"no json", b""])
def test_a_payload_that_is_no_record_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is the contract
        record_from(payload)


def test_a_segment_is_sealed_at_its_size_and_the_next_one_begins(tmp_path: Path) -> None:
    spool = make(tmp_path, seal_bytes=2000)
    for _ in range(10):
        spool.note(record(), policy=REQUIRED)
    spool.seal()
    numbers = [one.number for one in sealed_segments(tmp_path)]
    assert len(numbers) > 1
    assert numbers == list(range(1, len(numbers) + 1))
    assert all(one.writer == spool.writer for one in sealed_segments(tmp_path))
    spool.close()
    assert [one["seq"] for one in everything(tmp_path)] == list(range(1, 11))


def test_a_segment_is_sealed_at_its_age(tmp_path: Path) -> None:
    clock = FakeClock()
    spool = make(tmp_path, clock=clock)
    spool.note(record(), policy=REQUIRED)
    clock.advance(3599)
    spool.seal_if_due()
    assert sealed_segments(tmp_path) == []
    clock.advance(2)
    spool.seal_if_due()
    assert len(sealed_segments(tmp_path)) == 1
    spool.close()


def test_the_sealer_seals_without_being_called(tmp_path: Path) -> None:
    spool = Spool(tmp_path, seal_seconds=0.02)
    spool.note(record(), policy=REQUIRED)
    until = time.monotonic() + 30
    while not sealed_segments(tmp_path) and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert len(sealed_segments(tmp_path)) == 1
    spool.close()
    assert not any(one.name == "spool" and one.is_alive() for one in [spool._sealer] if one)


def test_a_segment_is_synced_before_it_is_given_to_the_shipper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        order.append("sync")
        fsync(descriptor)

    def renamed(path: Path, to: Path) -> Path:
        order.append("rename")
        return rename(path, to)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    spool = make(tmp_path)
    spool.note(record(), policy=REQUIRED)
    spool.close()
    assert order == ["sync", "rename", "sync"]


def test_values_that_the_database_refuses_never_reach_a_segment(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    spool = make(tmp_path)
    spool.note(
        record(
            inputs={
                "a\x00b": "x\x00y",
                "s": "\ud800",
                "big": 2**70,
                "deep": deep,
                "n": float("nan"),
            },
            outputs={"y": [float("inf"), 1.5]},
            error="back\\u0000slash",
        ),
        policy=REQUIRED,
    )
    spool.close()
    ((payload,),) = [one.read().payloads for one in sealed_segments(tmp_path)]
    assert b"NaN" not in payload
    found = orjson.loads(payload)
    assert "\x00" not in repr(found).replace("\\x00", "\x00")
    assert found["inputs"]["a\ufffdb"] == "x\ufffdy"
    assert found["inputs"]["s"] == "\ufffd"
    assert found["inputs"]["big"] is None
    assert found["inputs"]["n"] is None
    assert found["outputs"] == {"y": [None, 1.5]}
    assert found["error"] == "back\\u0000slash"


def test_a_full_folder_refuses_or_counts_the_loss_as_the_model_wants(tmp_path: Path) -> None:
    spool = make(tmp_path, quota_bytes=2000)
    noted = fill_up(spool)
    assert 0 < noted < 10
    assert count_bytes(tmp_path) <= 2000
    assert spool.fill > 0.7
    spool.note(record(), policy=BEST_EFFORT)
    spool.note(record(), policy=BEST_EFFORT)
    assert spool.dropped == 2
    spool.close()
    assert [one["seq"] for one in everything(tmp_path)] == list(range(1, noted + 1))


def test_a_full_folder_recovers_when_it_was_shipped(tmp_path: Path) -> None:
    clock = FakeClock()
    spool = make(tmp_path, quota_bytes=2000, clock=clock)
    last = fill_up(spool)
    spool.seal()
    for segment in sealed_segments(tmp_path):
        segment.remove()
    clock.advance(1)
    spool.note(record(), policy=REQUIRED)
    spool.close()
    assert [one["seq"] for one in everything(tmp_path)] == [last + 1]


def test_what_other_writers_hold_counts_too(tmp_path: Path) -> None:
    (tmp_path / "other-00000001.sealed").write_bytes(b"x" * 1900)
    spool = make(tmp_path, quota_bytes=2000)
    assert spool.fill >= module.NOT_READY_AT
    with pytest.raises(SpoolFull):
        spool.note(record(), policy=REQUIRED)


def test_room_is_what_the_disk_has_when_that_is_less_than_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    (tmp_path / "other-00000001.sealed").write_bytes(b"x" * 1900)
    assert make(tmp_path).fill == pytest.approx(0.95)


def test_a_torn_write_is_cut_off_so_that_later_records_stay_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make(tmp_path)
    spool.note(record(rows=1), policy=REQUIRED)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(SpoolFull):
        spool.note(record(rows=2), policy=REQUIRED)
    monkeypatch.setattr(os, "write", write)
    spool.note(record(rows=3), policy=REQUIRED)
    spool.close()
    assert [(one["rows"], one["seq"]) for one in everything(tmp_path)] == [(1, 1), (3, 2)]


def test_a_torn_write_that_cannot_be_cut_off_ends_its_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make(tmp_path)
    spool.note(record(rows=1), policy=REQUIRED)
    write, truncate = os.write, os.ftruncate
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    monkeypatch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "")))
    with pytest.raises(SpoolFull):
        spool.note(record(rows=2), policy=REQUIRED)
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "ftruncate", truncate)
    spool.note(record(rows=3), policy=REQUIRED)
    spool.close()
    assert [(one["rows"], one["seq"]) for one in everything(tmp_path)] == [(1, 1), (3, 2)]


def test_a_disk_error_refuses_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = make(tmp_path)

    def broken(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(SpoolFull):
        spool.note(record(), policy=REQUIRED)
    spool.note(record(), policy=BEST_EFFORT)
    assert spool.dropped == 1


def test_a_living_writers_segment_is_no_orphan(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.note(record(), policy=REQUIRED)
    assert orphans(tmp_path) == []
    (path,) = tmp_path.glob("*.open")
    assert adopt(Segment(path)) is None
    spool.close()


def test_an_orphan_is_adopted_once(tmp_path: Path) -> None:
    path = tmp_path / "dead-1-a-00000003.open"
    path.write_bytes(frame(b"{}") + b"torn")
    (orphan,) = orphans(tmp_path)
    sealed = adopt(orphan)
    assert sealed is not None
    assert (sealed.writer, sealed.number) == ("dead-1-a", 3)
    assert sealed.read().payloads == (b"{}",)
    assert adopt(orphan) is None
    assert sealed_segments(tmp_path) == [sealed]


def test_a_writer_never_writes_into_a_file_that_was_adopted_under_its_hands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = module._lock
    taken: list[Path] = []

    def robbed(descriptor: int) -> bool:
        if not taken:  # an adopter comes between open and lock
            (path,) = tmp_path.glob("*.open")
            path.rename(path.with_suffix(".sealed"))
            taken.append(path)
        return lock(descriptor)

    monkeypatch.setattr(module, "_lock", robbed)
    spool = make(tmp_path)
    spool.note(record(), policy=REQUIRED)
    monkeypatch.setattr(module, "_lock", lock)
    spool.close()
    by_number = {one.number: len(one.read().payloads) for one in sealed_segments(tmp_path)}
    assert by_number == {1: 0, 2: 1}


def test_a_forked_child_lets_go_of_its_parents_segment_and_writes_its_own(tmp_path: Path) -> None:
    child = """
import os, sys
from pathlib import Path
from apps.inference.engine.spool import Spool, orphans
from apps.registry.snapshot import FullSpool
from tests.unit.engine.test_spool import record
folder = Path(sys.argv[1])
spool = Spool(folder, seal_seconds=3600.0)
spool.note(record(rows=1), policy=FullSpool.REQUIRED)
ready, told = os.pipe()
child = os.fork()
if child == 0:
    os.read(ready, 1)  # until the parent has let go as well
    print(len(orphans(folder)), flush=True)
    spool.note(record(rows=2), policy=FullSpool.REQUIRED)
    os._exit(0)
os.close(spool._segment.descriptor)
os.write(told, b"x")
sys.exit(os.waitpid(child, 0)[1])
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", child, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout.strip()) == (0, "1"), run.stderr
    found = everything(tmp_path)
    assert sorted((one["rows"], one["seq"]) for one in found) == [(1, 1), (2, 1)]
    assert len({one["writer"] for one in found}) == 2


WRITER = """
import sys
from pathlib import Path
from apps.inference.engine.spool import Spool
from apps.registry.snapshot import FullSpool
from tests.unit.engine.test_spool import record
spool = Spool(Path(sys.argv[1]), seal_seconds=0.01, seal_bytes=20_000)
out = sys.stdout.buffer
for number in range(10_000_000):
    spool.note(record(id=str(number), inputs="x" * 300), policy=FullSpool.REQUIRED)
    out.write(b"%d\\n" % number)
    out.flush()
"""


@pytest.mark.parametrize("turn", range(3))
def test_every_acknowledged_record_survives_the_writers_sudden_death(
    tmp_path: Path, turn: int
) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline() for _ in range(300 + 700 * turn)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.readlines()
    writer.stdout.close()
    writer.wait(timeout=30)
    told = [int(line) for line in acknowledged if line.endswith(b"\n")]
    found = everything(tmp_path)
    assert {int(one["id"]) for one in found} >= set(told)
    assert sorted(one["seq"] for one in found) == list(range(1, len(found) + 1))


def test_several_threads_share_one_writer_without_gaps(tmp_path: Path) -> None:
    spool = Spool(tmp_path, seal_seconds=0.01, seal_bytes=5_000)
    barrier = threading.Barrier(4)

    def write() -> None:
        barrier.wait(30)
        for _ in range(200):
            spool.note(record(), policy=REQUIRED)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    spool.close()
    assert sorted(one["seq"] for one in everything(tmp_path)) == list(range(1, 801))

"""Shipping: every record once, its counts once, whatever dies when."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from django.db import connection
from django.utils import timezone

from apps.inference import journal_db
from apps.inference.engine.buckets import bucket_of
from apps.inference.engine.journal import PredictionRecord
from apps.inference.engine.spool import Spool, frame
from apps.inference.journal_db import Shipped, tables
from apps.inference.models import KeyHour, Prediction, PredictionMinute, PredictionRejected
from apps.registry.snapshot import FullSpool
from tests.factories.inference import record, spooled

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def segment_of(folder: Path, payloads: list[bytes], tail: bytes = b"") -> Path:
    path = folder / "b00t-1-1-00000001.sealed"
    path.write_bytes(b"".join(frame(payload) for payload in payloads) + tail)
    return path


def payload_of(one: PredictionRecord, **given: object) -> bytes:
    return orjson.dumps({**asdict(one), "seq": 1, "writer": "b00t-1-1", **given})


def test_every_field_of_a_record_arrives(tmp_path: Path) -> None:
    one = record(
        ts=NOON,
        variant="b",
        experiment="exp",
        unit="user-1",
        user_id=7,
        release=None,
        error="It failed.",
        client_id="mine",
        inputs=[{"name": 'Ünï "q"\t\\n', "x": [1, 2.5, None, True]}],
        outputs={"p": [[0.25, 1e-300], [None, 3]]},
    )
    spooled(tmp_path, [one])
    assert journal_db.ship(tmp_path) == Shipped(rows=1, segments=1)
    row = Prediction.objects.get()
    elsewhere = {"ts_ms", "address", "agent"}  # as `ts`, and with the key
    names = set(PredictionRecord.__slots__) - elsewhere
    stored = {name: getattr(row, name) for name in names}
    expected = {name: getattr(one, name) for name in stored}
    assert {**stored, "id": str(row.id)} == expected
    assert (row.ts, row.seq, row.writer != "") == (NOON, 1, True)


def test_what_was_not_given_is_empty(tmp_path: Path) -> None:
    spooled(tmp_path, [record(key_id=None, inputs=None, outputs=None)])
    journal_db.ship(tmp_path)
    row = Prediction.objects.get()
    assert (row.key_id, row.unit, row.error) == ("", "", "")
    assert Prediction.objects.filter(inputs__isnull=True, outputs__isnull=True).count() == 1


def test_shipped_files_are_gone(tmp_path: Path) -> None:
    spooled(tmp_path, [record() for _ in range(3)])
    assert journal_db.ship(tmp_path) == Shipped(rows=3, segments=1)
    assert files_in(tmp_path) == []
    assert journal_db.ship(tmp_path) == Shipped()


def test_shipping_the_same_file_again_adds_nothing(tmp_path: Path) -> None:
    spooled(tmp_path, [record(ts=NOON) for _ in range(20)])
    (path,) = tmp_path.iterdir()
    copy = path.read_bytes()
    journal_db.ship(tmp_path)
    path.write_bytes(copy)
    assert journal_db.ship(tmp_path) == Shipped(duplicates=20, segments=1)
    assert Prediction.objects.count() == 20
    assert PredictionMinute.objects.get().count == 20
    assert KeyHour.objects.get().count == 20


def test_a_record_that_stands_twice_in_one_file_counts_once(tmp_path: Path) -> None:
    one = payload_of(record(ts=NOON))
    segment_of(tmp_path, [one, one])
    assert journal_db.ship(tmp_path) == Shipped(rows=1, duplicates=1, segments=1)
    assert PredictionMinute.objects.get().count == 1


def test_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    spooled(
        tmp_path,
        [
            record(ts=NOON, rows=10, total_ms=1.0, cached=True),
            record(ts=NOON + timedelta(seconds=29), rows=5, total_ms=3.0),
            record(ts=NOON + timedelta(seconds=30), total_ms=2.0),
            record(ts=NOON, status="model_failed", total_ms=9.0, outputs=None),
            record(ts=NOON, key_id=None, version=2),
        ],
    )
    journal_db.ship(tmp_path)
    first = PredictionMinute.objects.get(
        minute=NOON.replace(second=0), status="ok", version=1, arm="primary"
    )
    assert (first.count, first.rows, first.errors, first.cache_hits) == (2, 15, 0, 1)
    assert first.latency_us == 4000
    assert first.buckets() == {bucket_of(1.0): 1, bucket_of(3.0): 1}
    failed = PredictionMinute.objects.get(status="model_failed")
    assert (failed.count, failed.errors) == (1, 1)
    assert PredictionMinute.objects.count() == 4
    usage = KeyHour.objects.get(key_id="key0123456ab")
    assert (usage.hour, usage.count, usage.rows) == (NOON.replace(minute=0, second=0), 4, 17)
    assert usage.errors == {"model_failed": 1}
    assert KeyHour.objects.get(key_id="").version == 2


def test_counts_of_a_second_file_are_added(tmp_path: Path) -> None:
    for _ in range(2):
        spooled(tmp_path, [record(ts=NOON, total_ms=1.0), record(ts=NOON, status="deadline")])
        journal_db.ship(tmp_path)
    assert PredictionMinute.objects.get(status="ok").count == 2
    assert PredictionMinute.objects.get(status="ok").buckets() == {bucket_of(1.0): 2}
    assert KeyHour.objects.get().errors == {"deadline": 2}


@pytest.mark.parametrize(
    "damage",
    [
        {"id": "not-a-uuid-but-thirty-six-characters"},
        {"id": "018f0000-0000-4000-8000-000000000000"},
        {"ts_ms": 1},
        {"ts_ms": True},
        {"rows": "1"},
        {"model": None},
        {"cached": 1},
        {"total_ms": None},
    ],
)
def test_a_record_that_is_no_row_is_put_aside(tmp_path: Path, damage: dict[str, object]) -> None:
    bad = payload_of(record(), **damage)
    segment_of(tmp_path, [payload_of(record()), bad, payload_of(record())])
    assert journal_db.ship(tmp_path) == Shipped(rows=2, rejected=1, segments=1)
    aside = PredictionRejected.objects.get()
    assert bytes(aside.payload) == bad
    assert aside.error != ""
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("payload", [b"not json", b"[1]", b"{}"])
def test_a_frame_that_is_no_record_is_put_aside(tmp_path: Path, payload: bytes) -> None:
    segment_of(tmp_path, [payload, payload_of(record())])
    assert journal_db.ship(tmp_path) == Shipped(rows=1, rejected=1, segments=1)


def test_only_the_rows_that_the_database_refuses_are_put_aside(tmp_path: Path) -> None:
    # Too large for a column of any of our databases, and nothing that Python would find wrong.
    bad = {n: payload_of(record(), seq=2**63 + n) for n in (0, 7, 8, 40)}
    good = [payload_of(record(ts=NOON)) for _ in range(60)]
    segment_of(tmp_path, [bad.get(n, one) for n, one in enumerate(good)])
    assert journal_db.ship(tmp_path) == Shipped(rows=56, rejected=4, segments=1)
    assert {bytes(one.payload) for one in PredictionRejected.objects.all()} == set(bad.values())
    assert sum(one.count for one in PredictionMinute.objects.all()) == 56
    assert files_in(tmp_path) == []


def test_a_rejected_record_shipped_again_stands_there_once(tmp_path: Path) -> None:
    bad = payload_of(record(), seq=2**63)
    for _ in range(2):
        segment_of(tmp_path, [bad])
        journal_db.ship(tmp_path)
    assert PredictionRejected.objects.count() == 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite takes it")
@pytest.mark.parametrize("field", ["inputs", "unit"])
def test_a_zero_character_does_not_block_the_pipe(tmp_path: Path, field: str) -> None:
    bad = payload_of(record(), **{field: "\x00"})
    segment_of(tmp_path, [payload_of(record()), bad, payload_of(record())])
    assert journal_db.ship(tmp_path) == Shipped(rows=2, rejected=1, segments=1)


def test_fields_of_a_newer_writer_are_left_out(tmp_path: Path) -> None:
    segment_of(tmp_path, [payload_of(record(), colour="blue")])
    assert journal_db.ship(tmp_path) == Shipped(rows=1, segments=1)


def test_the_torn_tail_of_a_dead_writer_is_not_acknowledged_and_ends_the_file(
    tmp_path: Path,
) -> None:
    whole, torn = frame(payload_of(record())), frame(payload_of(record()))[:-3]
    (tmp_path / "b00t-1-1-00000001.open").write_bytes(whole + torn)
    assert journal_db.ship(tmp_path) == Shipped(rows=1, segments=1)
    assert files_in(tmp_path) == []


def test_a_segment_whose_owner_lives_is_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, seal_seconds=3600)
    spool.note(record(), policy=FullSpool.REQUIRED)
    assert journal_db.ship(tmp_path) == Shipped()
    spool.close()
    assert journal_db.ship(tmp_path) == Shipped(rows=1, segments=1)


def test_a_sealed_segment_that_the_disk_damaged_is_kept(tmp_path: Path) -> None:
    path = segment_of(tmp_path, [payload_of(record())], tail=b"\x09\x00\x00\x00damage")
    damaged = path.read_bytes()
    assert journal_db.ship(tmp_path) == Shipped(rows=1, segments=1)
    assert (tmp_path / "damaged" / path.name).read_bytes() == damaged
    assert journal_db.ship(tmp_path) == Shipped()


def test_a_large_file_goes_in_bounded_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tables.MOST_ROWS, connection.vendor, 7)
    spooled(tmp_path, [record(ts=NOON) for _ in range(20)])
    assert journal_db.ship(tmp_path) == Shipped(rows=20, segments=1)
    assert PredictionMinute.objects.get().count == 20


def test_a_folder_that_nobody_wrote_to_is_fine(tmp_path: Path) -> None:
    assert journal_db.ship(tmp_path / "none") == Shipped()


def test_a_walk_can_be_ended_between_two_files(tmp_path: Path) -> None:
    for _ in range(3):
        spooled(tmp_path, [record()])
    answers = iter([False, True])
    assert journal_db.ship(tmp_path, stop=lambda: next(answers)) == Shipped(rows=1, segments=1)
    assert len(files_in(tmp_path)) == 2


def test_a_time_outside_all_partitions_is_kept_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    far = timezone.now() + timedelta(days=400)
    spooled(tmp_path, [record(ts=far), record()])
    assert journal_db.ship(tmp_path).rows == 2
    assert Prediction.objects.filter(ts__gt=timezone.now() + timedelta(days=399)).count() == 1
    said = [one for one in caplog.records if "outside all partitions" in one.getMessage()]
    assert len(said) == (1 if connection.vendor == "postgresql" else 0)


def test_the_id_and_the_time_of_a_stored_row_agree(tmp_path: Path) -> None:
    one = record()
    spooled(tmp_path, [replace(one, id=one.id.upper())])
    journal_db.ship(tmp_path)
    assert str(Prediction.objects.get().id) == one.id

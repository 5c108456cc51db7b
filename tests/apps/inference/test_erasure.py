"""Erasure by unit: all that it left goes, of whenever it arrives, and nothing of anybody else."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from apps.core.errors import Invalid
from apps.core.events import Actor
from apps.core.models import Event, Work
from apps.core.work import run_once
from apps.inference import tasks
from apps.inference.engine.redact import hashed
from apps.inference.journal_db import erased, ship
from apps.inference.models import Erasure, Prediction, PredictionMinute, PredictionRejected
from apps.inference.record_keys import digests_of, record_rules
from apps.inference.services import erasure
from tests.factories.accounts import make_team
from tests.factories.inference import prediction, record, spooled
from tests.factories.registry import make_model

pytestmark = pytest.mark.django_db
OPERATOR = Actor.operator()
UNIT = "patient-4711"


def erase(unit: str = UNIT, **given: Any) -> Erasure:
    wanted: dict[str, Any] = {"team_id": None, "reason": "she asked for it", "actor": OPERATOR}
    return erasure.erase_now(unit, **{**wanted, **given})


def rejected(**fields: Any) -> PredictionRejected:
    payload = orjson.dumps(
        {"unit": UNIT, "team_id": 1, "model": "wine", "ts_ms": 1_700_000_000_000, **fields}
    )
    return PredictionRejected.objects.create(
        sha256=str(len(payload)) + str(PredictionRejected.objects.count()),
        payload=payload,
        error="",
        at=timezone.now(),
    )


def test_a_unit_goes_as_it_is_and_as_its_hash_and_others_stay() -> None:
    prediction(unit=UNIT)
    prediction(unit=hashed(UNIT, record_rules().hmac_key))
    others = [prediction(unit="patient-4712"), prediction()]
    done = erase()
    assert set(Prediction.objects.all()) == set(others)
    assert done.counts["predictions"] == 2


def test_a_purge_that_takes_a_step_of_rows_first_does_not_end_an_erasure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(erasure, "STEP_ROWS", 1)
    prediction(unit=UNIT)
    prediction(unit=UNIT)
    taken: list[str] = []

    def purge_was_quicker(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith('DELETE FROM "inference_prediction" ') and not taken:
            taken.append(sql)
            execute(sql, *rest)
        return execute(sql, *rest)

    with connection.execute_wrapper(purge_was_quicker):
        done = erase()
    assert taken
    assert not Prediction.objects.exists()
    assert done.counts["predictions"] == 1


def test_a_unit_hashed_under_a_former_secret_is_found(settings: Any) -> None:
    former = digests_of(UNIT)[0]
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "n" * 50
    assert digests_of(UNIT)[0] != former
    prediction(unit=former)
    assert erase().counts["predictions"] == 1


def test_another_teams_and_another_models_rows_are_never_touched() -> None:
    mine = prediction(unit=UNIT, team_id=7, model="wine")
    kept = [prediction(unit=UNIT, team_id=8), prediction(unit=UNIT, team_id=7, model="tea")]
    rejected(team_id=8)
    rejected(team_id=7, model="tea")
    done = erase(team_id=7, model="wine")
    assert not Prediction.objects.filter(pk=mine.pk).exists()
    assert set(Prediction.objects.all()) == set(kept)
    assert done.counts == {"predictions": 1, "refused records": 0}


def test_refused_records_of_the_unit_go_too() -> None:
    rejected()
    rejected(unit=digests_of(UNIT)[0])
    other = rejected(unit="else")
    assert erase().counts["refused records"] == 2
    assert PredictionRejected.objects.get() == other


def test_a_record_that_arrives_late_is_dropped_and_one_from_after_is_kept(tmp_path: Path) -> None:
    done = erase()
    early = done.before - timedelta(minutes=5)
    spooled(
        tmp_path,
        [
            record(ts=early, unit=UNIT),
            record(ts=early, unit=digests_of(UNIT)[0]),
            kept := record(ts=early, unit="else"),
            again := record(ts=done.before + timedelta(seconds=1), unit=UNIT),
        ],
    )
    shipped = ship(tmp_path)
    assert (shipped.rows, shipped.erased, shipped.duplicates) == (2, 2, 0)
    assert {str(one.pk) for one in Prediction.objects.all()} == {kept.id, again.id}
    assert sum(one.count for one in PredictionMinute.objects.all()) == 2


def test_a_late_record_of_another_team_is_kept(tmp_path: Path) -> None:
    done = erase(team_id=7)
    spooled(tmp_path, [record(ts=done.before - timedelta(minutes=1), unit=UNIT, team_id=8)])
    assert ship(tmp_path).rows == 1


def test_a_late_record_that_the_database_would_refuse_is_not_put_aside(tmp_path: Path) -> None:
    done = erase()
    early = done.before - timedelta(minutes=1)
    spooled(tmp_path, [record(ts=early, unit=UNIT, rows="three")])
    assert ship(tmp_path).erased == 1
    assert not PredictionRejected.objects.exists()


def test_a_late_record_without_a_time_is_not_put_aside(tmp_path: Path) -> None:
    erase()
    spooled(tmp_path, [record(unit=UNIT, ts_ms=None), record(unit="else", ts_ms=None)])
    shipped = ship(tmp_path)
    assert (shipped.erased, shipped.rejected) == (1, 1)


def test_copies_of_damaged_segments_from_before_an_erasure_go(tmp_path: Path) -> None:
    copy = tmp_path / "damaged" / "w-00000001.sealed"
    copy.parent.mkdir()
    copy.write_bytes(b"torn")
    ship(tmp_path)
    assert copy.exists()
    erase()
    ship(tmp_path)
    assert not copy.exists()


def test_an_erasure_that_died_goes_on_and_counts_each_row_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(erasure, "STEP_ROWS", 2)
    for _ in range(5):
        prediction(unit=UNIT)
    asked = erasure.ask_erasure(UNIT, team_id=None, reason="asked", actor=OPERATOR)
    erasure._step(asked.pk)
    erasure._step(asked.pk)
    assert Prediction.objects.count() == 1
    tasks.erase_unit(erasure_id=asked.pk)
    assert run_once(Work.objects.get(name=erasure.ERASE).pk), "as a worker that comes later"
    asked.refresh_from_db()
    assert asked.counts == {"predictions": 5, "refused records": 0}
    erasure.erase(asked.pk)
    assert Event.objects.filter(verb="privacy.erased").count() == 1


def test_nothing_names_the_unit_when_the_erasure_is_over() -> None:
    prediction(unit=UNIT)
    done = erase()
    assert done.finished is not None
    everything = [
        *Event.objects.values(), *Work.objects.values(), *Erasure.objects.values(),
    ]  # fmt: skip
    assert UNIT not in repr(everything)
    event = Event.objects.get(verb="privacy.erased")
    assert event.facts["counts"] == {"predictions": 1, "refused records": 0}
    assert event.target_name == f"unit {digests_of(UNIT)[0][:17]}"
    assert event.reason == "she asked for it"


def test_the_unit_is_in_no_works_arguments_while_it_waits() -> None:
    erasure.ask_erasure(UNIT, team_id=None, reason="asked", actor=OPERATOR)
    assert UNIT not in repr([*Work.objects.values(), *Event.objects.values()])


@pytest.mark.parametrize(
    ("unit", "reason"), [("", "x"), ("u" * 201, "x"), ("a\x00b", "x"), ("u", " ")]
)
def test_an_erasure_wants_a_unit_and_a_reason(unit: str, reason: str) -> None:
    with pytest.raises(Invalid):
        erase(unit, reason=reason)
    assert not Erasure.objects.exists()


def test_a_kind_of_record_that_another_app_plugs_in_is_erased_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = [3]

    def remove(scope: erasure.Scope) -> erasure.Found:
        assert UNIT in scope.recorded
        return erasure.Found(left.pop()) if left else erasure.Found()

    monkeypatch.setattr(erasure, "_ERASERS", dict(erasure._ERASERS))
    erasure.plug_in(erasure.Eraser("notes", lambda scope: erasure.Found(3), remove))
    assert erase().counts == {"predictions": 0, "refused records": 0, "notes": 3}


def test_models_whose_unit_cannot_be_found_are_named() -> None:
    team = make_team("blue")
    for name, how in (("wine", "mask"), ("tea", "drop"), ("soup", "hash")):
        model = make_model(name, team=team)
        type(model).objects.filter(pk=model.pk).update(redact={"unit": how})
    assert erasure.unfindable(team_id=team.pk) == ["tea", "wine"]
    assert erasure.unfindable(team_id=team.pk, model="soup") == []


def test_the_command_counts_first_and_erases_then(capsys: pytest.CaptureFixture[str]) -> None:
    prediction(unit=UNIT)
    call_command("erase_unit", "--unit", UNIT, "--dry-run")
    assert "1 would go" in capsys.readouterr().out
    assert Prediction.objects.count() == 1
    assert not Erasure.objects.exists()
    call_command("erase_unit", "--unit", UNIT)
    assert "1 removed" in capsys.readouterr().out
    assert not Prediction.objects.exists()


def test_the_command_refuses_a_team_that_is_not_there() -> None:
    with pytest.raises(CommandError, match="no team"):
        call_command("erase_unit", "--unit", UNIT, "--team", "nobodys")


def test_a_search_by_unit_reads_the_index_and_not_the_record() -> None:
    scope = erasure.Scope((UNIT, *digests_of(UNIT)), None, "", timezone.now())
    if connection.vendor == "postgresql":  # a small table is always scanned, unless that is dear
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
    plan = erasure._predictions(scope).explain()
    assert "unit" in plan.lower()
    assert "prediction_of_unit" in plan or "_unit_ts_idx" in plan


@pytest.mark.skipif(connection.vendor != "postgresql", reason="one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_an_erasure_begins_only_when_no_writer_is_half_way() -> None:
    other = connection.copy()
    try:
        with other.cursor() as writer, connection.cursor() as cursor:
            writer.execute("BEGIN")
            writer.execute("SELECT pg_advisory_xact_lock_shared(%s)", [erased._ADVISORY_LOCK])
            cursor.execute("SET lock_timeout = '100ms'")
            with pytest.raises(OperationalError):
                erasure.ask_erasure(UNIT, team_id=None, reason="asked", actor=OPERATOR)
            assert not Erasure.objects.exists()
            writer.execute("ROLLBACK")
            cursor.execute("SET lock_timeout = DEFAULT")
    finally:
        other.close()
    erasure.ask_erasure(UNIT, team_id=None, reason="asked", actor=OPERATOR)
    assert Erasure.objects.exists()

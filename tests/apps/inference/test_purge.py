"""Retention: exactly what is past it goes, in steps that may be interrupted, with evidence."""

from datetime import datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from apps.core.errors import Invalid
from apps.core.events import Actor
from apps.core.models import Event
from apps.inference import partitions, tasks
from apps.inference.models import KeyHour, Prediction, PredictionMinute, PredictionRejected
from apps.inference.services import purge as services
from apps.inference.services.purge import PurgeReport, purge_predictions
from tests.factories.inference import prediction

pytestmark = pytest.mark.django_db
OPERATOR = Actor.operator()


def days_ago(days: float, hours: float = 0) -> datetime:
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=days) + timedelta(hours=hours)


def purge(*, keep_days: int = 90, dry_run: bool = False) -> PurgeReport:
    return purge_predictions(keep_days=keep_days, dry_run=dry_run, actor=OPERATOR)


def test_a_day_stays_until_all_of_it_is_past_retention() -> None:
    kept = [prediction(ts=days_ago(90)), prediction(ts=days_ago(0, 1))]
    prediction(ts=days_ago(90) - timedelta(milliseconds=1))
    report = purge()
    assert (report.days, report.rows, report.days_left) == (1, 1, 0)
    assert set(Prediction.objects.all()) == set(kept)


def test_a_dry_run_counts_the_same_and_changes_nothing() -> None:
    for day in (91, 91, 95):
        prediction(ts=days_ago(day, 5))
    told = purge(dry_run=True)
    assert Prediction.objects.count() == 3
    assert not Event.objects.exists()
    assert told.rows == 3
    assert purge() == told


def test_a_purge_leaves_one_event_for_each_step_with_its_counts() -> None:
    for day in (91, 91, 95):
        prediction(ts=days_ago(day, 5))
    report = purge()
    events = Event.objects.order_by("id")
    assert [(one.verb, one.target_id) for one in events] == [
        ("predictions.purged", days_ago(95).date().isoformat()),
        ("predictions.purged", days_ago(91).date().isoformat()),
    ]
    assert [one.facts["rows"] for one in events] == [1, 2]
    assert sum(one.facts["bytes"] for one in events) == report.bytes > 0
    assert events[0].actor_kind == "operator"


def test_rows_go_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "STEP_ROWS", 3)
    for _ in range(7):
        prediction(ts=days_ago(100, 2))
    assert purge().rows == 7
    assert [one.facts["rows"] for one in Event.objects.order_by("id")] == [3, 3, 1]


def test_a_purge_that_died_is_finished_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "STEP_ROWS", 3)
    for _ in range(7):
        prediction(ts=days_ago(100, 2))
    steps = iter([services._purge_some, services._purge_some])

    def dying(rows: object) -> object:
        return next(steps)(rows)  # type: ignore[arg-type]

    with monkeypatch.context() as dies:
        dies.setattr(services, "_purge_some", dying)
        with pytest.raises(RuntimeError):
            purge()
    assert Prediction.objects.count() == 1
    assert purge().rows == 1
    assert sum(one.facts["rows"] for one in Event.objects.all()) == 7


def test_a_second_purge_finds_nothing() -> None:
    prediction(ts=days_ago(100))
    purge()
    assert purge() == PurgeReport()
    assert Event.objects.count() == 1


def test_counts_and_rejected_records_have_their_own_retention() -> None:
    for day, gone in ((401, True), (399, False)):
        at = days_ago(day)
        key = {"model": "m", "version": 1}
        PredictionMinute.objects.create(
            minute=at, environment="production", arm="primary", status="ok", **key
        )
        KeyHour.objects.create(hour=at, key_id=str(gone), **key)
    PredictionRejected.objects.create(sha256="a", payload=b"", error="", at=days_ago(8))
    PredictionRejected.objects.create(sha256="b", payload=b"", error="", at=days_ago(6))
    assert purge(dry_run=True).counts == 2
    report = purge()
    assert (report.counts, report.rejected) == (2, 1)
    assert PredictionMinute.objects.get().minute == days_ago(399)
    assert KeyHour.objects.get().key_id == "False"
    assert PredictionRejected.objects.get().sha256 == "b"


@pytest.mark.parametrize("keep_days", [0, -1])
def test_today_is_never_purged(keep_days: int) -> None:
    prediction()
    with pytest.raises(Invalid, match="at least one day"):
        purge(keep_days=keep_days)
    assert Prediction.objects.count() == 1


def test_the_command_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    prediction(ts=days_ago(50))
    call_command("purge_predictions", "--days", "40", "--dry-run")
    assert "would remove 1 days, 1 predictions" in capsys.readouterr().out
    call_command("purge_predictions", "--days", "40")
    assert "removed 1 days, 1 predictions" in capsys.readouterr().out
    assert not Prediction.objects.exists()


def test_the_command_refuses_to_keep_nothing() -> None:
    with pytest.raises(CommandError, match="at least one day"):
        call_command("purge_predictions", "--days", "0")


# --- partitions -------------------------------------------------------------------------------

on_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="has no partitions")


def day_names() -> list[str]:
    return [one.name for one in partitions.list_partitions()]


@on_postgresql
def test_a_day_that_already_has_rows_in_the_default_partition_takes_them_over() -> None:
    inside = [prediction(ts=days_ago(200)), prediction(ts=days_ago(200, 23.99))]
    outside = [prediction(ts=days_ago(201, 23.99)), prediction(ts=days_ago(199))]
    day = days_ago(200).date()
    assert partitions.make_partition(day)
    assert partitions.count_rows(day) == 2
    assert Prediction.objects.filter(ts__gte=days_ago(250)).count() == 4
    for one in (*inside, *outside):
        assert Prediction.objects.filter(pk=one.pk, ts=one.ts).exists()
    assert not partitions.make_partition(day)


@on_postgresql
def test_a_made_day_has_the_indexes_of_the_record() -> None:
    day = days_ago(-30).date()
    partitions.make_partition(day)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid "
            "WHERE x.indrelid = to_regclass(%s)",
            [partitions.name_of(day)],
        )
        assert cursor.fetchone()[0] == 7


@on_postgresql
def test_the_days_ahead_are_made_once() -> None:
    made = partitions.make_partitions(days_ahead=20)
    assert made[-1] == days_ago(-20).date()
    assert partitions.make_partitions(days_ahead=20) == ()
    days = [one.day for one in partitions.list_partitions() if one.day]
    assert days == sorted(days)
    assert day_names()[-1] == "inference_prediction_default"


@on_postgresql
def test_whole_days_are_dropped_with_their_tables() -> None:
    for day in (120, 119):
        partitions.make_partition(days_ago(day).date())
    for _ in range(3):
        prediction(ts=days_ago(120, 4))
    loose = prediction(ts=days_ago(118, 4))
    told = purge(dry_run=True)
    assert (told.days, told.rows) == (3, 4)
    report = purge()
    assert (report.days, report.rows) == (3, 4)
    assert not {partitions.name_of(days_ago(day).date()) for day in (119, 120)} & set(day_names())
    assert not Prediction.objects.filter(pk=loose.pk).exists()
    rows = {one.target_id: one.facts["rows"] for one in Event.objects.all()}
    assert rows == {
        days_ago(day).date().isoformat(): count for day, count in ((120, 3), (119, 0), (118, 1))
    }


@on_postgresql
def test_a_day_that_was_taken_out_but_not_dropped_is_finished_by_the_next_purge() -> None:
    day = days_ago(120).date()
    partitions.make_partition(day)
    prediction(ts=days_ago(120, 4))
    partitions.detach_partition(day)
    assert Prediction.objects.count() == 0
    assert purge().rows == 1
    assert partitions.name_of(day) not in day_names()


@on_postgresql
def test_the_list_shows_days_with_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("partitions", "--make")
    out = capsys.readouterr().out
    assert f"{timezone.now().date().isoformat()} " in out
    assert "all others" in out


@pytest.mark.skipif(connection.vendor == "postgresql", reason="has partitions")
def test_a_database_without_partitions_answers_the_same_calls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    today = timezone.now().date()
    assert partitions.make_partitions(days_ahead=3) == ()
    assert partitions.make_partition(today) is False
    assert partitions.list_partitions() == ()
    assert partitions.drop_detached(today) is None
    partitions.detach_partition(today)
    tasks.tick_make_partitions()
    call_command("partitions")
    assert "one table" in capsys.readouterr().out


@on_postgresql
@pytest.mark.django_db(transaction=True)
def test_a_day_in_use_is_left_for_the_next_run_and_does_not_stop_the_others() -> None:
    busy, free = days_ago(120).date(), days_ago(119).date()
    for day in (busy, free):
        partitions.make_partition(day)
    prediction(ts=days_ago(120, 4))
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f'LOCK TABLE "{partitions.name_of(busy)}" IN ACCESS SHARE MODE')
            report = purge()
            assert (report.days, report.days_left) == (1, 1)
            with pytest.raises(CommandError, match="in use"):
                call_command("purge_predictions")
            cursor.execute("ROLLBACK")
    finally:
        other.close()
    assert Prediction.objects.count() == 1
    assert purge().rows == 1
    assert partitions.name_of(free) not in day_names()

"""Reads: own teams only, page by page without a count, and counts that add up."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.accounts.callers import Caller
from apps.accounts.snapshot import KeyBody, Role
from apps.core import ids
from apps.core.errors import Invalid, NotFound
from apps.inference import journal_db, selectors
from apps.inference.models import KeyHour, PredictionMinute
from apps.inference.selectors import Wanted, rollups_equal_scan
from tests.factories.inference import prediction, record, spooled

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)
EVER = Wanted(start=NOON - timedelta(days=365), end=NOON + timedelta(days=365))


def person(*teams: int, is_admin: bool = False) -> Caller:
    return Caller(
        user_id=1,
        username="ann",
        is_admin=is_admin,
        roles=dict.fromkeys(teams, Role.VIEWER),
        permissions=frozenset(),
    )


def program(team: int, **given: Any) -> Caller:
    key = KeyBody(
        id="k",
        sha256="",
        team_id=team,
        owner_id=1,
        scopes=("logs:read",),
        models=(),
        environments=("production",),
        expires=None,
    )
    return replace(person(team), key=replace(key, **given))


def found(caller: Caller, wanted: Wanted = EVER) -> set[UUID]:
    return {one.pk for one in selectors.predictions(wanted, caller=caller)}


def test_only_predictions_of_the_readers_teams_are_there() -> None:
    ours, theirs = prediction(ts=NOON, team_id=1), prediction(ts=NOON, team_id=2)
    assert found(person(1)) == {ours.id}
    assert found(person(1, 2)) == found(person(is_admin=True)) == {ours.id, theirs.id}
    assert found(person()) == set()
    assert selectors.prediction(str(ours.id), caller=person(1)).model == "wine"
    with pytest.raises(NotFound):
        selectors.prediction(str(theirs.id), caller=person(1))


def test_a_key_reads_no_more_than_it_may() -> None:
    wine = prediction(ts=NOON, model="wine")
    prediction(ts=NOON, model="churn")
    prediction(ts=NOON, model="wine", environment="staging")
    prediction(ts=NOON, model="wine", team_id=2)
    assert found(program(1, models=("wine",))) == {wine.id}
    assert found(program(1, scopes=("predict",))) == set()
    assert found(replace(program(2, scopes=("predict",)), is_admin=True)) == set()


@pytest.mark.parametrize(
    ("narrowed", "expected"),
    [
        ({"model": "b"}, {"b1", "b2"}),
        ({"model": "b", "version": 2}, {"b2"}),
        ({"environment": "staging"}, {"staging"}),
        ({"key_id": "k9"}, {"k9"}),
        ({"status": "model_failed"}, {"failed"}),
        ({"status": "error"}, {"failed", "late"}),
        ({"start": NOON + timedelta(seconds=1)}, {"later"}),
        ({"end": NOON}, {"earlier"}),
    ],
)
def test_predictions_are_narrowed_by(narrowed: dict[str, Any], expected: set[str]) -> None:
    made = {
        "b1": prediction(ts=NOON, model="b"),
        "b2": prediction(ts=NOON, model="b", version=2),
        "staging": prediction(ts=NOON, environment="staging"),
        "k9": prediction(ts=NOON, key_id="k9"),
        "failed": prediction(ts=NOON, status="model_failed"),
        "late": prediction(ts=NOON, status="deadline"),
        "later": prediction(ts=NOON + timedelta(seconds=1)),
        "earlier": prediction(ts=NOON - timedelta(seconds=1)),
    }
    assert found(person(1), replace(EVER, **narrowed)) == {made[one].id for one in expected}


def test_pages_follow_each_other_without_gap_or_repeat_inside_one_millisecond() -> None:
    made = [prediction(ts=NOON + timedelta(milliseconds=n // 4)) for n in range(11)]
    rows = selectors.predictions(EVER, caller=person(1))
    seen: list[str] = []
    cursor = None
    while True:
        page = selectors.page_of(rows, cursor=cursor, size=3)
        seen += [str(one.pk) for one in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sorted((str(one.id) for one in made), reverse=True)


def test_a_full_last_page_has_no_next() -> None:
    for _ in range(3):
        prediction(ts=NOON)
    rows = selectors.predictions(EVER, caller=person(1))
    assert selectors.page_of(rows, cursor=None, size=3).next_cursor is None


@pytest.mark.parametrize("cursor", ["x", "", "018f0000-0000-4000-8000-000000000000"])
def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    rows = selectors.predictions(EVER, caller=person(1))
    with pytest.raises(Invalid, match="cursor"):
        selectors.page_of(rows, cursor=cursor, size=3)


def test_nothing_is_counted_and_one_query_makes_a_page() -> None:
    prediction(ts=NOON)
    with CaptureQueriesContext(connection) as queries:
        selectors.page_of(selectors.predictions(EVER, caller=person(1)), cursor=None, size=50)
    assert len(queries) == 1
    assert "COUNT" not in queries[0]["sql"]


def plan_of(rows: Any) -> str:
    return str(rows.explain())


@pytest.mark.skipif(connection.vendor != "postgresql", reason="has no partitions")
def test_a_look_up_by_id_reads_one_day_only() -> None:
    one = prediction(ts=timezone.now())
    plan = plan_of(selectors.by_id(selectors.readable_by(person(1)), str(one.id)))
    assert set(re.findall(r"inference_prediction_(\d{8}) ", plan)) == {f"{one.ts:%Y%m%d}"}
    assert "_default" not in plan


@pytest.mark.skipif(connection.vendor != "postgresql", reason="has no partitions")
def test_a_list_bounded_in_time_leaves_other_days_alone() -> None:
    now = timezone.now()
    plan = plan_of(selectors.predictions(Wanted(start=now, end=now), caller=person(1))[:50])
    assert f"inference_prediction_{now + timedelta(days=1):%Y%m%d}" not in plan


@pytest.mark.parametrize("text", ["", "x", "../", "018f0000-0000-4000-8000-000000000000"])
def test_an_unknown_id_is_not_found(text: str) -> None:
    with pytest.raises(NotFound):
        selectors.prediction(text, caller=person(1))


def test_an_id_of_no_possible_time_is_not_found() -> None:
    with pytest.raises(NotFound):
        selectors.prediction(ids.new_id(2**48 - 1), caller=person(1))


# --- counts -----------------------------------------------------------------------------------


def shipped(folder: Path, *records: Any) -> None:
    spooled(folder, records)
    journal_db.ship(folder)


def test_minutes_put_together_say_what_all_calls_say(tmp_path: Path) -> None:
    latencies = [1.0] * 90 + [50.0] * 9 + [400.0]
    shipped(
        tmp_path,
        *(
            record(ts=NOON + timedelta(seconds=n), total_ms=ms, rows=2, cached=n % 2 == 0)
            for n, ms in enumerate(latencies)
        ),
        record(ts=NOON, total_ms=1.0, status="model_failed"),
        record(ts=NOON, model="other", total_ms=9000.0),
    )
    minutes = selectors.minute_counts(
        start=NOON - timedelta(minutes=1), end=NOON + timedelta(minutes=5), model="wine"
    )
    assert [one.minute for one in minutes] == sorted(one.minute for one in minutes)
    traffic = selectors.traffic_of(minutes)
    assert (traffic.count, traffic.rows, traffic.errors, traffic.cache_hits) == (101, 201, 1, 50)
    assert traffic.mean_ms == pytest.approx((sum(latencies) + 1) / 101)
    assert traffic.p50_ms == pytest.approx(1.0, rel=0.091)
    assert traffic.p95_ms == pytest.approx(50.0, rel=0.091)
    assert traffic.p99_ms == pytest.approx(50.0, rel=0.091)


def test_no_traffic_has_no_latency() -> None:
    traffic = selectors.traffic_of(())
    assert (traffic.count, traffic.mean_ms, traffic.p99_ms) == (0, None, None)


def test_minutes_are_narrowed_by_endpoint_and_version(tmp_path: Path) -> None:
    shipped(
        tmp_path,
        record(ts=NOON),
        record(ts=NOON, environment="staging"),
        record(ts=NOON, version=2),
    )
    span: dict[str, Any] = {"start": NOON - timedelta(hours=1), "end": NOON + timedelta(hours=1)}
    assert len(selectors.minute_counts(**span)) == 3
    assert len(selectors.minute_counts(**span, environment="production")) == 2
    assert len(selectors.minute_counts(**span, version=2)) == 1
    assert selectors.minute_counts(start=NOON, end=NOON) == ()


def test_usage_of_a_key_is_there_by_hour(tmp_path: Path) -> None:
    shipped(
        tmp_path,
        record(ts=NOON, key_id="a"),
        record(ts=NOON, key_id="a", status="deadline"),
        record(ts=NOON + timedelta(hours=1), key_id="a"),
        record(ts=NOON, key_id="b"),
    )
    start = NOON.replace(minute=0, second=0)
    usage = selectors.key_usage(start=start, end=start + timedelta(hours=2), key_id="a")
    assert [(one.count, dict(one.errors)) for one in usage] == [(2, {"deadline": 1}), (1, {})]


def test_rollups_that_equal_a_scan_are_said_to(tmp_path: Path) -> None:
    shipped(tmp_path, *(record(ts=NOON + timedelta(seconds=n)) for n in range(0, 7200, 7)))
    check = rollups_equal_scan(NOON, NOON + timedelta(hours=2))
    assert check.equal
    assert check.predictions == 1029


@pytest.mark.parametrize("table", [PredictionMinute, KeyHour])
def test_a_rollup_that_differs_from_its_rows_is_named(tmp_path: Path, table: Any) -> None:
    shipped(tmp_path, record(ts=NOON))
    table.objects.update(rows=2)
    (difference,) = rollups_equal_scan(NOON, NOON + timedelta(seconds=1)).differences
    assert "wine" in difference
    table.objects.all().delete()
    assert not rollups_equal_scan(NOON, NOON + timedelta(seconds=1)).equal


def test_a_row_without_its_count_is_named() -> None:
    prediction(ts=NOON)
    assert rollups_equal_scan(NOON + timedelta(hours=1), NOON + timedelta(hours=2)).equal
    # A minute, an hour of a key; five minutes and an hour, each of a model, a team, and of all.
    assert len(rollups_equal_scan(NOON, NOON + timedelta(seconds=1)).differences) == 2 + 6

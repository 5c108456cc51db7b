"""Traffic from the counts kept beforehand: what it adds up to, and whose it is."""

import importlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.accounts.callers import Caller
from apps.accounts.models import Team, User
from apps.accounts.selectors import caller_of_user
from apps.accounts.snapshot import Role
from apps.core.errors import Invalid, NotFound
from apps.core.events import Actor
from apps.inference import journal_db, traffic, windows
from apps.inference.models import PredictionSpan
from apps.inference.services import purge
from apps.inference.traffic import Scope
from tests.factories.accounts import make_key, make_member, make_team, make_user
from tests.factories.inference import record, spooled
from tests.factories.registry import make_model

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 21, 14, 37, 12, tzinfo=UTC)
ALL = Scope()


@pytest.fixture
def team() -> Team:
    return make_team("blue")


def shipped(folder: Path, *records: Any) -> None:
    spooled(folder, records)
    journal_db.ship(folder)


def caller_of(user: User) -> Caller:
    return caller_of_user(user)


@pytest.mark.parametrize("name", list(windows.RANGES))
def test_steps_add_up_to_the_whole_in_every_range(tmp_path: Path, name: str, team: Team) -> None:
    make_model("wine", team=team)
    window = windows.named(name, now=NOW)
    inside = [window.start, window.start + timedelta(seconds=window.seconds // 2), NOW]
    outside = [window.start - timedelta(seconds=1), window.end]
    shipped(
        tmp_path,
        *(record(ts=at, team_id=team.pk, rows=2, total_ms=4.0) for at in inside),
        *(record(ts=at, team_id=team.pk) for at in outside),
        record(ts=NOW, team_id=team.pk, status="deadline", total_ms=900.0),
    )
    for scope in (ALL, Scope(teams=frozenset({team.pk})), Scope(model="wine")):
        seen = traffic.look(scope, window)
        assert (seen.total.count, seen.total.rows, seen.total.errors) == (4, 7, 1)
        assert sum(one.count for one in seen.steps) == 4
        assert seen.steps[-1].count == 2
        assert {code: sum(counts) for code, counts in seen.codes.items()} == {"deadline": 1}
        assert seen.total.p50_ms == pytest.approx(4.0, rel=0.091)
        assert seen.total.p99_ms == pytest.approx(900.0, rel=0.091)


def test_a_step_without_requests_is_nothing_and_has_no_latency(tmp_path: Path) -> None:
    shipped(tmp_path, record(ts=NOW))
    seen = traffic.look(ALL, windows.named("day", now=NOW))
    assert (seen.steps[0].count, seen.steps[0].p95_ms) == (0, None)
    assert seen.steps[-1].p95_ms is not None


def test_tries_are_no_traffic_in_any_range(tmp_path: Path) -> None:
    shipped(tmp_path, record(ts=NOW, arm="try", source="try"))
    for name in windows.RANGES:
        assert traffic.look(ALL, windows.named(name, now=NOW)).total.count == 0


def test_the_period_before_holds_what_was_just_before(tmp_path: Path) -> None:
    shipped(tmp_path, record(ts=NOW), record(ts=NOW - timedelta(days=1)))
    window = windows.named("day", now=NOW)
    assert traffic.look(ALL, window).total.count == 1
    assert traffic.look(ALL, window.before).total.count == 1


def test_versions_environments_and_models_are_told_apart(tmp_path: Path) -> None:
    shipped(
        tmp_path,
        record(ts=NOW),
        record(ts=NOW, version=2),
        record(ts=NOW, version=2, environment="staging"),
        record(ts=NOW, model="other"),
    )
    for name in ("hour", "week", "quarter"):
        window = windows.named(name, now=NOW)

        def count(window: Any = window, **scope: Any) -> int:
            return traffic.look(Scope(**scope), window).total.count

        assert count() == 4
        assert count(model="wine") == 3
        assert count(model="wine", version=2) == 2
        assert count(model="wine", version=2, environment="staging") == 1
        assert count(environment="staging") == 1
        seen = traffic.look(Scope(model="wine"), window)
        assert {number: sum(counts) for number, counts in seen.versions.items()} == {1: 1, 2: 2}


def test_usage_of_a_key_is_counted_by_the_hour_with_its_errors(tmp_path: Path) -> None:
    shipped(
        tmp_path,
        record(ts=NOW, key_id="k1"),
        record(ts=NOW - timedelta(hours=2), key_id="k1", status="deadline"),
        record(ts=NOW, key_id="k2"),
    )
    window = windows.named("day", now=NOW, least_step=windows.HOUR)
    seen = traffic.look(Scope(key_id="k1"), window)
    assert (len(seen.steps), seen.total.count, seen.total.errors) == (24, 2, 1)
    assert [one.count for one in seen.steps[-3:]] == [1, 0, 1]


def test_models_side_by_side_add_up_exactly_in_every_range(tmp_path: Path, team: Team) -> None:
    for name in ("wine", "iris"):
        make_model(name, team=team)
    ages = [timedelta(minutes=m) for m in (0, 30, 200, 60 * 30, 60 * 24 * 6, 60 * 24 * 80)]
    shipped(
        tmp_path,
        *(record(ts=NOW - age, team_id=team.pk) for age in ages),
        *(record(ts=NOW - age, team_id=team.pk, model="iris", status="x") for age in ages[:2]),
    )
    for name in windows.RANGES:
        window = windows.named(name, now=NOW)
        rows, there = traffic.by_model(Scope(teams=frozenset({team.pk})), window)
        assert there == len(rows) == 2
        assert sum(one.total.count for one in rows) == traffic.look(ALL, window).total.count
        assert all(sum(one.points) == one.total.count for one in rows)
        assert rows[-1].total.errors == (2 if rows[-1].model == "iris" else 0)


def test_only_the_busiest_models_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    shipped(
        tmp_path,
        *(record(ts=NOW, model=f"m{n}") for n in range(4)),
        record(ts=NOW, model="m2"),
    )
    rows, there = traffic.by_model(ALL, windows.named("week", now=NOW), most=2)
    assert ([one.model for one in rows], there) == (["m2", "m0"], 4)


def test_the_number_of_queries_does_not_grow_with_models_and_keys(tmp_path: Path) -> None:
    window = windows.named("month", now=NOW)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            traffic.look(ALL, window)
            traffic.by_model(ALL, window)
            traffic.by_key(ALL, window, [f"k{n}" for n in range(20)])
        return len(captured)

    shipped(tmp_path, record(ts=NOW))
    few = queries()
    shipped(tmp_path, *(record(ts=NOW, model=f"m{n}", key_id=f"k{n}") for n in range(20)))
    assert queries() == few == 5


# --- whose it is --------------------------------------------------------------------------------


def test_a_member_sees_the_traffic_of_the_own_teams_only(tmp_path: Path, team: Team) -> None:
    red = make_team("red")
    make_model("wine", team=team)
    make_model("theirs", team=red)
    shipped(
        tmp_path,
        record(ts=NOW, team_id=team.pk),
        record(ts=NOW, team_id=red.pk, model="theirs"),
    )
    member = caller_of(make_member(team, Role.VIEWER))
    scope = traffic.scope_of(member)
    for name in ("hour", "month"):
        window = windows.named(name, now=NOW)
        assert traffic.look(scope, window).total.count == 1
        assert [one.model for one in traffic.by_model(scope, window)[0]] == ["wine"]
    nobody = traffic.scope_of(caller_of(make_user()))
    assert traffic.look(nobody, windows.named("hour", now=NOW)).total.count == 0
    boss = traffic.scope_of(caller_of(make_user(is_admin=True)))
    assert traffic.look(boss, windows.named("month", now=NOW)).total.count == 2


def test_another_teams_model_key_and_team_are_not_there(team: Team) -> None:
    red = make_team("red")
    make_model("theirs", team=red)
    key, _ = make_key(red, make_member(red, Role.MAINTAINER))
    member = caller_of(make_member(team, Role.MAINTAINER))
    asked: dict[str, Any]
    for asked in ({"model": "theirs"}, {"key_id": key.pk}, {"team_id": red.pk}):
        with pytest.raises(NotFound):
            traffic.scope_of(member, **asked)
    boss = caller_of(make_user(is_admin=True))
    with pytest.raises(NotFound):
        traffic.scope_of(boss, model="none")
    with pytest.raises(NotFound):
        traffic.scope_of(boss, key_id="none")


def test_filters_that_exclude_each_other_say_so(team: Team) -> None:
    owner = make_member(team, Role.MAINTAINER)
    key, _ = make_key(team, owner)
    with pytest.raises(Invalid, match="not by environment"):
        traffic.scope_of(caller_of(owner), key_id=key.pk, environment="production")
    with pytest.raises(Invalid, match="Name the model"):
        traffic.scope_of(caller_of(owner), version=1)


# --- keeping ------------------------------------------------------------------------------------


def test_shipping_a_record_twice_counts_it_once(tmp_path: Path) -> None:
    one = record(ts=NOW)
    shipped(tmp_path, one)
    shipped(tmp_path, one)
    assert traffic.look(ALL, windows.named("quarter", now=NOW)).total.count == 1


def test_a_purge_drops_fine_spans_first_and_coarse_ones_with_the_other_counts(
    tmp_path: Path,
) -> None:
    today = datetime.now(UTC)
    for days in (1, purge.FINE_KEPT_DAYS + 2, purge.ROLLUP_DAYS + 2):
        shipped(tmp_path, record(ts=today - timedelta(days=days)))
    purge.purge_predictions(keep_days=500, dry_run=False, actor=Actor.system())
    kept = PredictionSpan.objects.filter(team_id=0).order_by("seconds")
    assert [one.seconds for one in kept] == [300, 3600, 3600, 21_600, 21_600, 86_400, 86_400]


def test_what_was_counted_before_there_were_spans_is_summed_up_exactly(
    tmp_path: Path, team: Team
) -> None:
    for name in ("wine", "iris"):
        make_model(name, team=team)
    shipped(
        tmp_path,
        *(
            record(
                ts=NOW - timedelta(hours=7 * n),
                team_id=team.pk,
                model="wine" if n % 3 else "iris",
                status="ok" if n % 4 else "deadline",
                arm="primary" if n % 5 else "try",
                total_ms=1.5**n,
            )
            for n in range(20)
        ),
    )

    def spans() -> set[Any]:
        rows = PredictionSpan.objects.all()
        return {
            (*one.key(), one.count, one.latency_us, str(sorted(one.buckets().items())))
            for one in rows
        }

    expected = spans()
    assert expected
    fill = importlib.import_module("apps.inference.migrations.0004_fill_traffic_spans").fill
    for _ in range(2):  # as often as it takes
        PredictionSpan.objects.filter(seconds=300).delete()
        fill(apps, None)
        assert spans() == expected

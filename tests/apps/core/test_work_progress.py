"""How far work has come: told in stages, written sparingly, and found by what it is about."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.db import OperationalError
from django.utils import timezone

from apps.core import work
from apps.core.errors import Conflict, Unavailable
from apps.core.models import Work
from apps.core.work import Progress

pytestmark = pytest.mark.django_db
Run = Callable[..., None]


@pytest.fixture
def kind() -> Iterator[Callable[..., None]]:
    """Declare one kind of work by what it does."""

    def declare(run: Run, **how: Any) -> None:
        work.background("test.progress", **how)(run)

    yield declare
    work._KINDS.pop("test.progress", None)
    current_app.tasks.pop("test.progress", None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the sparing writer believes in."""
    now = [0.0]
    monkeypatch.setattr("apps.core.work.time.monotonic", lambda: now[0])
    return now


def ran() -> Work:
    row = work.enqueue("test.progress")
    work.run_once(row.pk)
    row.refresh_from_db()
    return row


def seen() -> Progress:
    return work.progress_of(Work.objects.get())


def test_work_tells_its_stages_and_how_long_each_took(kind: Any) -> None:
    def run() -> None:
        work.report("Fetching the file")
        work.report("Checking the graph")

    kind(run)
    progress = work.progress_of(ran())
    assert [one.words for one in progress.stages] == ["Fetching the file", "Checking the graph"]
    assert all(one.seconds >= 0 for one in progress.stages)
    assert (progress.state, progress.stage, progress.percent) == ("done", "Checking the graph", 100)


def test_a_stage_lasts_until_the_next_begins_and_the_last_until_the_end() -> None:
    start = timezone.now()
    at = start.timestamp()
    row = work.enqueue("test.none")
    Work.objects.filter(pk=row.pk).update(
        state="done",
        started=start,
        finished=start + timedelta(seconds=10),
        stages=[["One", at], ["Two", at + 4]],
    )
    progress = seen()
    assert [(one.words, round(one.seconds)) for one in progress.stages] == [("One", 4), ("Two", 6)]
    assert round(progress.seconds) == 10


def test_what_is_left_follows_from_what_is_done(kind: Any, clock: list[float]) -> None:
    found: list[Progress] = []

    def run() -> None:
        work.report("Copying rows", 0, 100)
        stages = Work.objects.get().stages or []
        began = stages[0][1] - 30  # half a minute ago
        Work.objects.update(stages=[["Copying rows", began]], done=25)
        found.append(seen())

    kind(run)
    ran()
    assert found[0].percent == 25
    assert found[0].seconds_left == pytest.approx(90, abs=5)


def test_nothing_is_said_of_what_is_left_while_it_cannot_be_known(kind: Any) -> None:
    found: list[Progress] = []

    def run() -> None:
        work.report("Copying rows", 0, 100)
        found.append(seen())
        work.report("Looking")
        found.append(seen())

    kind(run)
    ran()
    assert [(one.percent, one.seconds_left) for one in found] == [(0, None), (None, None)]


def test_reports_within_a_stage_are_written_twice_a_second_at_most(
    kind: Any, clock: list[float], django_assert_num_queries: Any
) -> None:
    def run() -> None:
        work.report("Copying rows", 0, 1000)
        with django_assert_num_queries(0):
            for row in range(500):
                work.report("Copying rows", row, 1000)
        clock[0] += 0.6
        with django_assert_num_queries(1):
            work.report("Copying rows", 700, 1000)
        with django_assert_num_queries(1):
            work.report("Closing the file")

    kind(run)
    assert ran().state == Work.State.DONE


def test_outside_of_work_a_report_does_nothing(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        work.report("Fetching the file")


def test_a_stale_worker_cannot_report_over_the_one_that_took_over(kind: Any) -> None:
    def run() -> None:
        Work.objects.update(token="another", stage="Mine now")
        work.report("Fetching the file")

    kind(run)
    assert ran().stage == "Mine now"


def test_a_try_begins_with_an_empty_log(kind: Any) -> None:
    tries: list[int] = []

    def run() -> None:
        tries.append(len(tries))
        work.report(f"Try {len(tries)}")
        if len(tries) == 1:
            raise ValueError("no")

    kind(run)
    row = ran()
    Work.objects.update(not_before=timezone.now())
    work.run_once(row.pk)
    assert [one.words for one in seen().stages] == ["Try 2"]


def test_a_database_that_fails_a_report_does_not_fail_the_work(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def update(self, **_: Any) -> int:
            raise OperationalError("away")

    class Outside:
        in_atomic_block = False

    def run() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(work, "_mine", lambda _: Broken())
            patch.setattr(work, "connection", Outside())
            work.report("Fetching the file")

    kind(run)
    assert ran().state == Work.State.DONE


def test_thousands_of_stages_do_not_fill_the_row(kind: Any, clock: list[float]) -> None:
    def run() -> None:
        for number in range(300):
            work.report(f"Row {number}")

    kind(run)
    names = [one.words for one in work.progress_of(ran()).stages]
    assert (len(names), names[0], names[-1]) == (work.MOST_STAGES, "Row 0", "Row 299")


def test_an_error_of_ours_is_said_as_it_is(kind: Any) -> None:
    def ours() -> None:
        raise Conflict("Somebody was quicker.")

    kind(ours, attempts=1)
    row = ran()
    assert (row.problem, work.progress_of(row).error) == ("Somebody was quicker.",) * 2


def test_what_a_library_says_stays_with_those_who_run_the_platform(kind: Any) -> None:
    def theirs() -> None:
        raise ValueError("/secret/path")

    kind(theirs, attempts=1)
    row = ran()
    assert row.error == "ValueError: /secret/path"
    assert "/secret" not in row.problem
    assert str(row.pk) in row.problem


def test_work_that_waits_outside_counts_its_tries_and_stops(kind: Any) -> None:
    def run() -> None:
        raise Unavailable("Not now.")

    kind(run, waits=(10.0,))
    row = ran()
    assert (row.state, row.attempts) == (Work.State.QUEUED, 1)
    Work.objects.update(not_before=timezone.now())
    work.run_once(row.pk)
    row.refresh_from_db()
    assert (row.state, row.attempts) == (Work.State.FAILED, 2)


def test_an_error_that_cannot_pass_ends_work_that_waits_outside_at_once(kind: Any) -> None:
    def run() -> None:
        raise Conflict("Never.")

    kind(run, waits=(10.0, 10.0))
    assert ran().state == Work.State.FAILED


def test_the_newest_work_is_found_by_what_it_is_about(django_assert_num_queries: Any) -> None:
    class Meta:
        label_lower = "registry.modelversion"

    class Version:
        _meta, pk = Meta, 7

    thing: Any = Version()
    assert work.newest_of("registry.modelversion", 7) is None
    work.enqueue("test.none", subject=thing)
    newest = work.enqueue("test.none", subject=thing)
    work.enqueue("test.none")
    with django_assert_num_queries(1):
        found = work.newest_of("registry.modelversion", 7)
    assert found is not None
    assert (found.work_id, found.state) == (newest.pk, "queued")


def test_work_that_ended_a_month_ago_is_dropped_and_no_other() -> None:
    old = timezone.now() - timedelta(days=31)
    for state, finished in (
        ("done", old),
        ("failed", old),
        ("done", timezone.now()),
        ("queued", None),
        ("running", None),
    ):
        row = work.enqueue("test.none")
        Work.objects.filter(pk=row.pk).update(state=state, finished=finished, created=old)
    month_ago = timezone.now() - timedelta(days=30)
    assert work.ended_before(month_ago).delete()[0] == 2
    assert set(Work.objects.values_list("state", flat=True)) == {"done", "queued", "running"}

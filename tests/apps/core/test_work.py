"""Background work: the row is the truth, a lease says who runs it, and nothing is lost."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.db import OperationalError
from django.utils import timezone

from apps.core import work
from apps.core.models import Work

pytestmark = pytest.mark.django_db


class Log:
    def __init__(self) -> None:
        self.ran: list[dict[str, int]] = []
        self.given_up: list[str] = []
        self.fail_with: Exception | None = None

    def run(self, **args: int) -> None:
        self.ran.append(args)
        if self.fail_with:
            raise self.fail_with

    def give_up(self, *, reason: str, **_: int) -> None:
        self.given_up.append(reason)


@pytest.fixture
def log() -> Iterator[Log]:
    kept = Log()
    work.background("test.kind", attempts=2, given_up=kept.give_up)(kept.run)
    yield kept
    del work._KINDS["test.kind"]
    current_app.tasks.pop("test.kind", None)  # a second task of this name is a warning


def test_work_runs_once_however_often_it_is_sent(log: Log) -> None:
    row = work.enqueue("test.kind", n=1)
    assert work.run_once(row.pk)
    assert not work.run_once(row.pk)
    row.refresh_from_db()
    assert (log.ran, row.state) == ([{"n": 1}], Work.State.DONE)


def test_failed_work_is_tried_again_then_given_up_with_its_reason(log: Log) -> None:
    log.fail_with = ValueError("no")
    row = work.enqueue("test.kind", n=1)
    work.run_once(row.pk)
    row.refresh_from_db()
    assert (row.state, log.given_up) == (Work.State.QUEUED, [])
    Work.objects.update(not_before=timezone.now())
    work.run_once(row.pk)
    row.refresh_from_db()
    assert row.state == Work.State.FAILED
    assert log.given_up == ["ValueError: no"]


def test_a_lost_lease_is_taken_up_by_the_reaper(log: Log) -> None:
    row = work.enqueue("test.kind", n=1)
    assert work._claim(row.pk) is not None
    assert work.reap() == 0
    Work.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    work.reap()
    row.refresh_from_db()
    assert (row.state, row.attempts) == (Work.State.QUEUED, 1)


def test_a_worker_that_comes_back_while_the_reaper_looks_keeps_its_work(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = work.enqueue("test.kind", n=1)
    assert work._claim(row.pk) is not None
    Work.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    real = work._mine

    def comes_back(lost: Work) -> Any:
        Work.objects.update(lease_until=timezone.now() + work.LEASE)
        return real(lost)

    monkeypatch.setattr(work, "_mine", comes_back)
    work.reap()
    row.refresh_from_db()
    assert (row.state, log.given_up) == (Work.State.RUNNING, [])


def test_work_that_cannot_be_given_up_does_not_hold_up_the_reaper(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(*, n: int, reason: str) -> None:
        if n == 1:
            raise ValueError("no")
        log.give_up(reason=reason)

    kind = replace(work._KINDS["test.kind"], attempts=1, given_up=give_up)
    monkeypatch.setitem(work._KINDS, "test.kind", kind)
    for number in (1, 2):
        assert work._claim(work.enqueue("test.kind", n=number).pk) is not None
    Work.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    work.reap()
    assert log.given_up == [work.LOST]


def test_work_whose_lease_was_lost_too_often_is_given_up(log: Log) -> None:
    row = work.enqueue("test.kind", n=1)
    for _ in range(2):
        Work.objects.update(not_before=timezone.now())
        assert work._claim(row.pk) is not None
        Work.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        work.reap()
    row.refresh_from_db()
    assert row.state == Work.State.FAILED
    assert log.given_up == ["The worker died while it ran this."]


def test_a_stale_worker_cannot_finish_what_another_took_over(log: Log) -> None:
    row = work.enqueue("test.kind", n=1)
    stale = work._claim(row.pk)
    assert stale is not None
    Work.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    work.reap()
    Work.objects.update(not_before=timezone.now())
    assert work._claim(row.pk) is not None
    assert work._mine(stale).update(state=Work.State.DONE) == 0


def test_unsent_work_is_sent_by_the_reaper(log: Log) -> None:
    Work.objects.create(name="test.kind", args={}, not_before=timezone.now())
    assert work.reap() == 1
    assert work.reap() == 0


def test_a_broker_that_fails_after_the_commit_does_not_undo_what_was_committed(
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    class Away:
        def send_task(self, *_: object, **__: object) -> None:
            raise RuntimeError("a client's own kind of error")

    monkeypatch.setattr("apps.core.work.current_app", Away())
    with django_capture_on_commit_callbacks(execute=True):
        row = work.enqueue("test.kind", n=1)
    assert work.run_once(row.pk)


def test_a_database_that_does_not_answer_for_a_while_costs_no_try(log: Log) -> None:
    log.fail_with = OperationalError("the server closed the connection")
    row = work.enqueue("test.kind", n=1)
    for _ in range(5):
        Work.objects.update(not_before=timezone.now())
        work.run_once(row.pk)
    row.refresh_from_db()
    assert (row.state, row.attempts, log.given_up) == (Work.State.QUEUED, 0, [])

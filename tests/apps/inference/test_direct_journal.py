"""The record of a process without a spool: written before the answer is shown, whatever happens."""

import threading
from collections.abc import Sequence
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.inference.journal_db import direct, tables
from apps.inference.journal_db.direct import DirectJournal
from apps.inference.journal_db.rows import Row
from apps.inference.journal_db.shipper import LogUnavailable, Shipped
from apps.inference.models import Prediction, PredictionRejected
from apps.registry.snapshot import FullSpool
from tests.factories.inference import record

pytestmark = pytest.mark.django_db
REQUIRED = FullSpool.REQUIRED


def test_a_record_that_the_database_refuses_does_not_stop_those_behind_it() -> None:
    journal = DirectJournal()
    journal.note(record(user_id=2**63), policy=REQUIRED)
    journal.note(record(), policy=REQUIRED)
    journal.write_down()
    assert (Prediction.objects.count(), PredictionRejected.objects.count()) == (1, 1)
    journal.note(record(), policy=REQUIRED)
    journal.write_down()
    assert Prediction.objects.count() == 2


def test_what_could_not_be_written_waits_and_is_written_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = DirectJournal()
    journal.note(record(ts=timezone.now() - timedelta(seconds=1)), policy=REQUIRED)

    def away(payloads: Sequence[bytes]) -> Shipped:
        raise LogUnavailable("The database is away.")

    with monkeypatch.context() as broken:
        broken.setattr(direct, "ship_batch", away)
        with pytest.raises(LogUnavailable, match="so it is not shown"):
            journal.write_down()
    assert Prediction.objects.count() == 0
    journal.note(record(), policy=REQUIRED)
    journal.write_down()
    assert Prediction.objects.count() == 2


def test_nobody_is_answered_while_another_still_writes_their_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = DirectJournal()
    writing, go_on, answered = threading.Event(), threading.Event(), threading.Event()

    def slowly(rows: Sequence[Row], *_: object) -> tables.Written:
        writing.set()
        assert go_on.wait(30)
        return tables.Written(len(rows), 0)

    monkeypatch.setattr(tables, "write", slowly)
    journal.note(record(), policy=REQUIRED)
    journal.note(record(), policy=REQUIRED)
    first = threading.Thread(target=journal.write_down)
    first.start()
    assert writing.wait(30)

    def second() -> None:
        journal.write_down()
        answered.set()

    other = threading.Thread(target=second)
    other.start()
    assert not answered.wait(0.2), "the first one took both records and has not written them yet"
    go_on.set()
    first.join(30)
    other.join(30)
    assert answered.is_set()

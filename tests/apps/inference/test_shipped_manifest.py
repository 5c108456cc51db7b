"""What was shipped is evidence: rows that somebody removes later are missed."""

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from apps.core.models import Event
from apps.inference import journal_db
from apps.inference.journal_db import manifest
from apps.inference.models import Prediction
from tests.factories.inference import record, spooled

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_noted_before() -> None:
    manifest._tally.sums.clear()


def shipped(folder: Path, count: int) -> None:
    spooled(folder, [record() for _ in range(count)])
    journal_db.ship(folder)


def test_many_segments_make_one_event(tmp_path: Path) -> None:
    for _ in range(4):
        shipped(tmp_path, 3)
    assert not Event.objects.exists()
    journal_db.write_manifest()
    event = Event.objects.get(verb="predictions.shipped")
    assert event.facts["rows"] == 12
    assert [one["rows"] for one in event.facts["writers"]] == [3, 3, 3, 3]
    journal_db.write_manifest()
    assert Event.objects.count() == 1


def test_the_event_is_written_when_its_time_has_come(tmp_path: Path, settings: Settings) -> None:
    settings.SHIPPED_EVENT_SECONDS = 0
    shipped(tmp_path, 2)
    assert Event.objects.get().facts["rows"] == 2


def test_the_digest_is_that_of_the_files(tmp_path: Path) -> None:
    spooled(tmp_path, [record()])
    (file,) = tmp_path.iterdir()
    import hashlib

    expected = hashlib.sha256(hashlib.sha256(file.read_bytes()).digest()).hexdigest()
    journal_db.ship(tmp_path)
    journal_db.write_manifest()
    assert Event.objects.get().facts["writers"][0]["sha256"] == expected


def test_a_row_that_is_gone_is_missed(tmp_path: Path) -> None:
    shipped(tmp_path, 5)
    journal_db.write_manifest()
    call_command("verify_predictions")
    row = Prediction.objects.get(seq=3)
    Prediction.objects.filter(pk=row.pk).delete()
    checked, missing = manifest.verify()
    assert checked == 1
    assert [(one.writer, one.shipped, one.there) for one in missing] == [(row.writer, 5, 4)]
    with pytest.raises(CommandError, match="Rows are missing in 1 of 1"):
        call_command("verify_predictions")


def test_a_segment_that_is_shipped_twice_counts_its_rows_all_the_same(tmp_path: Path) -> None:
    """A shipper that died between its commit and the end of the file."""
    spooled(tmp_path, [record(), record()])
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    journal_db.ship(tmp_path)
    manifest._tally.sums.clear()
    file.write_bytes(content)
    assert journal_db.ship(tmp_path).duplicates == 2
    journal_db.write_manifest()
    assert Event.objects.get().facts["rows"] == 2
    assert manifest.verify() == (1, ())

"""The shipped record tells a key where it was last used, once, and keeps no address itself."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apps.accounts.models import ApiKey, KeyAddress
from apps.accounts.snapshot import Role
from apps.inference import journal_db
from apps.inference.engine.journal import PredictionRecord
from apps.inference.engine.spool import SEALED, frame, frames, sealed_segments
from apps.inference.models import Prediction
from tests.factories.accounts import make_key, make_member, make_team
from tests.factories.inference import record, spooled

pytestmark = pytest.mark.django_db(transaction=True)
NOON = datetime(2026, 5, 4, 12, 0, 30, tzinfo=UTC)


@pytest.fixture
def key() -> ApiKey:
    team = make_team("blue")
    return make_key(team, make_member(team, Role.MAINTAINER))[0]


def called(key: ApiKey, *, minutes: int = 0, address: str | None = "192.0.2.7") -> PredictionRecord:
    at = NOON + timedelta(minutes=minutes)
    return record(ts=at, key_id=key.pk, address=address, agent="python-httpx/0.28")


def test_a_shipped_call_tells_its_key_when_and_from_where(key: ApiKey, tmp_path: Path) -> None:
    spooled(tmp_path, [called(key, minutes=2), called(key), record(ts=NOON, key_id=None)])
    journal_db.ship(tmp_path)
    key.refresh_from_db()
    assert key.last_used_at == datetime(2026, 5, 4, 12, 2, tzinfo=UTC)
    assert (key.last_used_address, key.last_used_agent) == ("192.0.2.7", "python-httpx/0.28")
    seen = KeyAddress.objects.get()
    assert (seen.address, seen.calls) == ("192.0.2.7", 2)


def test_what_is_shipped_twice_counts_once(key: ApiKey, tmp_path: Path) -> None:
    records = [called(key), called(key, minutes=1)]
    for name in ("one", "two"):
        spooled(tmp_path / name, records)
        journal_db.ship(tmp_path / name)
    assert Prediction.objects.count() == 2
    assert KeyAddress.objects.get().calls == 2


def test_the_prediction_itself_holds_no_address(key: ApiKey, tmp_path: Path) -> None:
    spooled(tmp_path, [called(key, address="203.0.113.99")])
    journal_db.ship(tmp_path)
    assert "203.0.113.99" not in repr(Prediction.objects.values().get())


def test_a_record_of_an_older_writer_still_ships(key: ApiKey, tmp_path: Path) -> None:
    spooled(tmp_path, [called(key)])
    (segment,) = sealed_segments(tmp_path)
    (payload,) = frames(segment.path.read_bytes())
    fields = json.loads(payload)
    del fields["address"], fields["agent"]
    (tmp_path / f"older-00000001{SEALED}").write_bytes(frame(json.dumps(fields).encode()))
    segment.remove()
    shipped = journal_db.ship(tmp_path)
    assert (shipped.rows, shipped.rejected) == (1, 0)
    key.refresh_from_db()
    assert key.last_used_at is not None
    assert key.last_used_address == ""
    assert not KeyAddress.objects.exists()


def test_an_odd_address_does_not_stop_its_record(key: ApiKey, tmp_path: Path) -> None:
    spooled(tmp_path, [called(key)])
    (segment,) = sealed_segments(tmp_path)
    (payload,) = frames(segment.path.read_bytes())
    fields = json.loads(payload) | {"address": {"a": 1}, "agent": "\u0001" + "x" * 5000}
    (tmp_path / f"odd-00000001{SEALED}").write_bytes(frame(json.dumps(fields).encode()))
    segment.remove()
    assert journal_db.ship(tmp_path).rows == 1
    assert not KeyAddress.objects.exists()

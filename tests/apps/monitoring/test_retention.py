"""The purge of all kinds: each by its own time, together with one report."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from botocore.exceptions import ClientError
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from apps.accounts.models import ApiKey, Invitation, KeyAddress, RefreshToken
from apps.core import chain, events
from apps.core.events import Actor
from apps.core.models import Event, Work
from apps.core.retention import Kept, Removed
from apps.core.work import run_once
from apps.inference.models import Erasure, Prediction, PredictionRejected
from apps.monitoring import tasks
from apps.monitoring.models import Notification
from apps.monitoring.services import retention
from tests.factories.accounts import make_key, make_team, make_user
from tests.factories.inference import prediction

pytestmark = pytest.mark.django_db
OPERATOR = Actor.operator()


@pytest.fixture(autouse=True)
def _own_folders(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR, settings.SPOOL_DIR = tmp_path / "data", tmp_path / "spool"


def purge(*kinds: str, dry_run: bool = False) -> dict[str, int]:
    lines = retention.purge(kinds, dry_run=dry_run, actor=OPERATOR)
    return {one.name: one.removed.rows for one in lines}


def one_of_each(age: timedelta) -> None:
    """Make one row of each kind that ended, or was last seen, so long ago."""
    then = timezone.now() - age
    user, team = make_user(), make_team()
    key, _ = make_key(team, user)
    prediction(ts=then)
    PredictionRejected.objects.create(sha256="a", payload=b"", error="", at=then)
    Erasure.objects.create(before=then, finished=then, actor_kind="operator", actor_name="x")
    KeyAddress.objects.create(key=key, address="192.0.2.7", first=then, last=then)
    Invitation.objects.create(sha256="a", email="a@example.org", invited_by="x", expires=then)
    RefreshToken.objects.create(
        id="t", family="f", user=user, expires=then, access_id="a", access_expires=then
    )
    Session.objects.create(session_key="s", session_data="", expire_date=then)
    Work.objects.create(name="test.none", args={}, state="done", finished=then, not_before=then)
    Notification.objects.create(
        person=user, event_id=1, kind="x", title="x", body="", url="", created=then
    )


KEPT_ROWS: dict[str, Any] = {
    "predictions": Prediction,
    "rejected": PredictionRejected,
    "erasures": Erasure,
    "addresses": KeyAddress,
    "invitations": Invitation,
    "tokens": RefreshToken,
    "sessions": Session,
    "work": Work,
    "notifications": Notification,
}


def test_what_is_past_its_time_goes_and_is_counted_by_kind() -> None:
    one_of_each(timedelta(days=500))
    done = purge()
    assert {name: done[name] for name in KEPT_ROWS} == dict.fromkeys(KEPT_ROWS, 1)
    assert {name for name, table in KEPT_ROWS.items() if table.objects.exists()} == set()


def test_what_is_young_stays() -> None:
    one_of_each(timedelta(days=-1))
    assert set(purge().values()) == {0}
    assert all(table.objects.exists() for table in KEPT_ROWS.values())


def test_a_dry_run_counts_the_same_and_changes_nothing() -> None:
    one_of_each(timedelta(days=500))
    told = purge(dry_run=True)
    assert all(table.objects.exists() for table in KEPT_ROWS.values())
    assert not Event.objects.filter(verb="purge.done").exists()
    assert purge() == told


def test_a_key_that_nobody_uses_any_more_forgets_from_where_it_was() -> None:
    now, team, user = timezone.now(), make_team(), make_user()
    used: list[ApiKey] = []
    for days in (91, 89):
        key, _ = make_key(team, user)
        key.last_used_at = now - timedelta(days=days)
        key.last_used_address, key.last_used_agent = "192.0.2.7", "curl of ada"
        key.save()
        used.append(key)
    purge("addresses", dry_run=True)
    assert ApiKey.objects.filter(last_used_address="192.0.2.7").count() == 2
    purge("addresses")
    told = [ApiKey.objects.get(pk=one.pk) for one in used]
    assert [(one.last_used_address, one.last_used_agent) for one in told] == [
        ("", ""),
        ("192.0.2.7", "curl of ada"),
    ]
    assert told[0].last_used_at == used[0].last_used_at


def test_one_kind_alone_leaves_the_others() -> None:
    one_of_each(timedelta(days=500))
    assert purge("work") == {"work": 1}
    assert Notification.objects.exists()


def test_files_of_uploads_and_damaged_segments_go_by_their_age(settings: Any) -> None:
    old = time.time() - 8 * 86_400
    for folder, name in (
        (settings.DATA_DIR / "receiving", "u"),
        (settings.SPOOL_DIR / "damaged", "d"),
    ):
        folder.mkdir(parents=True)
        for age, time_of in (("old", old), ("young", time.time())):
            (folder / f"{name}-{age}").write_bytes(b"12345")
            os.utime(folder / f"{name}-{age}", (time_of, time_of))
    lines = {one.name: one.removed for one in retention.purge(dry_run=False, actor=OPERATOR)}
    assert (lines["uploads"].rows, lines["uploads"].bytes) == (1, 5)
    assert (lines["damaged"].rows, lines["damaged"].bytes) == (1, 5)
    left = [
        *(settings.DATA_DIR / "receiving").iterdir(),
        *(settings.SPOOL_DIR / "damaged").iterdir(),
    ]
    assert sorted(one.name for one in left) == ["d-young", "u-young"]


def test_a_purge_leaves_one_event_with_its_counts() -> None:
    prediction(ts=timezone.now() - timedelta(days=200))
    purge()
    event = Event.objects.get(verb="purge.done")
    assert event.facts["rows"]["predictions"] == 1
    assert event.actor_kind == "operator"


def test_old_events_go_with_a_tombstone_and_the_chain_holds() -> None:
    with time_machine.travel(timezone.now() - timedelta(days=400), tick=False):
        make_team("old")
    make_team("young")
    events.seal_everything()
    old = Event.objects.filter(at__lt=timezone.now() - timedelta(days=365)).count()
    assert old > 0
    assert purge("audit", dry_run=True) == {"audit": old}
    assert purge("audit") == {"audit": old}
    events.seal_everything()
    assert chain.verify_chain().first_break is None


@pytest.mark.parametrize("error", [OperationalError("gone"), ClientError({}, "ListObjectsV2")])
def test_a_kind_that_fails_is_named_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(days: int, dry_run: bool, actor: Actor) -> Removed:
        raise error

    broken = Kept("broken", lambda: 1, fails)
    monkeypatch.setattr(retention, "KINDS", (broken, *retention.KINDS))
    Work.objects.create(
        name="test.none",
        args={},
        state="done",
        finished=timezone.now() - timedelta(days=40),
        not_before=timezone.now(),
    )
    with pytest.raises(CommandError, match="broken"):
        call_command("purge")
    assert not Work.objects.exists()


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    prediction(ts=timezone.now() - timedelta(days=200))
    call_command("purge", "--kind", "predictions", "--kind", "work", "--dry-run")
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["kind", "older", "than", "would", "remove", "bytes"]
    assert first.split()[:4] == ["predictions", "90", "days", "1"]
    assert second.split() == ["work", "30", "days", "0"]


def test_the_command_refuses_a_kind_that_is_not_there() -> None:
    with pytest.raises(CommandError, match="no kind `socks`"):
        call_command("purge", "--kind", "socks")


def test_the_daily_tick_asks_for_work_that_purges() -> None:
    prediction(ts=timezone.now() - timedelta(days=200))
    tasks.tick_purge()
    assert Prediction.objects.exists()
    assert run_once(Work.objects.get(name="monitoring.purge").pk)
    assert not Prediction.objects.exists()

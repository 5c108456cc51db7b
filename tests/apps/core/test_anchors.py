"""Anchors: whoever can write database and disk rewrites the tail, and is named all the same."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from django.core.management import CommandError, call_command
from django.utils import timezone
from moto.server import ThreadedMotoServer
from pytest_django import Settings

from apps.core import anchors, chain, events, tasks, write_once
from apps.core.anchors import AnchorUnavailable
from apps.core.errors import Conflict
from apps.core.events import GENESIS
from apps.core.models import AuditAnchor, AuditPurge, Event, EventSeal
from apps.core.selectors import chain_status
from tests.apps.core.test_chain import SYSTEM, YEAR, broken, rewrite, write

pytestmark = pytest.mark.django_db
BUCKET = "evidence"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, settings: Settings) -> Any:
    client = boto3.client(
        "s3", endpoint_url=server, region_name="us-east-1",
        aws_access_key_id="auditor", aws_secret_access_key="theirs",
    )  # fmt: skip
    client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    settings.AUDIT_ANCHOR = f"s3://{BUCKET}/head"
    settings.AUDIT_ANCHOR_KEY_ID, settings.AUDIT_ANCHOR_SECRET = "auditor", "theirs"
    settings.AUDIT_ANCHOR_ENDPOINT_URL = server
    settings.AUDIT_ANCHOR_REGION = "us-east-1"
    yield client
    boto3.client("s3", endpoint_url=server)  # the next test begins with an empty server
    import requests

    requests.post(f"{server}/moto-api/reset", timeout=10)


def key(number: int) -> str:
    return f"head/{number:010d}.json"


def body(client: Any, number: int) -> dict[str, Any]:
    found = client.get_object(Bucket=BUCKET, Key=key(number))["Body"].read()
    return dict(json.loads(found))


# -- writing --------------------------------------------------------------------------------------


def test_the_head_is_written_down_and_locked(bucket: Any, settings: Settings) -> None:
    write(5)
    tasks.tick_anchor_audit()
    found = body(bucket, 1)
    assert (found["seq"], found["hash"], found["count"]) == (5, events.head()[1], 5)
    head = bucket.head_object(Bucket=BUCKET, Key=key(1))
    assert head["ObjectLockMode"] == "COMPLIANCE"
    least = timezone.now() + timedelta(days=settings.AUDIT_RETENTION_DAYS)
    assert head["ObjectLockRetainUntilDate"] > least
    with pytest.raises(ClientError):
        bucket.delete_object(Bucket=BUCKET, Key=key(1), VersionId=head["VersionId"])


def test_each_anchor_follows_from_the_one_before(bucket: Any) -> None:
    write(2)
    first = anchors.write()
    write(2)
    anchors.write()
    assert first is not None
    assert body(bucket, 2)["previous"] == first.digest
    report = chain.verify_chain()
    assert (report.first_break, report.anchored, report.alarms) == (None, 4, ())


def test_an_anchor_is_never_overwritten(bucket: Any) -> None:
    """A process that died before it noted its anchor: the next one keeps it and goes on."""
    write(2)
    anchors.write()
    kept = body(bucket, 1)
    with write_once.suspended():
        AuditAnchor.objects.all().delete()
    write(1)
    note = anchors.write()
    assert note is not None
    assert note.number == 2
    assert body(bucket, 1) == kept
    assert chain.verify_chain().first_break is None


def test_a_bucket_that_refuses_is_named_with_what_it_needs(bucket: Any, settings: Settings) -> None:
    settings.AUDIT_ANCHOR = "s3://no-such-bucket/head"
    write(1)
    with pytest.raises(AnchorUnavailable, match="object lock"):
        anchors.write()
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("verify_audit")


def test_a_folder_holds_anchors_for_a_demo(tmp_path: Path, settings: Settings) -> None:
    settings.AUDIT_ANCHOR = f"file://{tmp_path}/anchors"
    write(3)
    call_command("anchor_audit")
    write(1)
    call_command("anchor_audit")
    assert sorted(one.name for one in (tmp_path / "anchors").iterdir()) == [
        "0000000001.json", "0000000002.json",
    ]  # fmt: skip
    assert chain.verify_chain().first_break is None
    rewrite(from_seq=2, event=Event.objects.get(seal__seq=2))
    assert broken().seq == 1


# -- tampering is named ---------------------------------------------------------------------------


def test_a_tail_that_was_computed_anew_is_named(bucket: Any) -> None:
    rows = write(10)
    anchors.write()
    write(10)
    anchors.write()
    rewrite(from_seq=15, event=Event.objects.get(seal__seq=15))
    assert broken().seq == 11
    assert "rewritten between 11 and 20" in broken().what
    rewrite(from_seq=3, event=rows[2])
    assert "rewritten between 1 and 10" in broken().what


def test_what_was_rewritten_stays_named_when_the_chain_goes_on(bucket: Any) -> None:
    write(6)
    anchors.write()
    rewrite(from_seq=4, event=Event.objects.get(seal__seq=4))
    write(3)
    anchors.write()
    assert "rewritten between 1 and 6" in broken().what


def test_the_last_five_rows_that_are_gone_are_named(bucket: Any) -> None:
    write(12)
    anchors.write()
    with write_once.suspended():
        ids = list(EventSeal.objects.filter(seq__gt=7).values_list("event_id", flat=True))
        EventSeal.objects.filter(seq__gt=7).delete()
        Event.objects.filter(pk__in=ids).delete()
    assert broken().seq == 8
    assert "8 to 12 missing" in broken().what
    with pytest.raises(CommandError, match="breaks at 8"):
        call_command("verify_audit")


def test_notes_in_the_database_are_not_believed(bucket: Any) -> None:
    """Who rewrites the chain rewrites the notes of the anchors, too."""
    write(5)
    anchors.write()
    rewrite(from_seq=2, event=Event.objects.get(seal__seq=2))
    with write_once.suspended():
        AuditAnchor.objects.update(hash=events.head()[1])
    assert "rewritten" in broken().what


def test_an_anchor_that_was_written_over_counts_in_its_first_form(bucket: Any) -> None:
    """Somebody with the bucket's credentials can add a version, and cannot remove the first."""
    write(5)
    anchors.write()
    rewrite(from_seq=2, event=Event.objects.get(seal__seq=2))
    forged = {**body(bucket, 1), "hash": events.head()[1]}
    bucket.put_object(Bucket=BUCKET, Key=key(1), Body=json.dumps(forged))
    assert "rewritten" in broken().what


def test_a_deleted_anchor_counts_all_the_same(bucket: Any) -> None:
    write(5)
    anchors.write()
    bucket.delete_object(Bucket=BUCKET, Key=key(1))
    assert "Anchor 1 was overwritten or deleted" in broken().what


def test_a_missing_anchor_is_named(tmp_path: Path, settings: Settings) -> None:
    settings.AUDIT_ANCHOR = f"file://{tmp_path}"
    for _ in range(3):
        write(2)
        anchors.write()
    (tmp_path / "0000000002.json").unlink()
    assert broken().what == "Anchor 2 is missing."
    (tmp_path / "0000000003.json").unlink()
    assert "Anchor 2 is missing" in broken().what


def test_an_altered_anchor_is_named(tmp_path: Path, settings: Settings) -> None:
    settings.AUDIT_ANCHOR, settings.AUDIT_HMAC_KEY = f"file://{tmp_path}", "k" * 32
    write(2)
    anchors.write()
    path = tmp_path / "0000000001.json"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"count":2', b'"count":3'))
    assert "its signature does not fit" in broken().what


@pytest.mark.parametrize("name", ["head/٠٠٠٠٠٠٠٠٠١.json", "head/1.json", "head/x/0000000001.json"])  # noqa: RUF001 - such digits
def test_what_lies_beside_the_anchors_does_not_hinder_reading_them(bucket: Any, name: str) -> None:
    write(2)
    anchors.write()
    bucket.put_object(Bucket=BUCKET, Key=name, Body=b"{}")
    assert chain.verify_chain().first_break is None


@pytest.mark.parametrize(
    "odd",
    [
        {"kept": "x"}, {"scheme": 5}, {"at": "2026-01-01"}, {"at": 5}, {"seq": True},
        {"hash": None}, {"mac": []}, {"days": 1.5}, {"seq": 10**30},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_lies_there_the_verification_ends_and_names_it(
    odd: dict[str, Any], tmp_path: Path, settings: Settings
) -> None:
    settings.AUDIT_ANCHOR = f"file://{tmp_path}"
    write(2)
    anchors.write()
    write(2)
    first = json.loads((tmp_path / "0000000001.json").read_bytes())
    forged = json.dumps({**first, "number": 2, "seq": 4, **odd})
    (tmp_path / "0000000002.json").write_text(forged)
    assert "Anchor 2 is not one of ours" in broken().what


def test_a_purge_and_its_forgery_are_told_apart(bucket: Any) -> None:
    write(4, days_ago=400)
    write(3)
    with pytest.raises(Conflict, match="No anchor covers"):
        chain.purge_events(YEAR, actor=SYSTEM)
    anchors.write()
    assert chain.purge_events(YEAR, actor=SYSTEM).count == 4
    events.seal_everything()
    anchors.write()
    report = chain.verify_chain()
    assert (report.first_break, report.purged) == (None, 4)


def forge_tombstone(to_seq: int, purged_at: datetime) -> None:
    """Remove the beginning as the owner of the database can, with all that a purge leaves."""
    last = EventSeal.objects.get(seq=to_seq)
    tomb = AuditPurge(
        from_seq=1, to_seq=to_seq, count=to_seq, prev_hash=GENESIS, last_hash=last.hash,
        newest_at=timezone.now() - 2 * YEAR, purged_at=purged_at, actor_name="system",
        range_digest=GENESIS,
    )  # fmt: skip
    tomb.digest = chain.tombstone_digest(tomb, GENESIS)
    with write_once.suspended():
        ids = list(EventSeal.objects.filter(seq__lte=to_seq).values_list("event_id", flat=True))
        EventSeal.objects.filter(seq__lte=to_seq).delete()
        Event.objects.filter(pk__in=ids).delete()
        tomb.save()
        events.record("audit.purged", actor=SYSTEM, target=tomb, tombstone=tomb.digest)
    events.seal_everything()


@pytest.mark.parametrize("days", [-400, -1, 0, 2, 40_000], ids=lambda days: f"{days} days")
def test_a_tombstone_over_young_links_is_forged_whatever_its_date(bucket: Any, days: int) -> None:
    write(6)
    anchors.write()
    write(3)
    anchors.write()
    forge_tombstone(6, timezone.now() + timedelta(days=days))
    assert "is forged" in broken().what


def test_a_tombstone_is_held_to_the_retention_of_its_time(
    bucket: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links of two days ago are gone, where an anchor says that events are kept for a year."""
    write(6)
    now = timezone.now()
    with monkeypatch.context() as then:
        then.setattr(timezone, "now", lambda: now - timedelta(days=2))
        anchors.write()
    write(3)
    anchors.write()
    forge_tombstone(6, now)
    settings.AUDIT_RETENTION_DAYS = 1  # what the settings say today does not excuse it
    assert "is forged" in broken().what


def test_a_part_that_the_anchors_saw_otherwise_is_not_removed(bucket: Any) -> None:
    rows = write(4, days_ago=400)
    write(1)
    anchors.write()
    rewrite(from_seq=2, event=rows[1])
    anchors.write()
    write(1)
    anchors.write()
    with pytest.raises(Conflict, match="nothing is removed"):
        chain.purge_events(YEAR, actor=SYSTEM)
    assert EventSeal.objects.filter(seq=1).exists()


# -- a restore from a backup ----------------------------------------------------------------------


def restore(to_seq: int) -> None:
    """Bring the database back to how it was then, with its notes of anchors."""
    with write_once.suspended():
        ids = list(EventSeal.objects.filter(seq__gt=to_seq).values_list("event_id", flat=True))
        EventSeal.objects.filter(seq__gt=to_seq).delete()
        Event.objects.filter(pk__in=ids).delete()
        AuditAnchor.objects.filter(seq__gt=to_seq).delete()


def test_a_restore_breaks_the_chain_until_somebody_tells_of_it(bucket: Any) -> None:
    for _ in range(9):
        write(2)
        anchors.write()
    restore(to_seq=5)
    assert "6 to 18 missing" in broken().what
    write(3)
    anchors.write()  # the hourly tick goes on, and what was lost stays known
    assert broken().seq == 5
    call_command("anchor_audit", after_restore="the disk died")
    report = chain.verify_chain()
    assert report.first_break is None
    assert chain.record_verdict(report, actor=SYSTEM).facts["lost"] == list(report.lost)
    assert report.lost == ("links 5 to 18 were lost by a restore (anchor 11)",)
    event = Event.objects.get(verb="audit.restored")
    assert (event.facts["lost_from"], event.facts["lost_to"]) == (5, 18)
    write(1)
    anchors.write()
    assert chain.verify_chain().first_break is None
    rewrite(from_seq=3, event=Event.objects.get(seal__seq=3))
    assert broken().seq == 3


def test_nothing_is_told_where_nothing_was_lost(bucket: Any) -> None:
    write(3)
    anchors.write()
    call_command("anchor_audit", after_restore="a drill")
    assert not Event.objects.filter(verb="audit.restored").exists()
    assert chain.verify_chain().lost == ()


# -- alarms ---------------------------------------------------------------------------------------


def test_an_anchor_that_is_late_is_an_alarm(bucket: Any, settings: Settings) -> None:
    write(2)
    anchors.write()
    assert chain.alarms() == ()
    settings.AUDIT_ANCHOR_SECONDS = 0
    assert "not anchored as often" in chain.alarms()[0]
    assert chain_status().state == "behind"
    with pytest.raises(CommandError) as failure:
        call_command("verify_audit")
    assert failure.value.returncode == 2
    tasks.tick_watch_audit()
    tasks.tick_watch_audit()
    assert Event.objects.filter(verb="audit.alarm").count() == 1


def test_another_alarm_is_told_though_one_was_told_today() -> None:
    assert chain.record_alarm(("The chain is not anchored.",)) is not None
    assert chain.record_alarm(("Events wait.",)) is not None
    assert chain.record_alarm(("Events wait.",)) is None


def test_a_chain_that_nobody_verifies_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verification that cannot read the anchors, or dies, leaves no verdict."""
    write(2)
    assert chain.alarms() == ()
    later = timezone.now() + timedelta(days=3)
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert "not verified as a whole" in chain.alarms()[0]
    with write_once.suspended():
        chain.record_verdict(chain.verify_chain(), actor=SYSTEM)
        Event.objects.filter(verb="audit.verified").update(at=later)
    assert not [one for one in chain.alarms() if "verified" in one]


def test_what_piles_up_while_no_sealer_runs_is_seen_at_a_glance() -> None:
    write(2)
    event = events.record("late", actor=SYSTEM, target=EventSeal(seq=1))
    with write_once.suspended():
        long_ago = timezone.now() - 3 * events.LOOK_BACK
        Event.objects.filter(pk=event.pk).update(at=long_ago)
    assert (chain_status().state, chain_status().unsealed) == ("behind", 1)


def test_events_that_wait_long_for_their_seal_are_an_alarm() -> None:
    event = events.record("late", actor=SYSTEM, target=EventSeal(seq=1))
    with write_once.suspended():
        long_ago = timezone.now() - timedelta(minutes=6)
        Event.objects.filter(pk=event.pk).update(at=long_ago)
    tasks.tick_watch_audit()
    assert "wait for their seal" in Event.objects.get(verb="audit.alarm").facts["what"]


def test_every_night_a_worker_is_asked_to_verify() -> None:
    write(3)
    tasks.tick_verify_audit()
    from apps.core.models import Work

    row = Work.objects.get(name="core.verify_audit")
    tasks.verify_audit(**row.args)
    assert Event.objects.get(verb="audit.verified").actor_kind == "system"

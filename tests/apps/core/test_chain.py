"""Whoever changes the record is named, with the place; a purge leaves a chain that holds."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from pytest_django import Settings

from apps.core import chain, events, write_once
from apps.core.errors import Conflict, Invalid
from apps.core.events import GENESIS, Actor
from apps.core.models import AuditPurge, Event, EventSeal, Work

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system()
YEAR = timedelta(days=366)


def write(count: int, *, days_ago: int = 0) -> list[Event]:
    thing = Work.objects.create(name="x", not_before=timezone.now())
    rows = [events.record("thing.changed", actor=SYSTEM, target=thing, n=n) for n in range(count)]
    if days_ago:
        with write_once.suspended():
            at = timezone.now() - timedelta(days=days_ago)
            Event.objects.filter(pk__in=[one.pk for one in rows]).update(at=at)
    events.seal_everything()
    return rows


@pytest.fixture
def made() -> list[Event]:
    return write(12)


def broken() -> chain.Break:
    found = chain.verify_chain().first_break
    assert found is not None
    return found


# -- a record is written once ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda: Event.objects.update(reason="forged"),
        lambda: Event.objects.filter(seal=None).delete(),
        lambda: EventSeal.objects.update(hash=GENESIS),
        lambda: EventSeal.objects.all()._raw_delete("default"),
        lambda: AuditPurge.objects.update(count=1),
        lambda: AuditPurge.objects.all()._raw_delete("default"),
    ],
)
def test_the_database_refuses_to_change_the_record(
    made: list[Event], change: Callable[[], Any]
) -> None:
    events.record("late", actor=SYSTEM, target=made[0])
    AuditPurge.objects.create(
        from_seq=90, to_seq=91, count=2, newest_at=timezone.now(), purged_at=timezone.now()
    )
    with pytest.raises(DatabaseError, match="written once"), transaction.atomic():
        change()


def test_every_table_of_the_record_is_guarded_after_a_purge_too(made: list[Event]) -> None:
    assert write_once.missing() == []
    with write_once.suspended():
        Event.objects.filter(pk=0).update(reason="x")
    assert write_once.missing() == []
    with pytest.raises(DatabaseError, match="written once"), transaction.atomic():
        Event.objects.filter(pk=made[0].pk).update(reason="x")


def test_triggers_come_back_with_the_next_migrate(made: list[Event]) -> None:
    with connection.cursor() as cursor:
        name = "write_once" if connection.vendor == "postgresql" else "core_event_update"
        on = " ON core_event" if connection.vendor == "postgresql" else ""
        cursor.execute(f"DROP TRIGGER {name}{on}")
    assert write_once.missing() == ["core_event"]
    assert "core_event" in chain.alarms()[0]
    assert chain.verify_chain().alarms == chain.alarms()
    write_once.ensure()
    assert write_once.missing() == []


# -- tampering is named ---------------------------------------------------------------------------


def test_one_altered_letter_is_named_with_its_event(made: list[Event]) -> None:
    with write_once.suspended():
        Event.objects.filter(pk=made[4].pk).update(actor_name="systen")
    assert (broken().seq, broken().event_id) == (5, made[4].pk)


def test_one_deleted_row_is_named(made: list[Event]) -> None:
    with write_once.suspended():
        EventSeal.objects.filter(event=made[6]).delete()
        Event.objects.filter(pk=made[6].pk).delete()
    assert broken().seq == 7
    assert "missing" in broken().what


def test_two_swapped_rows_are_named(made: list[Event]) -> None:
    with write_once.suspended():
        Event.objects.filter(pk=made[2].pk).update(facts={"n": 8})
        Event.objects.filter(pk=made[8].pk).update(facts={"n": 2})
    assert broken().seq == 3


def test_an_inserted_row_is_named(made: list[Event]) -> None:
    forged = events.record("thing.forged", actor=SYSTEM, target=made[0])
    with write_once.suspended():
        last = EventSeal.objects.get(seq=12)
        EventSeal.objects.filter(seq=12).delete()
        link = events.digest(last.prev_hash, 12, forged)
        EventSeal.objects.create(seq=12, event=forged, prev_hash=last.prev_hash, hash=link)
        EventSeal.objects.create(seq=13, event=made[11], prev_hash=last.prev_hash, hash=last.hash)
    assert (broken().seq, broken().event_id) == (13, made[11].pk)


def test_a_walk_holds_few_rows_at_a_time(
    made: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_AT_ONCE", 5)
    report = chain.verify_chain()
    assert (report.sealed, report.first_break) == (12, None)
    with write_once.suspended():
        Event.objects.filter(pk=made[10].pk).update(reason="forged")
    assert broken().seq == 11


def test_the_command_prints_json_and_fails_with_one(made: list[Event]) -> None:
    out = StringIO()
    call_command("verify_audit", json=True, stdout=out)
    assert json.loads(out.getvalue())["sealed"] == 12
    with write_once.suspended():
        Event.objects.filter(pk=made[1].pk).update(reason="forged")
    out = StringIO()
    with pytest.raises(CommandError, match="breaks at 2") as failure:
        call_command("verify_audit", json=True, stdout=out)
    assert failure.value.returncode == 1
    assert json.loads(out.getvalue())["first_break"]["event_id"] == made[1].pk


# -- sealing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd", [float("nan"), float("inf"), "\ud800", "\x00", 2**70, 1e300, object(), {"a": {1: {2}}}]
)
def test_what_cannot_be_sealed_is_refused_when_it_is_written(made: list[Event], odd: Any) -> None:
    with pytest.raises(ValueError, match="fact"):
        events.record("thing.changed", actor=SYSTEM, target=made[0], odd=[odd])


def test_an_odd_row_does_not_hold_up_those_behind_it(made: list[Event]) -> None:
    """A row that came into the table by another way: an integer that orjson cannot spell."""
    row = Event.objects.get(pk=made[0].pk)
    row.pk, row.facts = None, {"large": 10**30}
    row.save(force_insert=True)
    assert events.seal_pending() == 1
    report = chain.verify_chain()
    assert (report.sealed, report.first_break) == (13, None)


def test_a_key_makes_later_links_and_leaves_earlier_ones_valid(
    made: list[Event], settings: Settings
) -> None:
    settings.AUDIT_HMAC_KEY = "a" * 40
    write(3)
    assert chain.verify_chain().first_break is None
    assert len(set(EventSeal.objects.values_list("scheme", flat=True))) == 2
    settings.AUDIT_HMAC_KEY, settings.AUDIT_HMAC_KEY_OLD = "b" * 40, "a" * 40
    write(2)
    assert chain.verify_chain().first_break is None
    settings.AUDIT_HMAC_KEY_OLD = ""
    assert "key that is not set" in broken().what
    assert broken().seq == 13


def test_who_lacks_the_key_cannot_compute_the_chain_anew(settings: Settings) -> None:
    settings.AUDIT_HMAC_KEY = "a" * 40
    rows = write(6)
    settings.AUDIT_HMAC_KEY = ""
    rewrite(from_seq=4, event=rows[3])
    settings.AUDIT_HMAC_KEY = "a" * 40
    assert (broken().seq, broken().event_id) == (4, rows[3].pk)
    assert "without the key" in broken().what


def rewrite(*, from_seq: int, event: Event) -> None:
    """Forge an event and compute all links from there anew, as only the code of ours would."""
    with write_once.suspended():
        Event.objects.filter(pk=event.pk).update(actor_name="somebody else")
        prev = EventSeal.objects.get(seq=from_seq - 1).hash if from_seq > 1 else GENESIS
        for seal in EventSeal.objects.filter(seq__gte=from_seq).order_by("seq"):
            how = events.scheme()
            link = events.digest(prev, seal.seq, Event.objects.get(pk=seal.event_id), how)
            EventSeal.objects.filter(seq=seal.seq).update(prev_hash=prev, hash=link, scheme=how)
            prev = link


# -- what an event keeps --------------------------------------------------------------------------


def test_changes_name_only_what_differs_and_hide_secrets() -> None:
    told = events.changes(
        {"name": "a", "role": "viewer", "password": "old", "at": timezone.now()},
        {"name": "a", "role": "maintainer", "password": "new", "at": None, "tags": {"b", "a"}},
    )
    assert told["role"] == ["viewer", "maintainer"]
    assert told["password"] == ["***", "***"]
    assert told["tags"] == [None, ["a", "b"]]
    assert "name" not in told
    assert json.dumps(told)


@pytest.mark.parametrize(
    "name", ["password", "client_secret", "access_token", "webhook_url", "key_text", "access_key"]
)
def test_no_secret_reaches_an_event(made: list[Event], name: str) -> None:
    inside = {"nested": {name: ["hunter2"]}, "deeper": {name: {"value": "hunter2", "of": 2}}}
    facts: dict[str, Any] = {name: "hunter2", **inside}
    event = events.record("thing.changed", actor=SYSTEM, target=made[0], **facts)
    event.refresh_from_db()
    assert "hunter2" not in json.dumps(event.facts)
    assert event.facts[name] == "***"
    assert event.facts["deeper"][name] == {"value": "***", "of": 2}


def test_long_values_are_cut(made: list[Event]) -> None:
    event = events.record("thing.changed", actor=SYSTEM, target=made[0], text="x" * 9000)
    assert len(event.facts["text"]) == events.MOST_TEXT
    assert event.facts["text"].endswith("…")


# -- the purge ------------------------------------------------------------------------------------


def test_a_purge_removes_the_oldest_part_and_the_chain_still_holds() -> None:
    old, young = write(7, days_ago=400), write(5)
    gone = chain.purge_events(YEAR, actor=SYSTEM)
    assert (gone.count, gone.to_seq) == (7, 7)
    assert set(Event.objects.filter(verb="thing.changed")) == set(young)
    assert not Event.objects.filter(pk__in=[one.pk for one in old]).exists()
    events.seal_everything()
    report = chain.verify_chain()
    assert (report.first_break, report.purged, report.sealed) == (None, 7, 13)
    assert Event.objects.get(verb="audit.purged").facts["rows"] == 7
    out = StringIO()
    call_command("verify_audit", stdout=out)
    assert "7 purged" in out.getvalue()


def test_purges_follow_each_other_some_events_at_a_time() -> None:
    write(7, days_ago=400)
    counts = [chain.purge_events(YEAR, actor=SYSTEM, most=3).count for _ in range(4)]
    assert counts == [3, 3, 1, 0]
    events.seal_everything()
    report = chain.verify_chain()
    assert (report.first_break, report.purged, report.sealed) == (None, 7, 10)


def test_a_young_event_keeps_what_is_behind_it() -> None:
    write(2, days_ago=400)
    write(1)
    write(2, days_ago=400)
    assert chain.purge_events(YEAR, actor=SYSTEM).count == 2


def test_nothing_goes_before_its_time() -> None:
    write(3, days_ago=400)
    with pytest.raises(Invalid, match="kept for 365 days"):
        chain.purge_events(timedelta(days=30), actor=SYSTEM)


def test_a_part_that_does_not_hold_is_not_removed() -> None:
    rows = write(4, days_ago=400)
    with write_once.suspended():
        Event.objects.filter(pk=rows[2].pk).update(reason="forged")
    with pytest.raises(Conflict, match="breaks at 3"):
        chain.purge_events(YEAR, actor=SYSTEM)
    assert EventSeal.objects.count() == 4


def test_a_tombstone_that_somebody_made_is_named(made: list[Event]) -> None:
    last = EventSeal.objects.get(seq=4)
    now = timezone.now()
    tomb = AuditPurge(
        from_seq=1, to_seq=4, count=4, prev_hash=GENESIS, last_hash=last.hash,
        newest_at=now, purged_at=now, actor_name="system", range_digest="0" * 64,
    )  # fmt: skip
    tomb.digest = chain.tombstone_digest(tomb, GENESIS)
    with write_once.suspended():
        ids = list(EventSeal.objects.filter(seq__lte=4).values_list("event_id", flat=True))
        EventSeal.objects.filter(seq__lte=4).delete()
        Event.objects.filter(pk__in=ids).delete()
        tomb.save()
    assert broken().seq == 1
    assert "no event tells of it" in broken().what


def test_a_tombstone_that_was_altered_is_named() -> None:
    write(4, days_ago=400)
    write(2)
    chain.purge_events(YEAR, actor=SYSTEM)
    with write_once.suspended():
        AuditPurge.objects.update(actor_name="nobody")
    assert "was altered" in broken().what


def test_the_command_that_purges_everything_purges_events_too() -> None:
    write(4, days_ago=400)
    write(1)
    assert chain.count_purgeable(YEAR) == 4
    call_command("purge", kind=["audit"], dry_run=True)
    assert not AuditPurge.objects.exists()
    call_command("purge", kind=["audit"])
    events.seal_everything()
    report = chain.verify_chain()
    assert (report.first_break, report.purged) == (None, 4)


def test_events_go_on_where_everything_sealed_was_purged() -> None:
    write(3, days_ago=400)
    chain.purge_events(YEAR, actor=SYSTEM)
    assert events.head()[0] == 3
    events.seal_everything()
    assert list(EventSeal.objects.values_list("seq", flat=True)) == [4]
    assert chain.verify_chain().first_break is None

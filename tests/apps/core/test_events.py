"""The audit chain: every kind of tampering is named with its place."""

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from apps.core import chain, events, tasks, write_once
from apps.core.events import Actor
from apps.core.models import Event, EventSeal, Work

pytestmark = pytest.mark.django_db


@pytest.fixture
def made() -> list[Event]:
    thing = Work.objects.create(name="x", not_before=timezone.now())
    rows = [
        events.record("thing.changed", actor=Actor.system(), target=thing, n=n) for n in range(10)
    ]
    assert events.seal_pending() == 10
    return rows


def test_an_untouched_chain_holds(made: list[Event]) -> None:
    report = chain.verify_chain()
    assert (report.sealed, report.first_break, report.unsealed) == (10, None, 0)


def test_sealing_twice_adds_nothing(made: list[Event]) -> None:
    assert events.seal_pending() == 0


def test_an_altered_event_is_named(made: list[Event]) -> None:
    with write_once.suspended():
        Event.objects.filter(pk=made[3].pk).update(facts={"n": 99})
    report = chain.verify_chain()
    assert report.first_break is not None
    assert report.first_break.seq == 4


def test_a_deleted_seal_is_named(made: list[Event]) -> None:
    with write_once.suspended():
        EventSeal.objects.filter(seq=6).delete()
    report = chain.verify_chain()
    assert report.first_break is not None
    assert report.first_break.seq == 6


def test_two_swapped_events_are_named(made: list[Event]) -> None:
    with write_once.suspended():
        EventSeal.objects.filter(seq__in=[5, 6]).delete()
    for seq, event in ((5, made[5]), (6, made[4])):
        EventSeal.objects.create(seq=seq, event=event, prev_hash="0" * 64, hash="1" * 64)
    report = chain.verify_chain()
    assert report.first_break is not None
    assert report.first_break.seq == 5


def test_an_event_without_a_seal_is_counted_with_its_age(made: list[Event]) -> None:
    events.record("late", actor=Actor.system(), target=made[0])
    report = chain.verify_chain()
    assert report.unsealed == 1
    assert report.oldest_unsealed is not None


def test_an_event_of_a_long_transaction_is_sealed_on_demand(made: list[Event]) -> None:
    late = events.record("late", actor=Actor.system(), target=made[0])
    with write_once.suspended():
        Event.objects.filter(pk=late.pk).update(at=timezone.now() - timedelta(hours=3))
    assert events.seal_pending() == 0
    assert events.seal_pending(everything=True) == 1


def test_the_command_fails_where_the_chain_breaks(made: list[Event]) -> None:
    call_command("verify_audit")
    with write_once.suspended():
        Event.objects.filter(pk=made[0].pk).update(reason="forged")
    with pytest.raises(CommandError, match="breaks at 1"):
        call_command("verify_audit")


def test_events_of_a_long_outage_are_sealed_by_a_tick_of_their_own(made: list[Event]) -> None:
    late = [events.record("late", actor=Actor.system(), target=made[0]) for _ in range(3)]
    long_ago = timezone.now() - timedelta(days=2)
    with write_once.suspended():
        Event.objects.filter(pk__in=[one.pk for one in late]).update(at=long_ago)
    tasks.tick_seal_events()
    assert EventSeal.objects.count() == 10
    tasks.tick_seal_old_events()
    report = chain.verify_chain()
    assert (report.sealed, report.first_break, report.unsealed) == (13, None, 0)

"""Snapshot entries: generations only go up, and only with their change."""

import pytest
from django.db import connection, transaction

from apps.core import snapshot
from apps.core.models import SnapshotClock, SnapshotEntry


@pytest.mark.django_db
def test_each_change_takes_the_next_generation() -> None:
    assert snapshot.put("key", "a", {"n": 1}) == 1
    assert snapshot.put("key", "b", {"n": 1}) == 2
    assert snapshot.put("key", "a", {"n": 2}) == 3
    entries = list(snapshot.entries_after(0))
    assert [(one.key, one.generation) for one in entries] == [("b", 2), ("a", 3)]


@pytest.mark.django_db
def test_a_dropped_thing_is_told_to_those_who_knew_it_only() -> None:
    snapshot.put("key", "a", {"n": 1})
    snapshot.drop("key", "a")
    assert list(snapshot.entries_after(0)) == []
    assert [one.body for one in snapshot.entries_after(1)] == [None]


@pytest.mark.django_db
def test_a_new_epoch_keeps_the_generation() -> None:
    snapshot.put("key", "a", {})
    before = snapshot.newest()
    assert snapshot.renew_epoch() != before[0]
    assert snapshot.newest()[1] == before[1]


@pytest.mark.django_db(transaction=True)
def test_an_entry_outside_a_transaction_is_refused() -> None:
    assert not connection.in_atomic_block
    with pytest.raises(RuntimeError, match="in the transaction"):
        snapshot.put("key", "a", {})


@pytest.mark.django_db(transaction=True)
def test_a_change_that_is_rolled_back_leaves_no_entry() -> None:
    def change() -> None:
        with transaction.atomic():
            snapshot.put("key", "a", {})
            raise ValueError("the caller fails")

    with pytest.raises(ValueError, match="the caller fails"):
        change()
    assert not SnapshotEntry.objects.exists()
    assert not SnapshotClock.objects.exists()

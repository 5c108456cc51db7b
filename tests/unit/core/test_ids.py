"""UUIDv7: carries its millisecond and sorts by it."""

import uuid

import pytest

from apps.core import ids


def test_an_id_is_a_uuid_of_version_7_and_rfc_variant() -> None:
    value = uuid.UUID(ids.new_id())
    assert (value.version, value.variant) == (7, uuid.RFC_4122)


def test_an_id_gives_back_the_millisecond_it_was_made_with() -> None:
    assert ids.milliseconds_of(ids.new_id(1_763_712_000_123)) == 1_763_712_000_123


def test_later_ids_sort_behind_earlier_ones() -> None:
    assert ids.new_id(1000) < ids.new_id(1001)


def test_a_thousand_ids_of_one_millisecond_differ() -> None:
    assert len({ids.new_id(5) for _ in range(1000)}) == 1000


def test_another_uuid_is_refused() -> None:
    with pytest.raises(ValueError, match="not a UUIDv7"):
        ids.milliseconds_of(str(uuid.uuid4()))

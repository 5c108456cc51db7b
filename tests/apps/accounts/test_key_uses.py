"""Where and when keys were last used: forward in time only, few addresses, none where forbidden."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.accounts.models import ApiKey, KeyAddress, Team
from apps.accounts.services import key_uses
from apps.accounts.services.key_uses import MOST_ADDRESSES, KeyUse
from apps.accounts.snapshot import Role
from tests.apps.accounts.test_doors import Http
from tests.factories.accounts import api_key, make_key, make_member, make_team

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 5, 4, 12, 0, 30, tzinfo=UTC)
MINUTE = NOON.replace(second=0)


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def key(team: Team) -> ApiKey:
    return make_key(team, make_member(team, Role.MAINTAINER, "ada"), scopes=("admin:*",))[0]


def use(key: ApiKey, *, minutes: float = 0, address: str = "192.0.2.7", agent: str = "x") -> KeyUse:
    return KeyUse(key.pk, NOON + timedelta(minutes=minutes), address, agent)


def test_words_that_no_column_takes_are_cleaned_and_stop_nothing(key: ApiKey) -> None:
    key_uses.note_calls([use(key, address="192.0.2.7\x00", agent="cu\x00rl")])
    key.refresh_from_db()
    assert (key.last_used_address, key.last_used_agent) == ("192.0.2.7", "curl")


def test_the_newest_call_of_a_batch_is_told_by_the_minute(key: ApiKey) -> None:
    uses = [use(key, minutes=one, address=f"192.0.2.{one}", agent=f"a{one}") for one in (1, 3, 2)]
    key_uses.note_calls(uses)
    key.refresh_from_db()
    assert key.last_used_at == MINUTE + timedelta(minutes=3)
    assert (key.last_used_address, key.last_used_agent) == ("192.0.2.3", "a3")


def test_time_only_goes_forward(key: ApiKey) -> None:
    key_uses.note_calls([use(key, minutes=5)])
    key_uses.note_calls([use(key, address="198.51.100.1")])
    key.refresh_from_db()
    assert key.last_used_at == MINUTE + timedelta(minutes=5)
    assert key.last_used_address == "192.0.2.7"
    late = KeyAddress.objects.get(address="198.51.100.1")
    assert (late.first, late.last) == (NOON, NOON)


def test_calls_of_an_address_add_up(key: ApiKey) -> None:
    key_uses.note_calls([use(key, minutes=5), use(key, minutes=2)])
    key_uses.note_calls([use(key, minutes=1), use(key, minutes=9)])
    row = KeyAddress.objects.get()
    assert row.calls == 4
    assert (row.first, row.last) == (NOON + timedelta(minutes=1), NOON + timedelta(minutes=9))


def test_the_oldest_addresses_leave(key: ApiKey) -> None:
    key_uses.note_calls([use(key, address="old", minutes=-1)])
    many = [use(key, address=f"a{one}", minutes=one) for one in range(MOST_ADDRESSES)]
    key_uses.note_calls(many)
    kept = set(KeyAddress.objects.values_list("address", flat=True))
    assert kept == {one.address for one in many}


def test_a_key_that_is_not_there_is_passed_over(key: ApiKey) -> None:
    key_uses.note_calls([KeyUse("000000000000", NOON, "192.0.2.7"), use(key)])
    assert KeyAddress.objects.get().key == key


def test_nothing_is_asked_for_each_row(key: ApiKey) -> None:
    def queries(count: int) -> int:
        uses = [use(key, minutes=one, address=f"b{one % 7}") for one in range(count)]
        with CaptureQueriesContext(connection) as asked:
            key_uses.note_calls(uses)
        return len(asked)

    queries(7)
    assert queries(700) == queries(7) + 1, "the one that moves the key forward"


def test_what_is_too_long_is_cut(key: ApiKey) -> None:
    key_uses.note_calls([use(key, address="a" * 900, agent="b" * 900)])
    key.refresh_from_db()
    assert (len(key.last_used_address), len(key.last_used_agent)) == (64, 200)


def test_no_address_is_kept_where_that_is_forbidden(key: ApiKey, settings: Any) -> None:
    settings.RECORD_ADDRESSES = False
    key_uses.note_calls([use(key)])
    key_uses.note_door(key.pk, address="192.0.2.7", agent="x")
    key.refresh_from_db()
    assert key.last_used_at is not None
    assert key.last_used_address == ""
    assert not KeyAddress.objects.exists()


def test_a_warned_key_that_is_used_is_warned_no_longer(key: ApiKey) -> None:
    ApiKey.objects.filter(pk=key.pk).update(warned_at=NOON - timedelta(days=1))
    key_uses.note_calls([use(key, minutes=-2 * 24 * 60)])
    assert ApiKey.objects.get(pk=key.pk).warned_at is not None, "that call was before the warning"
    key_uses.note_calls([use(key)])
    assert ApiKey.objects.get(pk=key.pk).warned_at is None


# -- doors of the API ----------------------------------------------------------------------------


def test_a_call_of_the_api_marks_the_key_and_writes_once_a_minute(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = make_member(team, Role.MAINTAINER)
    key, text = make_key(team, owner, scopes=("admin:*",))
    now = timezone.now().replace(second=10)
    monkeypatch.setattr(timezone, "now", lambda: now)
    http = Http({**api_key(text), "User-Agent": "curl/8"})

    def writes() -> int:
        with CaptureQueriesContext(connection) as asked:
            assert http("GET", "plans").status_code == 200
        return sum(one["sql"].startswith(("UPDATE", "INSERT")) for one in asked)

    assert writes() > 0
    key.refresh_from_db()
    assert key.last_used_at == now.replace(second=0, microsecond=0)
    assert (key.last_used_address, key.last_used_agent) == ("127.0.0.1", "curl/8")
    assert KeyAddress.objects.get().calls == 0
    assert writes() == 0
    now += timedelta(minutes=1)
    assert writes() > 0


def test_a_refused_key_marks_nothing(team: Team) -> None:
    key, text = make_key(team, make_member(team, Role.MAINTAINER))
    assert Http(api_key(text[:-1] + "!"))("GET", "plans").status_code == 403
    key.refresh_from_db()
    assert key.last_used_at is None

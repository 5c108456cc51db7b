"""Keys that nobody uses: told once, and revoked only where that is wished."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.accounts.models import ApiKey, Team, User
from apps.accounts.services import key_uses, keys, unused_keys
from apps.accounts.services.key_uses import KeyUse
from apps.accounts.snapshot import Role
from apps.accounts.tasks import tick_warn_of_unused_keys
from apps.core.models import Event
from apps.monitoring.rules import news_of
from tests.factories.accounts import SYSTEM, make_key, make_member, make_team

pytestmark = pytest.mark.django_db


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def ada(team: Team) -> User:
    return make_member(team, Role.CONTRIBUTOR, "ada")


def aged(team: Team, owner: User, *, made: int, used: int | None = None, **more: Any) -> ApiKey:
    """Return a key that was made, and used last, so many days ago."""
    key, _ = make_key(team, owner)
    now = timezone.now()
    ApiKey.objects.filter(pk=key.pk).update(
        created=now - timedelta(days=made),
        last_used_at=None if used is None else now - timedelta(days=used),
        **more,
    )
    return ApiKey.objects.get(pk=key.pk)


def test_only_old_keys_without_a_call_for_long_are_found(team: Team, ada: User) -> None:
    unused = {aged(team, ada, made=91).pk, aged(team, ada, made=400, used=91).pk}
    aged(team, ada, made=89)
    aged(team, ada, made=400, used=89)
    aged(team, ada, made=400, expires_at=timezone.now())
    keys.revoke_key(aged(team, ada, made=400), actor=SYSTEM)
    found = unused_keys.unused_keys(ApiKey.objects.all(), timezone.now())
    assert {one.pk for one in found} == unused


def test_a_warning_comes_once_and_again_after_a_use(team: Team, ada: User) -> None:
    key = aged(team, ada, made=100)
    assert (unused_keys.warn_of_unused(), unused_keys.warn_of_unused()) == (1, 0)
    assert Event.objects.get(verb="key.unused").facts["days"] == 90
    key_uses.note_calls([KeyUse(key.pk, timezone.now())])
    long_ago = timezone.now() - timedelta(days=95)
    ApiKey.objects.filter(pk=key.pk).update(last_used_at=long_ago)
    assert unused_keys.warn_of_unused() == 1


def test_owner_and_maintainers_are_told_while_it_is_unused(team: Team, ada: User) -> None:
    mai, viv = make_member(team, Role.MAINTAINER), make_member(team, Role.VIEWER)
    key = aged(team, ada, made=100)
    tick_warn_of_unused_keys()
    event = Event.objects.get(verb="key.unused")
    told = {one.person_id for one in news_of(event)}
    assert told == {ada.pk, mai.pk}
    assert viv.pk not in told
    key_uses.note_calls([KeyUse(key.pk, timezone.now())])
    assert news_of(event) == []


def test_a_warned_key_stays_unless_revoking_is_wished(team: Team, ada: User, settings: Any) -> None:
    warned = timezone.now() - timedelta(days=31)
    key = aged(team, ada, made=130, warned_at=warned)
    tick_warn_of_unused_keys()
    assert ApiKey.objects.get(pk=key.pk).revoked_at is None
    settings.KEY_UNUSED_REVOKE = True
    tick_warn_of_unused_keys()
    key.refresh_from_db()
    assert (key.revoked_by, Event.objects.get(verb="key.revoked").reason) == ("system", "unused")


def test_nothing_is_revoked_within_the_grace(team: Team, ada: User, settings: Any) -> None:
    settings.KEY_UNUSED_REVOKE = True
    aged(team, ada, made=130, warned_at=timezone.now() - timedelta(days=29))
    aged(team, ada, made=130)
    assert unused_keys.revoke_unused() == 0


def test_a_use_saves_a_warned_key(team: Team, ada: User, settings: Any) -> None:
    settings.KEY_UNUSED_REVOKE = True
    key = aged(team, ada, made=130, warned_at=timezone.now() - timedelta(days=31))
    key_uses.note_calls([KeyUse(key.pk, timezone.now())])
    tick_warn_of_unused_keys()
    assert ApiKey.objects.get(pk=key.pk).revoked_at is None


def test_zero_days_tell_nobody(team: Team, ada: User, settings: Any) -> None:
    settings.KEY_UNUSED_DAYS = 0
    aged(team, ada, made=400)
    assert unused_keys.warn_of_unused() == 0

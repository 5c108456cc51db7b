"""Keys: the secret is shown once and kept nowhere; issue and revoke reach serving."""

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.accounts import keys as format_of_keys
from apps.accounts.keys import KeyKind
from apps.accounts.models import ApiKey, Team, User
from apps.accounts.selectors import DatabaseDirectory, key_body
from apps.accounts.services import keys
from apps.accounts.snapshot import Role, key_from_json
from apps.core.errors import Invalid
from apps.core.models import Event, SnapshotEntry
from tests.factories.accounts import SYSTEM, make_key, make_member, make_team

pytestmark = pytest.mark.django_db


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def ada(team: Team) -> User:
    return make_member(team, Role.CONTRIBUTOR, "ada")


def test_an_issued_key_is_known_to_both_directories(team: Team, ada: User) -> None:
    key, text = make_key(team, ada, scopes=("predict", "logs:read"), models=("wine",))
    entry = SnapshotEntry.objects.get(kind="key", key=key.pk)
    assert entry.body is not None
    body = key_from_json(entry.body)
    assert body == DatabaseDirectory().key(key.pk) == key_body(key)
    assert (body.team_id, body.owner_id) == (team.pk, ada.pk)
    assert (body.scopes, body.models) == (("predict", "logs:read"), ("wine",))
    presented = format_of_keys.parse(text)
    assert presented is not None
    assert presented.matches(body.sha256)
    assert text.endswith(key.last4)


def test_the_secret_is_written_nowhere(team: Team, ada: User) -> None:
    key, text = make_key(team, ada)
    secret = format_of_keys.parse(text).secret  # type: ignore[union-attr]
    written = [
        *ApiKey.objects.filter(pk=key.pk).values(),
        *Event.objects.values(),
        *SnapshotEntry.objects.values(),
    ]
    assert secret not in repr(written)


def test_a_revoked_key_is_gone_from_both_directories(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada)
    keys.revoke_key(key, actor=SYSTEM, reason="leaked")
    keys.revoke_key(key, actor=SYSTEM)
    assert DatabaseDirectory().key(key.pk) is None
    assert SnapshotEntry.objects.get(kind="key", key=key.pk).deleted
    assert Event.objects.get(verb="key.revoked").reason == "leaked"
    assert ApiKey.objects.get(pk=key.pk).revoked_by == "system"


def test_a_test_key_has_no_production_whatever_its_row_says(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada, kind=KeyKind.TEST, environments=("staging", "production"))
    body = DatabaseDirectory().key(key.pk)
    assert body is not None
    assert body.environments == ("staging",)


def test_a_key_lives_a_year_unless_another_end_is_wished(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada)
    assert abs(key.expires_at - timezone.now() - timedelta(days=365)) < timedelta(minutes=1)


@pytest.mark.parametrize("days", [-1, 0, 731])
def test_no_key_ends_in_the_past_or_after_two_years(team: Team, ada: User, days: int) -> None:
    wish = keys.KeyWish("k", ("predict",), expires_at=timezone.now() + timedelta(days=days))
    with pytest.raises(Invalid, match="cannot be made"):
        keys.issue_key(team, owner=ada, wish=wish, actor=SYSTEM)
    assert not ApiKey.objects.exists()

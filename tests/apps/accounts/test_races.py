"""Two at once: one wins, and what serving learns holds both.

The order is forced: the second thread starts while the first one's transaction is open and holds
its locks, and the first commits only when the second has begun.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from django.db import connection, transaction
from django.utils import timezone

from apps.accounts.models import ApiKey, Membership, RefreshToken, SignInGuard, User
from apps.accounts.services import (
    guards,
    invitations,
    key_uses,
    keys,
    mfa,
    people,
    plans,
    sessions,
    teams,
)
from apps.accounts.services.key_uses import KeyUse
from apps.accounts.services.registration import Newcomer, register
from apps.accounts.snapshot import Role, person_from_json
from apps.core import context
from apps.core.errors import Conflict, InvalidToken, PlatformError, WrongPassword
from apps.core.models import Event, SnapshotEntry
from tests.factories.accounts import PASSWORD, SYSTEM, make_key, make_team, make_user

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor == "sqlite",
        reason="SQLite's IMMEDIATE transactions follow each other; the test database is in memory.",
    ),
]


class Overlap:
    """Runs one action in an open transaction and another one that must wait for it."""

    def __init__(self) -> None:
        self.outcome: Any = None
        self._begun = threading.Event()

    def run(self, first: Callable[[], Any], second: Callable[[], Any]) -> Any:
        thread = threading.Thread(target=self._second, args=(second,))
        with transaction.atomic():
            done = first()
            thread.start()
            assert self._begun.wait(10)
            # Long enough for a second action that does not wait to do its harm.
            thread.join(0.3)
        thread.join(30)
        assert not thread.is_alive()
        return done

    def _second(self, action: Callable[[], Any]) -> None:
        try:
            self._begun.set()
            self.outcome = action()
        except PlatformError as error:
            self.outcome = error
        finally:
            connection.close()


def test_two_teams_that_take_a_user_in_at_once_are_both_known_to_serving() -> None:
    blue, red, ada = make_team("blue"), make_team("red"), make_user("ada")
    Overlap().run(
        lambda: teams.add_member(blue, ada, role=Role.VIEWER, actor=SYSTEM),
        lambda: teams.add_member(
            red, User.objects.get(pk=ada.pk), role=Role.MAINTAINER, actor=SYSTEM
        ),
    )
    body = SnapshotEntry.objects.get(kind="person", key=str(ada.pk)).body
    assert body is not None
    assert person_from_json(body).roles == {blue.pk: Role.VIEWER, red.pk: Role.MAINTAINER}


def test_each_of_two_changes_at_once_ends_the_tokens_once() -> None:
    blue, ada = make_team("blue"), make_user("ada")
    teams.add_member(blue, ada, role=Role.VIEWER, actor=SYSTEM)
    Overlap().run(
        lambda: teams.change_role(Membership.objects.get(), role=Role.MAINTAINER, actor=SYSTEM),
        lambda: people.set_password(
            User.objects.get(pk=ada.pk), "another-long-password", actor=SYSTEM
        ),
    )
    ada.refresh_from_db()
    assert ada.token_version == 3
    body = SnapshotEntry.objects.get(kind="person", key=str(ada.pk)).body
    assert body is not None
    assert person_from_json(body).token_version == 3


def test_of_two_uses_of_one_refresh_token_at_once_the_second_ends_the_sign_in() -> None:
    make_user("ada")
    pair = sessions.sign_in("ada", PASSWORD)
    overlap = Overlap()
    won = overlap.run(
        lambda: sessions.refresh(pair.refresh), lambda: sessions.refresh(pair.refresh)
    )
    assert isinstance(overlap.outcome, InvalidToken)
    with pytest.raises(InvalidToken):
        sessions.refresh(won.refresh)
    assert not RefreshToken.objects.filter(revoked_at__isnull=True).exists()
    assert Event.objects.filter(verb="user.token_reused").count() == 1


def test_of_two_who_use_one_invitation_at_once_one_is_registered() -> None:
    _, text = invitations.invite(email="eve@example.org", team=None, role=None, actor=SYSTEM)

    def wish(name: str) -> Newcomer:
        return Newcomer(name, "eve@example.org", PASSWORD, invitation=text)

    overlap = Overlap()
    overlap.run(lambda: register(wish("eve")), lambda: register(wish("eva")))
    assert isinstance(overlap.outcome, invitations.InvitationRefused)
    assert [one.username for one in User.objects.all()] == ["eve"]


def test_of_two_who_use_one_code_of_an_app_at_once_one_is_in() -> None:
    mara, secret = make_user("mara"), "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    TOTP.activate(mara, secret)
    code = format_hotp_value(hotp_value(secret, int(timezone.now().timestamp()) // 30))
    overlap = Overlap()
    overlap.run(lambda: mfa.use_code(mara, code), lambda: mfa.use_code(mara, code))
    assert isinstance(overlap.outcome, WrongPassword)


def test_failures_at_once_are_all_counted() -> None:
    context.begin("r", None)  # the name alone
    user, overlap = make_user("ada"), Overlap()
    for _ in range(2):
        overlap.run(lambda: guards.failed("ada", user), lambda: guards.failed("ada", user))
    assert SignInGuard.objects.get().failures == 4


def test_a_sign_out_during_a_refresh_ends_what_the_refresh_made_too() -> None:
    make_user("ada")
    pair = sessions.sign_in("ada", PASSWORD)
    made = Overlap().run(
        lambda: sessions.refresh(pair.refresh), lambda: sessions.sign_out(pair.refresh)
    )
    assert not RefreshToken.objects.filter(revoked_at__isnull=True).exists()
    with pytest.raises(InvalidToken):
        sessions.refresh(made.refresh)


def test_of_two_rotations_of_one_key_at_once_one_makes_a_successor() -> None:
    key, _ = make_key(make_team("blue"), make_user("ada"))
    overlap = Overlap()
    overlap.run(
        lambda: keys.rotate_key(key, actor=SYSTEM),
        lambda: keys.rotate_key(ApiKey.objects.get(pk=key.pk), actor=SYSTEM),
    )
    assert isinstance(overlap.outcome, Conflict)
    assert ApiKey.objects.filter(replaces=key).count() == 1


def test_a_change_and_a_revocation_at_once_leave_a_revoked_key() -> None:
    key, _ = make_key(make_team("blue"), make_user("ada"))
    overlap = Overlap()
    overlap.run(
        lambda: keys.revoke_key(key, actor=SYSTEM),
        lambda: keys.change_key(
            ApiKey.objects.get(pk=key.pk), change=keys.KeyChange(name="new"), actor=SYSTEM
        ),
    )
    assert isinstance(overlap.outcome, Conflict)
    assert SnapshotEntry.objects.get(kind="key", key=key.pk).deleted


def test_two_changes_of_one_plan_at_once_both_hold() -> None:
    plans.make_plan("gold", wish=plans.PlanWish("Gold"), actor=SYSTEM)
    Overlap().run(
        lambda: plans.change_plan("gold", changes={"rows_per_day": 5}, actor=SYSTEM),
        lambda: plans.change_plan("gold", changes={"rows_per_call": 2}, actor=SYSTEM),
    )
    body = SnapshotEntry.objects.get(kind="plan", key="gold").body
    assert body is not None
    assert (body["rows_per_day"], body["rows_per_call"]) == (5, 2)


def test_a_plan_that_a_key_is_given_at_this_moment_is_not_deleted() -> None:
    plans.make_plan("gold", wish=plans.PlanWish("Gold"), actor=SYSTEM)
    team, ada = make_team("blue"), make_user("ada")
    overlap = Overlap()
    overlap.run(
        lambda: make_key(team, ada, plan="gold"),
        lambda: plans.delete_plan("gold", actor=SYSTEM),
    )
    assert isinstance(overlap.outcome, Conflict)


def test_a_use_and_a_change_at_once_both_hold() -> None:
    key, _ = make_key(make_team("blue"), make_user("ada"))
    Overlap().run(
        lambda: key_uses.note_calls([KeyUse(key.pk, timezone.now(), "192.0.2.7", "x")]),
        lambda: keys.change_key(
            ApiKey.objects.get(pk=key.pk), change=keys.KeyChange(name="new"), actor=SYSTEM
        ),
    )
    key.refresh_from_db()
    assert (key.name, key.last_used_address) == ("new", "192.0.2.7")

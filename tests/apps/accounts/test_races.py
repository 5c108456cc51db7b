"""Two at once: one wins, and what serving learns holds both.

The order is forced: the second thread starts while the first one's transaction is open and holds
its locks, and the first commits only when the second has begun.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from apps.accounts.models import Membership, RefreshToken, User
from apps.accounts.services import people, sessions, teams
from apps.accounts.snapshot import Role, person_from_json
from apps.core.errors import InvalidToken
from apps.core.models import SnapshotEntry
from tests.factories.accounts import PASSWORD, SYSTEM, make_team, make_user

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
        except InvalidToken as error:
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


def test_of_two_uses_of_one_refresh_token_one_wins() -> None:
    make_user("ada")
    pair = sessions.sign_in("ada", PASSWORD)
    overlap = Overlap()
    won = overlap.run(
        lambda: sessions.refresh(pair.refresh), lambda: sessions.refresh(pair.refresh)
    )
    assert isinstance(overlap.outcome, InvalidToken)
    assert sessions.refresh(won.refresh)


def test_a_sign_out_during_a_refresh_ends_what_the_refresh_made_too() -> None:
    make_user("ada")
    pair = sessions.sign_in("ada", PASSWORD)
    made = Overlap().run(
        lambda: sessions.refresh(pair.refresh), lambda: sessions.sign_out(pair.refresh)
    )
    assert not RefreshToken.objects.filter(revoked_at__isnull=True).exists()
    with pytest.raises(InvalidToken):
        sessions.refresh(made.refresh)

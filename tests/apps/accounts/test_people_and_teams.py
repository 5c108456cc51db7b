"""Users, teams and roles: each change has its event, and serving learns of it."""

from typing import Any

import pytest
from django.db import IntegrityError, transaction

from apps.accounts.models import Membership, User
from apps.accounts.services import people, teams
from apps.accounts.snapshot import PersonBody, Role, person_from_json
from apps.core.errors import Conflict, Invalid
from apps.core.models import Event, SnapshotEntry
from tests.factories.accounts import SYSTEM, make_member, make_team, make_user

pytestmark = pytest.mark.django_db


def entry(user: User) -> PersonBody:
    body = SnapshotEntry.objects.get(kind="person", key=str(user.pk)).body
    assert body is not None
    return person_from_json(body)


def member_of(user: User) -> Membership:
    return Membership.objects.get(user=user)


def test_a_new_user_is_known_to_serving() -> None:
    ada = make_user("ada")
    assert entry(ada) == PersonBody(ada.pk, "ada", False, True, 1, {}, (), "standard")
    assert Event.objects.filter(verb="user.created", target_id=str(ada.pk)).exists()


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"username": "a b"}, "/username"),
        ({"username": "a@b.org"}, "/username"),
        ({"email": "nowhere"}, "/email"),
        ({"email": ""}, "/email"),
        ({"password": "short"}, "/password"),
    ],
)
def test_a_user_that_cannot_be_is_refused_at_the_field(fields: Any, pointer: str) -> None:
    wish = {"username": "ada", "email": "a@b.org", "password": "a-long-password-it-is"} | fields
    with pytest.raises(Invalid) as caught:
        people.create_user(**wish, actor=SYSTEM)
    assert pointer in [one.pointer for one in caught.value.problems]
    assert not User.objects.exists()


def test_an_email_address_belongs_to_one_user_in_any_case() -> None:
    make_user("ada")
    with pytest.raises(Invalid):
        people.create_user(username="eve", email="ADA@example.org", password=None, actor=SYSTEM)
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create(username="eve", email="Ada@Example.org")


def test_the_database_refuses_a_name_that_looks_like_an_email_address() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create(username="a@b.org", email="x@b.org")


def test_disabling_a_user_is_known_to_serving_with_its_reason() -> None:
    ada = make_user("ada")
    people.set_active(ada, active=False, actor=SYSTEM, reason="left us")
    assert not entry(ada).is_active
    assert entry(ada).token_version == 2
    assert Event.objects.get(verb="user.disabled").reason == "left us"


def test_roles_reach_serving_with_each_change() -> None:
    team, ada = make_team("blue"), make_user("ada")
    teams.add_member(team, ada, role=Role.VIEWER, actor=SYSTEM)
    assert entry(ada).roles == {team.pk: Role.VIEWER}
    teams.change_role(member_of(ada), role=Role.MAINTAINER, actor=SYSTEM)
    assert entry(ada).roles == {team.pk: Role.MAINTAINER}
    assert entry(ada).token_version == 2
    teams.remove_member(member_of(ada), actor=SYSTEM)
    assert entry(ada).roles == {}
    verbs = Event.objects.filter(team_id=team.pk).order_by("id").values_list("verb", flat=True)
    assert list(verbs) == ["team.created", "member.added", "member.role_changed", "member.removed"]


def test_giving_the_same_role_again_ends_no_token() -> None:
    team = make_team()
    ada = make_member(team, Role.VIEWER)
    teams.change_role(member_of(ada), role=Role.VIEWER, actor=SYSTEM)
    assert entry(ada).token_version == 1


def test_of_two_changes_of_one_role_the_second_is_told() -> None:
    ada = make_member(make_team(), Role.VIEWER)
    mine, theirs = member_of(ada), member_of(ada)
    teams.change_role(mine, role=Role.CONTRIBUTOR, actor=SYSTEM)
    with pytest.raises(Conflict, match="meanwhile"):
        teams.change_role(theirs, role=Role.MAINTAINER, actor=SYSTEM)
    assert member_of(ada).role == Role.CONTRIBUTOR


def test_nobody_is_in_a_team_twice_nor_taken_out_twice() -> None:
    team = make_team()
    ada = make_member(team, Role.VIEWER)
    with pytest.raises(Conflict, match="already"):
        teams.add_member(team, ada, role=Role.MAINTAINER, actor=SYSTEM)
    mine, theirs = member_of(ada), member_of(ada)
    teams.remove_member(mine, actor=SYSTEM)
    with pytest.raises(Conflict, match="meanwhile"):
        teams.remove_member(theirs, actor=SYSTEM)


def test_a_slug_belongs_to_one_team() -> None:
    make_team("blue")
    with pytest.raises(Conflict, match="`blue`"):
        make_team("blue")


@pytest.mark.parametrize("slug", ["", "Blue", "-x", "a b", "x" * 65])
def test_a_bad_slug_is_refused_at_the_field(slug: str) -> None:
    with pytest.raises(Invalid) as caught:
        teams.create_team(slug=slug, name="x", actor=SYSTEM)
    assert caught.value.problems[0].pointer == "/slug"


def test_what_djangos_own_commands_changed_is_caught_up_with() -> None:
    ada = make_user("ada")
    User.objects.filter(pk=ada.pk).update(token_version=9)
    eve = User.objects.create(username="eve", email="eve@example.org")
    assert people.publish_stale() == 2
    assert entry(ada).token_version == 9
    assert entry(eve).username == "eve"
    assert people.publish_stale() == 0


def test_a_change_made_with_an_old_look_at_a_user_does_not_undo_a_newer_one() -> None:
    ada, team = make_user("ada"), make_team("blue")
    old = User.objects.get(pk=ada.pk)
    people.set_active(ada, active=False, actor=SYSTEM)
    teams.add_member(team, old, role=Role.VIEWER, actor=SYSTEM)
    assert not entry(ada).is_active
    assert entry(ada).token_version == 2

"""The screens of accounts: everything through the actions, nothing beyond one's own teams."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.accounts import keys as format_of_keys
from apps.accounts.admin.people import UserAdmin
from apps.accounts.models import ApiKey, Membership, Team, User
from apps.accounts.services import people
from apps.accounts.snapshot import PersonBody, Role, person_from_json
from apps.core.models import Event, SnapshotEntry
from tests.factories.accounts import PASSWORD, SYSTEM, make_key, make_member, make_team, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss() -> User:
    return make_user("boss", is_admin=True)


@pytest.fixture
def team() -> Team:
    return make_team("blue")


def page(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def staff(team: Team, role: Role, name: str) -> User:
    user = make_member(team, role, name)
    User.objects.filter(pk=user.pk).update(is_staff=True)
    return User.objects.get(pk=user.pk)


def entry(user: User) -> PersonBody:
    body = SnapshotEntry.objects.get(kind="person", key=str(user.pk)).body
    assert body is not None
    return person_from_json(body)


# -- people --------------------------------------------------------------------------------------


def test_a_user_made_on_the_page_is_known_to_serving(boss: User) -> None:
    form = {
        "username": "eve",
        "email": "eve@example.org",
        "usable_password": "true",
        "password1": PASSWORD,
        "password2": PASSWORD,
    }
    assert page(boss).post("/admin/accounts/user/add/", form).status_code == 302
    eve = User.objects.get(username="eve")
    assert entry(eve).is_active
    assert Event.objects.get(verb="user.created", target_id=str(eve.pk)).actor_name == "boss"


def test_two_users_cannot_have_one_email_address(boss: User) -> None:
    make_user("ada")
    form = {
        "username": "eve",
        "email": "ADA@example.org",
        "usable_password": "true",
        "password1": PASSWORD,
        "password2": PASSWORD,
    }
    reply = page(boss).post("/admin/accounts/user/add/", form)
    assert "Somebody has this email address already." in reply.content.decode()


def test_disabling_on_the_page_reaches_serving(boss: User) -> None:
    ada = make_user("ada")
    form = {"username": "ada", "email": ada.email, "is_staff": "on"}
    reply = page(boss).post(f"/admin/accounts/user/{ada.pk}/change/", form)
    assert reply.status_code == 302
    assert not entry(ada).is_active
    assert entry(ada).token_version == 2
    assert "is_active" in Event.objects.get(verb="user.changed").facts["changed"]


def test_a_change_on_the_page_says_before_and_after(boss: User) -> None:
    ada = make_user("ada")
    form = {"username": "ada", "email": "new@example.org", "is_active": "on", "is_staff": "on"}
    page(boss).post(f"/admin/accounts/user/{ada.pk}/change/", form)
    told = Event.objects.get(verb="user.changed").facts["changes"]
    assert told == {"email": [ada.email, "new@example.org"], "is_staff": [False, True]}


def test_the_page_writes_back_nothing_that_another_changed_meanwhile(
    boss: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, real = make_user("ada"), UserAdmin.save_model

    def late(self: UserAdmin, *args: Any) -> None:
        people.set_password(User.objects.get(pk=ada.pk), "another-long-password", actor=SYSTEM)
        real(self, *args)

    monkeypatch.setattr(UserAdmin, "save_model", late)
    form = {"username": "ada", "email": ada.email, "first_name": "Ada", "is_active": "on"}
    assert page(boss).post(f"/admin/accounts/user/{ada.pk}/change/", form).status_code == 302
    ada.refresh_from_db()
    assert ada.first_name == "Ada"
    assert ada.check_password("another-long-password")
    assert ada.token_version == 3


def test_a_permission_granted_on_the_page_reaches_serving(boss: User) -> None:
    ada = make_user("ada")
    granted, _ = Permission.objects.get_or_create(
        codename="upload_code_bearing_model",
        content_type=ContentType.objects.filter(app_label="registry").first()
        or ContentType.objects.create(app_label="registry", model="registeredmodel"),
    )
    form = {
        "username": "ada",
        "email": ada.email,
        "is_active": "on",
        "user_permissions": [granted.pk],
    }
    page(boss).post(f"/admin/accounts/user/{ada.pk}/change/", form)
    assert entry(ada).permissions == ("registry.upload_code_bearing_model",)
    told = Event.objects.get(verb="user.changed").facts["changes"]
    assert told["user_permissions"] == [[], ["upload_code_bearing_model"]]


def test_a_password_set_by_the_admin_ends_the_users_tokens(boss: User) -> None:
    ada = make_user("ada")
    form = {
        "usable_password": "true",
        "password1": "another-long-password",
        "password2": "another-long-password",
    }
    reply = page(boss).post(f"/admin/accounts/user/{ada.pk}/password/", form)
    assert reply.status_code == 302
    ada.refresh_from_db()
    assert ada.check_password("another-long-password")
    assert entry(ada).token_version == ada.token_version == 2


def test_ones_own_password_page_ends_ones_tokens(boss: User) -> None:
    new = "another-long-password"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    client = page(boss)
    wrong = client.post("/admin/password_change/", form | {"old_password": "x"})
    assert wrong.status_code == 200
    assert entry(boss).token_version == 1
    assert client.post("/admin/password_change/", form).status_code == 302
    assert entry(boss).token_version == 2
    assert client.get("/admin/accounts/team/").status_code == 200, "the session goes on"


def test_nobody_is_deleted(boss: User, team: Team) -> None:
    ada = make_user("ada")
    client = page(boss)
    for path in (f"user/{ada.pk}", f"team/{team.pk}"):
        assert client.get(f"/admin/accounts/{path}/delete/").status_code == 403
    assert client.get(f"/admin/accounts/user/{ada.pk}/change/").status_code == 200


# -- teams ---------------------------------------------------------------------------------------


def test_a_team_and_its_members_are_made_by_the_actions(boss: User) -> None:
    ada = make_user("ada")
    client = page(boss)
    assert (
        client.post("/admin/accounts/team/add/", {"slug": "red", "name": "Red"}).status_code == 302
    )
    red = Team.objects.get(slug="red")
    client.post(f"/admin/accounts/team/{red.pk}/members/", {"user": "ada", "role": "viewer"})
    assert entry(ada).roles == {red.pk: Role.VIEWER}
    verbs = Event.objects.filter(team_id=red.pk).order_by("id").values_list("verb", flat=True)
    assert list(verbs) == ["team.created", "member.added"]


def test_a_member_is_added_by_email_address_and_a_stranger_is_named(boss: User, team: Team) -> None:
    ada = make_user("ada")
    client = page(boss)
    members = f"/admin/accounts/team/{team.pk}/members/"
    client.post(members, {"user": ada.email.upper(), "role": "viewer"})
    assert entry(ada).roles == {team.pk: Role.VIEWER}
    reply = client.post(members, {"user": "nobody", "role": "viewer"}, follow=True)
    assert "Nobody is called `nobody`." in reply.content.decode()


def test_roles_change_and_members_leave_by_the_actions(boss: User, team: Team) -> None:
    ada, eve = make_member(team, Role.VIEWER, "ada"), make_member(team, Role.VIEWER, "eve")
    rows = {one.user_id: one.pk for one in Membership.objects.all()}
    members = f"/admin/accounts/team/{team.pk}/members"
    client = page(boss)
    client.post(f"{members}/{rows[ada.pk]}/role/", {"role": "maintainer"})
    client.post(f"{members}/{rows[eve.pk]}/remove/")
    assert entry(ada).roles == {team.pk: Role.MAINTAINER}
    assert entry(eve).roles == {}
    assert Membership.objects.get().user == ada


@pytest.mark.parametrize("do", ["members/", "members/{pk}/role/", "members/{pk}/remove/"])
def test_only_who_manages_a_team_changes_its_members(team: Team, do: str) -> None:
    eve = make_member(team, Role.VIEWER, "eve")
    pk = Membership.objects.get(user=eve).pk
    url = f"/admin/accounts/team/{team.pk}/{do.format(pk=pk)}"
    form = {"user": "eve", "role": "maintainer"}
    stranger = staff(make_team("red"), Role.MAINTAINER, "mallory")
    for user in (staff(team, Role.CONTRIBUTOR, "con"), stranger):
        assert page(user).post(url, form).status_code == 404
    assert Client().post(url, form).status_code == 302
    assert page(staff(team, Role.MAINTAINER, "ada")).get(url).status_code == 405
    assert entry(eve).roles == {team.pk: Role.VIEWER}


def test_a_member_of_another_team_is_not_reached_through_ones_own(team: Team) -> None:
    red = make_team("red")
    eve = make_member(red, Role.VIEWER, "eve")
    pk = Membership.objects.get(user=eve).pk
    client = page(staff(team, Role.MAINTAINER, "ada"))
    client.post(f"/admin/accounts/team/{team.pk}/members/{pk}/remove/")
    assert entry(eve).roles == {red.pk: Role.VIEWER}


def test_a_maintainer_manages_the_own_team_and_sees_no_other(team: Team) -> None:
    red = make_team("red")
    ada, viv = staff(team, Role.MAINTAINER, "ada"), staff(team, Role.VIEWER, "viv")
    assert "Red" not in page(ada).get("/admin/accounts/team/").content.decode()
    assert page(ada).get(f"/admin/accounts/team/{red.pk}/change/").status_code == 404
    form = {"name": "Azure"}
    assert page(viv).post(f"/admin/accounts/team/{team.pk}/change/", form).status_code == 403
    assert page(ada).post(f"/admin/accounts/team/{team.pk}/change/", form).status_code == 302
    assert page(ada).get("/admin/accounts/team/add/").status_code == 403
    team.refresh_from_db()
    assert team.name == "Azure"


def test_whoever_is_no_staff_sees_no_page(team: Team) -> None:
    ada = make_member(team, Role.MAINTAINER, "ada")
    assert page(ada).get("/admin/accounts/team/").status_code == 302


# -- keys ----------------------------------------------------------------------------------------


def wish(team: Team, **more: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "team": team.pk,
        "kind": "live",
        "scopes": ["predict"],
        "environments": ["production"],
        "model_names": "wine, iris",
        "life": "30",
    } | more


def test_a_key_made_on_the_page_is_shown_once(team: Team) -> None:
    ada = staff(team, Role.CONTRIBUTOR, "ada")
    client = page(ada)
    assert client.get("/admin/accounts/apikey/add/").status_code == 200
    reply = client.post("/admin/accounts/apikey/add/", wish(team))
    key = ApiKey.objects.get()
    text = re.search(format_of_keys.SCANNER_REGEX, reply.content.decode())
    assert text is not None
    assert format_of_keys.parse(text[0]).matches(key.sha256)  # type: ignore[union-attr]
    assert "no-store" in reply.headers["Cache-Control"]
    assert (key.owner, key.model_names) == (ada, ["wine", "iris"])
    again = client.get(f"/admin/accounts/apikey/{key.pk}/change/").content.decode()
    assert key.prefix in again
    assert text[0][-38:] not in again
    assert key.sha256 not in again


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"scopes": ["admin:*"]}, "Only a maintainer"),
        ({"kind": "test"}, "A test key never reaches production."),
        ({"life": "date", "expires_on": "2020-01-01"}, "within two years"),
        ({"life": "date"}, "Choose the date"),
        ({"scopes": []}, "This field is required."),
    ],
)
def test_a_key_that_cannot_be_is_refused_on_the_form(
    team: Team, more: dict[str, Any], words: str
) -> None:
    ada = staff(team, Role.CONTRIBUTOR, "ada")
    reply = page(ada).post("/admin/accounts/apikey/add/", wish(team, **more))
    assert words in reply.content.decode()
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(("life", "days"), [("30", 30), ("90", 90), ("365", 365)])
def test_a_key_lives_as_long_as_was_chosen(team: Team, life: str, days: int) -> None:
    page(staff(team, Role.CONTRIBUTOR, "ada")).post(
        "/admin/accounts/apikey/add/", wish(team, life=life)
    )
    away = ApiKey.objects.get().expires_at - timezone.now()
    assert timedelta(days=days - 1) < away <= timedelta(days=days)


def test_the_list_of_keys_asks_no_question_per_row(boss: User, team: Team) -> None:
    client = page(boss)
    make_key(team, make_member(team, Role.CONTRIBUTOR))
    client.get("/admin/accounts/apikey/")
    with CaptureQueriesContext(connection) as few:
        client.get("/admin/accounts/apikey/")
    for _ in range(5):
        make_key(team, make_member(team, Role.CONTRIBUTOR))
    with CaptureQueriesContext(connection) as many:
        reply = client.get("/admin/accounts/apikey/")
    assert reply.content.decode().count('id="cell-key-calls-') == 6
    assert len(many) == len(few)


@pytest.mark.parametrize("state", ["active", "expires soon", "expired", "revoked"])
def test_keys_are_found_by_their_state(boss: User, team: Team, state: str) -> None:
    now = timezone.now()
    ends = {"expires soon": now + timedelta(days=3), "expired": now - timedelta(days=1)}
    made = {}
    for one in ("active", "expires soon", "expired", "revoked"):
        key, _ = make_key(team, make_member(team, Role.CONTRIBUTOR))
        revoked = now if one == "revoked" else None
        end = ends.get(one, key.expires_at)
        ApiKey.objects.filter(pk=key.pk).update(expires_at=end, revoked_at=revoked)
        made[one] = key.pk
    shown = page(boss).get("/admin/accounts/apikey/", {"state": state}).content.decode()
    assert {one for one, pk in made.items() if f"cell-key-calls-{pk}" in shown} == {state}


def test_keys_are_narrowed_to_mine_and_to_what_reaches_an_environment(team: Team) -> None:
    ada = staff(team, Role.MAINTAINER, "ada")
    mine, _ = make_key(team, ada, environments=("staging",))
    other, _ = make_key(team, make_member(team, Role.CONTRIBUTOR))
    client = page(ada)
    only_mine = client.get("/admin/accounts/apikey/?whose=mine").content.decode()
    in_staging = client.get("/admin/accounts/apikey/?environment=staging").content.decode()
    theirs = client.get("/admin/accounts/apikey/?whose=team").content.decode()
    for shown, there, gone in (
        (only_mine, mine, other),
        (in_staging, mine, other),
        (theirs, other, mine),
    ):
        assert f"cell-key-calls-{there.pk}" in shown
        assert f"cell-key-calls-{gone.pk}" not in shown


def test_no_key_is_made_for_another_team(team: Team) -> None:
    ada = staff(team, Role.MAINTAINER, "ada")
    page(ada).post("/admin/accounts/apikey/add/", wish(make_team("red")))
    assert not ApiKey.objects.exists()


def test_a_viewer_makes_no_key(team: Team) -> None:
    viv = staff(team, Role.VIEWER, "viv")
    assert page(viv).post("/admin/accounts/apikey/add/", wish(team)).status_code == 403


def test_a_key_is_revoked_on_its_page_with_a_reason(team: Team) -> None:
    ada = staff(team, Role.CONTRIBUTOR, "ada")
    key, _ = make_key(team, ada)
    client = page(ada)
    url = f"/admin/accounts/apikey/{key.pk}/revoke/"
    assert "Revoke key" in client.get(f"/admin/accounts/apikey/{key.pk}/change/").content.decode()
    client.post(url, {"_form_submitted": "True", "reason": ""})
    key.refresh_from_db()
    assert key.revoked_at is None, "a reason is asked for"
    reply = client.post(url, {"_form_submitted": "True", "reason": "leaked"})
    assert reply.headers["HX-Redirect"] == f"/admin/accounts/apikey/{key.pk}/change/"
    assert Event.objects.get(verb="key.revoked").reason == "leaked"
    assert SnapshotEntry.objects.get(kind="key").deleted


def test_another_teams_key_is_neither_seen_nor_revoked(team: Team) -> None:
    ada = staff(team, Role.MAINTAINER, "ada")
    red = make_team("red")
    key, _ = make_key(red, make_member(red, Role.CONTRIBUTOR))
    client = page(ada)
    assert key.pk not in client.get("/admin/accounts/apikey/").content.decode()
    url = f"/admin/accounts/apikey/{key.pk}/revoke/"
    client.post(url, {"_form_submitted": "True", "reason": "x"})
    key.refresh_from_db()
    assert key.revoked_at is None

"""The screens of keys and plans: each does by the actions what the API does, and no more."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.accounts.models import ApiKey, Plan, Team, User
from apps.accounts.selectors import key_body
from apps.accounts.services import key_uses, keys, plans
from apps.accounts.services.key_uses import KeyUse
from apps.accounts.snapshot import Role, key_from_json, plan_from_json
from apps.core.models import Event, SnapshotEntry
from tests.apps.accounts.test_admin import page, staff
from tests.factories.accounts import SYSTEM, make_key, make_team, make_user

pytestmark = pytest.mark.django_db
LIST = "/admin/accounts/apikey/"
# How unfold's dialogs say that they were sent.
SENT = {"_form_submitted": "True"}


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def boss() -> User:
    return make_user("boss", is_admin=True)


@pytest.fixture
def ada(team: Team) -> User:
    return staff(team, Role.CONTRIBUTOR, "ada")


def wish(team: Team, **more: Any) -> dict[str, Any]:
    usual = {
        "name": "till",
        "team": team.pk,
        "kind": "live",
        "scopes": ["predict"],
        "environments": ["production"],
        "model_names": "",
        "networks": "",
        "life": "90",
    }
    return usual | more


def text_of(reply: Any) -> str:
    found = re.search(r'id="issued-key">([^<]+)<', reply.content.decode())
    assert found is not None, reply.content.decode()[-3000:]
    return found[1]


# -- making and changing -------------------------------------------------------------------------


def test_a_key_made_on_the_page_has_its_plan_and_networks(team: Team, boss: User) -> None:
    form = wish(team, networks="192.0.2.0/24, 2001:db8::1", plan="unlimited")
    reply = page(boss).post(f"{LIST}add/", form)
    key = ApiKey.objects.get()
    assert key.pk in text_of(reply)
    assert "no-store" in reply.headers["Cache-Control"]
    assert (key.plan_id, key.networks) == ("unlimited", ["192.0.2.0/24", "2001:db8::1/128"])


def test_a_form_without_a_plan_gives_the_owners(team: Team, ada: User) -> None:
    plans.give_plan(ada, name="unlimited", actor=SYSTEM)
    page(ada).post(f"{LIST}add/", wish(team))
    assert ApiKey.objects.get().plan_id == "unlimited"


def test_a_wrong_network_is_said_at_its_field(team: Team, ada: User) -> None:
    reply = page(ada).post(f"{LIST}add/", wish(team, networks="192.0.2.7/24"))
    assert 'id="networks-error"' in reply.content.decode()
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("where", ["add", "edit"])
def test_no_page_gives_a_plan_that_is_not_the_callers_to_give(
    team: Team, boss: User, ada: User, where: str
) -> None:
    plans.make_plan("gold", wish=plans.PlanWish("Gold"), actor=SYSTEM)
    mai = staff(team, Role.MAINTAINER, "mai")
    given = {}
    for user in (ada, mai, boss):
        key, _ = make_key(team, ada, plan="standard")
        at = "add/" if where == "add" else f"{key.pk}/edit/"
        life = "90" if where == "add" else "keep"
        for name in ("standard", "gold", "unlimited"):
            before = ApiKey.objects.filter(plan=name).count()
            page(user).post(f"{LIST}{at}", wish(team, plan=name, name=name, life=life))
            made = ApiKey.objects.filter(plan=name, name=name).count()
            more = ApiKey.objects.filter(plan=name).count() > before
            given[user.username, name] = made > 0 or more
        ApiKey.objects.all().delete()
    refused = {who for who, was in given.items() if not was}
    assert refused == {("ada", "gold"), ("ada", "unlimited"), ("mai", "unlimited")}


def test_an_edit_changes_what_was_changed_and_nothing_else(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada, models=("wine",), plan="standard")
    before = ApiKey.objects.get(pk=key.pk)
    form = wish(team, name="new name", model_names="wine", networks="192.0.2.0/24", life="keep")
    assert page(ada).post(f"{LIST}{key.pk}/edit/", form).status_code == 302
    facts = Event.objects.get(verb="key.changed").facts
    assert set(facts["after"]) == {"name", "networks"}
    key.refresh_from_db()
    assert key.expires_at == before.expires_at
    body = SnapshotEntry.objects.get(kind="key", key=key.pk).body
    assert body is not None
    assert body["networks"] == ["192.0.2.0/24"]


def test_an_edit_keeps_a_scope_that_is_not_offered(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada, scopes=("predict", "feedback:write"), plan="standard")
    page(ada).post(f"{LIST}{key.pk}/edit/", wish(team, scopes=["logs:read"], life="keep"))
    key.refresh_from_db()
    assert set(key.scopes) == {"logs:read", "feedback:write"}


def test_a_key_that_ended_meanwhile_says_so(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada)
    keys.revoke_key(key, actor=SYSTEM)
    form = wish(team, life="keep", plan="unlimited")
    reply = page(ada).post(f"{LIST}{key.pk}/edit/", form, follow=True)
    assert "This key is revoked, for ever." in reply.content.decode()


# -- rotating and revoking -----------------------------------------------------------------------


def test_a_rotation_shows_the_new_secret_once_and_both_keys_know_each_other(
    team: Team, ada: User
) -> None:
    key, _ = make_key(team, ada)
    client = page(ada)
    reply = client.post(f"{LIST}{key.pk}/rotate/", {"overlap": "1"})
    text = text_of(reply)
    successor = ApiKey.objects.get(replaces=key)
    assert successor.pk in text
    key.refresh_from_db()
    assert key.expires_at <= timezone.now() + timedelta(hours=1)
    for one, other in ((key, successor), (successor, key)):
        shown = client.get(f"{LIST}{one.pk}/change/").content.decode()
        assert f"{LIST}{other.pk}/change/" in shown
        assert text.rpartition("_")[2] not in shown
    assert "rotate-dialog" not in client.get(f"{LIST}{key.pk}/change/").content.decode()


def test_a_second_rotation_is_refused_in_words(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada)
    client = page(ada)
    client.post(f"{LIST}{key.pk}/rotate/", {"overlap": "24"})
    again = client.post(f"{LIST}{key.pk}/rotate/", {"overlap": "24"}, follow=True)
    assert "was rotated already" in again.content.decode()
    assert ApiKey.objects.count() == 2


def test_strangers_and_lookers_neither_edit_nor_rotate(team: Team, ada: User, boss: User) -> None:
    key, _ = make_key(team, ada)
    of_boss, _ = make_key(team, boss)
    stranger = staff(make_team("red"), Role.MAINTAINER, "mallory")
    viewer, mai = staff(team, Role.VIEWER, "viv"), staff(team, Role.MAINTAINER, "mai")
    for user, which, status in (
        (stranger, key, 404),
        (viewer, key, 404),
        (mai, of_boss, 403),
    ):
        client = page(user)
        assert client.get(f"{LIST}{which.pk}/edit/").status_code == status
        assert client.post(f"{LIST}{which.pk}/edit/", wish(team)).status_code == status
        assert client.post(f"{LIST}{which.pk}/rotate/", {"overlap": "1"}).status_code == status
    assert ApiKey.objects.count() == 2


def test_chosen_keys_are_revoked_with_one_reason_and_only_the_own(team: Team, ada: User) -> None:
    mine = [make_key(team, ada)[0].pk for _ in range(2)]
    other, _ = make_key(team, staff(team, Role.CONTRIBUTOR, "con"))
    client = page(ada)
    chosen = {"action": "revoke_chosen", "_selected_action": [*mine, other.pk]}
    asked = client.post(LIST, chosen)
    assert "Revoke 2 keys" in asked.content.decode()
    assert not Event.objects.filter(verb="key.revoked").exists()
    client.post(LIST, chosen | {"reason": "leaked"})
    revoked = Event.objects.filter(verb="key.revoked", reason="leaked")
    assert sorted(revoked.values_list("target_id", flat=True)) == sorted(mine)
    other.refresh_from_db()
    assert other.revoked_at is None


# -- looking -------------------------------------------------------------------------------------


def test_the_page_tells_where_a_key_was_used(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada)
    at = timezone.now() - timedelta(minutes=3)
    key_uses.note_calls([KeyUse(key.pk, at, "192.0.2.7", "python-httpx/<b>")])
    shown = page(ada).get(f"{LIST}{key.pk}/change/").content.decode()
    assert "from 192.0.2.7 (python-httpx/&lt;b&gt;)" in shown
    assert "1 prediction call;" in shown


def test_the_list_narrows_by_plan_and_by_state(team: Team, ada: User) -> None:
    for name, plan, warned in (("one", "trial", None), ("two", "standard", timezone.now())):
        key, _ = make_key(team, ada, plan=plan)
        ApiKey.objects.filter(pk=key.pk).update(name=f"key-{name}", warned_at=warned)
    client = page(ada)

    def listed(query: str) -> set[str]:
        return set(re.findall(r"key-(one|two)", client.get(f"{LIST}?{query}").content.decode()))

    assert listed("plan=trial") == {"one"}
    assert listed("plan=standard") == {"two"}
    assert listed("state=unused") == {"two"}
    assert listed("state=active") == {"one"}


# -- plans ---------------------------------------------------------------------------------------

PLAN = {
    "title": "Gold",
    "requests_per_minute": "5",
    "rows_per_minute": "",
    "rows_per_day": "70",
    "rows_per_call": "",
    "counted_by": "person",
    "is_offered": "on",
}


def test_plans_made_and_changed_on_the_page_reach_serving(boss: User) -> None:
    client = page(boss)
    at = "/admin/accounts/plan/"
    assert client.post(f"{at}add/", PLAN | {"name": "gold"}).status_code == 302
    form = PLAN | {"requests_per_minute": "6"}
    assert client.post(f"{at}gold/change/", form).status_code == 302
    body = SnapshotEntry.objects.get(kind="plan", key="gold").body
    assert body is not None
    assert plan_from_json(body).requests_per_minute == 6
    verbs = Event.objects.filter(target_id="gold").order_by("pk").values_list("verb", flat=True)
    assert list(verbs) == ["plan.created", "plan.changed"]
    assert "Gold" in client.get(at).content.decode()


def test_a_plan_in_use_is_kept_in_words(boss: User, team: Team) -> None:
    plans.make_plan("gold", wish=plans.PlanWish("Gold"), actor=SYSTEM)
    make_key(team, boss, plan="gold")
    client = page(boss)
    client.post("/admin/accounts/plan/gold/delete_plan/", SENT | {"reason": "old"})
    assert Plan.objects.filter(pk="gold").exists()
    assert "is in use by 1 keys" in client.get("/admin/accounts/plan/").content.decode()


def test_only_platform_admins_see_plans_and_give_them(team: Team, boss: User, ada: User) -> None:
    mai = staff(team, Role.MAINTAINER, "mai")
    for path in ("plan/", "plan/standard/change/", "plan/add/", f"user/{ada.pk}/give_plan/"):
        assert page(mai).get(f"/admin/accounts/{path}").status_code == 403
    reply = page(boss).post(f"/admin/accounts/user/{ada.pk}/give_plan/", SENT | {"plan": "trial"})
    assert reply.status_code == 200
    ada.refresh_from_db()
    assert ada.plan_id == "trial"


def test_a_key_of_the_page_and_one_of_serving_are_the_same(team: Team, ada: User) -> None:
    page(ada).post(f"{LIST}add/", wish(team, networks="192.0.2.0/24"))
    key = ApiKey.objects.get()
    body = SnapshotEntry.objects.get(kind="key", key=key.pk).body
    assert body is not None
    assert key_from_json(body) == key_body(key)

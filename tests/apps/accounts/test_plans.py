"""Plans: who makes, changes and gives them, and that a change reaches serving with its commit."""

from typing import Any

import pytest

from apps.accounts.models import ApiKey, Plan, Team, User
from apps.accounts.policies import TRIAL
from apps.accounts.selectors import plan_body
from apps.accounts.services import plans
from apps.accounts.services.plans import PlanWish
from apps.accounts.snapshot import PlanBody, Role, person_from_json, plan_from_json
from apps.core.errors import Conflict, Invalid
from apps.core.models import Event, SnapshotEntry
from tests.apps.accounts.test_doors import Http
from tests.factories.accounts import (
    SYSTEM,
    api_key,
    bearer,
    make_key,
    make_member,
    make_team,
    make_user,
)

pytestmark = pytest.mark.django_db
WISH = {"name": "mine", "team": "blue", "scopes": ["predict"]}


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def boss() -> User:
    return make_user("boss", is_admin=True)


def entry(name: str) -> PlanBody | None:
    row = SnapshotEntry.objects.filter(kind="plan", key=name, deleted=False).first()
    return plan_from_json(row.body) if row and row.body else None


def on(user: User, name: str) -> User:
    plans.give_plan(user, name=name, actor=SYSTEM)
    return user


# -- what becomes of a plan ----------------------------------------------------------------------


def test_a_new_plan_is_known_to_serving(boss: User) -> None:
    wish = {"name": "gold", "title": "Gold", "requests_per_minute": 5, "rows_per_day": 70}
    assert Http(bearer(boss))("POST", "plans", wish).status_code == 201
    assert entry("gold") == PlanBody("gold", requests_per_minute=5, rows_per_day=70)
    assert Event.objects.get(verb="plan.created").facts["after"]["rows_per_day"] == 70


def test_a_changed_number_reaches_serving_with_its_before_and_after(boss: User) -> None:
    http = Http(bearer(boss))
    reply = http("PATCH", "plans/standard", {"requests_per_minute": 7})
    assert reply.json()["requests_per_minute"] == 7
    known = entry("standard")
    assert known is not None
    assert (known.requests_per_minute, known.rows_per_minute) == (7, 60_000)
    facts = Event.objects.get(verb="plan.changed").facts
    assert facts == {
        "before": {"requests_per_minute": 6_000},
        "after": {"requests_per_minute": 7},
    }


def test_a_limit_is_taken_away_by_null(boss: User) -> None:
    http = Http(bearer(boss))
    http("PATCH", "plans/standard", {"rows_per_day": None})
    known = entry("standard")
    assert known is not None
    assert known.rows_per_day is None


def test_a_change_of_nothing_writes_nothing(boss: User) -> None:
    assert Http(bearer(boss))("PATCH", "plans/trial", {"title": "Trial"}).status_code == 200
    assert not Event.objects.filter(verb="plan.changed").exists()
    assert entry("trial") is None


def test_two_changes_of_other_fields_both_hold() -> None:
    plans.change_plan("trial", changes={"rows_per_day": 5}, actor=SYSTEM)
    plans.change_plan("trial", changes={"rows_per_call": 2}, actor=SYSTEM)
    row = Plan.objects.get(pk="trial")
    assert (row.rows_per_day, row.rows_per_call) == (5, 2)


@pytest.mark.parametrize("number", [-1, 2**40, "many", 1.5])
def test_a_number_that_is_no_limit_is_refused_at_its_field(boss: User, number: Any) -> None:
    reply = Http(bearer(boss))("PATCH", "plans/standard", {"requests_per_minute": number})
    assert reply.status_code == 400
    assert [one["pointer"] for one in reply.json()["errors"]] == ["/requests_per_minute"]


def test_a_plan_in_use_stays(team: Team) -> None:
    plans.make_plan("gold", wish=PlanWish("Gold"), actor=SYSTEM)
    key, _ = make_key(team, make_member(team, Role.VIEWER), plan="gold")
    with pytest.raises(Conflict, match="in use by 1 keys and 0 people"):
        plans.delete_plan("gold", actor=SYSTEM)
    ApiKey.objects.filter(pk=key.pk).update(plan="standard")
    plans.delete_plan("gold", actor=SYSTEM, reason="nobody wants it")
    assert entry("gold") is None
    assert not Plan.objects.filter(pk="gold").exists()
    assert Event.objects.get(verb="plan.deleted").reason == "nobody wants it"


@pytest.mark.parametrize("name", plans.BUILT_IN)
def test_what_the_platform_gives_by_itself_is_not_deleted(name: str) -> None:
    with pytest.raises(Conflict, match="stays"):
        plans.delete_plan(name, actor=SYSTEM)


def test_a_name_is_taken_once(boss: User) -> None:
    reply = Http(bearer(boss))("POST", "plans", {"name": "trial", "title": "Mine"})
    assert reply.status_code == 409


def test_a_person_on_another_plan_is_known_to_serving(boss: User) -> None:
    ada = make_user("ada")
    plans.give_plan(ada, name=TRIAL, actor=SYSTEM)
    body = SnapshotEntry.objects.get(kind="person", key=str(ada.pk)).body
    assert body is not None
    assert person_from_json(body).plan == TRIAL
    assert Event.objects.get(verb="user.plan_changed").facts["before"] == {"plan": "standard"}
    with pytest.raises(Invalid):
        plans.give_plan(ada, name="none", actor=SYSTEM)


def test_entries_that_do_not_say_what_the_rows_say_are_written_anew() -> None:
    Plan.objects.filter(pk="trial").update(rows_per_day=3)
    plans.publish_stale()
    row = Plan.objects.get(pk="trial")
    assert entry("trial") == plan_body(row)
    assert plans.publish_stale() == 0


# -- who gives which -----------------------------------------------------------------------------


def status(user: User, plan: str) -> int:
    return int(Http(bearer(user))("POST", "keys", {**WISH, "plan": plan}).status_code)


def test_a_new_key_has_its_owners_plan(team: Team) -> None:
    con = on(make_member(team, Role.CONTRIBUTOR, "con"), "unlimited")
    made = Http(bearer(con))("POST", "keys", WISH).json()
    assert made["plan"] == "unlimited"
    body = SnapshotEntry.objects.get(kind="key", key=made["id"]).body
    assert body is not None
    assert body["plan"] == "unlimited"


def test_each_role_gives_the_plans_that_are_its_to_give(team: Team, boss: User) -> None:
    plans.make_plan("gold", wish=PlanWish("Gold"), actor=SYSTEM)
    con, mai = make_member(team, Role.CONTRIBUTOR), make_member(team, Role.MAINTAINER)
    stranger = make_member(make_team("red"), Role.MAINTAINER)
    given = {
        name: [status(user, name) for user in (stranger, con, mai, boss)]
        for name in ("standard", "gold", "unlimited", "none")
    }
    assert given == {
        "standard": [404, 201, 201, 201],
        "gold": [404, 403, 201, 201],
        "unlimited": [404, 403, 403, 201],
        "none": [404, 400, 400, 400],
    }


def test_whoever_is_on_trial_gives_nothing_else(team: Team) -> None:
    mai = on(make_member(team, Role.MAINTAINER), TRIAL)
    assert status(mai, "standard") == 403
    assert status(mai, TRIAL) == 201
    key = Http(bearer(mai))("POST", "keys", WISH).json()
    assert key["plan"] == TRIAL
    assert Http(bearer(mai))("PATCH", f"keys/{key['id']}", {"plan": "standard"}).status_code == 403


def test_an_admins_key_makes_plans_only_with_the_scope_for_it(team: Team, boss: User) -> None:
    wish = {"name": "gold", "title": "Gold"}
    found = []
    for scopes in (("predict",), ("admin:*",)):
        _, text = make_key(team, boss, scopes=scopes)
        found.append(Http(api_key(text))("post", "plans", wish).status_code)
    assert found == [403, 201]


def test_a_key_gives_its_own_plan_and_no_other(team: Team, boss: User) -> None:
    scopes = ("admin:*", "predict")
    _, text = make_key(team, on(boss, "unlimited"), scopes=scopes, plan="trial")
    http = Http(api_key(text))
    assert http("POST", "keys", WISH).json()["plan"] == "trial"
    assert http("POST", "keys", {**WISH, "plan": "standard"}).status_code == 403
    better, _ = make_key(team, boss, plan="unlimited")
    assert http("POST", f"keys/{better.pk}/rotate", {}).status_code == 403


def test_a_changed_key_gets_no_better_plan_than_a_new_one(team: Team, boss: User) -> None:
    con, mai = make_member(team, Role.CONTRIBUTOR, "con"), make_member(team, Role.MAINTAINER)
    plans.make_plan("gold", wish=PlanWish("Gold"), actor=SYSTEM)
    key, _ = make_key(team, con, plan="standard")

    def given(user: User, name: str) -> int:
        return int(Http(bearer(user))("PATCH", f"keys/{key.pk}", {"plan": name}).status_code)

    assert [given(user, "unlimited") for user in (con, mai, boss)] == [403, 403, 200]
    assert [given(user, "gold") for user in (con, mai, boss)] == [403, 200, 200]
    assert given(con, "standard") == 200


def test_a_better_plan_is_left_when_something_else_changes(team: Team) -> None:
    con = make_member(team, Role.CONTRIBUTOR, "con")
    key, _ = make_key(team, con, plan="unlimited")
    reply = Http(bearer(con))("PATCH", f"keys/{key.pk}", {"name": "other", "plan": "unlimited"})
    assert (reply.status_code, reply.json()["plan"]) == (200, "unlimited")

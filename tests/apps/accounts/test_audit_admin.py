"""The audit page: own teams only, by filters in the address, with a chain that can be verified."""

import csv
import io
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.accounts.admin import audit
from apps.accounts.models import Team, User
from apps.accounts.services import teams
from apps.accounts.snapshot import Role
from apps.core import events, tasks, work, write_once
from apps.core.events import Actor
from apps.core.models import Event, EventSeal, Work
from apps.core.selectors import chain_status
from tests.factories.accounts import make_key, make_member, make_team, make_user

pytestmark = pytest.mark.django_db
LIST = "/admin/core/event/"
SYSTEM = Actor.system()


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def boss() -> User:
    return make_user("boss", is_admin=True)


def page(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def staff(team: Team, role: Role, name: str) -> User:
    user = make_member(team, role, name)
    User.objects.filter(pk=user.pk).update(is_staff=True)
    return User.objects.get(pk=user.pk)


def shown(user: User, query: str = "") -> str:
    return page(user).get(f"{LIST}{query}").content.decode()


# -- who sees what -------------------------------------------------------------------------------


def test_a_maintainer_reads_the_events_of_the_own_team_and_no_other(team: Team) -> None:
    red = make_team("red")
    make_key(red, make_member(red, Role.CONTRIBUTOR))
    ada = staff(team, Role.MAINTAINER, "ada")
    text = shown(ada)
    assert "Made the team Blue" in text
    assert "Red" not in text
    foreign = Event.objects.filter(team_id=red.pk).first()
    own = Event.objects.filter(team_id=team.pk).first()
    assert foreign is not None
    assert own is not None
    assert page(ada).get(f"{LIST}{foreign.pk}/change/").status_code == 404
    assert page(ada).get(f"{LIST}{own.pk}/change/").status_code == 200


@pytest.mark.parametrize("role", [Role.VIEWER, Role.CONTRIBUTOR])
@pytest.mark.parametrize("path", ["", "chain/", "export/"])
def test_who_is_no_maintainer_reads_no_audit(team: Team, role: Role, path: str) -> None:
    assert page(staff(team, role, "con")).get(f"{LIST}{path}").status_code in {403, 404}


@pytest.mark.parametrize("path", ["", "chain/", "export/"])
def test_who_is_not_signed_in_is_sent_to_the_door(path: str) -> None:
    reply = Client().get(f"{LIST}{path}")
    assert reply.status_code == 302
    assert "login" in reply.headers["Location"]


def test_only_a_platform_admin_starts_a_verification(team: Team, boss: User) -> None:
    ada = staff(team, Role.MAINTAINER, "ada")
    assert page(ada).post(f"{LIST}verify/").status_code == 404
    assert page(boss).get(f"{LIST}verify/").status_code == 405
    assert not Work.objects.filter(name="core.verify_audit").exists()


# -- finding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "there", "gone"),
    [
        ("?about=key", "Made the key", "Made the team"),
        ("?about=team", "Made the team", "Made the key"),
        ("?who=nobody-here", "Nothing matches", "Made the team"),
        ("?q=Blue", "Made the team Blue", "Made the key"),
        ("?until=2020-01-01", "Nothing matches", "Made the team"),
        ("?from=2020-01-01", "Made the team", "Nothing matches"),
        ("?since=1h", "Made the team", "Nothing matches"),
    ],
)
def test_filters_stand_in_the_address(
    team: Team, boss: User, query: str, there: str, gone: str
) -> None:
    make_key(team, boss)
    text = shown(boss, query)
    assert there in text
    assert gone not in text


def test_sign_ins_are_hidden_until_they_are_asked_for(boss: User) -> None:
    events.record("user.signed_in", actor=Actor("user", "1", "mara"), target=boss)
    assert "Signed in" not in shown(boss)
    assert "Signed in" in shown(boss, "?signins=shown")


def test_the_list_asks_no_question_per_row(team: Team, boss: User) -> None:
    client = page(boss)
    client.get(LIST)
    with CaptureQueriesContext(connection) as few:
        client.get(LIST)
    for number in range(20):
        teams.rename_team(team, name=f"Blue {number}", actor=SYSTEM)
    with CaptureQueriesContext(connection) as many:
        client.get(LIST)
    assert len(many) == len(few)


def test_an_event_tells_what_was_before_and_after(team: Team, boss: User) -> None:
    eve = make_member(team, Role.VIEWER, "eve")
    member = eve.memberships.select_related("user", "team").get()
    teams.change_role(member, role=Role.MAINTAINER, actor=SYSTEM)
    one = Event.objects.get(verb="member.role_changed")
    events.seal_pending()
    text = page(boss).get(f"{LIST}{one.pk}/change/").content.decode()
    assert "Made eve maintainer of Blue (was viewer)" in text
    assert ">viewer</td>" in text
    assert ">maintainer</td>" in text
    assert EventSeal.objects.get(event=one).hash in text


# -- the chain -----------------------------------------------------------------------------------


def verified(boss: User) -> str:
    """Ask for a verification, let a worker do it, and look at the page."""
    page(boss).post(f"{LIST}verify/")
    asked = Work.objects.get(name="core.verify_audit")
    assert "running" in shown(boss)
    assert work.run_once(asked.pk)
    return shown(boss)


def test_a_sound_chain_is_verified_by_a_worker_and_said_so(team: Team, boss: User) -> None:
    events.seal_pending()
    text = verified(boss)
    assert "Verified the audit chain" in text
    assert chain_status().state == "verified"


def test_an_altered_event_shows_as_a_broken_chain(team: Team, boss: User) -> None:
    events.seal_pending()
    first = Event.objects.order_by("id")[0]
    with write_once.suspended():
        Event.objects.filter(pk=first.pk).update(reason="another")
    assert "Found the audit chain broken at 1" in verified(boss)
    assert chain_status().state == "broken"


def test_the_work_of_the_page_is_one_that_workers_know() -> None:
    assert tasks.verify_audit.__doc__


def test_asking_twice_starts_one_verification(boss: User) -> None:
    client = page(boss)
    client.post(f"{LIST}verify/")
    client.post(f"{LIST}verify/")
    assert Work.objects.filter(name="core.verify_audit").count() == 1


# -- export --------------------------------------------------------------------------------------


def exported(user: User, query: str = "") -> list[list[str]]:
    reply: Any = page(user).get(f"{LIST}export/{query}")
    assert reply.headers["Content-Type"].startswith("text/csv")
    return list(csv.reader(io.StringIO(b"".join(reply.streaming_content).decode())))


def test_the_export_holds_the_filtered_rows_of_ones_own_teams(team: Team) -> None:
    make_key(team, make_member(team, Role.CONTRIBUTOR))
    red = make_team("red")
    make_key(red, make_member(red, Role.CONTRIBUTOR))
    rows = exported(staff(team, Role.MAINTAINER, "ada"), "?about=key")
    assert rows[0] == list(audit.COLUMNS)
    assert [row[4] for row in rows[1:]] == ["key.issued"]
    event = Event.objects.get(verb="audit.exported")
    assert (event.team_id, event.facts["rows"]) == (team.pk, 1)


def test_each_team_reads_that_its_events_left(team: Team, boss: User) -> None:
    red = make_team("red")
    for one in (team, red):
        make_key(one, make_member(one, Role.CONTRIBUTOR))
    assert len(exported(boss, "?about=key")) == 3
    told = Event.objects.filter(verb="audit.exported").values_list("team_id", "facts__rows")
    assert set(told) == {(team.pk, 1), (red.pk, 1)}


def test_no_cell_of_the_export_is_a_formula(team: Team, boss: User) -> None:
    events.record(
        "team.renamed", actor=SYSTEM, target=team, team_id=team.pk, reason="=cmd|' /C calc'!A0"
    )
    row = next(row for row in exported(boss) if row[4] == "team.renamed")
    assert row[8] == "'=cmd|' /C calc'!A0"


@pytest.mark.parametrize("query", ["colour=blue", "until=9999-12-31", "from=0001-01-01"])
def test_an_address_that_somebody_wrote_by_hand_breaks_neither_list_nor_export(
    boss: User, query: str
) -> None:
    client = page(boss)
    assert client.get(f"{LIST}?{query}", follow=True).status_code == 200
    assert client.get(f"{LIST}export/?{query}", follow=True).status_code == 200


def test_an_export_that_would_be_too_long_says_how_to_narrow_it(
    boss: User, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MOST_EXPORTED", 1)
    reply = page(boss).get(f"{LIST}export/", follow=True)
    assert "Narrow the filters" in reply.content.decode()

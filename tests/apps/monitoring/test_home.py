"""Home: what needs the one who looks, of the own teams, at a bounded number of queries."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from apps.accounts.models import ApiKey, Team, User
from apps.accounts.selectors import actor_of_user, caller_of_user
from apps.accounts.snapshot import Role
from apps.inference.engine.spool import frames, sealed_segments
from apps.inference.journal_db import tables
from apps.inference.journal_db.rows import row_from
from apps.monitoring.home import home_of
from apps.registry.models import ModelVersion, RegisteredModel
from apps.registry.services import releases
from apps.registry.states import VersionState
from tests.factories.accounts import make_key, make_member, make_team, make_user
from tests.factories.inference import record, spooled
from tests.factories.registry import SYSTEM, endpoint_of, make_model, make_release, make_version

pytestmark = pytest.mark.django_db
HOME = "/admin/"


@pytest.fixture
def team() -> Team:
    return make_team("blue")


def staff(team: Team, role: Role, name: str) -> User:
    user = make_member(team, role, name)
    User.objects.filter(pk=user.pk).update(is_staff=True)
    return User.objects.get(pk=user.pk)


def shown(user: User) -> str:
    client = Client()
    client.force_login(user)
    reply = client.get(HOME)
    assert reply.status_code == 200
    return reply.content.decode()


def live(name: str, team: Team) -> RegisteredModel:
    model = make_model(name, team=team)
    make_release(make_version(model))
    return model


def waiting(name: str, team: Team, asker: User, settings: Settings) -> None:
    settings.REQUIRE_APPROVAL = True
    version = make_version(make_model(name, team=team))
    releases.make_release(
        endpoint_of(version.model),
        version=1,
        reason="better F1",
        actor=SYSTEM,
        person_id=asker.pk,
    )


def answered(folder: Path, model: str, team: Team, *, count: int, **facts: Any) -> None:
    records = [record(model=model, team_id=team.pk, **facts) for _ in range(count)]
    spooled(folder / model, records)
    rows = [
        row_from(payload)
        for segment in sealed_segments(folder / model)
        for payload in frames(segment.path.read_bytes())
    ]
    tables.write(rows)


# -- who sees it ---------------------------------------------------------------------------------


def test_who_is_not_signed_in_is_sent_to_the_door() -> None:
    assert Client().get(HOME).status_code == 302


def test_home_shows_the_own_teams_only(team: Team) -> None:
    red = make_team("red")
    live("wine", team)
    live("secret-model", red)
    for role in Role:
        text = shown(staff(team, role, f"some-{role}"))
        assert "wine" in text
        assert "secret-model" not in text
        assert "Made the team Red" not in text
    text = shown(make_user("boss", is_admin=True))
    assert "wine" in text
    assert "secret-model" in text


def test_without_models_home_says_how_to_get_the_first_one(team: Team) -> None:
    text = shown(staff(team, Role.CONTRIBUTOR, "ada"))
    assert "From a file to a live model" in text
    live("wine", team)
    text = shown(staff(team, Role.CONTRIBUTOR, "eve"))
    assert "From a file to a live model" not in text
    assert "Nothing needs you." in text


# -- what needs me -------------------------------------------------------------------------------


def test_a_release_waits_for_those_who_may_approve_it_and_not_for_its_asker(
    team: Team, settings: Settings
) -> None:
    asker, approver = staff(team, Role.MAINTAINER, "ada"), staff(team, Role.MAINTAINER, "tom")
    contributor = staff(team, Role.CONTRIBUTOR, "con")
    stranger = staff(make_team("red"), Role.MAINTAINER, "mallory")
    waiting("wine", team, asker, settings)
    assert "Release 1 of wine to production" in shown(approver)
    for other in (asker, contributor, stranger):
        assert not home_of(caller_of_user(other)).needs.approvals


def test_my_rejected_upload_needs_me_for_a_week(team: Team) -> None:
    ada, eve = staff(team, Role.CONTRIBUTOR, "ada"), staff(team, Role.CONTRIBUTOR, "eve")
    version = make_version(make_model("wine", team=team), person_id=ada.pk)
    row = ModelVersion.objects.filter(pk=version.pk)
    row.update(state=VersionState.REJECTED, decided=timezone.now(), report={"reason": "cut off"})
    assert "cut off" in shown(ada)
    assert home_of(caller_of_user(eve)).needs.are_none
    row.update(decided=timezone.now() - timedelta(days=8))
    assert home_of(caller_of_user(ada)).needs.are_none


def test_keys_about_to_end_need_their_owner_and_the_maintainers(team: Team) -> None:
    ada, tom = staff(team, Role.CONTRIBUTOR, "ada"), staff(team, Role.MAINTAINER, "tom")
    eve = staff(team, Role.CONTRIBUTOR, "eve")
    key, _ = make_key(team, ada)
    make_key(team, ada)
    ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() + timedelta(days=13))
    for one in (ada, tom):
        assert [found.pk for found in home_of(caller_of_user(one)).needs.keys] == [key.pk]
    assert home_of(caller_of_user(eve)).needs.are_none


# -- how it goes ---------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_own_teams_production(team: Team, tmp_path: Path) -> None:
    red = make_team("red")
    live("wine", team)
    live("iris", team)
    live("other", red)
    answered(tmp_path, "wine", team, count=9)
    answered(tmp_path, "wine-errors", team, count=1, status="model_failed")
    answered(tmp_path, "other", red, count=50)
    answered(tmp_path, "staged", team, count=5, environment="staging")
    home = home_of(caller_of_user(staff(team, Role.VIEWER, "viv")))
    assert home.now.per_second == pytest.approx(10 / 3600)
    assert home.now.error_share == pytest.approx(0.1)
    assert home.now.today == 10
    assert home.now.live_models == 2
    assert home.now.p95_ms == pytest.approx(1.25, rel=0.091)
    assert [(row.release.endpoint.model.name, row.traffic is not None) for row in home.live] == [
        ("wine", True),
        ("iris", False),
    ]
    assert sum(home.now.requests) == 10
    assert sum(home.now.errors) == 1


def test_home_asks_as_much_for_many_models_as_for_one(team: Team, tmp_path: Path) -> None:
    client = Client()
    client.force_login(staff(team, Role.MAINTAINER, "ada"))
    live("first", team)
    answered(tmp_path, "first", team, count=1)
    client.get(HOME)
    with CaptureQueriesContext(connection) as few:
        client.get(HOME)
    for number in range(4):
        live(f"more-{number}", team)
        answered(tmp_path, f"more-{number}", team, count=1)
    with CaptureQueriesContext(connection) as many:
        client.get(HOME)
    assert len(many) <= len(few)
    assert len(few) < 25


def test_recent_changes_are_told_as_sentences(team: Team, settings: Settings) -> None:
    asker, approver = staff(team, Role.MAINTAINER, "ada"), staff(team, Role.MAINTAINER, "tom")
    waiting("wine", team, asker, settings)
    release = endpoint_of(RegisteredModel.objects.get(name="wine")).releases.get()
    releases.approve(release, actor=actor_of_user(approver), person_id=approver.pk, reason="fine")
    said = "released wine 1 to production, approved by tom: better F1"
    assert said in shown(approver)

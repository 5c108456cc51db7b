"""Several versions at once: each by its own permission, and what failed is said by name."""

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from apps.accounts.models import Team, User
from apps.accounts.services import teams
from apps.accounts.snapshot import Role
from apps.core.models import Event
from apps.registry.models import ModelVersion
from tests.factories.accounts import SYSTEM, make_member, make_team
from tests.factories.registry import make_model, make_release, make_version

pytestmark = pytest.mark.django_db
LIST = "admin:registry_modelversion_changelist"


@pytest.fixture
def team() -> Team:
    return make_team("blue")


def browser(team: Team, role: Role) -> Client:
    member = make_member(team, role, role.value)
    User.objects.filter(pk=member.pk).update(is_staff=True)
    client = Client()
    client.force_login(member)
    return client


def act(
    client: Client, what: str, chosen: list[ModelVersion], reason: str = "obsolete"
) -> list[str]:
    """Run an action on chosen rows; return what is said afterwards."""
    form = {"action": what, "_selected_action": [one.pk for one in chosen], "reason": reason}
    reply = client.post(reverse(LIST), form)
    return [str(one) for one in get_messages(reply.wsgi_request)]


def test_chosen_versions_are_deprecated_with_the_reason_in_each_ones_history(team: Team) -> None:
    model = make_model("wine", team=team)
    chosen = [make_version(model), make_version(model)]
    said = act(browser(team, Role.CONTRIBUTOR), "deprecate_chosen", chosen)
    assert said == ["2 deprecated."]
    assert set(ModelVersion.objects.values_list("state", flat=True)) == {"deprecated"}
    events = Event.objects.filter(verb="version.deprecated")
    assert {one.reason for one in events} == {"obsolete"}
    assert {one.actor_name for one in events} == {"contributor"}


def test_what_cannot_be_archived_is_named_and_the_others_are(team: Team) -> None:
    model = make_model("wine", team=team)
    serving, free = make_version(model), make_version(model)
    make_release(serving)
    said = act(browser(team, Role.CONTRIBUTOR), "archive_chosen", [serving, free])
    assert said[0] == "1 archived."
    assert said[1].startswith(f"Not archived: {serving}: ")
    assert "serves in production" in said[1]
    serving.refresh_from_db()
    free.refresh_from_db()
    assert (serving.state, free.state) == ("ready", "archived")


def test_without_a_reason_nothing_happens(team: Team) -> None:
    version = make_version(make_model("wine", team=team))
    client = browser(team, Role.CONTRIBUTOR)
    assert act(client, "archive_chosen", [version], reason=" ") == ["Say why, beside the action."]
    version.refresh_from_db()
    assert version.state == "ready"


def test_another_teams_version_is_not_among_the_chosen(team: Team) -> None:
    theirs = make_version(make_model("secret", team=make_team("red")))
    act(browser(team, Role.MAINTAINER), "archive_chosen", [theirs])
    theirs.refresh_from_db()
    assert theirs.state == "ready"
    assert not Event.objects.filter(verb="version.archived").exists()


def test_a_viewer_is_offered_none_and_can_send_none(team: Team) -> None:
    version = make_version(make_model("wine", team=team))
    client = browser(team, Role.VIEWER)
    assert "archive_chosen" not in client.get(reverse(LIST)).content.decode()
    act(client, "archive_chosen", [version])
    version.refresh_from_db()
    assert version.state == "ready"


def test_a_viewer_of_one_team_moves_nothing_there_with_the_role_of_another(team: Team) -> None:
    red = make_team("red")
    client = browser(team, Role.CONTRIBUTOR)
    teams.add_member(red, User.objects.get(username="contributor"), role=Role.VIEWER, actor=SYSTEM)
    client.force_login(User.objects.get(username="contributor"))
    seen = make_version(make_model("tea", team=red))
    said = act(client, "archive_chosen", [seen])
    assert "needs contributor" in said[0]
    seen.refresh_from_db()
    assert seen.state == "ready"

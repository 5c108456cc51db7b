"""Whatever leaves as a file is an event of the team whose rows they are, before the first row."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.snapshot import Role
from apps.core import admin as screens
from apps.core import sentences
from apps.core.models import Event
from tests.apps.core.test_lists import OURS
from tests.factories.accounts import make_member, make_team, make_user
from tests.factories.inference import prediction
from tests.factories.registry import make_model

pytestmark = pytest.mark.django_db


def browser(user: User) -> Client:
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client(REMOTE_ADDR="192.0.2.7")
    client.force_login(user)
    return client


def test_a_viewers_export_is_an_event_with_who_from_where_how_many_and_which() -> None:
    team = make_team("blue")
    for name in ("wine", "tea", "beer"):
        make_model(name, team=team)
    viewer = make_member(team, Role.VIEWER, "viv")
    reply: Any = browser(viewer).get(reverse("admin:registry_registeredmodel_csv"), {"q": "e"})
    event = Event.objects.get(verb="model.exported")  # nobody has read a row of the file yet
    assert (event.actor_name, event.address, event.team_id) == ("viv", "192.0.2.7", team.pk)
    assert (event.facts["rows"], event.facts["filters"]) == (3, "q=e")
    assert sentences.sentence(event) == "viv exported 3 models"
    assert len(b"".join(reply.streaming_content).splitlines()) == 4


def test_each_team_reads_of_its_own_rows_only() -> None:
    blue, red = make_team("blue"), make_team("red")
    for name, team in (("wine", blue), ("tea", blue), ("beer", red)):
        make_model(name, team=team)
    browser(make_user("boss", is_admin=True)).get(reverse("admin:registry_registeredmodel_csv"))
    rows = Event.objects.filter(verb="model.exported").values_list("team_id", "facts__rows")
    assert sorted(rows) == sorted([(blue.pk, 2), (red.pk, 1)])


def test_the_audit_says_that_a_unit_was_asked_for_and_not_which() -> None:
    team = make_team("blue")
    prediction(team_id=team.pk, unit="ada@example.org")
    viewer = make_member(team, Role.VIEWER, "viv")
    query = {"unit": "ada@example.org", "when": "all"}
    browser(viewer).get(reverse("admin:inference_prediction_csv"), query)
    event = Event.objects.get(verb="predictions.exported")
    assert event.facts["rows"] == 1
    assert "ada" not in event.facts["filters"]
    assert "unit=%2A%2A%2A" in event.facts["filters"]


def test_an_export_of_nothing_is_written_as_well() -> None:
    viewer = make_member(make_team("blue"), Role.VIEWER, "viv")
    browser(viewer).get(reverse("admin:registry_modelversion_csv"))
    assert Event.objects.get(verb="version.exported").facts["rows"] == 0


def test_without_its_event_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    team = make_team("blue")
    make_model("wine", team=team)
    client = browser(make_member(team, Role.VIEWER, "viv"))
    client.raise_request_exception = False

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("apps.core.admin.events.record", fails)
    reply = client.get(reverse("admin:registry_registeredmodel_csv"))
    assert reply.status_code == 500
    assert b"wine" not in reply.content


def test_the_download_of_traffic_is_an_event_of_the_teams_in_it() -> None:
    team = make_team("blue")
    client = browser(make_member(team, Role.VIEWER, "viv"))
    assert (
        client.get(reverse("inference-pages:traffic-download"), {"range": "hour"}).status_code
        == 200
    )
    event = Event.objects.get(verb="traffic.exported")
    assert (event.team_id, event.facts["filters"]) == (team.pk, "range=hour")


def test_an_address_that_no_list_understands_leads_to_the_list() -> None:
    viewer = make_member(make_team("blue"), Role.VIEWER, "viv")
    reply = browser(viewer).get(reverse("admin:registry_modelversion_csv"), {"nothing__x": "1"})
    assert (reply.status_code, reply["Location"].endswith("/modelversion/?e=1")) == (302, True)
    assert not Event.objects.filter(verb="version.exported").exists()


@pytest.mark.parametrize("screen", OURS, ids=lambda one: one.model._meta.label)
def test_every_list_has_words_for_its_export(screen: screens.PlatformAdmin) -> None:
    assert screen.exported_as in sentences.SAYINGS

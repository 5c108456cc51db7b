"""The page of traffic, its download, and the parts that other apps' pages show."""

import csv
import io
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.accounts.models import ApiKey, Team, User
from apps.accounts.snapshot import Role
from apps.inference import journal_db
from apps.registry.models import RegisteredModel
from tests.factories.accounts import api_key, make_key, make_member, make_team, make_user
from tests.factories.inference import prediction, record, spooled
from tests.factories.registry import make_model, make_release, make_version

pytestmark = pytest.mark.django_db
BASE = "/admin/inference-pages"
PAGE = f"{BASE}/traffic/"


class World:
    """A team with a model in production, somebody's key, and what was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.team: Team = make_team("blue")
        self.owner: User = make_member(self.team, Role.MAINTAINER)
        self.model: RegisteredModel = make_model("wine", team=self.team)
        self.version = make_version(self.model)
        make_release(self.version)
        self.key: ApiKey = make_key(self.team, self.owner)[0]

    def called(self, count: int = 1, **given: Any) -> None:
        facts: dict[str, Any] = {"team_id": self.team.pk, "key_id": self.key.pk} | given
        spooled(self.folder, [record(**facts) for _ in range(count)])
        journal_db.ship(self.folder)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def sign_in(client: Client, world: World, who: str) -> None:
    made = {
        "viewer": lambda: make_member(world.team, Role.VIEWER),
        "stranger": lambda: make_member(make_team("red"), Role.MAINTAINER),
        "boss": lambda: make_user(is_admin=True),
    }
    if who == "nobody":
        return
    user = made[who]()
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client.force_login(user)


def text_of(client: Client, url: str) -> str:
    reply = client.get(url)
    assert reply.status_code == 200, (url, reply.content[:300])
    return " ".join(reply.content.decode().split())


def parts(world: World) -> Sequence[str]:
    return (
        f"{BASE}/traffic/model/wine/",
        f"{BASE}/traffic/version/wine/1/",
        f"{BASE}/traffic/endpoint/wine/production/",
        f"{BASE}/rate/wine/production/",
        f"{BASE}/usage/key/{world.key.pk}/",
        f"{BASE}/usage/team/{world.team.pk}/",
        f"{BASE}/predictions/wine/",
        f"{PAGE}?model=wine",
        f"{PAGE}?key={world.key.pk}",
        f"{PAGE}?team=blue",
        f"{PAGE}models/?team=blue",
        f"{PAGE}download/?model=wine",
    )


@pytest.mark.parametrize(
    ("who", "status"), [("nobody", 302), ("stranger", 404), ("viewer", 200), ("boss", 200)]
)
def test_another_teams_numbers_are_not_there_and_a_viewer_sees_the_own(
    client: Client, world: World, who: str, status: int
) -> None:
    sign_in(client, world, who)
    assert {client.get(url).status_code for url in parts(world)} == {status}


@pytest.mark.parametrize("query", ["model=typo", "model=theirs", "team=typo", "key=typo"])
def test_a_filter_that_names_nothing_is_said_beside_the_filters(
    client: Client, world: World, query: str
) -> None:
    make_model("theirs", team=make_team("red"))
    sign_in(client, world, "viewer")
    reply = client.get(f"{PAGE}?{query}")
    page = reply.content.decode()
    name = query.partition("=")[2]
    assert reply.status_code == 404
    assert f"There is no `{name}` here, or it belongs to a team that you are not in." in page
    assert "Show traffic" in page


def test_the_page_shows_figures_charts_and_models_with_unit_and_time(
    client: Client, world: World
) -> None:
    world.called(60, total_ms=2.0)
    world.called(40, status="deadline", total_ms=900.0)
    world.called(50, ts=timezone.now() - timedelta(hours=25))
    sign_in(client, world, "viewer")
    page = text_of(client, PAGE)
    assert "100" in page
    assert "+100 % against the period before" in page
    assert "40 of 100 requests" in page
    assert "Requests, last 24 hours" in page
    assert "the period before" in page
    assert "deadline" in page
    models = text_of(client, f"{PAGE}models/")
    assert f'href="{PAGE}?model=wine&amp;range=day"' in models
    assert "40 %" in models


def test_everything_that_narrows_stands_in_the_address(client: Client, world: World) -> None:
    world.called(3)
    world.called(2, environment="staging")
    sign_in(client, world, "viewer")
    page = text_of(client, f"{PAGE}?range=week&model=wine&environment=staging")
    assert '<dd class="mp-kpi-value">2</dd>' in page
    assert 'value="wine"' in page
    assert 'href="?environment=staging&amp;range=week"' in page  # takes the model away again
    assert 'href="?model=wine&amp;environment=staging&amp;range=month"' in page


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("range=year", "There is no range `year`"),
        ("from=x", "is a time such as"),
        ("version=x", "is no version"),
        ("version=3", "Name the model, too."),
        ("environment=moon", "There is no environment `moon`"),
    ],
)
def test_a_filter_that_cannot_be_is_said_in_words(
    client: Client, world: World, query: str, words: str
) -> None:
    sign_in(client, world, "viewer")
    assert words in text_of(client, f"{PAGE}?{query}")
    assert client.get(f"{PAGE}download/?{query}").status_code == 400


def test_without_requests_the_page_says_the_next_step(client: Client, world: World) -> None:
    sign_in(client, world, "viewer")
    assert "Release a version and call it" in text_of(client, PAGE)
    assert "No requests in the last hour." in text_of(client, f"{BASE}/rate/wine/production/")


def test_releases_are_lines_on_the_endpoints_charts(client: Client, world: World) -> None:
    world.called()
    sign_in(client, world, "viewer")
    assert '"words": "release 1"' in text_of(client, f"{BASE}/traffic/endpoint/wine/production/")
    assert "release 1" not in text_of(client, f"{BASE}/traffic/endpoint/wine/staging/")


def test_a_fragment_loads_itself_for_another_time_and_leads_to_the_page(
    client: Client, world: World
) -> None:
    world.called(ts=timezone.now() - timedelta(days=3))
    sign_in(client, world, "viewer")
    url = f"{BASE}/traffic/model/wine/"
    assert "No requests in this time." in text_of(client, url)
    week = text_of(client, f"{url}?tab=traffic&range=week")
    assert f'hx-get="{url}?range=month"' in week
    assert f'href="{PAGE}?model=wine&amp;range=week"' in week
    assert "<html" not in week


def test_the_rate_of_an_endpoint_is_one_line(client: Client, world: World) -> None:
    world.called(120, total_ms=2.0)
    sign_in(client, world, "viewer")
    assert text_of(client, f"{BASE}/rate/wine/production/").startswith(
        "2 requests/min, last hour; 0 % errors, p95 "
    )


def test_less_than_a_request_a_minute_is_said_as_a_count(client: Client, world: World) -> None:
    world.called(2, total_ms=2.0)
    sign_in(client, world, "viewer")
    assert text_of(client, f"{BASE}/rate/wine/production/").startswith("2 requests, last hour; ")


def test_usage_of_a_team_is_listed_by_model_and_key(client: Client, world: World) -> None:
    world.called(3)
    world.called(1, status="deadline")
    sign_in(client, world, "viewer")
    page = text_of(client, f"{BASE}/usage/team/{world.team.pk}/")
    assert "wine" in page
    assert world.key.name in page
    assert "25 %" in page


def test_cells_of_a_list_are_filled_by_one_answer_and_only_with_own_things(
    client: Client, world: World
) -> None:
    world.called(1234, rows=1)
    world.called(5, arm="try", source="try", key_id=None)
    red = make_team("red")
    theirs = make_key(red, make_member(red, Role.MAINTAINER))[0]
    make_model("theirs", team=red)
    sign_in(client, world, "viewer")
    keys = text_of(client, f"{BASE}/cells/?what=key-calls&ids={world.key.pk},{theirs.pk},none")
    assert f'<span id="cell-key-calls-{world.key.pk}" hx-swap-oob="outerHTML:' in keys
    assert ">1,234</span>" in keys
    assert theirs.pk not in keys
    rates = text_of(client, f"{BASE}/cells/?what=model-rates&ids=wine,theirs,%3Cb%3E")
    assert '<span id="cell-model-rates-wine"' in rates
    assert ">1,234</span>" in rates
    assert "theirs" not in rates
    asked = "production:wine,staging:wine,production:theirs,nowhere:wine,wine"
    rates = text_of(client, f"{BASE}/cells/?what=endpoint-rates&ids={asked}")
    assert rates.count("<span") == 2
    assert '<span id="cell-endpoint-rates-production:wine"' in rates
    assert ">1,234</span>" in rates
    assert ">0</span>" in rates
    assert client.get(f"{BASE}/cells/?what=all&ids=wine").status_code == 400


def test_the_newest_predictions_of_a_model_are_shown(client: Client, world: World) -> None:
    for _ in range(25):
        prediction(team_id=world.team.pk)
    prediction(team_id=world.team.pk, model="other", key_id="anotherskey1")
    sign_in(client, world, "viewer")
    page = text_of(client, f"{BASE}/predictions/wine/")
    assert page.count('data-label="Id"') == 20
    assert "/admin/inference/prediction/?model=wine" in page
    assert "anotherskey1" not in page


# --- the rate of a match ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 5),
        ("status=ok", 3),
        ("status=error", 2),
        ("status=deadline", 1),
        ("status=other", 0),
        ("model=wine&version=2", 1),
        ("key_id={key}", 5),
        ("environment=staging", 0),
        ("when=hour", 5),
        ("when=all", 6),
    ],
)
def test_the_chart_above_the_list_counts_what_the_list_shows(
    client: Client, world: World, query: str, count: int
) -> None:
    world.called(2)
    world.called(1, version=2)
    world.called(1, status="deadline")
    world.called(1, status="model_failed")
    world.called(1, ts=timezone.now() - timedelta(days=40))
    sign_in(client, world, "viewer")
    page = text_of(client, f"{BASE}/match-rate/?{query.format(key=world.key.pk)}")
    assert f"{count} request" in page


@pytest.mark.parametrize(
    "query",
    ["unit=u", "q=x", "version=3", "version=x", f"version={'9' * 5000}", "environment=x"],
)
def test_where_nothing_is_counted_the_chart_says_why(
    client: Client, world: World, query: str
) -> None:
    sign_in(client, world, "viewer")
    assert "mp-note" in text_of(client, f"{BASE}/match-rate/?{query}")
    assert "canvas" not in text_of(client, f"{BASE}/match-rate/?{query}")


# --- downloads ----------------------------------------------------------------------------------


def test_the_csv_has_a_line_per_step_and_numbers_that_stay_numbers(
    client: Client, world: World
) -> None:
    world.called(7, rows=2)
    sign_in(client, world, "viewer")
    reply = client.get(f"{PAGE}download/?range=hour&model=wine")
    text = b"".join(reply.streaming_content).decode()  # type: ignore[attr-defined]  # it streams
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 60
    assert sum(int(row["requests"]) for row in rows) == 7
    assert sum(int(row["rows"]) for row in rows) == 14
    assert reply["Content-Disposition"].startswith('attachment; filename="traffic-')
    assert {row["mean_ms"] for row in rows} == {"", "1.25"}


@pytest.mark.parametrize("name", ["=cmd", "+1x", "-1x", "@sum"])
def test_a_name_that_a_spreadsheet_would_run_is_text_in_the_csv(
    client: Client, world: World, name: str
) -> None:
    # Names of models cannot begin so; whatever else comes to stand in a cell may.
    RegisteredModel.objects.filter(pk=world.model.pk).update(name=name)
    sign_in(client, world, "viewer")
    reply = client.get(f"{PAGE}download/", {"model": name})
    text = b"".join(reply.streaming_content).decode()  # type: ignore[attr-defined]  # it streams
    row = next(csv.DictReader(io.StringIO(text)))
    assert row["model"] == f"'{name}"


def test_the_json_is_what_the_api_says(client: Client, world: World) -> None:
    world.called(5)
    sign_in(client, world, "viewer")
    page = client.get(f"{PAGE}download/?format=json&model=wine&range=week").json()
    _, text = make_key(world.team, world.owner, scopes=("logs:read",))
    said = Client().get("/api/v1/analytics?model=wine&range=week", headers=api_key(text)).json()
    assert page == said
    assert said["total"]["requests"] == 5
    assert said["versions"] == [{"version": 1, "requests": [*[0] * 167, 5]}]


# --- the API ------------------------------------------------------------------------------------


def test_a_key_sees_only_what_it_is_bound_to(client: Client, world: World) -> None:
    make_model("iris", team=world.team)
    world.called(1)
    world.called(2, environment="staging")
    world.called(4, model="iris")
    _, text = make_key(
        world.team, world.owner, scopes=("logs:read",), models=("wine",), environments=("staging",)
    )

    def asked(query: str) -> Any:
        return client.get(f"/api/v1/analytics{query}", headers=api_key(text))

    for name in ("hour", "week"):
        assert asked(f"?range={name}").json()["total"]["requests"] == 2
    assert asked("?model=iris").status_code == 403
    assert asked(f"?key={world.key.pk}").status_code == 403


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?range=year", 400),
        ("?from=x", 400),
        ("?what=1", 400),
        ("?version=1", 400),
        ("?model=x", 404),
    ],
)
def test_the_api_refuses_what_it_cannot_read(
    client: Client, world: World, query: str, status: int
) -> None:
    _, text = make_key(world.team, world.owner, scopes=("logs:read",))
    assert client.get(f"/api/v1/analytics{query}", headers=api_key(text)).status_code == status


# --- cost ---------------------------------------------------------------------------------------


def test_pages_make_no_query_per_model_key_or_version(client: Client, world: World) -> None:
    sign_in(client, world, "boss")

    def queries() -> list[int]:
        found = []
        for url in parts(world)[:-1]:
            with CaptureQueriesContext(connection) as captured:
                client.get(url)
            found.append(len(captured))
        return found

    world.called(2)
    few = queries()
    for n in range(12):
        name = f"m{n}"
        make_model(name, team=world.team)
        key = make_key(world.team, world.owner)[0]
        world.called(1, model=name, key_id=key.pk)
        world.called(1, version=n + 2)
    assert queries() == few

"""The admin's list and detail of predictions."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.accounts.models import Team, User
from apps.accounts.snapshot import Role
from apps.inference import admin
from apps.inference.models import PredictionRejected
from tests.factories.accounts import make_key, make_member, make_team, make_user
from tests.factories.inference import prediction
from tests.factories.registry import make_model, make_version

pytestmark = pytest.mark.django_db
LIST = "/admin/inference/prediction/"


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def analyst(client: Client, team: Team) -> User:
    user = make_member(team, Role.VIEWER)
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client.force_login(user)
    return user


def shown(client: Client, query: str = "", **given: Any) -> set[UUID]:
    reply = client.get(f"{LIST}{query}", given)
    assert reply.status_code == 200, reply.content
    return {one.pk for one in reply.context["cl"].result_list}


def detail(identifier: object) -> str:
    return f"{LIST}{identifier}/change/"


def test_the_list_shows_the_teams_predictions_of_the_last_day(
    client: Client, analyst: User, team: Team
) -> None:
    ours = prediction(team_id=team.pk)
    prediction(team_id=team.pk + 1)
    old = prediction(team_id=team.pk, ts=timezone.now() - timedelta(days=2))
    assert shown(client) == {ours.id}
    assert shown(client, when="week") == shown(client, when="all") == {ours.id, old.id}
    assert shown(client, when="nonsense") == {ours.id}


def test_an_admin_sees_every_team(client: Client, team: Team) -> None:
    client.force_login(make_user(is_admin=True))
    made = {prediction(team_id=n).id for n in (1, 2)}
    assert shown(client) == made


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"model": "b"}, {"b"}),
        ({"version": "7"}, {"seven"}),
        ({"version": "x"}, set()),
        ({"key_id": "k9"}, {"k9"}),
        ({"status": "error"}, {"failed"}),
        ({"status": "model_failed"}, {"failed"}),
        ({"model": " wine ", "status": "error"}, {"failed"}),
    ],
)
def test_the_list_is_narrowed_by(
    client: Client, analyst: User, team: Team, query: dict[str, str], expected: set[str]
) -> None:
    made = {
        "b": prediction(team_id=team.pk, model="b"),
        "seven": prediction(team_id=team.pk, version=7),
        "k9": prediction(team_id=team.pk, key_id="k9"),
        "failed": prediction(team_id=team.pk, status="model_failed"),
    }
    assert shown(client, **query) == {made[name].id for name in expected}


def test_a_typed_filter_keeps_the_others(client: Client, analyst: User) -> None:
    page = client.get(LIST, {"status": "error", "model": "<b>"}).content.decode()
    assert '<input type="hidden" name="status" value="error">' in page
    assert 'value="&lt;b&gt;"' in page


def test_an_id_is_found_whenever_it_was(client: Client, analyst: User, team: Team) -> None:
    old = prediction(team_id=team.pk, ts=timezone.now() - timedelta(days=60))
    prediction(team_id=team.pk)
    assert shown(client, q=f" {old.id} ") == {old.id}
    assert shown(client, q="not an id") == set()


def test_the_detail_shows_request_and_answer_and_changes_nothing(
    client: Client, analyst: User, team: Team
) -> None:
    one = prediction(team_id=team.pk, inputs=[{"name": "<script>"}], error="It broke.")
    page = client.get(detail(one.id))
    assert page.status_code == 200
    text = page.content.decode()
    assert "&lt;script&gt;" in text
    assert "It broke." in text
    assert 'name="_save"' not in text
    assert client.post(detail(one.id), {"model": "x"}).status_code == 403


def test_another_teams_prediction_is_not_there(client: Client, analyst: User, team: Team) -> None:
    theirs = prediction(team_id=team.pk + 1)
    missing = client.get(detail("x"))
    reply = client.get(detail(theirs.id))
    assert reply.status_code == missing.status_code == 404


def test_who_is_in_no_team_has_no_list(client: Client) -> None:
    user = make_user()
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client.force_login(user)
    assert client.get(LIST).status_code == 403


def test_the_list_costs_a_fixed_number_of_queries_and_counts_nothing(
    client: Client, analyst: User, team: Team
) -> None:
    def queries() -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(LIST).status_code == 200
        return [one["sql"] for one in captured]

    prediction(team_id=team.pk)
    few = queries()
    for _ in range(60):
        prediction(team_id=team.pk)
    many = queries()
    assert len(few) == len(many)  # who is looking, the menu, and the one below
    (ours,) = [sql for sql in many if '"inference_prediction"' in sql]
    assert "COUNT(" not in ours
    assert "LIMIT 51" in ours
    assert '"inputs"' not in ours


def pages(client: Client, query: str, link: str) -> list[list[UUID]]:
    """Follow one of the links to the end; return what each page shows."""
    found: list[list[UUID]] = []
    at: str | None = query
    while at is not None and len(found) < 9:
        reply = client.get(f"{LIST}{at}")
        cl = reply.context["cl"]
        found.append([one.pk for one in cl.result_list])
        at = getattr(cl, link) or None
    return found


def test_older_and_newer_lead_through_every_prediction_once(
    client: Client, analyst: User, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin.PredictionAdmin, "list_per_page", 4)
    at = timezone.now() - timedelta(hours=1)
    # Some in the same millisecond: the id tells them apart.
    made = [
        prediction(team_id=team.pk, ts=at + timedelta(milliseconds=n // 3)).pk for n in range(11)
    ]
    prediction(team_id=team.pk, ts=at, model="b")
    forth = pages(client, "?model=wine", "older")
    assert sorted(pk for page in forth for pk in page) == sorted(made)
    assert [len(page) for page in forth] == [4, 4, 3]
    assert [pk for page in forth for pk in page] == sorted(made, reverse=True)
    back = pages(client, f"?model=wine&before={forth[1][-1]}", "newer")
    assert back == [forth[2], forth[1], forth[0]]


def test_a_cursor_that_is_none_of_ours_begins_at_the_newest(
    client: Client, analyst: User, team: Team
) -> None:
    one = prediction(team_id=team.pk)
    for query in ("?before=x", "?after=%00", "?before=&after="):
        assert shown(client, query) == {one.id}


def test_the_detail_names_version_key_and_person_where_they_are_still_there(
    client: Client, analyst: User, team: Team
) -> None:
    version = make_version(make_model("wine", team=team))
    key, _ = make_key(team, analyst)
    one = prediction(team_id=team.pk, key_id=key.pk, user_id=analyst.pk, queue_ms=0.25)
    text = client.get(detail(one.id)).content.decode()
    assert f"/admin/registry/modelversion/{version.pk}/change/" in text
    assert f"/admin/accounts/apikey/{key.pk}/change/" in text
    assert analyst.username in text
    assert "Waiting in the queue" in text
    assert "0.25 ms" in text


def test_a_prediction_that_is_not_there_says_what_may_be_the_matter(
    client: Client, analyst: User
) -> None:
    reply = client.get(detail("018f0000-0000-7000-8000-000000000000"), follow=True)
    assert reply.status_code == 404
    assert "A prediction of a moment ago is here within seconds" in reply.content.decode()


def test_rejected_records_are_for_platform_admins(client: Client, analyst: User) -> None:
    PredictionRejected.objects.create(
        sha256="ab" * 32, payload=b"<i>\xff", error="no", at=timezone.now()
    )
    url = "/admin/inference/predictionrejected/"
    assert client.get(url).status_code == 403
    client.force_login(make_user(is_admin=True))
    assert client.get(url).status_code == 200
    page = client.get(f"{url}{'ab' * 32}/change/").content.decode()
    assert "&lt;i&gt;" in page

"""The registry's screens: own teams only, everything through actions, errors said in words."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.models import Team, User
from apps.accounts.snapshot import Role
from apps.core.models import Event
from apps.core.words import size_words
from apps.registry.models import Endpoint, ModelVersion, RegisteredModel, Release
from apps.registry.services import validation
from tests.factories.accounts import PASSWORD, make_member, make_team, make_user
from tests.factories.registry import (
    FakeSandbox,
    endpoint_of,
    make_model,
    make_release,
    make_upload,
    make_version,
)

pytestmark = pytest.mark.django_db
KINDS = ("registeredmodel", "modelversion", "endpoint", "release")


def browser(user: User) -> Client:
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client()
    assert client.login(username=user.username, password=PASSWORD)
    return client


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def version(team: Team) -> ModelVersion:
    found = make_version(make_model("wine", team=team))
    make_release(found)
    return found


@pytest.fixture
def boss(team: Team) -> Client:
    return browser(make_member(team, Role.MAINTAINER, "mara"))


def page(kind: str, pk: int) -> str:
    return reverse(f"admin:registry_{kind}_change", args=[pk])


def act(client: Client, kind: str, name: str, pk: int, **form: Any) -> Any:
    """Submit an action's dialog as the page does."""
    url = reverse(f"admin:registry_{kind}_{name}", args=[pk])
    return client.post(url, {"_form_submitted": "True", **form})


def row_of(kind: str, version: ModelVersion) -> int:
    endpoint = endpoint_of(version.model)
    rows: dict[str, int] = {
        "registeredmodel": version.model_id,
        "modelversion": version.pk,
        "endpoint": endpoint.pk,
        "release": Release.objects.get(endpoint=endpoint).pk,
    }
    return rows[kind]


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("kind", KINDS)
def test_every_member_sees_the_teams_things(
    kind: str, role: Role, team: Team, version: ModelVersion
) -> None:
    client = browser(make_member(team, role))
    listed = client.get(reverse(f"admin:registry_{kind}_changelist"))
    assert listed.status_code == 200
    assert b"wine" in listed.content
    assert client.get(page(kind, row_of(kind, version))).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_sees_nothing_of_it(kind: str, version: ModelVersion) -> None:
    client = browser(make_member(make_team("red"), Role.MAINTAINER))
    assert b"wine" not in client.get(reverse(f"admin:registry_{kind}_changelist")).content
    reply = client.get(page(kind, row_of(kind, version)))
    assert reply.status_code == 404


@pytest.mark.parametrize("kind", KINDS)
def test_an_admin_sees_everything(kind: str, version: ModelVersion) -> None:
    client = browser(make_user(is_admin=True))
    assert b"wine" in client.get(reverse(f"admin:registry_{kind}_changelist")).content


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_costs_the_same_however_long_it_is(
    kind: str, boss: Client, team: Team, version: ModelVersion
) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            boss.get(reverse(f"admin:registry_{kind}_changelist"))
        return len(queries)

    cost()
    short = cost()
    for _ in range(4):
        make_release(make_version(make_model(team=team)))
    assert cost() == short <= 16


def test_nothing_is_deleted_by_the_admins_own_means(boss: Client, version: ModelVersion) -> None:
    for kind in KINDS:
        url = reverse(f"admin:registry_{kind}_delete", args=[row_of(kind, version)])
        assert boss.post(url, {"post": "yes"}).status_code == 403
    assert ModelVersion.objects.filter(pk=version.pk).exists()


# -- the version's page ------------------------------------------------------------------------


def test_the_page_of_a_rejected_version_says_why_and_what_helps(boss: Client, team: Team) -> None:
    found = make_upload(make_model("wine", team=team))
    validation.validate_version(found.pk, inspect=FakeSandbox("It is <b>text</b>, not a model."))
    check = {
        "name": "recognise",
        "title": "It is a model",
        "state": "failed",
        "message": "It is text.",
        "remedy": "Upload an ONNX file.",
        "seconds": 0.1,
    }
    found.refresh_from_db()
    ModelVersion.objects.filter(pk=found.pk).update(report=found.report | {"checks": [check]})
    text = boss.get(page("modelversion", found.pk)).content.decode()
    assert "It is &lt;b&gt;text&lt;/b&gt;, not a model." in text
    assert "Upload an ONNX file." in text
    assert "rejected" in text


def test_the_page_of_a_ready_version_shows_signature_and_place(
    boss: Client, version: ModelVersion
) -> None:
    text = boss.get(page("modelversion", version.pk)).content.decode()
    for words in ("float32", "any number of rows x 4", "production", "Found wine 1 ready"):
        assert words in text


def test_a_dialog_without_a_reason_does_nothing(boss: Client, version: ModelVersion) -> None:
    reply = act(boss, "modelversion", "deprecate", version.pk, reason=" ")
    assert "HX-Redirect" not in reply.headers
    version.refresh_from_db()
    assert version.state == "ready"


def test_a_refused_action_is_said_on_the_page(boss: Client, version: ModelVersion) -> None:
    act(boss, "modelversion", "archive", version.pk, reason="old")
    text = boss.get(page("modelversion", version.pk)).content.decode()
    assert "serves in production" in text


def test_a_version_is_deprecated_and_restored_from_its_page(
    boss: Client, version: ModelVersion
) -> None:
    for name, state in (("deprecate", "deprecated"), ("restore", "ready")):
        act(boss, "modelversion", name, version.pk, reason="why not")
        version.refresh_from_db()
        assert version.state == state
    assert Event.objects.filter(reason="why not").count() == 2


def test_a_viewer_gets_no_buttons_and_no_way_around_them(team: Team, version: ModelVersion) -> None:
    client = browser(make_member(team, Role.VIEWER))
    text = client.get(page("modelversion", version.pk)).content.decode()
    assert "Deprecate version" not in text
    reply = act(client, "modelversion", "deprecate", version.pk, reason="x")
    assert reply.status_code == 403
    assert client.get(reverse("admin:registry_modelversion_add")).status_code == 403


def test_a_stranger_cannot_act_on_it(version: ModelVersion) -> None:
    client = browser(make_member(make_team("red"), Role.MAINTAINER))
    reply = act(client, "modelversion", "deprecate", version.pk, reason="x")
    assert reply.status_code == 404
    version.refresh_from_db()
    assert version.state == "ready"


# -- the upload page ---------------------------------------------------------------------------


def test_the_upload_page_offers_own_models_and_teams_and_has_no_script_of_its_own(
    boss: Client, version: ModelVersion
) -> None:
    make_model("secret", team=make_team("red"))
    text = boss.get(reverse("admin:registry_modelversion_add")).content.decode()
    assert 'value="wine"' in text
    assert "secret" not in text
    assert 'data-action="/api/v1/models/upload"' in text
    assert "registry/upload.js" in text
    block = text.split('id="upload-form"')[1]
    assert not re.search(r"<script(?![^>]*src)[^>]*>", block)
    assert "onclick" not in block


# -- models ------------------------------------------------------------------------------------


def test_a_model_is_made_and_changed_on_its_form(boss: Client, team: Team) -> None:
    url = reverse("admin:registry_registeredmodel_add")
    made = boss.post(url, {"name": "wine", "team": team.pk, "description": "Card", "tags": "a, b"})
    model = RegisteredModel.objects.get()
    assert made.status_code == 302
    assert (model.tags, Endpoint.objects.filter(model=model).count()) == (["a", "b"], 3)
    form = {
        "description": "Card",
        "tags": "a, b",
        "cache_seconds": "60",
        "record": "full",
        "sample_share": "1.0",
        "full_spool": "required",
        "redact": '{"age": "hash"}',
        "deadline_seconds": "10.0",
    }
    assert boss.post(page("registeredmodel", model.pk), form).status_code == 302
    model.refresh_from_db()
    assert (model.cache_seconds, model.redact) == (60, {"age": "hash"})
    facts = Event.objects.get(verb="model.changed").facts
    assert facts["changes"] == {"cache_seconds": [0, 60], "redact": [{}, {"age": "hash"}]}
    wrong = boss.post(page("registeredmodel", model.pk), form | {"redact": '{"age": "maybe"}'})
    assert wrong.status_code == 200
    assert "One of drop, hash, mask." in wrong.content.decode()


@pytest.mark.parametrize("name", ["upload", "Bad Name"])
def test_a_bad_name_is_said_at_the_form(name: str, boss: Client, team: Team) -> None:
    reply = boss.post(
        reverse("admin:registry_registeredmodel_add"), {"name": name, "team": team.pk}
    )
    assert reply.status_code == 200
    assert not RegisteredModel.objects.exists()


def test_a_foreign_team_cannot_be_chosen(boss: Client) -> None:
    red = make_team("red")
    boss.post(reverse("admin:registry_registeredmodel_add"), {"name": "w", "team": red.pk})
    assert not RegisteredModel.objects.exists()


def test_a_model_is_deleted_with_a_reason(boss: Client, version: ModelVersion) -> None:
    act(boss, "registeredmodel", "delete_model", version.model_id, reason="unused")
    version.model.refresh_from_db()
    assert version.model.deleted_at is not None
    assert Event.objects.get(verb="model.deleted").reason == "unused"


@pytest.mark.parametrize(
    ("size", "words"),
    [(999, "999 bytes"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (5 * 10**9, "5.00 GB")],
)
def test_sizes_are_said_as_people_say_them(size: int, words: str) -> None:
    assert size_words(size) == words

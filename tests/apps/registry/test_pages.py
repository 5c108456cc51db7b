"""The registry's pages: what each says to whom, at a cost that does not grow with what there is."""

import re
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.models import Team, User
from apps.accounts.snapshot import Role
from apps.core.models import Event, Work
from apps.registry.admin.version_page import checks_of, shape_words
from apps.registry.models import Alias, ModelVersion, RegisteredModel
from apps.registry.services import aliases, models, validation
from apps.registry.services.models import ModelChange
from apps.registry.services.uploads import About
from apps.registry.signature import Dtype, TensorSpec
from apps.registry.states import Environment
from tests.factories.accounts import PASSWORD, make_member, make_team, make_user
from tests.factories.registry import (
    SYSTEM,
    FakeSandbox,
    make_model,
    make_release,
    make_upload,
    make_version,
)

pytestmark = pytest.mark.django_db
TABS = ("overview", "versions", "traffic", "predictions", "history", "settings")
LIST = "admin:registry_registeredmodel_changelist"


def browser(user: User) -> Client:
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client()
    assert client.login(username=user.username, password=PASSWORD)
    return client


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def boss(team: Team) -> Client:
    return browser(make_member(team, Role.MAINTAINER, "mara"))


@pytest.fixture
def viewer(team: Team) -> Client:
    return browser(make_member(team, Role.VIEWER, "vera"))


@pytest.fixture
def stranger() -> Client:
    return browser(make_member(make_team("red"), Role.MAINTAINER, "rolf"))


@pytest.fixture
def wine(team: Team) -> RegisteredModel:
    return make_model("wine", team=team)


def page(thing: RegisteredModel | ModelVersion, query: str = "") -> str:
    return reverse(f"admin:registry_{thing._meta.model_name}_change", args=[thing.pk]) + query


def text_of(client: Client, url: str) -> str:
    reply = client.get(url)
    assert reply.status_code == 200
    return unescape(reply.content.decode())


def cost(client: Client, url: str) -> int:
    client.get(url)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(url).status_code == 200
    return len(queries)


# -- the list of models ------------------------------------------------------------------------


def rows_of(client: Client, query: str = "") -> set[str]:
    text = client.get(reverse(LIST) + query).content.decode()
    return set(re.findall(r'id="cell-model-rates-([^"]+)"', text))


def test_the_list_asks_once_for_the_traffic_of_all_its_rows(
    boss: Client, wine: RegisteredModel, team: Team
) -> None:
    make_model("tea.v2", team=team)
    text = text_of(boss, reverse(LIST))
    assert text.count("?what=model-rates") == 1
    assert "ids=tea.v2%2Cwine" in text
    assert rows_of(boss) == {"wine", "tea.v2"}


def test_the_list_is_narrowed_by_team_newest_state_production_and_tag(
    boss: Client, wine: RegisteredModel, team: Team
) -> None:
    other = make_model("other", team=make_team("red"))
    tea = make_model("tea", team=team)
    models.change_model(tea, ModelChange(tags=["Hot", "kettle"]), actor=SYSTEM)
    make_release(make_version(wine))
    make_upload(tea)
    assert rows_of(boss, "?production=yes") == {"wine"}
    assert rows_of(boss, "?production=no") == {"tea"}
    assert rows_of(boss, "?newest=uploaded") == {"tea"}
    assert rows_of(boss, "?newest=ready") == {"wine"}
    assert rows_of(boss, "?q=hot") == {"tea"}
    assert "other" not in rows_of(boss, f"?team={other.team_id}")
    admin = browser(make_user("root", is_admin=True))
    assert rows_of(admin, f"?team={other.team_id}") == {"other"}


def test_a_filter_does_not_tell_the_names_of_other_teams(
    boss: Client, wine: RegisteredModel
) -> None:
    make_team("secretproject")
    assert "secretproject" not in text_of(boss, reverse(LIST))


def test_an_empty_list_says_the_next_step_to_who_may_take_it(boss: Client, viewer: Client) -> None:
    text = text_of(boss, reverse(LIST))
    assert "/api/v1/models/upload" in text
    assert reverse("admin:registry_modelversion_add") in text
    assert "Ask a contributor" in text_of(viewer, reverse(LIST))


# -- the model's page --------------------------------------------------------------------------


def grown(model: RegisteredModel, versions: int) -> None:
    for number in range(versions):
        about = About(metrics={"f1": 0.5 + number / 100, "loss": 1.0})
        found = make_version(model, about=about)
        aliases.set_alias(model, f"name-{found.number}", version=found.number, actor=SYSTEM)
        make_release(found)
        make_release(found, Environment.STAGING)


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_costs_the_same_however_many_versions_there_are(
    tab: str, boss: Client, wine: RegisteredModel
) -> None:
    grown(wine, 2)
    few = cost(boss, page(wine, f"?tab={tab}"))
    grown(wine, 5)
    assert cost(boss, page(wine, f"?tab={tab}")) == few <= 26


def test_an_unknown_tab_is_the_first_one(boss: Client, wine: RegisteredModel) -> None:
    assert "What serves" in text_of(boss, page(wine, "?tab=%00x"))


def test_the_card_is_rendered_and_runs_nothing(boss: Client, wine: RegisteredModel) -> None:
    card = "# Cultivars\n\n<script>alert(1)</script> [x](javascript:alert(1)) **bold**"
    models.change_model(wine, ModelChange(description=card), actor=SYSTEM)
    raw = boss.get(page(wine)).content.decode()
    assert "<h3>Cultivars</h3>" in raw
    assert "<strong>bold</strong>" in raw
    assert "<script>alert" not in raw
    assert 'href="javascript' not in raw


def test_what_the_uploader_says_is_rendered_and_runs_nothing(
    boss: Client, wine: RegisteredModel
) -> None:
    said = "# Cultivars\n\n<script>alert(1)</script> **bold**"
    version = make_version(wine)
    ModelVersion.objects.filter(pk=version.pk).update(description=said)
    raw = boss.get(page(version)).content.decode()
    assert "<h3>Cultivars</h3>" in raw
    assert "<strong>bold</strong>" in raw
    assert "<script>alert" not in raw


def test_calling_it_is_said_with_this_host_and_the_live_versions_example(
    boss: Client, wine: RegisteredModel
) -> None:
    found = make_version(wine)
    assert "nothing to call" in text_of(boss, page(wine))
    make_release(found)
    text = text_of(boss, page(wine))
    assert "curl -sS http://testserver/api/v1/predict/wine" in text
    assert '{"instances": [[1, 2, 3, 4]]}' in text
    assert "MLP_API_KEY" in text


def test_where_only_staging_serves_the_call_names_it(boss: Client, wine: RegisteredModel) -> None:
    make_release(make_version(wine), Environment.STAGING)
    assert "predict/wine?environment=staging" in text_of(boss, page(wine))


def test_versions_are_filtered_and_show_the_metrics_that_most_have(
    boss: Client, wine: RegisteredModel
) -> None:
    for number in range(2):
        make_version(wine, about=About(metrics={"f1": 0.91 + number / 100, f"odd{number}": 1}))
    make_upload(wine)
    text = text_of(boss, page(wine, "?tab=versions"))
    assert "0.91" in text
    assert "odd0" not in text
    ready = text_of(boss, page(wine, "?tab=versions&state=ready"))
    assert ("Version 3" in text, "Version 3" in ready, "Version 2" in ready) == (True, False, True)
    assert "No version is archived" in text_of(boss, page(wine, "?tab=versions&state=archived"))


def test_history_tells_of_versions_and_releases_too_and_has_pages(
    boss: Client, wine: RegisteredModel
) -> None:
    grown(wine, 6)
    shown = boss.get(page(wine, "?tab=history")).context["events"]
    assert {event.target_kind for event in shown.rows} >= {
        "registry.modelversion",
        "registry.release",
    }
    assert (len(shown.rows), shown.has_next) == (25, True)
    older = boss.get(page(wine, "?tab=history&page=2")).context["events"]
    assert older.rows[0].pk < shown.rows[-1].pk
    assert text_of(boss, page(wine, "?tab=history&page=99999999999"))


def test_saved_settings_lead_back_to_the_settings(boss: Client, wine: RegisteredModel) -> None:
    form = {
        "description": "Card",
        "tags": "a",
        "cache_seconds": "60",
        "record": "full",
        "sample_share": "1.0",
        "full_spool": "required",
        "redact": "{}",
        "deadline_seconds": "10",
    }
    reply = boss.post(page(wine, "?tab=settings"), form)
    assert reply.headers["Location"] == page(wine, "?tab=settings")
    wrong = boss.post(page(wine, "?tab=settings"), form | {"redact": '{"age": "maybe"}'})
    assert "One of drop, hash, mask." in wrong.content.decode()
    assert wrong.context["tab"] == "settings"


def test_a_viewer_reads_all_tabs_and_changes_nothing(viewer: Client, wine: RegisteredModel) -> None:
    for tab in TABS:
        text = text_of(viewer, page(wine, f"?tab={tab}"))
        assert "Upload a version" not in text
    assert viewer.post(page(wine, "?tab=settings"), {"tags": "x"}).status_code == 403


# -- aliases -----------------------------------------------------------------------------------


def alias_url(model: RegisteredModel) -> str:
    return reverse("registry-pages:aliases", args=[model.pk])


def test_an_alias_is_set_moved_and_removed_in_place(boss: Client, wine: RegisteredModel) -> None:
    make_version(wine)
    make_version(wine)
    for number in (1, 2):
        said = {"name": "champion", "version": str(number), "reason": f"better {number}"}
        assert f"points to version {number}." in boss.post(alias_url(wine), said).content.decode()
    assert Alias.objects.get().version.number == 2
    gone = boss.post(alias_url(wine), {"name": "champion", "act": "remove", "reason": "unused"})
    assert "is removed" in gone.content.decode()
    reasons = Event.objects.filter(verb__startswith="alias.").order_by("pk")
    assert [one.reason for one in reasons] == ["better 1", "better 2", "unused"]


@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"version": "1"}, "name", "Name the alias"),
        ({"name": "Bad Name", "version": "1"}, "name", "begins with a-z"),
        ({"name": "champion"}, "version", "Choose the version"),
        ({"name": "champion", "version": "9"}, "version", "no version 9"),
        ({"name": "champion", "version": "2"}, "version", "uploaded"),
        ({"name": "nobody", "act": "remove"}, "version", "no alias of this name"),
    ],
)
def test_a_refused_alias_is_said_at_its_field(
    said: dict[str, str], field: str, words: str, boss: Client, wine: RegisteredModel
) -> None:
    make_version(wine)
    make_upload(wine)
    form = boss.post(alias_url(wine), said).context["form"]
    assert words in form.errors[field][0]
    assert not Alias.objects.exists()


def test_only_who_may_write_changes_an_alias(
    viewer: Client, stranger: Client, wine: RegisteredModel
) -> None:
    make_version(wine)
    said = {"name": "champion", "version": "1"}
    assert viewer.get(alias_url(wine)).status_code == 200
    assert b"Set alias" not in viewer.get(alias_url(wine)).content
    assert viewer.post(alias_url(wine), said).status_code == 403
    assert stranger.get(alias_url(wine)).status_code == 404
    assert stranger.post(alias_url(wine), said).status_code == 404
    assert Client().get(alias_url(wine)).status_code == 302
    assert not Alias.objects.exists()


# -- the version's page ------------------------------------------------------------------------


def test_metrics_are_held_against_the_version_in_production(
    boss: Client, wine: RegisteredModel
) -> None:
    first = make_version(wine, about=About(metrics={"f1": 0.90, "log_loss": 0.2}))
    second = make_version(wine, about=About(metrics={"f1": 0.93, "log_loss": 0.3, "new": 1}))
    make_release(first)
    found = {one.name: one for one in boss.get(page(second)).context["metrics"]}
    assert found["f1"].compared == "better by 0.03 (3.33 %)"
    assert (found["log_loss"].verdict, found["log_loss"].arrow) == ("worse", "▲")
    assert found["log_loss"].direction == "lower is better"
    assert found["new"].theirs == "-"
    assert boss.get(page(first)).context["rival"] is None


def test_the_first_failure_stands_open_and_what_passed_keeps_its_remedy_to_itself() -> None:
    states = ("passed", "failed", "failed")
    checks = checks_of({"title": "t", "state": one, "remedy": "do"} for one in states)
    assert [one.is_open for one in checks] == [False, True, False]
    assert [one.remedy for one in checks] == ["", "do", "do"]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((-1, 13), "any number of rows x 13"),
        ((-1,), "any number of rows"),
        ((1, -1), "1 x any"),
        ((), "one number"),
    ],
)
def test_a_shape_is_said_in_words(shape: tuple[int, ...], words: str) -> None:
    assert shape_words(TensorSpec("x", Dtype.FLOAT32, shape)) == words


def test_lineage_is_text_and_only_web_addresses_can_be_followed(
    boss: Client, wine: RegisteredModel
) -> None:
    lineage = {"run": "https://m.org/1?a=1&b=2", "bad": "javascript:alert(1)", "n": {"<b>": 1}}
    raw = boss.get(page(make_version(wine, about=About(lineage=lineage)))).content.decode()
    assert 'href="https://m.org/1?a=1&amp;b=2"' in raw
    assert 'href="javascript' not in raw
    assert "&lt;b&gt;" in raw


def test_who_may_not_try_download_or_release_is_not_asked_to(
    viewer: Client, boss: Client, wine: RegisteredModel
) -> None:
    found = make_version(wine)
    raw = viewer.get(page(found)).content.decode()
    for part in (
        "/artifact?role=",
        "version-try",
        reverse("admin:registry_modelversion_release", args=[found.pk]),
    ):
        assert part not in raw
    assert "may try versions" in raw
    mine = boss.get(page(found)).content.decode()
    assert "/api/v1/models/wine/versions/1/artifact?role=original" in mine
    assert reverse("inference-pages:version-try", args=["wine", 1]) in mine


def test_a_downloaded_artifact_is_the_file_that_was_uploaded(
    boss: Client, wine: RegisteredModel
) -> None:
    found = make_version(wine)
    file = next(one for one in boss.get(page(found)).context["files"] if one["role"] == "original")
    reply = boss.get(file["href"])
    assert reply.status_code == 200
    assert len(b"".join(reply.streaming_content)) == found.size  # type: ignore[attr-defined]


def test_a_versions_page_costs_the_same_however_much_happened(
    boss: Client, wine: RegisteredModel
) -> None:
    found = make_version(wine)
    make_release(found)
    few = cost(boss, page(found))
    grown(wine, 4)
    assert cost(boss, page(found)) <= few + 1  # the version in production is another one now


# -- while it is being checked -----------------------------------------------------------------


def progress_urls(version: ModelVersion) -> tuple[str, str]:
    own = reverse("registry-pages:version-progress", args=[version.pk])
    uploaded = reverse("registry-pages:upload-progress", args=[version.model.name, version.number])
    return own, uploaded


def test_stages_are_shown_until_the_verdict_opens_the_page(
    boss: Client, wine: RegisteredModel
) -> None:
    found = make_upload(wine)
    own, uploaded = progress_urls(found)
    assert own in boss.get(page(found)).content.decode()
    assert "Waiting for a free worker" in text_of(boss, own)
    ModelVersion.objects.filter(pk=found.pk).update(state="validating")
    Work.objects.filter(subject_id=str(found.pk)).update(
        state="running", stage="Checking", stages=[["Looking", 1.0], ["Checking", 3.0]]
    )
    drawn = boss.get(uploaded)
    words = drawn.content.decode()
    assert re.search(r'mp-is-done">Looking <span>2\.0 s', words)
    assert re.search(r'aria-current="step">Checking', words)
    assert "HX-Redirect" not in drawn.headers
    ModelVersion.objects.filter(pk=found.pk).update(state="uploaded")
    validation.validate_version(found.pk, inspect=FakeSandbox())
    assert boss.get(own).headers["HX-Refresh"] == "true"
    assert boss.get(uploaded).headers["HX-Redirect"] == page(found)


def test_a_stranger_learns_nothing_of_the_checks(
    stranger: Client, viewer: Client, wine: RegisteredModel
) -> None:
    for url in progress_urls(make_upload(wine)):
        assert stranger.get(url).status_code == 404
        assert viewer.get(url).status_code == 200
        assert Client().get(url).status_code == 302


# -- the models of a team ----------------------------------------------------------------------


def test_a_teams_models_are_shown_to_its_members_alone(
    viewer: Client, stranger: Client, team: Team, wine: RegisteredModel
) -> None:
    make_release(make_version(wine))
    url = reverse("registry-pages:team-models", args=[team.pk])
    text = text_of(viewer, url)
    assert "version 1" in text
    assert "ready" in text
    assert stranger.get(url).status_code == 404
    few = cost(viewer, url)
    for _ in range(3):
        make_version(make_model(team=team))
    assert cost(viewer, url) == few


# -- upload ------------------------------------------------------------------------------------


def test_the_upload_page_says_how_to_do_the_same_from_a_terminal(boss: Client) -> None:
    text = text_of(boss, reverse("admin:registry_modelversion_add") + "?model=wine")
    assert "curl -sS http://testserver/api/v1/models/upload" in text
    assert "-F name=wine" in text
    assert 'data-progress="/admin/registry-pages/uploads/NAME/0/progress/"' in text


def test_the_upload_page_says_who_needs_leave_for_files_that_carry_code(
    team: Team, boss: Client
) -> None:
    url = reverse("admin:registry_modelversion_add")
    tom = browser(make_member(team, Role.CONTRIBUTOR, "tom"))
    assert "need a permission that you do not have" in text_of(tom, url)
    assert "need a permission that you do not have" not in text_of(boss, url)

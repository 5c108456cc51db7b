"""Models, aliases and the later life of versions: events and snapshot go with each change."""

import pytest

from apps.core import snapshot
from apps.core.errors import Conflict, Invalid, NotFound
from apps.core.models import Event
from apps.registry import selectors
from apps.registry.models import Endpoint, ModelVersion
from apps.registry.services import aliases, lifecycle, models
from apps.registry.services.models import ModelChange
from apps.registry.snapshot import EndpointBody, endpoint_from_json
from apps.registry.states import VersionState
from tests.factories.accounts import make_team
from tests.factories.registry import (
    SYSTEM,
    endpoint_of,
    make_model,
    make_release,
    make_upload,
    make_version,
)

pytestmark = pytest.mark.django_db


def entries() -> dict[str, object]:
    found = {"endpoint", "version"}
    return {one.key: one.body for one in snapshot.entries_after(0) if one.kind in found}


def body(environment: str) -> EndpointBody:
    written = entries()[f"{environment}/wine"]
    assert isinstance(written, dict)
    return endpoint_from_json(written)


def test_a_model_comes_with_its_three_endpoints_known_to_serving() -> None:
    model = make_model("wine")
    assert Endpoint.objects.filter(model=model).count() == 3
    assert set(entries()) == {"development/wine", "staging/wine", "production/wine"}
    assert body("production").settings.required
    assert not body("staging").settings.required
    assert body("staging").release is None
    assert body("staging").team_id == model.team_id


@pytest.mark.parametrize(
    "name", ["", "Wine", "a/b", "../x", "-x", "a b", "upload", "batch", "index", "é", "x" * 101]
)
def test_a_name_that_cannot_stand_in_urls_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        make_model(name or " ")
    assert caught.value.problems[0].pointer == "/name"


def test_a_taken_name_is_a_conflict_even_of_a_deleted_model() -> None:
    model = make_model("wine")
    with pytest.raises(Conflict, match="taken"):
        make_model("wine")
    models.delete_model(model, actor=SYSTEM)
    with pytest.raises(Conflict, match="taken"):
        make_model("wine")
    with pytest.raises(Conflict, match="deleted"):
        make_upload(model)


def test_a_change_of_the_rules_reaches_every_endpoint() -> None:
    model = make_model("wine")
    change = ModelChange(cache_seconds=60, redact={"age": "hash"}, record="digest")
    models.change_model(model, change, actor=SYSTEM, reason="privacy")
    for environment in ("development", "staging", "production"):
        assert body(environment).settings.cache_seconds == 60
        assert body(environment).settings.redact == {"age": "hash"}
    event = Event.objects.get(verb="model.changed")
    before = {name: old for name, (old, _) in event.facts["changes"].items()}
    assert before == {"cache_seconds": 0, "record": "full", "redact": {}}
    assert event.reason == "privacy"


def test_a_change_that_changes_nothing_writes_nothing() -> None:
    model = make_model("wine")
    before = snapshot.newest()
    models.change_model(model, ModelChange(cache_seconds=0), actor=SYSTEM)
    assert snapshot.newest() == before
    assert not Event.objects.filter(verb="model.changed").exists()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (ModelChange(cache_seconds=-1), "/cache_seconds"),
        (ModelChange(record="none"), "/record"),
        (ModelChange(full_spool="never"), "/full_spool"),
        (ModelChange(sample_share=1.5), "/sample_share"),
        (ModelChange(sample_share=float("nan")), "/sample_share"),
        (ModelChange(deadline_seconds=0), "/deadline_seconds"),
        (ModelChange(redact={"age": "maybe"}), "/redact/age"),
        (ModelChange(tags=["x" * 101]), "/tags/0"),
        (ModelChange(tags=["x"] * 51), "/tags"),
    ],
)
def test_rules_out_of_bounds_are_refused_at_their_place(change: ModelChange, place: str) -> None:
    with pytest.raises(Invalid) as caught:
        models.change_model(make_model(), change, actor=SYSTEM)
    assert caught.value.problems[0].pointer == place


def test_a_deleted_model_is_gone_for_serving_and_for_reading_and_kept_for_audit() -> None:
    version = make_version(make_model("wine"))
    make_release(version)
    models.delete_model(version.model, actor=SYSTEM, reason="unused")
    assert entries() == {}
    with pytest.raises(NotFound):
        selectors.find_model("wine")
    with pytest.raises(NotFound):
        models.delete_model(version.model, actor=SYSTEM)
    assert ModelVersion.objects.filter(pk=version.pk).exists()
    assert Event.objects.get(verb="model.deleted").reason == "unused"


# -- aliases -----------------------------------------------------------------------------------


def test_an_alias_is_known_to_every_endpoint_and_moves() -> None:
    model = make_model("wine")
    make_version(model)
    make_version(model)
    aliases.set_alias(model, "champion", version=1, actor=SYSTEM)
    moved = aliases.set_alias(model, "champion", version=2, actor=SYSTEM)
    assert moved.version.number == 2
    assert body("staging").aliases == body("production").aliases == {"champion": 2}
    facts = [event.facts for event in Event.objects.filter(verb="alias.set").order_by("id")]
    assert [(one["was"], one["version"]) for one in facts] == [(None, 1), (1, 2)]


def test_an_alias_that_is_removed_is_forgotten() -> None:
    version = make_version(make_model("wine"))
    alias = aliases.set_alias(version.model, "champion", version=1, actor=SYSTEM)
    aliases.remove_alias(alias, actor=SYSTEM)
    assert body("production").aliases == {}
    with pytest.raises(Conflict, match="gone already"):
        aliases.remove_alias(alias, actor=SYSTEM)


def test_an_alias_points_to_a_ready_version_only() -> None:
    version = make_upload(make_model("wine"))
    with pytest.raises(Conflict, match="uploaded"):
        aliases.set_alias(version.model, "champion", version=1, actor=SYSTEM)
    with pytest.raises(NotFound):
        aliases.set_alias(version.model, "champion", version=2, actor=SYSTEM)
    with pytest.raises(Invalid):
        aliases.set_alias(version.model, "Bad Name", version=1, actor=SYSTEM)


# -- the later life of a version ---------------------------------------------------------------


def test_archiving_takes_a_version_from_serving_and_restoring_brings_it_back() -> None:
    version = make_version(make_model("wine"))
    archived = lifecycle.archive(version, actor=SYSTEM, reason="old")
    assert archived.state == VersionState.ARCHIVED
    assert "wine/1" not in entries()
    restored = lifecycle.restore(archived, actor=SYSTEM)
    assert restored.state == VersionState.READY
    assert "wine/1" in entries()
    verbs = Event.objects.filter(target_id=str(version.pk)).values_list("verb", flat=True)
    assert {"version.archived", "version.ready"} <= set(verbs)


def test_deprecating_leaves_it_serving() -> None:
    version = make_version(make_model("wine"))
    make_release(version)
    assert lifecycle.deprecate(version, actor=SYSTEM).state == VersionState.DEPRECATED
    assert "wine/1" in entries()


def test_a_version_that_serves_or_has_an_alias_is_not_archived() -> None:
    model = make_model("wine")
    version, other = make_version(model), make_version(model)
    make_release(version)
    with pytest.raises(Conflict, match="serves in production"):
        lifecycle.archive(version, actor=SYSTEM)
    aliases.set_alias(model, "champion", version=2, actor=SYSTEM)
    with pytest.raises(Conflict, match="alias champion"):
        lifecycle.archive(other, actor=SYSTEM)


def test_a_rejected_version_can_be_archived_and_never_restored() -> None:
    version = make_upload(make_model("wine"))
    ModelVersion.objects.filter(pk=version.pk).update(state="rejected")
    version.refresh_from_db()
    archived = lifecycle.archive(version, actor=SYSTEM)
    with pytest.raises(Conflict, match="never passed"):
        lifecycle.restore(archived, actor=SYSTEM)


def test_a_stale_page_cannot_move_a_version_twice() -> None:
    version = make_version(make_model("wine"))
    stale = selectors.find_version(version.model, 1)
    lifecycle.deprecate(version, actor=SYSTEM)
    with pytest.raises(Conflict):
        lifecycle.deprecate(stale, actor=SYSTEM)


def test_a_move_in_between_loses_the_compare_and_set() -> None:
    version = make_version(make_model("wine"))
    ModelVersion.objects.filter(pk=version.pk).update(state="deprecated")
    with pytest.raises(Conflict, match="no longer ready"):
        lifecycle.move_version(version, VersionState.ARCHIVED, actor=SYSTEM)


def test_history_of_a_thing_is_its_own(django_assert_num_queries: object) -> None:
    version = make_version(make_model("wine", team=make_team()))
    make_version(make_model("beer"))
    verbs = [event.verb for event in selectors.history_of(version)]
    assert verbs == ["version.ready", "version.validating", "version.uploaded"]
    both = selectors.history_of(version, version.model)
    assert "model.created" in {event.verb for event in both}
    endpoint = endpoint_of(version.model)
    assert list(selectors.history_of(endpoint)) == []

"""Releases: one is live, two people cannot both win, and every change reaches the snapshot."""

import threading

import pytest
from django.db import IntegrityError, connection, connections, transaction
from pytest_django.fixtures import Settings

from apps.core import snapshot
from apps.core.errors import Conflict, Invalid, NotAllowed, NotFound
from apps.core.events import Actor
from apps.core.models import Event
from apps.registry.models import Endpoint, ModelVersion, RegisteredModel, Release
from apps.registry.services import entries, lifecycle, models, releases
from apps.registry.snapshot import Arm, ArmRole, endpoint_from_json
from apps.registry.states import Environment, ReleaseState
from tests.factories.accounts import make_user
from tests.factories.registry import endpoint_of, make_model, make_release, make_version

pytestmark = pytest.mark.django_db
MARA, TOM = Actor("user", "1", "mara"), Actor("user", "2", "tom")


@pytest.fixture
def model() -> RegisteredModel:
    found = make_model("wine")
    for _ in range(3):
        make_version(found)
    return found


@pytest.fixture
def endpoint(model: RegisteredModel) -> Endpoint:
    return endpoint_of(model)


def release(endpoint: Endpoint, version: int, **more: object) -> Release:
    return releases.make_release(
        endpoint,
        version=version,
        reason="better",
        actor=MARA,
        **more,  # type: ignore[arg-type]
    )


def entry(endpoint: Endpoint) -> object:
    key = f"{endpoint.environment}/{endpoint.model.name}"
    body = next(one.body for one in snapshot.entries_after(0) if one.key == key)
    assert body is not None
    return endpoint_from_json(body).release


def test_a_release_is_live_at_once_where_no_approval_is_asked(endpoint: Endpoint) -> None:
    made = release(endpoint, 1)
    assert (made.number, made.state) == (1, ReleaseState.LIVE)
    event = Event.objects.get(verb="release.live")
    assert (event.actor_name, event.reason, event.team_id) == (
        "mara",
        "better",
        endpoint.model.team_id,
    )
    assert event.facts["arms"] == [{"version": 1, "role": "primary", "share": 1.0}]


def test_the_snapshot_carries_the_live_release_in_the_same_transaction(endpoint: Endpoint) -> None:
    release(endpoint, 2)
    body = entry(endpoint)
    assert body.number == 1  # type: ignore[attr-defined]
    assert body.arms == (Arm(2, ArmRole.PRIMARY, ((0.0, 1.0),)),)  # type: ignore[attr-defined]
    before = snapshot.newest()
    with transaction.atomic():
        release(endpoint, 1)
        transaction.set_rollback(True)
    assert snapshot.newest() == before


def test_a_new_release_replaces_the_live_one(endpoint: Endpoint) -> None:
    first, second = release(endpoint, 1), release(endpoint, 2)
    first.refresh_from_db()
    assert (first.state, second.state) == (ReleaseState.REPLACED, ReleaseState.LIVE)


def test_the_database_refuses_two_live_releases(endpoint: Endpoint) -> None:
    first, _ = release(endpoint, 1), release(endpoint, 2)
    with pytest.raises(IntegrityError), transaction.atomic():
        Release.objects.filter(pk=first.pk).update(state=ReleaseState.LIVE)


def test_a_stale_expected_release_is_a_conflict(endpoint: Endpoint) -> None:
    release(endpoint, 1, expected_release=0)
    with pytest.raises(Conflict, match="Release 1 is live now"):
        release(endpoint, 2, expected_release=0)
    release(endpoint, 2, expected_release=1)


@pytest.mark.parametrize("reason", ["", "   "])
def test_a_release_without_a_reason_is_refused(endpoint: Endpoint, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        releases.make_release(endpoint, version=1, reason=reason, actor=MARA)
    assert caught.value.problems[0].pointer == "/reason"


def test_an_unknown_version_is_refused(endpoint: Endpoint) -> None:
    with pytest.raises(Conflict, match="no version 9"):
        release(endpoint, 9)


@pytest.mark.parametrize("state", ["uploaded", "validating", "rejected", "archived"])
def test_only_ready_and_deprecated_versions_are_released(endpoint: Endpoint, state: str) -> None:
    ModelVersion.objects.filter(model=endpoint.model, number=1).update(state=state)
    with pytest.raises(Conflict, match=state):
        release(endpoint, 1)
    ModelVersion.objects.filter(model=endpoint.model, number=1).update(state="deprecated")
    assert release(endpoint, 1).state == ReleaseState.LIVE


def test_a_native_version_is_released_only_where_the_operator_allows_it(
    endpoint: Endpoint, settings: Settings
) -> None:
    ModelVersion.objects.filter(model=endpoint.model).update(runtime="sklearn")
    settings.NATIVE_FORMATS = frozenset()
    with pytest.raises(Conflict, match="MLP_NATIVE_FORMATS"):
        release(endpoint, 1)
    settings.NATIVE_FORMATS = frozenset({"sklearn"})
    assert release(endpoint, 1).state == ReleaseState.LIVE


def test_required_models_that_would_not_fit_the_memory_are_refused(
    endpoint: Endpoint, settings: Settings
) -> None:
    other = make_version()
    make_release(other)
    ModelVersion.objects.filter(pk=other.pk).update(resident_bytes=600)
    ModelVersion.objects.filter(model=endpoint.model).update(resident_bytes=500)
    settings.POOL_BYTES = 1000
    with pytest.raises(Conflict, match="MLP_POOL_MB"):
        release(endpoint, 1)
    staging = endpoint_of(endpoint.model, Environment.STAGING)
    assert release(staging, 1).state == ReleaseState.LIVE
    settings.POOL_BYTES = 1100
    assert release(endpoint, 1).state == ReleaseState.LIVE


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([(1, ArmRole.PRIMARY, 0.5, None)], "add up to 1"),
        ([(1, ArmRole.CANDIDATE, 1.0, None)], "role primary"),
        ([(1, ArmRole.PRIMARY, 0.5, None), (2, ArmRole.PRIMARY, 0.5, None)], "role primary"),
        ([(1, ArmRole.PRIMARY, 0.9, None), (2, ArmRole.CANDIDATE, 0.9, None)], "its end"),
    ],
)
def test_arms_that_break_a_rule_are_refused(
    endpoint: Endpoint, shares: list[tuple[int, ArmRole, float, str | None]], words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        releases.make_release(endpoint, arms=releases.arms_by_share(shares), reason="x", actor=MARA)


def test_overlapping_ranges_are_refused(endpoint: Endpoint) -> None:
    arms = (
        Arm(1, ArmRole.PRIMARY, ((0.0, 0.6),)),
        Arm(2, ArmRole.CANDIDATE, ((0.5, 0.9),)),
    )
    with pytest.raises(Invalid, match="overlap"):
        releases.make_release(endpoint, arms=arms, reason="x", actor=MARA)


def test_shares_lie_side_by_side_and_a_shadow_beside_them(endpoint: Endpoint) -> None:
    arms = releases.arms_by_share(
        [
            (1, ArmRole.PRIMARY, 0.9, None),
            (2, ArmRole.CANDIDATE, 0.1, "b"),
            (3, ArmRole.SHADOW, 0.5, None),
        ]
    )
    made = releases.make_release(endpoint, arms=arms, reason="canary", actor=MARA)
    assert [arm.ranges for arm in made.typed_arms()] == [
        ((0.0, 0.9),),
        ((0.9, 1.0),),
        ((0.0, 0.5),),
    ]


# -- approval ------------------------------------------------------------------------------------


@pytest.fixture
def approval(settings: Settings) -> None:
    settings.REQUIRE_APPROVAL = True


@pytest.mark.usefixtures("approval")
def test_a_production_release_waits_and_changes_nothing_yet(endpoint: Endpoint) -> None:
    before = snapshot.newest()
    made = release(endpoint, 1)
    assert made.state == ReleaseState.AWAITING_APPROVAL
    assert snapshot.newest() == before
    staging = endpoint_of(endpoint.model, Environment.STAGING)
    assert release(staging, 1).state == ReleaseState.LIVE


@pytest.mark.usefixtures("approval")
def test_another_person_approves_and_it_is_live(endpoint: Endpoint) -> None:
    mara, tom = make_user(), make_user()
    made = release(endpoint, 1, person_id=mara.pk)
    approved = releases.approve(made, actor=TOM, person_id=tom.pk, reason="looks good")
    assert (approved.state, approved.approver_name) == (ReleaseState.LIVE, "tom")
    assert approved.approver_id == tom.pk
    assert entry(endpoint).number == 1  # type: ignore[attr-defined]


@pytest.mark.usefixtures("approval")
def test_nobody_approves_their_own_release(endpoint: Endpoint) -> None:
    mara = make_user()
    made = release(endpoint, 1, person_id=mara.pk)
    with pytest.raises(NotAllowed, match="another person"):
        releases.approve(made, actor=Actor("key", "k", "mara's key"), person_id=mara.pk)
    made.refresh_from_db()
    assert made.state == ReleaseState.AWAITING_APPROVAL


@pytest.mark.usefixtures("approval")
def test_of_two_decisions_on_a_stale_page_the_first_wins(endpoint: Endpoint) -> None:
    made, tom, ada = release(endpoint, 1), make_user(), make_user()
    stale = Release.objects.select_related("endpoint__model").get(pk=made.pk)
    releases.reject(made, actor=TOM, person_id=tom.pk, reason="no")
    with pytest.raises(Conflict, match="no longer waits"):
        releases.approve(stale, actor=MARA, person_id=ada.pk)
    assert not Release.objects.filter(state=ReleaseState.LIVE).exists()


@pytest.mark.usefixtures("approval")
def test_a_decision_between_the_look_and_the_write_loses_nothing(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, tom = release(endpoint, 1), make_user()

    def quicker(found: Release, to: ReleaseState) -> None:
        Release.objects.filter(pk=found.pk).update(state=ReleaseState.REJECTED)

    monkeypatch.setattr(releases, "_check_decision", quicker)
    with pytest.raises(Conflict, match="no longer waits"):
        releases.approve(made, actor=TOM, person_id=tom.pk)
    assert not Event.objects.filter(verb="release.live").exists()


@pytest.mark.usefixtures("approval")
def test_an_approval_that_something_newer_overtook_is_refused(
    endpoint: Endpoint, settings: Settings
) -> None:
    old, tom = release(endpoint, 1), make_user()
    settings.REQUIRE_APPROVAL = False
    release(endpoint, 2)
    with pytest.raises(Conflict, match="Release 2 went live after"):
        releases.approve(old, actor=TOM, person_id=tom.pk)


@pytest.mark.usefixtures("approval")
def test_a_version_archived_while_its_release_waits_cannot_go_live(endpoint: Endpoint) -> None:
    made, tom = release(endpoint, 1), make_user()
    version = ModelVersion.objects.select_related("model").get(model=endpoint.model, number=1)
    with pytest.raises(Conflict, match="awaits approval"):
        lifecycle.archive(version, actor=MARA)
    ModelVersion.objects.filter(pk=version.pk).update(state="archived")
    with pytest.raises(Conflict, match="archived"):
        releases.approve(made, actor=TOM, person_id=tom.pk)


# -- rolling back --------------------------------------------------------------------------------


def test_a_roll_back_is_a_new_release_with_the_arms_of_the_one_before(endpoint: Endpoint) -> None:
    release(endpoint, 1)
    release(endpoint, 2)
    back = releases.roll_back(endpoint, actor=TOM)
    assert (back.number, back.state, back.version_numbers) == (
        3,
        ReleaseState.LIVE.value,
        frozenset({1}),
    )
    assert back.rolled_back_to is not None
    assert back.rolled_back_to.number == 1
    assert entry(endpoint).number == 3  # type: ignore[attr-defined]


def test_rolling_back_twice_goes_further_back_and_not_forward(endpoint: Endpoint) -> None:
    for version in (1, 2, 3):
        release(endpoint, version)
    releases.roll_back(endpoint, actor=TOM)
    back = releases.roll_back(endpoint, actor=TOM)
    assert back.version_numbers == {1}
    with pytest.raises(Conflict, match="Nothing else"):
        releases.roll_back(endpoint, actor=TOM)


def test_a_roll_back_passes_by_releases_that_served_the_same(endpoint: Endpoint) -> None:
    for version in (1, 2, 2):
        release(endpoint, version)
    assert releases.roll_back(endpoint, actor=TOM).version_numbers == {1}


def test_a_roll_back_to_a_number_takes_that_release(endpoint: Endpoint) -> None:
    for version in (1, 2, 3):
        release(endpoint, version)
    assert releases.roll_back(endpoint, to=1, actor=TOM).version_numbers == {1}
    with pytest.raises(Conflict, match="live already"):
        releases.roll_back(endpoint, to=4, actor=TOM)
    with pytest.raises(NotFound):
        releases.roll_back(endpoint, to=99, actor=TOM)


def test_a_roll_back_never_waits_for_approval(endpoint: Endpoint, settings: Settings) -> None:
    release(endpoint, 1)
    release(endpoint, 2)
    settings.REQUIRE_APPROVAL = True
    assert releases.roll_back(endpoint, actor=TOM).state == ReleaseState.LIVE


@pytest.mark.usefixtures("approval")
def test_one_cannot_go_back_to_what_never_served(endpoint: Endpoint) -> None:
    made, tom = release(endpoint, 1), make_user()
    with pytest.raises(Conflict, match="never served"):
        releases.roll_back(endpoint, to=made.number, actor=TOM)
    releases.reject(made, actor=TOM, person_id=tom.pk, reason="no")
    with pytest.raises(Conflict, match="never served"):
        releases.roll_back(endpoint, to=made.number, actor=TOM)


def test_nothing_live_means_nothing_to_roll_back(endpoint: Endpoint) -> None:
    with pytest.raises(Conflict, match="Nothing is live"):
        releases.roll_back(endpoint, actor=TOM)


def test_a_deleted_model_is_not_released_any_more(endpoint: Endpoint) -> None:
    models.delete_model(endpoint.model, actor=MARA)
    with pytest.raises(NotFound):
        release(endpoint, 1)


def test_the_roll_out_is_noted_once(endpoint: Endpoint) -> None:
    release(endpoint, 1)
    assert releases.mark_rolled_out("wine", "production", 1)
    assert not releases.mark_rolled_out("wine", "production", 1)
    assert not releases.mark_rolled_out("wine", "production", 7)
    assert Event.objects.filter(verb="release.rolled_out").count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="the in-memory test database is one")
def test_of_two_people_at_once_with_the_same_expectation_one_wins(endpoint: Endpoint) -> None:
    release(endpoint, 1)
    together = threading.Barrier(2)
    outcomes: list[int | None] = []

    def ask(version: int) -> None:
        together.wait(10)
        try:
            outcomes.append(release(endpoint, version, expected_release=1).number)
        except Conflict:
            outcomes.append(None)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask, args=(version,)) for version in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [2, None]
    assert Release.objects.filter(state=ReleaseState.LIVE).count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="the in-memory test database is one")
def test_a_change_of_the_model_during_a_release_does_not_bring_the_old_release_back(
    model: RegisteredModel,
) -> None:
    endpoint = endpoint_of(model, Environment.DEVELOPMENT)  # the one that is written first
    release(endpoint, 1)
    begun = threading.Event()

    def change() -> None:
        begun.set()
        try:
            wish = models.ModelChange(cache_seconds=60)
            models.change_model(endpoint.model, wish, actor=TOM)
        finally:
            connections.close_all()

    thread = threading.Thread(target=change)
    with transaction.atomic():
        release(endpoint, 2)
        thread.start()
        assert begun.wait(10)
        thread.join(0.5)  # long enough for a change that does not wait to read the old release
    thread.join(30)
    assert entry(endpoint).number == 2  # type: ignore[attr-defined]


def test_a_release_that_comes_after_its_models_end_does_not_bring_it_back(
    endpoint: Endpoint,
) -> None:
    models.delete_model(endpoint.model, actor=MARA)
    with transaction.atomic():
        entries.put_endpoint(endpoint)
    assert not [one for one in snapshot.entries_after(0) if one.kind == "endpoint"]

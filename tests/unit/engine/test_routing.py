"""Which version answers a call."""

from collections import Counter
from typing import Any

import pytest

from apps.core.errors import Invalid
from apps.inference.engine.errors import NotReleased, UnknownModel
from apps.inference.engine.routing import Routes, choose, fnv1a32, position, resolve
from apps.inference.engine.types import Source
from apps.registry.snapshot import Arm, ArmRole, ModelSettings, ReleaseBody
from tests.fakes.bodies import endpoint_body, predict_call, primary, release_body, version_body

ID = "0190a000-0000-7000-8000-000000000001"


def drawn_from(release: ReleaseBody, unit: str | None, prediction_id: str = ID) -> tuple[Arm, bool]:
    chosen = choose(release, unit=unit, prediction_id=prediction_id)
    assert chosen is not None
    return chosen


def split(share: float, *, variants: bool = False) -> tuple[Arm, Arm]:
    return (
        Arm(1, ArmRole.PRIMARY, ((share, 1.0),), "control" if variants else None),
        Arm(2, ArmRole.CANDIDATE, ((0.0, share),), "treatment" if variants else None),
    )


@pytest.mark.parametrize(
    ("salt", "unit", "expected"),
    [
        ("seed", "a", 0.0505),
        ("seed", "b", 0.2696),
        ("foo", "ab", 0.2575),
        ("foo", "def", 0.2019),
        ("90850943850283058242805", "123", 0.7516),
        ("()**(%$##$%#$#", '___)((*":&', 0.0128),
    ],
)
def test_the_published_vectors_of_growthbooks_hash_are_reproduced(
    salt: str, unit: str, expected: float
) -> None:
    assert position(salt, unit) == expected


def test_the_hash_steps_over_utf16_units_as_a_browser_does() -> None:
    assert fnv1a32("") == 0x811C9DC5
    assert fnv1a32("a") == 0xE40C292C
    # One step with the whole unit 0x00E9, not two with its UTF-8 bytes.
    assert fnv1a32("\u00e9") == ((0x811C9DC5 ^ 0xE9) * 0x01000193) & 0xFFFFFFFF
    # Outside the basic plane: two steps, with the two surrogates.
    assert fnv1a32("\U0001f600") == fnv1a32("\ud83d\ude00")


def test_shares_of_a_split_come_out_as_released() -> None:
    release = release_body(*split(0.3))
    seen = Counter(arm.version for arm, _ in (drawn_from(release, f"u{n}") for n in range(20_000)))
    assert seen[2] / 20_000 == pytest.approx(0.3, abs=0.01)


def test_the_same_unit_always_gets_the_same_arm() -> None:
    release = release_body(*split(0.5))
    first = [choose(release, unit=f"u{n}", prediction_id=ID) for n in range(200)]
    again = [choose(release, unit=f"u{n}", prediction_id="other") for n in range(200)]
    assert first == again


def test_raising_coverage_never_moves_a_unit_between_arms() -> None:
    halves = (
        Arm(1, ArmRole.PRIMARY, ((0.0, 0.5),), "control"),
        Arm(2, ArmRole.CANDIDATE, ((0.5, 1.0),), "treatment"),
    )
    some = release_body(*halves, coverage=0.4)
    every = release_body(*halves, coverage=1.0)
    counted = 0
    for n in range(2_000):
        arm, drawn = drawn_from(some, f"u{n}")
        if drawn:
            counted += 1
            assert choose(every, unit=f"u{n}", prediction_id=ID) == (arm, True)
        else:
            assert arm.role is ArmRole.PRIMARY
    assert counted / 2_000 == pytest.approx(0.4, abs=0.04)


def test_ranges_are_half_open_so_that_every_place_has_one_arm() -> None:
    here = position("salt", "u1")
    release = release_body(
        Arm(1, ArmRole.PRIMARY, ((0.0, here),)), Arm(2, ArmRole.CANDIDATE, ((here, 1.0),))
    )
    chosen = choose(release, unit="u1", prediction_id=ID)
    assert chosen is not None
    assert chosen[0].version == 2


def test_a_shadow_never_answers() -> None:
    release = release_body(primary(1), Arm(2, ArmRole.SHADOW, ((0.0, 1.0),)))
    assert all(drawn_from(release, f"u{n}")[0].version == 1 for n in range(100))
    routes = Routes.of([endpoint_body(release)], [version_body(1), version_body(2)])
    with pytest.raises(NotReleased):
        resolve(routes, predict_call(version=2), ID)


def test_an_experiment_without_a_unit_answers_from_control_and_does_not_count() -> None:
    release = release_body(*split(0.9, variants=True), experiment="exp-1")
    routes = Routes.of([endpoint_body(release)], [version_body(1), version_body(2)])
    route = resolve(routes, predict_call(), ID)
    assert (route.version.number, route.variant, route.experiment) == (1, None, None)


def test_a_plain_split_without_a_unit_follows_the_prediction_id() -> None:
    release = release_body(*split(0.5))
    seen = {drawn_from(release, None, f"id-{n}")[0].version for n in range(50)}
    assert seen == {1, 2}


def test_a_counted_call_names_its_variant_and_experiment() -> None:
    release = release_body(*split(1.0, variants=True), experiment="exp-1", number=9)
    routes = Routes.of([endpoint_body(release)], [version_body(1), version_body(2)])
    route = resolve(routes, predict_call(unit="u1"), ID)
    assert (route.variant, route.experiment, route.release) == ("treatment", "exp-1", 9)
    assert route.arm == "candidate"


def test_a_version_asked_for_by_name_is_not_counted_for_the_experiment() -> None:
    release = release_body(*split(0.5, variants=True), experiment="exp-1")
    routes = Routes.of([endpoint_body(release)], [version_body(1), version_body(2)])
    route = resolve(routes, predict_call(version=2, unit="u1"), ID)
    assert (route.version.number, route.variant, route.experiment) == (2, None, None)


def test_an_unknown_model_is_told_apart_from_an_unreleased_one() -> None:
    routes = Routes.of([endpoint_body(environment="staging")], [version_body()])
    with pytest.raises(UnknownModel):
        resolve(routes, predict_call(model="beer"), ID)
    with pytest.raises(NotReleased):
        resolve(routes, predict_call(), ID)


@pytest.mark.parametrize("asked", [{"version": 3}, {"alias": "champion"}, {"alias": "nobody"}])
def test_only_arms_of_the_live_release_may_be_asked_for(asked: dict[str, Any]) -> None:
    endpoint = endpoint_body(aliases={"champion": 3})
    routes = Routes.of([endpoint], [version_body(1), version_body(3)])
    with pytest.raises(NotReleased):
        resolve(routes, predict_call(**asked), ID)


def test_an_alias_of_an_arm_answers() -> None:
    routes = Routes.of([endpoint_body(aliases={"champion": 1})], [version_body(1)])
    assert resolve(routes, predict_call(alias="champion"), ID).version.number == 1


def test_version_and_alias_together_are_refused() -> None:
    routes = Routes.of([endpoint_body(aliases={"champion": 1})], [version_body(1)])
    with pytest.raises(Invalid):
        resolve(routes, predict_call(alias="champion", version=1), ID)


def test_a_try_may_name_any_version_of_the_snapshot_and_counts_for_nothing() -> None:
    release = release_body(*split(1.0, variants=True), experiment="exp-1")
    versions = [version_body(1), version_body(2), version_body(3)]
    routes = Routes.of([endpoint_body(release)], versions)
    named = resolve(routes, predict_call(version=3, source=Source.TRY), ID)
    drawn = resolve(routes, predict_call(source=Source.TRY, unit="u1"), ID)
    assert (named.version.number, named.arm, named.variant) == (3, "try", None)
    assert (drawn.version.number, drawn.arm, drawn.experiment) == (2, "try", None)
    with pytest.raises(NotReleased):
        resolve(routes, predict_call(version=4, source=Source.TRY), ID)


def test_required_lists_every_version_a_required_endpoint_may_run() -> None:
    release = release_body(primary(1), Arm(2, ArmRole.SHADOW, ()))
    needed = endpoint_body(release, settings=ModelSettings(required=True))
    other = endpoint_body(release_body(primary(3)), environment="staging")
    routes = Routes.of([needed, other], [version_body(n) for n in (1, 2, 3)])
    assert [one.number for one in routes.required()] == [1, 2]

"""Who may do what: the table, and the order in which it refuses."""

from dataclasses import replace

import pytest

from apps.accounts.callers import Caller
from apps.accounts.keys import KeyKind
from apps.accounts.policies import (
    ENVIRONMENTS,
    RULES,
    UPLOAD_CODE,
    Action,
    Scope,
    Thing,
    Who,
    may,
    require,
    require_grantable,
    unseen,
)
from apps.accounts.snapshot import KeyBody, Role
from apps.core.errors import Invalid, NotAllowed, NotFound

BLUE = Thing(1, "wine", "production")
ADMIN = Caller(9, "boss", True, {}, frozenset())


def member(role: Role, *permissions: str) -> Caller:
    return Caller(7, "ada", False, {1: role}, frozenset(permissions))


def with_key(
    who: Caller,
    *scopes: str,
    models: tuple[str, ...] = (),
    environments: tuple[str, ...] = ENVIRONMENTS,
) -> Caller:
    return replace(who, key=KeyBody("id", "", 1, who.user_id, scopes, models, environments, None))


VIEWER, CONTRIBUTOR, MAINTAINER = (member(role) for role in Role)


def test_every_action_has_a_rule() -> None:
    assert set(RULES) == set(Action)


@pytest.mark.parametrize(
    ("action", "environment", "least"),
    [
        (Action.MODEL_READ, "production", Role.VIEWER),
        (Action.PREDICT, "production", Role.VIEWER),
        (Action.PREDICTION_READ, None, Role.VIEWER),
        (Action.PREDICT_TRY, "production", Role.CONTRIBUTOR),
        (Action.VERSION_UPLOAD, None, Role.CONTRIBUTOR),
        (Action.RELEASE_MAKE, "development", Role.CONTRIBUTOR),
        (Action.RELEASE_MAKE, "staging", Role.CONTRIBUTOR),
        (Action.RELEASE_MAKE, "production", Role.MAINTAINER),
        (Action.RELEASE_ASK, "production", Role.CONTRIBUTOR),
        (Action.RELEASE_ROLL_BACK, "staging", Role.CONTRIBUTOR),
        (Action.RELEASE_ROLL_BACK, "production", Role.MAINTAINER),
        (Action.RELEASE_APPROVE, "production", Role.MAINTAINER),
        (Action.VERSION_UPLOAD_CODE, None, Role.MAINTAINER),
        (Action.TEAM_MANAGE, None, Role.MAINTAINER),
        (Action.KEY_MANAGE, None, Role.MAINTAINER),
    ],
)
def test_each_action_needs_its_role_and_no_more(
    action: Action, environment: str | None, least: Role
) -> None:
    roles = list(Role)
    for role in roles:
        allowed = may(member(role), action, Thing(1, None, environment))
        assert allowed == (roles.index(role) >= roles.index(least)), role
    assert may(ADMIN, action, Thing(1, None, environment))


@pytest.mark.parametrize("action", [Action.TEAM_CREATE, Action.METRICS_READ])
def test_the_platform_itself_is_the_admins(action: Action) -> None:
    assert may(ADMIN, action, Thing())
    with pytest.raises(NotAllowed, match="platform admin"):
        require(MAINTAINER, action, Thing())


@pytest.mark.parametrize("action", list(Action))
def test_another_teams_thing_is_not_there_for_any_action(action: Action) -> None:
    with pytest.raises(NotFound) as caught:
        require(MAINTAINER, action, Thing(2, "wine"))
    assert caught.value.message == unseen("wine").message


@pytest.mark.parametrize(
    "action",
    [one for one in Action if RULES[one].who is not Who.ANYONE and RULES[one].scope is not None],
)
def test_a_key_needs_the_scope_besides_the_role(action: Action) -> None:
    scope = RULES[action].scope
    others = [one for one in Scope if one is not scope]
    thing = Thing(1)
    if RULES[action].who is Who.ADMIN:
        thing = Thing()
    assert may(with_key(ADMIN, str(scope)), action, thing)
    with pytest.raises(NotAllowed, match="lacks the scope"):
        require(with_key(ADMIN, *others), action, thing)


def test_a_scope_gives_nothing_that_the_owners_role_does_not() -> None:
    with pytest.raises(NotAllowed, match="You are viewer"):
        require(with_key(VIEWER, *Scope), Action.RELEASE_APPROVE, BLUE)


def test_an_admins_key_reaches_no_team_but_its_own() -> None:
    assert not may(with_key(ADMIN, *Scope), Action.MODEL_READ, Thing(2))


def test_no_key_changes_its_owners_account() -> None:
    assert may(VIEWER, Action.SELF_WRITE, Thing())
    with pytest.raises(NotAllowed, match="Sign in"):
        require(with_key(ADMIN, *Scope), Action.SELF_WRITE, Thing())


def test_a_key_of_some_models_is_refused_the_others() -> None:
    caller = with_key(MAINTAINER, "predict", models=("wine",))
    assert may(caller, Action.PREDICT, BLUE)
    with pytest.raises(NotAllowed, match="may not use the model `iris`"):
        require(caller, Action.PREDICT, Thing(1, "iris", "production"))


def test_a_key_is_bound_to_its_environments() -> None:
    caller = with_key(MAINTAINER, *Scope, environments=("staging",))
    assert may(caller, Action.PREDICT, Thing(1, "wine", "staging"))
    for action in (Action.PREDICT, Action.RELEASE_MAKE):
        with pytest.raises(NotAllowed, match="bound to staging"):
            require(caller, action, BLUE)


def test_uploading_code_is_granted_to_a_person_who_is_a_contributor() -> None:
    granted = member(Role.CONTRIBUTOR, UPLOAD_CODE)
    assert may(granted, Action.VERSION_UPLOAD_CODE, Thing(1))
    assert not may(member(Role.VIEWER, UPLOAD_CODE), Action.VERSION_UPLOAD_CODE, Thing(1))
    assert not may(granted, Action.RELEASE_APPROVE, Thing(1))


def test_a_refusal_says_what_is_missing() -> None:
    with pytest.raises(NotAllowed, match="in production needs maintainer"):
        require(CONTRIBUTOR, Action.RELEASE_MAKE, BLUE)


# -- making keys ---------------------------------------------------------------------------------


def grant(caller: Caller, *scopes: str, **more: object) -> None:
    wish = {"models": (), "environments": ("production",), "kind": KeyKind.LIVE} | more
    require_grantable(caller, team_id=1, scopes=scopes, **wish)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scopes", "more", "pointer"),
    [
        ((), {}, "/scopes"),
        (("predict", "fly"), {}, "/scopes/1"),
        (("predict",), {"environments": ("moon",)}, "/environments/0"),
        (("predict",), {"kind": KeyKind.TEST}, "/environments"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_at_its_place(
    scopes: tuple[str, ...], more: dict[str, object], pointer: str
) -> None:
    with pytest.raises(Invalid) as caught:
        grant(MAINTAINER, *scopes, **more)
    assert [one.pointer for one in caught.value.problems] == [pointer]


def test_only_who_manages_keys_may_give_administration_to_one() -> None:
    grant(MAINTAINER, "admin:*")
    with pytest.raises(NotAllowed, match="maintainer"):
        grant(CONTRIBUTOR, "admin:*")


@pytest.mark.parametrize(
    "more",
    [
        {"scopes": ("deploy",)},
        {"scopes": ("predict",), "models": ()},
        {"scopes": ("predict",), "models": ("iris",)},
        {"scopes": ("predict",), "models": ("wine",), "environments": ("production",)},
    ],
)
def test_a_key_gives_on_no_more_than_it_has(more: dict[str, tuple[str, ...]]) -> None:
    maker = with_key(MAINTAINER, "admin:*", "predict", models=("wine",), environments=("staging",))
    fine = {"scopes": ("predict",), "models": ("wine",), "environments": ("staging",)}
    grant(maker, *fine.pop("scopes"), **fine)
    wish = {"models": ("wine",), "environments": ("staging",)} | more
    with pytest.raises(NotAllowed, match="does not have"):
        grant(maker, *wish.pop("scopes"), **wish)

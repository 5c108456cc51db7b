"""May this caller do this to that thing: the only place where a permission is decided.

``RULES`` is the whole of it. A person needs the role in the thing's team; a key needs its owner to
have that role, and the scope besides. Doors name the action; they do not know roles or scopes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from apps.accounts.callers import Caller
from apps.accounts.keys import KeyKind
from apps.accounts.snapshot import KeyBody, Role
from apps.core.addresses import is_part_of
from apps.core.errors import FieldProblem, Invalid, NotAllowed, NotFound, PlatformError

PRODUCTION = "production"
# The plan of who registered without being asked; only a platform admin ends the trial.
TRIAL = "trial"
ENVIRONMENTS = ("development", "staging", PRODUCTION)
UPLOAD_CODE = "registry.upload_code_bearing_model"
DOWNLOAD = "registry.download_artifact"
READ_REDACTED = "inference.read_redacted"


class Scope(StrEnum):
    """What a key may be made for."""

    PREDICT = "predict"
    FEEDBACK_WRITE = "feedback:write"
    BATCH_WRITE = "batch:write"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    DEPLOY = "deploy"
    LOGS_READ = "logs:read"
    EXPERIMENTS_READ = "experiments:read"
    EXPERIMENTS_WRITE = "experiments:write"
    METRICS_READ = "metrics:read"
    ADMIN = "admin:*"


class Action(StrEnum):
    """Everything that is asked about."""

    PREDICT = "predict"
    PREDICT_TRY = "predict.try"
    BATCH_WRITE = "batch.write"
    FEEDBACK_WRITE = "feedback.write"
    PREDICTION_READ = "prediction.read"
    PREDICTION_READ_REDACTED = "prediction.read_redacted"
    PRIVACY_ERASE = "privacy.erase"

    MODEL_READ = "model.read"
    MODEL_WRITE = "model.write"
    VERSION_UPLOAD = "version.upload"
    VERSION_UPLOAD_CODE = "version.upload_code"
    VERSION_DOWNLOAD = "version.download"
    VERSION_MOVE = "version.move"
    ALIAS_WRITE = "alias.write"

    RELEASE_MAKE = "release.make"
    RELEASE_ASK = "release.ask"
    RELEASE_APPROVE = "release.approve"
    RELEASE_ROLL_BACK = "release.roll_back"

    EXPERIMENT_READ = "experiment.read"
    EXPERIMENT_WRITE = "experiment.write"

    KEY_READ = "key.read"
    KEY_ISSUE = "key.issue"
    KEY_MANAGE = "key.manage"
    TEAM_READ = "team.read"
    TEAM_MANAGE = "team.manage"
    TEAM_CREATE = "team.create"
    PERSON_INVITE = "person.invite"
    PEOPLE_READ = "people.read"
    PEOPLE_MANAGE = "people.manage"
    PLAN_READ = "plan.read"
    PLAN_WRITE = "plan.write"
    AUDIT_READ = "audit.read"
    METRICS_READ = "metrics.read"
    SELF_READ = "self.read"
    SELF_WRITE = "self.write"


@dataclass(frozen=True, slots=True)
class Thing:
    """What is acted on, as far as permission goes; without a team it is the platform itself."""

    team_id: int | None = None
    model: str | None = None
    environment: str | None = None


class Who(StrEnum):
    """Rules that no role of a team answers."""

    ANYONE = "anyone"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may do one thing.

    Attributes:
        who: Least role in the thing's team; a platform admin may always.
        scope: What a key needs besides; any key will do, or None when no key may.
        production: Least role when the thing's environment is production, if another.
        permission: Granted to a person, it stands in for the role; a contributor she must be.
    """

    who: Role | Who
    scope: Scope | Who | None
    production: Role | None = None
    permission: str | None = None


VIEWER, CONTRIBUTOR, MAINTAINER = Role.VIEWER, Role.CONTRIBUTOR, Role.MAINTAINER

# fmt: off
RULES: Mapping[Action, Rule] = {
    # action                      least role    a key needs             in production
    Action.PREDICT:          Rule(VIEWER,       Scope.PREDICT),
    Action.PREDICT_TRY:      Rule(CONTRIBUTOR,  Scope.MODELS_READ),
    Action.BATCH_WRITE:      Rule(VIEWER,       Scope.BATCH_WRITE),
    Action.FEEDBACK_WRITE:   Rule(VIEWER,       Scope.FEEDBACK_WRITE),
    Action.PREDICTION_READ:  Rule(VIEWER,       Scope.LOGS_READ),
    Action.PREDICTION_READ_REDACTED:
                             Rule(MAINTAINER,   Scope.LOGS_READ,        permission=READ_REDACTED),
    Action.PRIVACY_ERASE:    Rule(MAINTAINER,   Scope.ADMIN),

    Action.MODEL_READ:       Rule(VIEWER,       Scope.MODELS_READ),
    Action.MODEL_WRITE:      Rule(CONTRIBUTOR,  Scope.MODELS_WRITE),
    Action.VERSION_UPLOAD:   Rule(CONTRIBUTOR,  Scope.MODELS_WRITE),
    Action.VERSION_UPLOAD_CODE:
                             Rule(MAINTAINER,   Scope.MODELS_WRITE,     permission=UPLOAD_CODE),
    Action.VERSION_DOWNLOAD: Rule(MAINTAINER,   Scope.MODELS_READ,      permission=DOWNLOAD),
    Action.VERSION_MOVE:     Rule(CONTRIBUTOR,  Scope.MODELS_WRITE),
    Action.ALIAS_WRITE:      Rule(CONTRIBUTOR,  Scope.DEPLOY),

    Action.RELEASE_MAKE:     Rule(CONTRIBUTOR,  Scope.DEPLOY,           MAINTAINER),
    Action.RELEASE_ASK:      Rule(CONTRIBUTOR,  Scope.DEPLOY),
    Action.RELEASE_APPROVE:  Rule(MAINTAINER,   Scope.DEPLOY),
    Action.RELEASE_ROLL_BACK:
                             Rule(CONTRIBUTOR,  Scope.DEPLOY,           MAINTAINER),

    Action.EXPERIMENT_READ:  Rule(VIEWER,       Scope.EXPERIMENTS_READ),
    Action.EXPERIMENT_WRITE: Rule(CONTRIBUTOR,  Scope.EXPERIMENTS_WRITE),

    Action.KEY_READ:         Rule(VIEWER,       Scope.ADMIN),
    Action.KEY_ISSUE:        Rule(CONTRIBUTOR,  Scope.ADMIN),
    Action.KEY_MANAGE:       Rule(MAINTAINER,   Scope.ADMIN),
    Action.TEAM_READ:        Rule(VIEWER,       Scope.ADMIN),
    Action.TEAM_MANAGE:      Rule(MAINTAINER,   Scope.ADMIN),
    Action.TEAM_CREATE:      Rule(Who.ADMIN,    Scope.ADMIN),
    Action.PERSON_INVITE:    Rule(Who.ADMIN,    Scope.ADMIN),
    Action.PEOPLE_READ:      Rule(Who.ADMIN,    None),
    Action.PEOPLE_MANAGE:    Rule(Who.ADMIN,    None),
    Action.PLAN_READ:        Rule(Who.ANYONE,   Who.ANYONE),
    Action.PLAN_WRITE:       Rule(Who.ADMIN,    Scope.ADMIN),
    Action.AUDIT_READ:       Rule(MAINTAINER,   Scope.ADMIN),
    Action.METRICS_READ:     Rule(Who.ADMIN,    Scope.METRICS_READ),
    Action.SELF_READ:        Rule(Who.ANYONE,   Who.ANYONE),
    Action.SELF_WRITE:       Rule(Who.ANYONE,   None),
}
# fmt: on

# What may be granted to a person besides the roles.
GRANTABLE = tuple(dict.fromkeys(one.permission for one in RULES.values() if one.permission))

_RANK = {Role.VIEWER: 1, Role.CONTRIBUTOR: 2, Role.MAINTAINER: 3}


def may(caller: Caller, action: Action, thing: Thing) -> bool:
    """Whether a caller may do something."""
    return _refusal(caller, action, thing) is None


def require(caller: Caller, action: Action, thing: Thing) -> None:
    """Refuse what a caller may not do.

    Raises:
        NotFound: The thing's team is not the caller's; this looks like a thing that is not there.
        NotAllowed: The role or, for a key, its scope, models or environments do not suffice.
    """
    refusal = _refusal(caller, action, thing)
    if refusal is not None:
        raise refusal


def unseen(name: str | None = None) -> NotFound:
    """Return the error for a thing that is not there; another team's thing must look the same."""
    what = f"`{name}`" if name else "such a thing"
    return NotFound(f"There is no {what} here, or it belongs to a team that you are not in.")


def require_grantable(
    caller: Caller,
    *,
    team_id: int,
    kind: KeyKind,
    scopes: Sequence[str],
    models: Sequence[str],
    environments: Sequence[str],
    networks: Sequence[str] = (),
) -> None:
    """Refuse a new key that could do more than whoever makes it.

    A person's key is held by the person's role whenever it is used; only `admin:*` is refused at
    once to those who could never use it. A key that makes keys gives on what it has itself.

    Raises:
        Invalid: A scope or environment does not exist, or a test key shall reach production.
        NotAllowed: The maker has less.
    """
    _require_known(kind, scopes, environments)
    if Scope.ADMIN in scopes and not may(caller, Action.KEY_MANAGE, Thing(team_id)):
        raise NotAllowed("Only a maintainer of the team may make a key with scope `admin:*`.")
    if caller.key is not None:
        _require_within(caller.key, scopes, models, environments)
        _require_networks_within(caller.key, networks)


def require_plan(
    caller: Caller, *, team_id: int, plan: str, is_offered: bool, own: str, owners: str
) -> None:
    """Refuse to give a key a plan that is not the caller's to give.

    Args:
        caller: Who gives it.
        team_id: The key's team.
        plan: Name of the plan that the key shall have.
        is_offered: Whether maintainers may choose that plan.
        own: Plan of the person who acts.
        owners: Plan of the key's owner, which the key has unless another is chosen.

    Raises:
        NotAllowed: A platform admin may; or a maintainer.
    """
    if caller.key is not None:
        if plan != caller.key.plan:
            raise NotAllowed(
                f"This API key gives no other plan than its own, `{caller.key.plan or 'none'}`."
            )
        return
    if caller.is_admin or plan == owners:
        return
    if own == TRIAL:
        raise NotAllowed(
            f"You are on the plan `{TRIAL}`, and so are your keys. Ask a platform admin for more."
        )
    if not is_offered:
        raise NotAllowed(f"The plan `{plan}` is given by platform admins only.")
    if not may(caller, Action.KEY_MANAGE, Thing(team_id)):
        raise NotAllowed(
            f"You may give your own plan, `{owners}`. A maintainer of the team may give another."
        )


def require_held(caller: Caller, *, owner_id: int, owner_is_admin: bool) -> None:
    """Refuse to change or rotate a platform admin's key to everybody but platform admins.

    A key does what its owner may: who gets its secret, or widens it, would act as one.
    """
    if owner_is_admin and owner_id != caller.user_id and not caller.is_admin:
        raise NotAllowed(
            "This key is a platform admin's. You may revoke it; only a platform admin changes or "
            "rotates it."
        )


def _refusal(caller: Caller, action: Action, thing: Thing) -> PlatformError | None:
    if thing.team_id is not None and not caller.sees(thing.team_id):
        return unseen(thing.model)
    rule = RULES[action]
    return _key_refusal(caller.key, rule, action, thing) or _role_refusal(
        caller, rule, action, thing
    )


def _key_refusal(
    key: KeyBody | None, rule: Rule, action: Action, thing: Thing
) -> NotAllowed | None:
    if key is None:
        return None
    if rule.scope is None:
        return NotAllowed(f"No API key may do this (`{action}`). Sign in instead.")
    if rule.scope is not Who.ANYONE and rule.scope not in key.scopes:
        return NotAllowed(f"This API key lacks the scope `{rule.scope}` that `{action}` needs.")
    if thing.model is not None and key.models and thing.model not in key.models:
        return NotAllowed(f"This API key may not use the model `{thing.model}`.")
    if thing.environment is not None and thing.environment not in key.environments:
        bound = ", ".join(key.environments) or "no environment"
        return NotAllowed(
            f"This API key is bound to {bound}; it does not reach `{thing.environment}`."
        )
    return None


def _role_refusal(caller: Caller, rule: Rule, action: Action, thing: Thing) -> NotAllowed | None:
    if caller.is_admin or rule.who is Who.ANYONE:
        return None
    if rule.who is Who.ADMIN or thing.team_id is None:
        return NotAllowed(f"Only a platform admin may do this (`{action}`).")
    least = _least_role(caller, rule, thing)
    role = caller.roles.get(thing.team_id)
    if role is not None and _RANK[role] >= _RANK[least]:
        return None
    where = " in production" if rule.production and thing.environment == PRODUCTION else ""
    return NotAllowed(
        f"You are {role} in this team; `{action}`{where} needs {least}. Ask one of its maintainers."
    )


def _least_role(caller: Caller, rule: Rule, thing: Thing) -> Role:
    if rule.permission is not None and rule.permission in caller.permissions:
        return Role.CONTRIBUTOR
    if rule.production is not None and thing.environment == PRODUCTION:
        return rule.production
    return Role(rule.who)


def _require_known(kind: KeyKind, scopes: Sequence[str], environments: Sequence[str]) -> None:
    problems = [
        FieldProblem(f"/scopes/{index}", f"There is no scope `{one}`.")
        for index, one in enumerate(scopes)
        if one not in frozenset(Scope)
    ] + [
        FieldProblem(f"/environments/{index}", f"There is no environment `{one}`.")
        for index, one in enumerate(environments)
        if one not in ENVIRONMENTS
    ]
    if kind is KeyKind.TEST and PRODUCTION in environments:
        problems.append(FieldProblem("/environments", "A test key never reaches production."))
    if not scopes:
        problems.append(FieldProblem("/scopes", "Name at least one scope."))
    if problems:
        raise Invalid("The key cannot be made like this.").at(problems)


def _require_within(
    key: KeyBody, scopes: Sequence[str], models: Sequence[str], environments: Sequence[str]
) -> None:
    more = [one for one in scopes if one not in key.scopes]
    more += [one for one in environments if one not in key.environments]
    if key.models:
        more += [one for one in models if one not in key.models] if models else ["all models"]
    if more:
        raise NotAllowed(f"This API key cannot give what it does not have: {', '.join(more)}.")


def _require_networks_within(key: KeyBody, networks: Sequence[str]) -> None:
    if not key.networks:
        return
    wider = [one for one in networks if not is_part_of(one, key.networks)]
    if not networks or wider:
        raise NotAllowed(
            "This API key is bound to networks; a key that it makes or changes must be bound to "
            f"{', '.join(key.networks)}, or to parts of them."
        )

"""Typed bodies of the snapshot entries `key`, `person`, `plan` and `token`; plain Python.

A serving process answers "who is asking" from these alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

KEY = "key"
PERSON = "person"
PLAN = "plan"
TOKEN = "token"  # noqa: S105 - the name of an entry kind, not a secret


class Role(StrEnum):
    """What a member may do in a team, from least to most."""

    VIEWER = "viewer"
    CONTRIBUTOR = "contributor"
    MAINTAINER = "maintainer"


class CountedBy(StrEnum):
    """Whose uses are added up against a plan."""

    KEY = "key"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class PlanBody:
    """What a key or a person may use up; None is no limit.

    Attributes:
        rows_per_minute: Predictions, of which a call has as many as it has rows.
        rows_per_day: The same in a day (UTC).
        rows_per_call: Rows of one call at the most.
        counted_by: Whether each key counts by itself, or a person's keys and tokens together.
    """

    name: str
    requests_per_minute: int | None = None
    rows_per_minute: int | None = None
    rows_per_day: int | None = None
    rows_per_call: int | None = None
    counted_by: CountedBy = CountedBy.KEY


@dataclass(frozen=True, slots=True)
class KeyBody:
    """One API key that is neither revoked nor deleted.

    Attributes:
        id: The 12 characters that stand in the key itself.
        sha256: Digest of the secret part, hex.
        models: Names of the models it may use; empty for all of the team.
        environments: Environments it may call.
        expires: Unix second after which it is refused, or None.
        plan: Name of the plan it is counted against; empty, as from an older writer, for none.
        networks: Networks it may be used from, as 192.0.2.0/24; empty for all.
    """

    id: str
    sha256: str
    team_id: int
    owner_id: int
    scopes: tuple[str, ...]
    models: tuple[str, ...]
    environments: tuple[str, ...]
    expires: int | None
    plan: str = ""
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PersonBody:
    """One user who may sign in.

    Attributes:
        roles: Role by team id.
        permissions: Permissions granted to the person beside the role, such as
            ``registry.upload_code_bearing_model``.
        token_version: Tokens with another number are refused.
        plan: Name of the plan that calls with a token are counted against; empty for none.
    """

    id: int
    username: str
    is_admin: bool
    is_active: bool
    token_version: int
    roles: Mapping[int, Role]
    permissions: tuple[str, ...] = ()
    plan: str = ""


_KEY_FIELDS = tuple(name for name in KeyBody.__slots__ if name not in {"plan", "networks"})
_PERSON_FIELDS = tuple(name for name in PersonBody.__slots__ if name != "plan")


def key_to_json(body: KeyBody) -> dict[str, Any]:
    """Write the body of a `key` entry."""
    return {name: getattr(body, name) for name in KeyBody.__slots__} | {
        "scopes": list(body.scopes),
        "models": list(body.models),
        "environments": list(body.environments),
        "networks": list(body.networks),
    }


def key_from_json(body: Mapping[str, Any]) -> KeyBody:
    """Read the body of a `key` entry; ``ValueError`` when it is damaged."""
    try:
        return KeyBody(
            **{
                # Fields that a newer writer added are none of ours; an older one wrote no plan.
                **{name: body[name] for name in _KEY_FIELDS},
                "scopes": tuple(body["scopes"]),
                "models": tuple(body["models"]),
                "environments": tuple(body["environments"]),
                "plan": str(body.get("plan", "")),
                "networks": tuple(body.get("networks", ())),
            }
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"The key entry cannot be read: {error}") from error


def person_to_json(body: PersonBody) -> dict[str, Any]:
    """Write the body of a `person` entry; JSON wants texts as names, so team ids become texts."""
    return {
        "id": body.id,
        "username": body.username,
        "is_admin": body.is_admin,
        "is_active": body.is_active,
        "token_version": body.token_version,
        "roles": {str(team): role.value for team, role in body.roles.items()},
        "permissions": list(body.permissions),
        "plan": body.plan,
    }


def person_from_json(body: Mapping[str, Any]) -> PersonBody:
    """Read the body of a `person` entry; ``ValueError`` when it is damaged."""
    try:
        return PersonBody(
            **{
                **{name: body[name] for name in _PERSON_FIELDS},
                "roles": {int(team): Role(role) for team, role in body["roles"].items()},
                "permissions": tuple(body["permissions"]),
                "plan": str(body.get("plan", "")),
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"The person entry cannot be read: {error}") from error


def plan_to_json(body: PlanBody) -> dict[str, Any]:
    """Write the body of a `plan` entry."""
    return {name: getattr(body, name) for name in PlanBody.__slots__} | {
        "counted_by": body.counted_by.value
    }


def plan_from_json(body: Mapping[str, Any]) -> PlanBody:
    """Read the body of a `plan` entry; ``ValueError`` when it is damaged."""
    try:
        return PlanBody(
            name=str(body["name"]),
            **{name: _whole(body[name]) for name in _LIMITS},
            counted_by=CountedBy(body["counted_by"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"The plan entry cannot be read: {error}") from error


_LIMITS = ("requests_per_minute", "rows_per_minute", "rows_per_day", "rows_per_call")


def _whole(number: Any) -> int | None:
    return None if number is None else int(number)

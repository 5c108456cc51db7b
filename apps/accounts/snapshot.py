"""Typed bodies of the snapshot entries `key`, `person` and `token`; plain Python.

A serving process answers "who is asking" from these alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

KEY = "key"
PERSON = "person"
TOKEN = "token"  # noqa: S105 - the name of an entry kind, not a secret


class Role(StrEnum):
    """What a member may do in a team, from least to most."""

    VIEWER = "viewer"
    CONTRIBUTOR = "contributor"
    MAINTAINER = "maintainer"


@dataclass(frozen=True, slots=True)
class KeyBody:
    """One API key that is neither revoked nor deleted.

    Attributes:
        id: The 12 characters that stand in the key itself.
        sha256: Digest of the secret part, hex.
        models: Names of the models it may use; empty for all of the team.
        environments: Environments it may call.
        expires: Unix second after which it is refused, or None.
    """

    id: str
    sha256: str
    team_id: int
    owner_id: int
    scopes: tuple[str, ...]
    models: tuple[str, ...]
    environments: tuple[str, ...]
    expires: int | None


@dataclass(frozen=True, slots=True)
class PersonBody:
    """One user who may sign in.

    Attributes:
        roles: Role by team id.
        permissions: Permissions granted to the person beside the role, such as
            ``registry.upload_code_bearing_model``.
        token_version: Tokens with another number are refused.
    """

    id: int
    username: str
    is_admin: bool
    is_active: bool
    token_version: int
    roles: Mapping[int, Role]
    permissions: tuple[str, ...] = ()


def key_to_json(body: KeyBody) -> dict[str, Any]:
    """Write the body of a `key` entry."""
    return {name: getattr(body, name) for name in KeyBody.__slots__} | {
        "scopes": list(body.scopes),
        "models": list(body.models),
        "environments": list(body.environments),
    }


def key_from_json(body: Mapping[str, Any]) -> KeyBody:
    """Read the body of a `key` entry; ``ValueError`` when it is damaged."""
    try:
        return KeyBody(
            **{
                # Fields that a newer writer added are none of ours.
                **{name: body[name] for name in KeyBody.__slots__},
                "scopes": tuple(body["scopes"]),
                "models": tuple(body["models"]),
                "environments": tuple(body["environments"]),
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
    }


def person_from_json(body: Mapping[str, Any]) -> PersonBody:
    """Read the body of a `person` entry; ``ValueError`` when it is damaged."""
    try:
        return PersonBody(
            **{
                **{name: body[name] for name in PersonBody.__slots__},
                "roles": {int(team): Role(role) for team, role in body["roles"].items()},
                "permissions": tuple(body["permissions"]),
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"The person entry cannot be read: {error}") from error

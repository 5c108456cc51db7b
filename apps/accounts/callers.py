"""Who is asking: credentials in a request's headers -> ``Caller``; plain Python.

The lean prediction door and Django's doors share this module; they differ by their ``Directory``:
memory that follows the snapshot here, the database there. Nothing here decides what a caller may
do; that is ``policies``.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from apps.accounts import keys
from apps.accounts.snapshot import (
    KEY,
    PERSON,
    PLAN,
    TOKEN,
    KeyBody,
    PersonBody,
    PlanBody,
    Role,
    key_from_json,
    person_from_json,
    plan_from_json,
)
from apps.accounts.tokens import Claims, TokenKind, TokenVerifier
from apps.core.addresses import is_within
from apps.core.errors import Invalid, InvalidKey, InvalidToken, NotAuthenticated
from apps.core.snapshot_file import Change, Entry

LOG = logging.getLogger(__name__)
_UNKNOWN_KEY = "This API key is not valid: it is mistyped, unknown or revoked."
_OLD_TOKEN = "The token is no longer valid. Sign in again."  # noqa: S105 - a sentence
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose credentials were found good.

    Attributes:
        user_id: The person; for a key, its owner.
        roles: Role by team id; for a key only the role of its owner in the key's team.
        permissions: Granted to the person beside the roles.
        key: The API key that was presented, or None for a person.
        token: What the presented access token says, or None.
        plan: What the call counts against: the key's plan, else the person's; None for no limits.
    """

    user_id: int
    username: str
    is_admin: bool
    roles: Mapping[int, Role]
    permissions: frozenset[str]
    key: KeyBody | None = None
    token: Claims | None = None
    plan: PlanBody | None = None

    def sees(self, team_id: int) -> bool:
        """Whether things of a team exist for this caller; a key knows its own team only."""
        if self.key is not None:
            return team_id == self.key.team_id
        return self.is_admin or team_id in self.roles

    @property
    def sees_all(self) -> bool:
        """Whether things of every team exist for this caller."""
        return self.is_admin and self.key is None


class Directory(Protocol):
    """Where keys and people are looked up."""

    def key(self, key_id: str) -> KeyBody | None:
        """Return a key that is neither revoked nor deleted."""
        ...

    def person(self, user_id: int) -> PersonBody | None:
        """Return a user."""
        ...

    def plan(self, name: str) -> PlanBody | None:
        """Return a plan."""
        ...

    def is_revoked(self, token_id: str) -> bool:
        """Whether an access token was revoked before its time."""
        ...


def caller_of(
    headers: Mapping[str, str],
    *,
    directory: Directory,
    verifier: TokenVerifier,
    now: float,
    address: str | None = None,
) -> Caller:
    """Find out who is asking.

    Args:
        headers: The request's headers, names in lower case.
        directory: Where keys and people are looked up.
        verifier: Reads access tokens.
        now: Unix seconds.
        address: Where the call comes from; a key that is bound to networks needs it.

    Raises:
        NotAuthenticated: No credential was presented.
        Invalid: Two were.
        InvalidKey: The API key is bad, expired, revoked or used from another network than its own,
            or its owner may not sign in.
        InvalidToken: The bearer token is bad, expired, revoked, or older than a change of
            password, role or standing.
    """
    key_text, authorization = headers.get("x-api-key"), headers.get("authorization")
    if key_text is not None and authorization is not None:
        raise Invalid("Present one credential: `Authorization` or `X-API-Key`, not both.")
    if key_text is not None:
        return _by_key(key_text.strip(), directory, now, address)
    if authorization is not None:
        return _by_token(_bearer(authorization), directory, verifier, now)
    raise NotAuthenticated(
        "Present a credential: an API key in `X-API-Key`, or `Authorization: Bearer <token>`."
    )


def caller_of_person(
    person: PersonBody,
    *,
    key: KeyBody | None = None,
    token: Claims | None = None,
    plan: PlanBody | None = None,
) -> Caller:
    """Return a person as caller; with a key, no more than the key's team and the person's role."""
    roles = person.roles
    if key is not None:
        roles = {team: role for team, role in roles.items() if team == key.team_id}
    return Caller(
        user_id=person.id,
        username=person.username,
        is_admin=person.is_admin,
        roles=roles,
        permissions=frozenset(person.permissions),
        key=key,
        token=token,
        plan=plan,
    )


def _bearer(authorization: str) -> str:
    scheme, _, text = authorization.strip().partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text:
        raise InvalidToken("Write `Authorization: Bearer <token>`; other schemes are not taken.")
    if text.startswith("mlp_"):
        raise InvalidToken("An API key goes into the header `X-API-Key`.")
    return text


def _by_key(text: str, directory: Directory, now: float, address: str | None) -> Caller:
    presented = keys.parse(text)
    if presented is None:
        raise InvalidKey(_UNKNOWN_KEY)
    key = directory.key(presented.id)
    if key is None or not presented.matches(key.sha256):
        raise InvalidKey(_UNKNOWN_KEY)
    if key.expires is not None and now >= key.expires:
        raise InvalidKey("This API key has expired. Make a new one.")
    if key.networks and not is_within(address, key.networks):
        raise InvalidKey(
            "This API key may not be used from this address. Use it from its own networks, or have "
            "them changed."
        )
    owner = directory.person(key.owner_id)
    if owner is None or not owner.is_active:
        raise InvalidKey("The owner of this API key is disabled. Make a key of your own.")
    if not owner.is_admin and key.team_id not in owner.roles:
        raise InvalidKey("The owner of this API key has left its team. Make a key of your own.")
    return caller_of_person(owner, key=key, plan=directory.plan(key.plan))


def _by_token(text: str, directory: Directory, verifier: TokenVerifier, now: float) -> Caller:
    claims = verifier.read(text, kind=TokenKind.ACCESS, now=now)
    person = directory.person(claims.user_id)
    if person is None or not person.is_active or person.token_version != claims.token_version:
        raise InvalidToken(_OLD_TOKEN)
    if directory.is_revoked(claims.id):
        raise InvalidToken(_OLD_TOKEN)
    return caller_of_person(person, token=claims, plan=directory.plan(person.plan))


@dataclass(frozen=True, slots=True)
class MemoryDirectory:
    """The directory of a serving process.

    It is never changed, only replaced: whoever holds the one reference assigns ``applied(...)``
    to it, and every thread sees either the old state or the new one.
    """

    keys: Mapping[str, KeyBody] = field(default_factory=dict)
    people: Mapping[int, PersonBody] = field(default_factory=dict)
    plans: Mapping[str, PlanBody] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()

    def key(self, key_id: str) -> KeyBody | None:
        return self.keys.get(key_id)

    def person(self, user_id: int) -> PersonBody | None:
        return self.people.get(user_id)

    def plan(self, name: str) -> PlanBody | None:
        return self.plans.get(name)

    def is_revoked(self, token_id: str) -> bool:
        return token_id in self.revoked

    def applied(self, change: Change) -> "MemoryDirectory":
        """Return the directory after a change of the snapshot; entries of others are ignored."""
        ours = [one for one in change.entries if one.kind in {KEY, PERSON, PLAN, TOKEN}]
        if not ours and not change.full:
            return self
        old = MemoryDirectory() if change.full else self
        gone = {one.key for one in ours if one.kind == TOKEN and one.body is None}
        fresh = {one.key for one in ours if one.kind == TOKEN and one.body is not None}
        return MemoryDirectory(
            keys=_merged(old.keys, _of(ours, KEY), key_from_json, str),
            people=_merged(old.people, _of(ours, PERSON), person_from_json, int),
            plans=_merged(old.plans, _of(ours, PLAN), plan_from_json, str),
            revoked=(old.revoked - gone) | fresh,
        )


K = TypeVar("K")


def _of(entries: Iterable[Entry], kind: str) -> list[Entry]:
    return [one for one in entries if one.kind == kind]


def _merged(
    old: Mapping[K, B],
    entries: list[Entry],
    read: Callable[[Mapping[str, Any]], B],
    name: Callable[[str], K],
) -> Mapping[K, B]:
    if not entries:
        return old
    merged = dict(old)
    for one in entries:
        try:
            if one.body is None:
                merged.pop(name(one.key), None)
            else:
                merged[name(one.key)] = read(one.body)
        except ValueError:
            # One unreadable entry must not stop the others; its credential is refused meanwhile.
            LOG.error("the snapshot entry %s %s cannot be read", one.kind, one.key)  # noqa: TRY400
            _forget(merged, one.key, name)
    return merged


def _forget(merged: dict[K, B], key: str, name: Callable[[str], K]) -> None:
    try:
        merged.pop(name(key), None)
    except ValueError:
        return

"""Issue, change, rotate and revoke API keys.

Whoever changes a key locks its row first: two at once then follow each other, and the later
snapshot entry holds what both did.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.accounts.keys import KeyKind, KeyText, make
from apps.accounts.models import ApiKey, Team, User
from apps.accounts.selectors import key_body
from apps.accounts.services.plans import held_plan
from apps.accounts.snapshot import KEY, key_to_json
from apps.core import events, snapshot
from apps.core.addresses import normal_network
from apps.core.errors import Conflict, FieldProblem, Invalid
from apps.core.events import Actor
from apps.core.models import SnapshotEntry

LIFE = timedelta(days=365)
LONGEST_LIFE = timedelta(days=2 * 365)
OVERLAP = timedelta(hours=24)
LONGEST_OVERLAP = timedelta(days=7)
MOST_NETWORKS = 50


@dataclass(frozen=True, slots=True)
class KeyWish:
    """What a new key shall be.

    Attributes:
        models: Names of the models it may use; empty for all of the team.
        expires_at: None for a year from now.
        plan: Name of the plan it is counted against; None for its owner's.
        networks: Networks it may be used from; empty for all.
    """

    name: str
    scopes: Sequence[str]
    kind: KeyKind = KeyKind.LIVE
    models: Sequence[str] = ()
    environments: Sequence[str] = ("production",)
    expires_at: datetime | None = None
    plan: str | None = None
    networks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What shall be different about a key; None leaves it as it is."""

    name: str | None = None
    scopes: Sequence[str] | None = None
    models: Sequence[str] | None = None
    environments: Sequence[str] | None = None
    expires_at: datetime | None = None
    plan: str | None = None
    networks: Sequence[str] | None = None


@transaction.atomic
def issue_key(team: Team, *, owner: User, wish: KeyWish, actor: Actor) -> tuple[ApiKey, str]:
    """Make a key; return its row and its text, which is never to be had again."""
    text = make(wish.kind)
    key = _made(
        text,
        kind=wish.kind.value,
        name=wish.name,
        team=team,
        owner=owner,
        created_by=actor.name,
        scopes=_distinct(wish.scopes),
        model_names=_distinct(wish.models),
        environments=_distinct(wish.environments),
        plan=held_plan(str(owner.plan_id) if wish.plan is None else wish.plan),
        networks=checked_networks(wish.networks),
        expires_at=expiry(wish.expires_at),
    )
    _record_issue(key, actor)
    snapshot.put(KEY, key.pk, key_to_json(key_body(key)))
    return key, str(text)


@transaction.atomic
def change_key(key: ApiKey, *, change: KeyChange, actor: Actor) -> None:
    """Change what a living key may do, or until when; it holds everywhere within seconds."""
    _lock(key)
    _require_living(key)
    before = _told(key)
    _apply(key, change)
    after = _told(key)
    changed = [name for name in before if before[name] != after[name]]
    if not changed:
        return
    key.save(update_fields=[_COLUMNS.get(name, name) for name in changed])
    events.record(
        "key.changed",
        actor=actor,
        target=key,
        team_id=key.team_id,
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed},
    )
    snapshot.put(KEY, key.pk, key_to_json(key_body(key)))


@transaction.atomic
def rotate_key(
    key: ApiKey, *, actor: Actor, overlap: timedelta = OVERLAP
) -> tuple[ApiKey, str]:  # fmt: skip
    """Make a key's successor, with the same rights and as long a life; return it and its text.

    The old key stays good for the overlap, and never longer than it would have been.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise Invalid("The key cannot be rotated like this.").at(
            [FieldProblem("/overlap_hours", "Both keys work together for 0 to 168 hours.")]
        )
    _lock(key)
    _require_living(key)
    if ApiKey.objects.filter(replaces=key).exists():
        raise Conflict("This key was rotated already. Rotate its successor instead.")
    now = timezone.now()
    text = make(KeyKind(key.kind))
    successor = _made(
        text,
        kind=key.kind,
        name=key.name,
        team=key.team,
        owner=key.owner,
        created_by=actor.name,
        scopes=key.scopes,
        model_names=key.model_names,
        environments=key.environments,
        plan=key.plan,
        networks=key.networks,
        expires_at=now + min(key.expires_at - key.created, LONGEST_LIFE),
        replaces=key,
    )
    expired_at, key.expires_at = key.expires_at, min(key.expires_at, now + overlap)
    key.save(update_fields=["expires_at"])
    _record_issue(successor, actor, replaces=key.pk)
    events.record(
        "key.rotated",
        actor=actor,
        target=key,
        team_id=key.team_id,
        successor=successor.pk,
        overlap_hours=round(overlap / timedelta(hours=1)),
        before={"expires_at": expired_at.isoformat()},
        after={"expires_at": key.expires_at.isoformat()},
    )
    snapshot.put(KEY, key.pk, key_to_json(key_body(key)))
    snapshot.put(KEY, successor.pk, key_to_json(key_body(successor)))
    return successor, str(text)


@transaction.atomic
def revoke_key(key: ApiKey, *, actor: Actor, reason: str = "") -> None:
    """Make a key useless for ever; nothing happens when somebody did so before."""
    now = timezone.now()
    live = ApiKey.objects.filter(pk=key.pk, revoked_at__isnull=True)
    if not live.update(revoked_at=now, revoked_by=actor.name):
        return
    key.revoked_at, key.revoked_by = now, actor.name
    events.record("key.revoked", actor=actor, target=key, team_id=key.team_id, reason=reason)
    snapshot.drop(KEY, key.pk)


@transaction.atomic
def publish_stale() -> int:
    """Write the entries that do not say what the living keys' rows say; return how many.

    An older writer's entries know no plan and no networks.
    """
    kept = dict(SnapshotEntry.objects.filter(kind=KEY, deleted=False).values_list("key", "body"))
    living = ApiKey.objects.select_for_update().filter(
        revoked_at__isnull=True, expires_at__gt=timezone.now()
    )
    stale = 0
    for key in living.order_by("pk").iterator(chunk_size=2000):
        body = key_to_json(key_body(key))
        if kept.get(key.pk) != body:
            snapshot.put(KEY, key.pk, body)
            stale += 1
    return stale


def expiry(wished: datetime | None) -> datetime:
    """Return when a key ends; ``Invalid`` for the past or what is too far."""
    now = timezone.now()
    expires_at = wished or now + LIFE
    if now < expires_at <= now + LONGEST_LIFE:
        return expires_at
    raise Invalid("The key cannot be made like this.").at(
        [FieldProblem("/expires_at", "A key expires in the future, within two years.")]
    )


def checked_networks(wished: Sequence[str]) -> list[str]:
    """Return networks in their normal form, each once; ``Invalid`` names what is none."""
    normal = [normal_network(one) for one in wished]
    problems = [
        FieldProblem(
            f"/networks/{index}",
            f"`{wished[index]}` is no network. Write 192.0.2.0/24, 2001:db8::/32 or an address; "
            "the part behind the mask is zero.",
        )
        for index, one in enumerate(normal)
        if one is None
    ]
    found = _distinct([one for one in normal if one is not None])
    if len(found) > MOST_NETWORKS:
        problems.append(FieldProblem("/networks", f"At most {MOST_NETWORKS} networks."))
    if problems:
        raise Invalid("The key cannot be made like this.").at(problems)
    return found


# Facts of events bear the API's names.
_COLUMNS = {"models": "model_names"}


def _made(text: KeyText, **columns: Any) -> ApiKey:
    return ApiKey.objects.create(id=text.id, sha256=text.sha256, last4=text.last4, **columns)


def _lock(key: ApiKey) -> None:
    """Take the row until the transaction ends, and read it again under the lock."""
    ApiKey.objects.select_for_update().get(pk=key.pk)
    key.refresh_from_db()


def _require_living(key: ApiKey) -> None:
    if key.revoked_at is not None:
        raise Conflict("This key is revoked, for ever. Make a new one.")
    if key.expires_at <= timezone.now():
        raise Conflict("This key has expired. Make a new one.")


def _apply(key: ApiKey, change: KeyChange) -> None:
    for one in fields(change):
        value = getattr(change, one.name)
        if value is not None:
            _SET[one.name](key, value)


def _set_expiry(key: ApiKey, wished: datetime) -> None:
    expires_at = expiry(wished)
    if expires_at > key.expires_at and ApiKey.objects.filter(replaces=key).exists():
        raise Conflict("This key was rotated: its end may come sooner, not later.")
    key.expires_at = expires_at


def _set(column: str, clean: Any = lambda value: value) -> Any:
    def assign(key: ApiKey, value: Any) -> None:
        setattr(key, column, clean(value))

    return assign


def _distinct(words: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(words))


_SET: dict[str, Any] = {
    "name": _set("name"),
    "scopes": _set("scopes", _distinct),
    "models": _set("model_names", _distinct),
    "environments": _set("environments", _distinct),
    "expires_at": _set_expiry,
    "plan": _set("plan", held_plan),
    "networks": _set("networks", checked_networks),
}


def _told(key: ApiKey) -> dict[str, Any]:
    """What of a key may change, as an event tells it."""
    return {
        "name": key.name,
        "scopes": key.scopes,
        "models": key.model_names,
        "environments": key.environments,
        "plan": str(key.plan_id),
        "networks": key.networks,
        "expires_at": key.expires_at.isoformat(),
    }


def _record_issue(key: ApiKey, actor: Actor, **more: str) -> None:
    facts = {name: value for name, value in _told(key).items() if name != "name"}
    events.record(
        "key.issued",
        actor=actor,
        target=key,
        team_id=key.team_id,
        owner=key.owner.username,
        **facts,
        **more,
    )

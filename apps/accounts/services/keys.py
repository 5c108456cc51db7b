"""Issue and revoke API keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from apps.accounts.keys import KeyKind, make
from apps.accounts.models import ApiKey, Team, User
from apps.accounts.selectors import key_body
from apps.accounts.snapshot import KEY, key_to_json
from apps.core import events, snapshot
from apps.core.errors import FieldProblem, Invalid
from apps.core.events import Actor

LIFE = timedelta(days=365)
LONGEST_LIFE = timedelta(days=2 * 365)


@dataclass(frozen=True, slots=True)
class KeyWish:
    """What a new key shall be.

    Attributes:
        models: Names of the models it may use; empty for all of the team.
        expires_at: None for a year from now.
    """

    name: str
    scopes: Sequence[str]
    kind: KeyKind = KeyKind.LIVE
    models: Sequence[str] = ()
    environments: Sequence[str] = ("production",)
    expires_at: datetime | None = None


@transaction.atomic
def issue_key(team: Team, *, owner: User, wish: KeyWish, actor: Actor) -> tuple[ApiKey, str]:
    """Make a key; return its row and its text, which is never to be had again."""
    text = make(wish.kind)
    key = ApiKey.objects.create(
        id=text.id,
        sha256=text.sha256,
        last4=text.last4,
        kind=wish.kind.value,
        name=wish.name,
        team=team,
        owner=owner,
        created_by=actor.name,
        scopes=list(dict.fromkeys(wish.scopes)),
        model_names=list(dict.fromkeys(wish.models)),
        environments=list(dict.fromkeys(wish.environments)),
        expires_at=expiry(wish.expires_at),
    )
    events.record(
        "key.issued",
        actor=actor,
        target=key,
        team_id=team.pk,
        owner=owner.username,
        scopes=key.scopes,
        models=key.model_names,
        environments=key.environments,
        expires_at=key.expires_at.isoformat(),
    )
    snapshot.put(KEY, key.pk, key_to_json(key_body(key)))
    return key, str(text)


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


def expiry(wished: datetime | None) -> datetime:
    """Return when a key ends; ``Invalid`` for the past or what is too far."""
    now = timezone.now()
    expires_at = wished or now + LIFE
    if now < expires_at <= now + LONGEST_LIFE:
        return expires_at
    raise Invalid("The key cannot be made like this.").at(
        [FieldProblem("/expires_at", "A key expires in the future, within two years.")]
    )

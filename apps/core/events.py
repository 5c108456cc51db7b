"""Write events, and seal them into the hash chain; ``core.chain`` checks it.

An event is written in the caller's transaction and never updated. Sealing happens afterwards, by
one sealer at a time, so that writers never wait for each other's chain position.
"""

import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import orjson
from django.conf import settings
from django.db import connection, models, transaction
from django.utils import timezone

from apps.core import context
from apps.core.models import AuditPurge, Event, EventSeal

GENESIS = "0" * 64
# A transaction that writes an event and commits later than this is still sealed, but only by
# ``verify_audit --seal``; the every-second sealer looks no further back.
LOOK_BACK = timedelta(hours=1)
ADVISORY_LOCK = 0x6D6C7001
# How a link's hash is made: SHA-256 that anybody can compute, or HMAC with a key that the database
# does not hold. The name of the key stands behind the colon.
PLAIN, KEYED = "sha256", "hmac-sha256:"
HIDDEN = "***"
# Letters of one value in an event; what is longer is cut and says so.
MOST_TEXT = 2000
# JSON's numbers have no end, those of the canonical form do.
_LARGEST = 2**63
_DEEPEST = 50
_SECRET = re.compile(
    r"passw|secret|token|webhook|credential|authori[sz]ation|cookie|private|signature_key"
    r"|(?:access|api|hmac|signing|key)_?(?:key|text)|^otp|recovery_code|database_url|broker_url|redis_url",
    re.IGNORECASE,
)
_UNSEALABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a signed-in user, a key, the system itself, or an operator at the command line."""

    kind: str
    id: str
    name: str

    @classmethod
    def system(cls) -> "Actor":
        """The platform acting by itself."""
        return cls("system", "", "system")

    @classmethod
    def operator(cls) -> "Actor":
        """Somebody with a shell on the machine."""
        return cls("operator", "", "operator")


def record(
    verb: str,
    *,
    actor: Actor,
    target: models.Model,
    team_id: int | None = None,
    reason: str = "",
    **facts: Any,
) -> Event:
    """Write one event in the caller's transaction.

    Args:
        verb: ``thing.past``, stable for ever.
        actor: Who did it.
        team_id: The team whose matter it is, if one's.
        reason: Why, in the actor's words.
        target: The row acted on; its text is kept, since the row may go.
        facts: What changed, as JSON values, above all ``changes=events.changes(before, after)``.
            Values under a name that smells of a secret are not kept.

    Raises:
        ValueError: A fact is no JSON that can be sealed; the sealer must not meet it.
    """
    about = context.current()
    kept = {name: _kept(name, value) for name, value in facts.items()}
    return Event.objects.create(
        at=timezone.now(),
        verb=verb,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        address=about.address or "",
        team_id=team_id,
        target_kind=target._meta.label_lower,
        target_id=str(target.pk),
        target_name=str(target)[:300],
        reason=reason,
        facts=kept,
        request_id=about.request_id,
    )


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what differs as ``{field: [before, after]}``, for ``record(..., changes=...)``.

    Args:
        before: Fields with their former values; what is missing here was not there (None).
        after: The same afterwards. Dates become text, sets sorted lists, rows their text.
    """
    changed: dict[str, list[Any]] = {}
    for name in (*before, *(one for one in after if one not in before)):
        old, new = _plain(before.get(name)), _plain(after.get(name))
        if old != new:
            changed[name] = [_kept(name, old), _kept(name, new)]
    return changed


def is_secret(name: str) -> bool:
    """Whether a field's name smells of a secret, so that its value stands in no event."""
    return bool(_SECRET.search(name))


def _plain(value: Any) -> Any:
    """Make a field's value JSON; what JSON does not know is told as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, date):  # a datetime is one, too
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(one) for one in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value)


def _kept(name: str, value: Any, depth: int = 0) -> Any:
    """Return a fact as it is kept: secrets hidden, long texts cut, all of it sealable."""
    if depth > _DEEPEST:
        raise ValueError(f"The fact `{name}` of an event is nested too deeply to be sealed.")
    if isinstance(value, Mapping):
        # What stands inside a secret is one, whatever it is called there.
        within = name if is_secret(name) else ""
        return {
            _text(str(key)): _kept(within or str(key), one, depth + 1) for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_kept(name, one, depth + 1) for one in value]
    if isinstance(value, str):
        return HIDDEN if value and is_secret(name) else _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and math.isfinite(value) and abs(value) < _LARGEST:
        return value
    raise ValueError(f"The fact `{name}` of an event cannot be sealed: write it as text.")


def _text(value: str) -> str:
    if _UNSEALABLE.search(value):
        raise ValueError("A fact of an event holds NUL or half a character; it cannot be sealed.")
    return value if len(value) <= MOST_TEXT else f"{value[: MOST_TEXT - 1]}…"


def scheme() -> str:
    """Return how new links are made: with the key when one is set."""
    key = _keys()
    return f"{KEYED}{next(iter(key))}" if key else PLAIN


def _keys() -> dict[str, bytes]:
    """Return the keys by their names, the one in use first."""
    texts = (settings.AUDIT_HMAC_KEY, settings.AUDIT_HMAC_KEY_OLD)
    keys = [text.encode() for text in texts if text]
    return {hashlib.sha256(b"name of " + key).hexdigest()[:12]: key for key in keys}


class KeyMissing(Exception):
    """A link was made with a key that this process does not have."""


def keyed(data: bytes, how: str) -> str:
    """Return the hash of some bytes by a scheme.

    Raises:
        KeyMissing: The scheme needs a key that the settings do not hold.
    """
    if how in ("", PLAIN):
        return hashlib.sha256(data).hexdigest()
    key = _keys().get(how.removeprefix(KEYED)) if how.startswith(KEYED) else None
    if key is None:
        raise KeyMissing(how)
    return hmac.new(key, data, hashlib.sha256).hexdigest()


def digest(prev_hash: str, seq: int, event: Event, how: str = PLAIN) -> str:
    """Return the hash of one link, over the former hash and the event's canonical JSON."""
    body = {
        "seq": seq,
        "id": event.pk,
        "at": event.at.isoformat(),
        "verb": event.verb,
        "actor": [event.actor_kind, event.actor_id, event.actor_name, event.address],
        "team": event.team_id,
        "target": [event.target_kind, event.target_id, event.target_name],
        "reason": event.reason,
        "facts": event.facts,
        "request_id": event.request_id,
    }
    return keyed(prev_hash.encode() + canonical(body), how)


def canonical(body: Any) -> bytes:
    """Return the one spelling of a JSON value; odd ones have one too, so that nothing stops here.

    Events are written by ``record``, which refuses what orjson cannot spell. A row that came into
    the table by another way must still be sealed, and not hold up all those behind it.
    """
    try:
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError):
        return json.dumps(body, sort_keys=True, default=str).encode()


@transaction.atomic
def seal_pending(*, everything: bool = False, limit: int = 1000) -> int:
    """Append unsealed events to the chain; return how many.

    Args:
        everything: Look at all events, not only at those of the last hour.
        limit: At most so many in one transaction.
    """
    if not _alone():
        return 0
    waiting = Event.objects.filter(seal__isnull=True).order_by("id")
    if not everything:
        waiting = waiting.filter(at__gte=timezone.now() - LOOK_BACK)
    seq, prev = head()
    seals, how = [], scheme()
    for event in waiting[:limit]:
        seq += 1
        link = digest(prev, seq, event, how)
        seals.append(EventSeal(seq=seq, event=event, prev_hash=prev, hash=link, scheme=how))
        prev = link
    EventSeal.objects.bulk_create(seals)
    return len(seals)


def head() -> tuple[int, str]:
    """Return number and hash of the last link, also where all links were purged."""
    last = EventSeal.objects.order_by("-seq").values_list("seq", "hash").first()
    if last is None:
        last = AuditPurge.objects.order_by("-to_seq").values_list("to_seq", "last_hash").first()
    return last or (0, GENESIS)


def seal_everything() -> int:
    """Append all unsealed events, however old, some at a time; return how many."""
    total = 0
    while sealed := seal_pending(everything=True):
        total += sealed
    return total


def _alone() -> bool:
    """Whether this transaction is the only sealer; SQLite's IMMEDIATE transaction is, always."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [ADVISORY_LOCK])
        return bool(cursor.fetchone()[0])

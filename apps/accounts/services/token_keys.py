"""Change the kept key that signs tokens, in steps between which every process keeps up.

1. ``PREPARED``: the next key is made, and its public half published beside the present one. Every
   process looks at the file before it reads a token, and reads tokens of both from then on.
2. ``SWITCHED``: the next key signs. Tokens of the former one are good for the rest of their lives.
3. done: the longest of these lives is over, and the former public half is taken away.

Each step replaces one file whole, so a reader sees the former or the new one; a step that was cut
off is found half done by the next call and ended. Who must not wait, because the key is known to a
stranger, drops it at once, and everybody signs in again.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from django.conf import settings
from django.db import transaction

from apps.accounts.tokens import (
    LEEWAY_SECONDS,
    kept_private_pem,
    kept_public_pem,
    new_private_pem,
    public_pem_of,
    public_pems_in,
)
from apps.core import events
from apps.core.errors import Conflict
from apps.core.events import Actor
from apps.core.models import SnapshotEntry

PRIVATE, PUBLIC, NEXT = "jwt.pem", "jwt.pub.pem", "jwt.next.pem"
# Between publishing and use, so that a folder shared over a network has come round.
PUBLISHED_SECONDS = 60


class Step(StrEnum):
    """How far a rotation is."""

    IDLE = "idle"
    PREPARED = "prepared"
    SWITCHED = "switched"


class KeysElsewhere(Conflict):
    """The key comes from the environment, so this installation does not keep it."""

    code = "keys_elsewhere"


@dataclass(frozen=True, slots=True)
class Rotation:
    """Where a rotation stands.

    Attributes:
        waits_seconds: How long until the next step may be made; 0 when it may.
        did: Whether this call made a step.
    """

    step: Step
    waits_seconds: int
    did: bool = False


def standing(now: float) -> Rotation:
    """Return how far the rotation of the kept key is.

    Raises:
        KeysElsewhere: No key is kept here.
    """
    folder = _folder()
    public = folder / PUBLIC
    kept_public_pem(folder)  # both are made on first use
    kept_private_pem(folder)
    # When a file came into its place: the switch is a rename.
    age = max(0.0, now - max(public.stat().st_mtime, (folder / PRIVATE).stat().st_ctime))
    if (folder / NEXT).exists():
        return Rotation(Step.PREPARED, _left(PUBLISHED_SECONDS, age))
    if len(public_pems_in(public.read_text())) > 1:
        return Rotation(Step.SWITCHED, _left(_longest_life(), age))
    return Rotation(Step.IDLE, 0)


def advance(now: float, *, actor: Actor) -> Rotation:
    """Make the step that is due, if one is.

    Raises:
        KeysElsewhere: No key is kept here.
    """
    found = standing(now)
    if found.waits_seconds:
        return found
    {Step.IDLE: _prepare, Step.PREPARED: _switch, Step.SWITCHED: _drop}[found.step]()
    after = standing(now)
    _note(after.step, actor)
    return Rotation(after.step, after.waits_seconds, did=True)


def replace_at_once(*, actor: Actor) -> None:
    """Take a key that a stranger may know out of use this moment; all tokens end with it.

    Raises:
        KeysElsewhere: No key is kept here.
    """
    folder = _folder()
    (folder / NEXT).unlink(missing_ok=True)
    fresh = new_private_pem()
    # The public half first: from here on no token of the old key is good, whoever still signs.
    _replace(folder / PUBLIC, public_pem_of(fresh))
    _replace(folder / PRIVATE, fresh)
    _note("replaced", actor)


def _prepare() -> None:
    folder = _folder()
    present = public_pem_of(kept_private_pem(folder))
    fresh = new_private_pem()
    _replace(folder / NEXT, fresh)
    _publish(folder, [present, public_pem_of(fresh)])


def _switch() -> None:
    folder = _folder()
    fresh = (folder / NEXT).read_text()
    former = public_pems_in((folder / PUBLIC).read_text())
    public = public_pem_of(fresh).strip()
    if public not in {one.strip() for one in former}:  # the preparation was cut off half-way
        _publish(folder, [*former, public])
        return
    (folder / NEXT).replace(folder / PRIVATE)


def _drop() -> None:
    folder = _folder()
    _publish(folder, [public_pem_of(kept_private_pem(folder))])


def _publish(folder: Path, pems: Sequence[str]) -> None:
    _replace(folder / PUBLIC, "\n".join(one.strip() for one in pems) + "\n")


def _replace(path: Path, text: str) -> None:
    """Put a whole file in another's place, durably, for its user only."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _folder() -> Path:
    if settings.JWT_PRIVATE_KEY or settings.JWT_PUBLIC_KEY:
        raise KeysElsewhere(
            "The token key comes from MLP_JWT_PRIVATE_KEY or MLP_JWT_PUBLIC_KEY, so it is changed "
            "where these come from; docs/operations/secrets.md says in which order."
        )
    return Path(settings.DATA_DIR) / "keys"


def _longest_life() -> int:
    return max(settings.JWT_ACCESS_SECONDS, settings.JWT_REFRESH_SECONDS) + LEEWAY_SECONDS


def _left(seconds: int, age: float) -> int:
    return max(0, int(seconds - age + 0.999))


@transaction.atomic
def _note(step: str, actor: Actor) -> None:
    key = SnapshotEntry(pk=0, kind="token_key", key="kept", generation=0)
    events.record("token_key.rotated", actor=actor, target=key, step=str(step))

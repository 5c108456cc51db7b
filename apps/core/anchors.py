"""The head of the chain, written down where who owns the database cannot reach it.

A chain alone does not stop whoever may write to the database from computing another one. An anchor
says how far the chain went and which hash it had; it lies in a bucket whose object lock lets nobody
overwrite or delete it, and each anchor repeats the digest of the one before.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson
from django.conf import settings
from django.utils import timezone

from apps.core.errors import Unavailable
from apps.core.events import GENESIS, KeyMissing, canonical, keyed, scheme
from apps.core.models import AuditAnchor, EventSeal

LOG = logging.getLogger(__name__)
# Days that an anchor stays locked after the events it speaks of may be purged.
EXTRA_DAYS = 30
# Faults that a reading names; after so many nobody needs the next.
MOST_FAULTS = 20
# So many numbers are tried when another process writes anchors at the same time.
_TRIES = 5
_PRECONDITION = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class AnchorUnavailable(Unavailable):
    """The place of the anchors does not take or give them."""

    code = "anchor_unavailable"


class _Taken(Exception):
    """There is an anchor of this number already."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """What is written down.

    Attributes:
        number: From 1, without gaps.
        seq: The last link of the chain, and its hash.
        count: Links that stood in the database.
        previous: SHA-256 of the anchor before, zeros for the first.
        scheme: How ``mac`` was made; it covers everything else.
        kept: After a restore from a backup: the last link that an anchor before knows as well.
            What earlier anchors saw behind it is lost, and said to be. Else -1.
        days: How long events were kept then; a purge that removed younger ones was none of ours.
    """

    number: int
    seq: int
    hash: str
    count: int
    at: str
    installation: str
    previous: str
    scheme: str
    mac: str = ""
    kept: int = -1
    days: int = 0

    def spelled(self) -> bytes:
        """Return the bytes that are stored."""
        return canonical(asdict(self))

    def sign(self) -> str:
        """Return what ``mac`` has to be; raises ``KeyMissing``."""
        return keyed(canonical({**asdict(self), "mac": ""}), self.scheme)


@dataclass(frozen=True, slots=True)
class Found:
    """One object at the place: its number, its first content, and how often it was written over.

    ``content`` is None where the object cannot be read.
    """

    number: int
    content: bytes | None
    overwritten: bool = False


class Store(Protocol):
    """A place for anchors."""

    def put(self, number: int, content: bytes, *, keep_until: datetime) -> None: ...

    def walk(self) -> Iterator[Found]: ...


@dataclass(frozen=True, slots=True)
class Anchored:
    """What the place of the anchors holds.

    Attributes:
        hashes: Hash of the chain by the numbers of its links, as anchored.
        times: When those anchors were written.
        rules: Time of each anchor, and for how many days events were kept then.
        faults: What is wrong with the anchors themselves, in words.
        newest: The last one, or None.
        lost: What was lost by restores that somebody told of, in words.
    """

    hashes: dict[int, str]
    times: dict[int, datetime]
    rules: tuple[tuple[datetime, int], ...]
    faults: tuple[str, ...]
    newest: Anchor | None
    lost: tuple[str, ...] = ()


def is_on() -> bool:
    """Whether anchors are written anywhere."""
    return bool(settings.AUDIT_ANCHOR)


def write(*, kept: int = -1) -> AuditAnchor | None:
    """Write the head of the chain down; None when there is no place for it, or no chain.

    Args:
        kept: After a restore, see ``Anchor.kept``.

    Raises:
        AnchorUnavailable: The place did not take it.
    """
    head = EventSeal.objects.order_by("-seq").first()
    if head is None:
        return None
    LOG.info("audit head: seq %d, hash %s", head.seq, head.hash)
    if not is_on():
        return None
    now, store = timezone.now(), open_store()
    keep_until = now + timedelta(days=settings.AUDIT_RETENTION_DAYS + EXTRA_DAYS)
    for _ in range(_TRIES):
        anchor = _next(head, now, kept)
        content = anchor.spelled()
        try:
            store.put(anchor.number, content, keep_until=keep_until)
        except _Taken:  # by another process, by one that died early, or before a restore
            _learn(store, anchor.number)
            continue
        return _note(anchor, content)
    raise AnchorUnavailable("Other processes write anchors all the time. Stop all but one of them.")


def read() -> Anchored:
    """Read all anchors where they lie, and check them among themselves and against our notes.

    Raises:
        AnchorUnavailable: The place does not answer.
    """
    reading, notes = _Reading(), _notes()  # notes first: meanwhile one more may be written
    for found in open_store().walk():
        reading.take(found)
    faults = (*reading.faults, *reading.shorter, *_unlike_notes(reading.digests, notes))
    return Anchored(
        hashes=reading.hashes,
        times=reading.times,
        rules=tuple(reading.rules),
        faults=faults[:MOST_FAULTS],
        newest=reading.newest,
        lost=tuple(reading.lost),
    )


@dataclass(slots=True)
class _Reading:
    """What is known after some anchors."""

    hashes: dict[int, str] = field(default_factory=dict)
    times: dict[int, datetime] = field(default_factory=dict)
    rules: list[tuple[datetime, int]] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    # Faults that a restore explains, once somebody tells of it.
    shorter: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    newest: Anchor | None = None

    def take(self, found: Found) -> None:
        """Add the next anchor."""
        anchor = _parsed(found)
        if found.overwritten:
            self.faults.append(
                f"Anchor {found.number} was overwritten or deleted; its first form counts."
            )
        if anchor is None:
            self.faults.append(f"Anchor {found.number} is not one of ours; it was altered.")
            return
        self.faults += _misfits(anchor, self.newest, self.digests)
        if anchor.kept >= 0:
            self._restart(anchor)
        else:
            self.shorter += _shorter(anchor, self.newest)
        self.digests[anchor.number] = hashlib.sha256(found.content or b"").hexdigest()
        self.hashes.setdefault(anchor.seq, anchor.hash)
        at = datetime.fromisoformat(anchor.at)
        self.times.setdefault(anchor.seq, at)
        self.rules.append((at, anchor.days))
        self.newest = anchor

    def _restart(self, anchor: Anchor) -> None:
        last = max(self.hashes, default=0)
        if last > anchor.kept:
            self.lost.append(
                f"links {anchor.kept + 1} to {last} were lost by a restore (anchor {anchor.number})"
            )
        self.hashes = {seq: one for seq, one in self.hashes.items() if seq <= anchor.kept}
        self.times = {seq: one for seq, one in self.times.items() if seq <= anchor.kept}
        self.shorter.clear()


def newest_note() -> AuditAnchor | None:
    """Return the newest anchor that this database knows of."""
    return AuditAnchor.objects.order_by("-number").first()


def is_stale(note: AuditAnchor | None) -> bool:
    """Whether the newest anchor is older than two of them may lie apart."""
    if not is_on():
        return False
    if note is not None:
        since: datetime | None = note.at
    else:
        first = EventSeal.objects.order_by("seq").first()
        since = first.sealed_at if first else None
    longest = timedelta(seconds=2 * settings.AUDIT_ANCHOR_SECONDS)
    return since is not None and timezone.now() - since > longest


def open_store() -> Store:
    """Return the place that the settings name.

    Raises:
        AnchorUnavailable: It is none that we know.
    """
    access = _Access(
        settings.AUDIT_ANCHOR_KEY_ID,
        settings.AUDIT_ANCHOR_SECRET,
        settings.AUDIT_ANCHOR_ENDPOINT_URL,
        settings.AUDIT_ANCHOR_REGION,
    )
    return _store(settings.AUDIT_ANCHOR, access)


@dataclass(frozen=True, slots=True)
class _Access:
    """How a bucket is reached; what is empty is found as every AWS client finds it."""

    key_id: str
    secret: str
    endpoint: str
    region: str


@lru_cache(maxsize=4)
def _store(place: str, access: _Access) -> Store:
    parts = urlsplit(place)
    if parts.scheme == "file" and parts.path:
        return _Folder(Path(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        return _Bucket(parts.netloc, parts.path.strip("/"), access)
    raise AnchorUnavailable("MLP_AUDIT_ANCHOR is s3://bucket/prefix or file:///folder.")


def _next(head: EventSeal, now: datetime, kept: int) -> Anchor:
    former = newest_note()
    anchor = Anchor(
        number=former.number + 1 if former else 1,
        seq=head.seq,
        hash=head.hash,
        count=EventSeal.objects.filter(seq__lte=head.seq).count(),
        at=now.isoformat(),
        installation=settings.INSTALLATION or "mlplatform",
        previous=former.digest if former else GENESIS,
        scheme=scheme(),
        kept=kept,
        days=settings.AUDIT_RETENTION_DAYS,
    )
    return replace(anchor, mac=anchor.sign())


def _note(anchor: Anchor, content: bytes) -> AuditAnchor:
    note = AuditAnchor(
        number=anchor.number,
        seq=anchor.seq,
        hash=anchor.hash,
        digest=hashlib.sha256(content).hexdigest(),
        place=settings.AUDIT_ANCHOR[:500],
        at=datetime.fromisoformat(anchor.at),
    )
    AuditAnchor.objects.bulk_create([note], ignore_conflicts=True)
    return note


def _learn(store: Store, number: int) -> None:
    """Note the anchors that lie there and are not known here, so that the next one follows them."""
    for found in store.walk():
        anchor = _parsed(found) if found.number >= number else None
        if anchor is not None and found.content is not None:
            _note(anchor, found.content)
    if not AuditAnchor.objects.filter(number=number).exists():
        raise AnchorUnavailable(
            f"Something that is no anchor of ours lies under the number {number} at the place of "
            "the anchors. Look who wrote it there, then name another prefix in MLP_AUDIT_ANCHOR."
        )


def _parsed(found: Found) -> Anchor | None:
    """Read an anchor; whoever may write to the place may have put anything there."""
    try:
        anchor = Anchor(**orjson.loads(found.content or b""))
        is_whole = all(type(getattr(anchor, one.name)) is one.type for one in fields(anchor))
        is_known = is_whole and datetime.fromisoformat(anchor.at).tzinfo is not None
    except (ValueError, TypeError):
        return None
    return anchor if is_known and anchor.number == found.number else None


def _misfits(anchor: Anchor, before: Anchor | None, digests: dict[int, str]) -> Iterator[str]:
    try:
        if anchor.mac != anchor.sign():
            yield f"Anchor {anchor.number} was altered: its signature does not fit."
    except KeyMissing:
        yield f"Anchor {anchor.number} was signed with a key that is not set here."
    if before is None:
        if anchor.number == 1 and anchor.previous != GENESIS:
            yield "Anchor 1 does not begin a row of anchors."
        return
    gap = range(before.number + 1, anchor.number)
    if gap:
        yield f"Anchor {gap[0]}{f' to {gap[-1]}' if len(gap) > 1 else ''} is missing."
    elif anchor.previous != digests[before.number]:
        yield f"Anchor {anchor.number} does not follow from anchor {before.number}."


def _shorter(anchor: Anchor, before: Anchor | None) -> Iterator[str]:
    if before is not None and anchor.seq == before.seq and anchor.hash != before.hash:
        yield f"Anchor {anchor.number} saw another head than anchor {before.number}."
    if before is not None and anchor.seq < before.seq:
        yield f"Anchor {anchor.number} saw a shorter chain than anchor {before.number}."


def _notes() -> list[tuple[int, str]]:
    """Return number and digest of the anchors that this database knows of at this place."""
    rows = AuditAnchor.objects.filter(place=settings.AUDIT_ANCHOR[:500]).order_by("number")
    return list(rows.values_list("number", "digest"))


def _unlike_notes(digests: dict[int, str], notes: list[tuple[int, str]]) -> Iterator[str]:
    """Compare with what the database remembers: an anchor may be gone, or another one lie there."""
    oldest = min(digests, default=0)  # those before were locked no longer, and went by a rule
    for number, digest in notes:
        if number >= oldest and digests.get(number, "") != digest:
            there = "is not the one that the platform wrote" if number in digests else "is missing"
            yield f"Anchor {number} {there}."


# -- places ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder: whoever may write there may forge it. For a demo, or a medium written once."""

    folder: Path

    def put(self, number: int, content: bytes, *, keep_until: datetime) -> None:
        del keep_until  # a file system keeps nothing against its owner
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_new(self.folder / f"{number:010d}.json", content)
        except FileExistsError as error:
            raise _Taken from error
        except OSError as error:
            raise AnchorUnavailable(f"The folder of the anchors refuses one: {error}.") from error

    def walk(self) -> Iterator[Found]:
        for path in sorted(self.folder.glob("[0-9]*.json")):
            try:
                yield Found(_number_of(path.name), path.read_bytes())
            except OSError as error:
                raise AnchorUnavailable(f"{path} cannot be read: {error}.") from error


def _write_new(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and never over another."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".anchor-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o400)
        os.link(name, path)
    finally:
        Path(name).unlink()


class _Bucket:
    """A bucket with object lock: what lies there stays until its day, whoever asks."""

    def __init__(self, bucket: str, prefix: str, access: _Access) -> None:
        import boto3  # noqa: PLC0415 - half a second that only this needs
        from botocore.config import Config  # noqa: PLC0415 - as above

        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._client: Any = boto3.client(
            "s3",
            aws_access_key_id=access.key_id or None,
            aws_secret_access_key=access.secret or None,
            endpoint_url=access.endpoint or None,
            region_name=access.region or None,
            config=Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 3}),
        )

    def put(self, number: int, content: bytes, *, keep_until: datetime) -> None:
        with _named_outages(number):
            self._client.put_object(
                Bucket=self._bucket,
                Key=f"{self._prefix}{number:010d}.json",
                Body=content,
                ContentType="application/json",
                ChecksumAlgorithm="SHA256",
                ObjectLockMode="COMPLIANCE",
                ObjectLockRetainUntilDate=keep_until,
                IfNoneMatch="*",
            )

    def walk(self) -> Iterator[Found]:
        versions: dict[int, list[tuple[datetime, str]]] = {}
        hidden: set[int] = set()
        with _named_outages(0):
            pages = self._client.get_paginator("list_object_versions").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for page in pages:
                for one in page.get("Versions", ()):
                    number = _number_of(one["Key"].removeprefix(self._prefix))
                    versions.setdefault(number, []).append((one["LastModified"], one["VersionId"]))
                hidden |= {
                    _number_of(one["Key"].removeprefix(self._prefix))
                    for one in page.get("DeleteMarkers", ())
                }
        for number, all_of in sorted(versions.items()):
            if number:
                # The times are whole seconds; a store lists the newest of one name first.
                first = min(reversed(all_of), key=lambda one: one[0])[1]
                yield Found(number, self._read(number, first), len(all_of) > 1 or number in hidden)

    def _read(self, number: int, version: str) -> bytes:
        with _named_outages(number):
            found = self._client.get_object(
                Bucket=self._bucket, Key=f"{self._prefix}{number:010d}.json", VersionId=version
            )
            return bytes(found["Body"].read())


@contextlib.contextmanager
def _named_outages(number: int) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - see above

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _PRECONDITION:
            raise _Taken from error
        raise AnchorUnavailable(
            f"The bucket of the anchors refuses ({code}). It needs versions and object lock, and "
            "the credentials s3:PutObject, s3:PutObjectRetention, s3:GetObjectVersion and "
            "s3:ListBucketVersions."
        ) from error
    except BotoCoreError as error:
        raise AnchorUnavailable(f"The bucket of the anchors does not answer: {error}.") from error


def _number_of(name: str) -> int:
    """Read the number in a name; 0 for what is none of ours."""
    stem = name.removesuffix(".json")
    return int(stem) if len(stem) == 10 and stem.isascii() and stem.isdecimal() else 0

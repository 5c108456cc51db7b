"""Receive a version: the stored file becomes a row, an event and work to do, or nothing at all."""

import contextlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.base import File
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from apps.accounts.models import Team
from apps.core import events, ids, storage, work
from apps.core.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.core.events import Actor
from apps.core.models import Work
from apps.registry import formats
from apps.registry.models import ModelVersion, RegisteredModel
from apps.registry.services import models
from apps.registry.signature import signature_from_json
from apps.registry.states import UNDER_WAY

LOG = logging.getLogger(__name__)
VALIDATE = "registry.validate_version"
INCOMING = "incoming"
# Work that was lost altogether (not merely slow) is asked for again after this.
FORGOTTEN = timedelta(minutes=10)
MAX_FACTS_BYTES = 64 * 1024
MAX_DESCRIPTION = 64 * 1024
# What people call the formats; "auto" is the same as saying nothing.
FORMATS = frozenset({"auto", *formats.SAID})
# How pickles, plain and compressed, begin. A zip may be skops, which carries no code; the sandbox,
# which reads its list of members, refuses a PyTorch one.
CODE_HEADS = (
    *(bytes((0x80, protocol)) for protocol in range(2, 6)),
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An upload that lies in the artifact store under a name that the server made."""

    key: str
    sha256: str
    size: int
    filename: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What the uploader says of a version; all of it optional, none of it believed unread."""

    format: str = ""
    signature: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    example: Any = None
    description: str = ""
    parent: int | None = None


class _Movable(File):  # type: ignore[type-arg]
    """A finished local file: a store on the same disk takes it by renaming it."""

    def temporary_file_path(self) -> str:
        return str(self.name)


def store_incoming(path: Path) -> str:
    """Hand a local file to the artifact store; return its name there.

    On local disk the file is moved, to S3 it is streamed; the caller removes what is left of it.
    """
    key = f"{INCOMING}/{ids.new_id()}"
    store = storage.artifacts()
    with path.open("rb") as file:
        kept = store.save(key, _Movable(file, name=str(path)))
    if kept != key:
        store.delete(kept)
        raise FileExistsError(f"The artifact store refused the name {key}.")
    return key


@transaction.atomic
def receive_version(
    file: StoredFile,
    *,
    model_name: str,
    team: Team,
    actor: Actor,
    person_id: int | None,
    may_carry_code: bool,
    about: About | None = None,
) -> ModelVersion:
    """Make the next version of a model out of a stored file, and ask for its validation.

    The model is made, for the team, when there is none of this name. ``may_carry_code`` says
    whether the uploader may upload files that carry code. When this fails, removing the file is
    the caller's part.

    Raises:
        Invalid: A field breaks a rule.
        NotFound: A model of this name belongs to another team.
    """
    about = about or About()
    check_about(about)
    if file.size < 1:
        raise Invalid("The file is empty.").at([FieldProblem("/file", "The file is empty.")])
    model = _model_for(model_name, team, actor)
    number = (ModelVersion.objects.filter(model=model).aggregate(n=Max("number"))["n"] or 0) + 1
    version = ModelVersion.objects.create(
        model=model,
        number=number,
        parent=_parent(model, number, about.parent),
        filename=display_text(file.filename),
        size=file.size,
        sha256=file.sha256,
        incoming_key=file.key,
        may_carry_code=may_carry_code,
        uploaded_by_id=person_id,
        declared_format=about.format,
        declared_signature=about.signature,
        example=about.example,
        metrics=dict(about.metrics),
        params=dict(about.params),
        tags=dict(about.tags),
        lineage=dict(about.lineage),
        description=about.description,
    )
    events.record(
        "version.uploaded",
        actor=actor,
        target=version,
        team_id=model.team_id,
        model=model.name,
        number=number,
        sha256=file.sha256,
        size=file.size,
        filename=version.filename,
    )
    work.enqueue(VALIDATE, subject=version, version_id=version.pk)
    return version


def carries_code(head: bytes) -> bool:
    """Whether a file begins like one that carries code.

    This only spares an uploader without the permission the sending of a whole file; what a file
    is, and whether its uploader may send it, the sandbox's verdict says.
    """
    return head.startswith(CODE_HEADS)


def display_text(filename: str) -> str:
    """Keep of a stranger's file name what can be shown in one line."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in filename)
    return shown.replace("\\", "/").rsplit("/", 1)[-1][:255]


def check_about(about: About) -> None:
    """Refuse what a person could not read again later."""
    if about.format and about.format not in FORMATS:
        raise _wrong("/format", f"`format` is one of {', '.join(sorted(FORMATS))}, or left out.")
    if len(about.description) > MAX_DESCRIPTION:
        raise _wrong("/description", f"At most {MAX_DESCRIPTION} characters.")
    for name in ("metrics", "params", "tags", "lineage", "signature", "example"):
        _check_text(name, getattr(about, name))
    for name in ("metrics", "params", "tags", "lineage"):
        _check_facts(name, getattr(about, name))
    if about.signature is not None:
        _check_signature(about.signature)
    for name, value in about.metrics.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise _wrong(f"/metrics/{name}", "A metric is a finite number.")


def _check_signature(body: object) -> None:
    try:
        signature_from_json(body)
    except Invalid as error:
        places = [FieldProblem(f"/signature{one.pointer}", one.detail) for one in error.problems]
        raise Invalid(error.message).at(places) from error


def _check_text(name: str, value: object) -> None:
    """Refuse what PostgreSQL's jsonb does not take; an escaped backslash is no beginning of it."""
    if "\\u0000" in json.dumps(value).replace("\\\\", ""):
        raise _wrong(f"/{name}", f"`{name}` holds no NUL.")


def _check_facts(name: str, value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _wrong(f"/{name}", f"`{name}` is a JSON object.")
    if len(json.dumps(value)) > MAX_FACTS_BYTES:
        raise _wrong(f"/{name}", f"`{name}` has at most {MAX_FACTS_BYTES} bytes as JSON.")


def _wrong(pointer: str, detail: str) -> Invalid:
    error = Invalid(detail)
    error.at([FieldProblem(pointer, detail)])
    return error


def _model_for(name: str, team: Team, actor: Actor) -> RegisteredModel:
    """Find the team's model, or make it; its row lock orders the numbers of its versions."""
    models.check_name(name)
    found = RegisteredModel.objects.filter(name=name).first()
    if found is None:
        try:
            return models.locked(models.create_model(name, team=team, actor=actor))
        except Conflict:  # somebody made it between the look and the insert
            found = RegisteredModel.objects.get(name=name)
    if found.team_id != team.pk:
        raise NotFound("There is no model of this name in your team.")
    if found.deleted_at is not None:
        raise Conflict(f"A deleted model has the name {name}. Choose another.")
    return models.locked(found)


def _parent(model: RegisteredModel, number: int, wanted: int | None) -> ModelVersion | None:
    """The version this one grew out of: the one named, else the one before it."""
    if wanted is None:
        return ModelVersion.objects.filter(model=model, number=number - 1).first()
    parent = ModelVersion.objects.filter(model=model, number=wanted).first()
    if parent is None:
        raise _wrong("/parent", f"{model.name} has no version {wanted}.")
    return parent


def temp_folder() -> Path:
    """Where uploads lie while their bytes still come in; on the disk of the data folder."""
    folder = Path(settings.DATA_DIR) / "receiving"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def work_folder() -> Path:
    """Where validation fetches its files to."""
    folder = Path(settings.DATA_DIR) / "validating"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def sweep() -> int:
    """Remove what killed processes left, ask again for lost validations; return how many."""
    return remove_abandoned(settings.UPLOAD_RETENTION_DAYS).files + _ask_again()


@dataclass(frozen=True, slots=True)
class Swept:
    """Files of uploads that were removed, or would be, with their size."""

    files: int
    bytes: int


def remove_abandoned(days: int, *, dry_run: bool = False) -> Swept:
    """Remove files older than that which no version needs: in the store, and on this machine."""
    before = timezone.now() - timedelta(days=days)
    sizes = [*_sweep_store(before, dry_run), *_sweep_disk(before.timestamp(), dry_run)]
    return Swept(len(sizes), sum(sizes))


def _sweep_store(before: datetime, dry_run: bool) -> list[int]:
    store = storage.artifacts()
    try:
        _, names = store.listdir(INCOMING)
    except FileNotFoundError:
        return []
    keys = {f"{INCOMING}/{name}" for name in names}
    wanted = ModelVersion.objects.filter(state__in=UNDER_WAY, incoming_key__in=keys)
    keys -= set(wanted.values_list("incoming_key", flat=True))
    sizes = []
    for key in keys:
        with contextlib.suppress(FileNotFoundError):  # judged or removed in the meantime
            if store.get_modified_time(key) < before:
                sizes.append(store.size(key))
                if not dry_run:
                    LOG.warning("removing the abandoned upload %s", key)
                    store.delete(key)
    return sizes


def _sweep_disk(before_epoch: float, dry_run: bool) -> list[int]:
    sizes = []
    for path in (*temp_folder().iterdir(), *work_folder().iterdir()):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before_epoch:
                sizes.append(_size_of(path))
                if not dry_run:
                    _remove(path)
    return sizes


def _size_of(path: Path) -> int:
    files = (path, *path.rglob("*")) if path.is_dir() and not path.is_symlink() else (path,)
    return sum(one.lstat().st_size for one in files if not one.is_dir())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            _remove(inner)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _ask_again() -> int:
    """Ask again for a validation that nobody has in hand: the store was down, or work was lost."""
    open_work = Work.objects.filter(
        name=VALIDATE, state__in=[Work.State.QUEUED, Work.State.RUNNING]
    )
    in_hand = {one.args.get("version_id") for one in open_work}
    waiting = ModelVersion.objects.filter(
        state__in=UNDER_WAY, created__lt=timezone.now() - FORGOTTEN
    ).exclude(pk__in=in_hand)
    asked = 0
    for version in waiting.order_by("id")[:100]:
        with transaction.atomic():
            work.enqueue(VALIDATE, subject=version, version_id=version.pk)
        asked += 1
    return asked

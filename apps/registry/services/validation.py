"""The verdict on one version: fetch the file, have the sandbox look at it, keep what it found.

Work may run twice, and a worker may die at any line. So every file that is kept has its digest in
its name, the row changes by compare-and-set, and the incoming file goes only after that.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.core import storage, work
from apps.core.errors import Conflict, Invalid
from apps.core.events import Actor
from apps.registry import selectors
from apps.registry.clients import sandbox
from apps.registry.clients.sandbox import Policy, Verdict
from apps.registry.models import Artifact, ModelVersion
from apps.registry.services import entries, lifecycle, uploads
from apps.registry.signature import (
    Signature,
    TensorSpec,
    signature_from_json,
    signature_to_json,
)
from apps.registry.states import UNDER_WAY, VersionState

LOG = logging.getLogger(__name__)
Inspect = Callable[..., AbstractContextManager[Verdict]]
STORE_ERRORS = (OSError, BotoCoreError, ClientError)
CRASHED = "The validator crashed on this file."


@dataclass(frozen=True, slots=True)
class Kept:
    """One file of a version as it lies in the artifact store."""

    role: str
    key: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What is written on the version when its verdict is known."""

    report: Mapping[str, Any]
    signature: Signature | None
    reason: str


def validate_version(version_id: int, *, inspect: Inspect = sandbox.inspect_upload) -> None:
    """Judge a version that was uploaded; nothing happens when it was judged already.

    When the artifact store does not answer, the file is not at fault: the version goes back to
    uploaded and is taken up again later.
    """
    version = _begin(version_id)
    if version is None:
        return
    try:
        with tempfile.TemporaryDirectory(dir=uploads.work_folder()) as folder:
            _fetch_and_judge(version, Path(folder) / "upload", inspect)
    except STORE_ERRORS as error:
        LOG.warning("the validation of %s waits for storage: %s", version, error)
        _give_back(version)


def give_up(version_id: int, *, reason: str) -> None:
    """Reject a version whose validation failed, or killed its worker, too often."""
    version = ModelVersion.objects.select_related("model").filter(pk=version_id).first()
    if version is not None and version.state in UNDER_WAY:
        LOG.error("validation of %s was given up: %s", version, reason)
        _reject(version, CRASHED)


def _begin(version_id: int) -> ModelVersion | None:
    """Take the version up; one that its last worker left in the middle is taken up as it is."""
    version = ModelVersion.objects.select_related("model__team").get(pk=version_id)
    if version.state not in UNDER_WAY:
        return None
    if version.state == VersionState.UPLOADED:
        with transaction.atomic():
            lifecycle.move_version(version, VersionState.VALIDATING, actor=Actor.system())
    return version


def _give_back(version: ModelVersion) -> None:
    with transaction.atomic():
        lifecycle.move_version(
            version,
            VersionState.UPLOADED,
            actor=Actor.system(),
            reason="The artifact store does not answer; validation will be tried again.",
        )


def _fetch_and_judge(version: ModelVersion, file: Path, inspect: Inspect) -> None:
    work.report("Fetching the file")
    try:
        digest = storage.fetch(version.incoming_key, file)
    except FileNotFoundError:
        _reject(version, "The uploaded file is gone. Upload it again.")
        return
    if digest != version.sha256:
        _reject(version, "The stored file is not what was uploaded. Upload it again.")
        return
    example = None if version.example is None else orjson.dumps(version.example)
    with inspect(
        file,
        display_name=version.filename,
        policy=_policy(version),
        declared_format=version.declared_format or None,
        example=example,
        signature=version.declared_signature,
        tell=work.report,
    ) as verdict:
        finding = _finding(version, verdict)
        if finding.signature is None or verdict.served is None:
            _reject(version, finding.reason, finding.report)
            return
        work.report("Storing the files")
        kept = _store(version, file, verdict.served)
        try:
            _accept(version, finding, finding.signature, *kept)
        except Conflict:  # somebody else judged it meanwhile; what they kept stays
            LOG.warning("%s was judged by another worker", version)
            _remove_strays(version)


def _policy(version: ModelVersion) -> Policy:
    return Policy(
        allow_code=version.may_carry_code,
        native_formats=frozenset(settings.NATIVE_FORMATS),
        stage_seconds=float(settings.VALIDATION_STAGE_SECONDS),
        folder=uploads.work_folder(),
    )


def _finding(version: ModelVersion, verdict: Verdict) -> Finding:
    """Read the sandbox's report, and hold it against the signature that the uploader declared."""
    report = dict(verdict.report)
    found = verdict.signature
    if found is None:
        return Finding(report, None, verdict.reason or "It did not pass validation.")
    if version.declared_signature is None:
        return Finding(report, found, "")
    try:
        signature = _declared(found, signature_from_json(version.declared_signature))
    except Invalid as error:
        failed = _check("failed", error.message, "Correct the signature, or upload without one.")
        report |= {"verdict": "rejected", "reason": error.message}
        report["checks"] = [*report.get("checks", ()), failed]
        return Finding(report, None, error.message)
    report["checks"] = [*report.get("checks", ()), _check("passed", "It fits the model.", "")]
    report["signature"] = signature_to_json(signature)
    return Finding(report, signature, "")


def _check(state: str, message: str, remedy: str) -> dict[str, Any]:
    return {
        "name": "declared-signature",
        "title": "The signature that was sent",
        "state": state,
        "message": message,
        "remedy": remedy,
        "seconds": 0.0,
    }


def _declared(found: Signature, declared: Signature) -> Signature:
    """Take from the uploader what no file says: bounds, categories, column names, images, classes.

    Names, types and shapes are the file's own, and what was sent must agree with them.
    """
    return Signature(
        inputs=_merged("input", found.inputs, declared.inputs),
        outputs=_merged("output", found.outputs, declared.outputs),
        batchable=found.batchable and declared.batchable,
    )


def _merged(
    side: str, found: tuple[TensorSpec, ...], declared: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    said = {spec.name: spec for spec in declared}
    if set(said) != {spec.name for spec in found}:
        names = ", ".join(spec.name for spec in found)
        raise Invalid(f"The signature that was sent does not name the {side}s: {names[:300]}.")
    return tuple(_merged_spec(side, spec, said[spec.name]) for spec in found)


def _merged_spec(side: str, found: TensorSpec, said: TensorSpec) -> TensorSpec:
    if found.dtype is not said.dtype or found.shape != said.shape:
        raise Invalid(
            f"The {side} {found.name} is {found.dtype} of shape {list(found.shape)}; the "
            f"signature that was sent says {said.dtype} of shape {list(said.shape)}."
        )
    return TensorSpec(
        name=found.name,
        dtype=found.dtype,
        shape=found.shape,
        columns=said.columns or found.columns,
        minimum=found.minimum if said.minimum is None else said.minimum,
        maximum=found.maximum if said.maximum is None else said.maximum,
        categories=said.categories or found.categories,
        image=said.image,
        classes=said.classes,
    )


def folder_of(version: ModelVersion) -> str:
    """Where the files of a version lie in the artifact store."""
    return f"teams/{version.model.team.slug}/{version.model.name}/v{version.number}"


def _store(version: ModelVersion, original: Path, served: Path) -> tuple[Kept, Kept]:
    """Store the files under names with their digests: a second run overwrites only equals."""
    folder = folder_of(version)
    first = _put(f"{folder}/original-{version.sha256[:16]}", original, "original", version.sha256)
    digest = storage.sha256_of(served)
    if digest == version.sha256:  # served as it was uploaded: kept once
        return first, Kept("served", first.key, first.sha256, first.size)
    return first, _put(f"{folder}/served-{digest[:16]}", served, "served", digest)


def _put(key: str, path: Path, role: str, digest: str) -> Kept:
    storage.put_file(key, path)
    return Kept(role, key, digest, path.stat().st_size)


def _put_metadata(
    version: ModelVersion, finding: Finding, signature: Signature, files: tuple[Kept, ...]
) -> Kept:
    body = {
        "model": version.model.name,
        "version": version.number,
        "team": version.model.team.slug,
        "format": finding.report.get("format"),
        "container": finding.report.get("container"),
        "signature": signature_to_json(signature),
        "uploaded": version.created.isoformat(),
        "files": {
            one.role: {"name": one.key.rsplit("/", 1)[-1], "sha256": one.sha256, "size": one.size}
            for one in files
        },
    }
    packed = orjson.dumps(body, option=orjson.OPT_INDENT_2)
    key = f"{folder_of(version)}/metadata.json"
    storage.put_bytes(key, packed)
    return Kept("metadata", key, hashlib.sha256(packed).hexdigest(), len(packed))


def _accept(
    version: ModelVersion, finding: Finding, signature: Signature, original: Kept, served: Kept
) -> None:
    report = finding.report
    with transaction.atomic():
        lifecycle.move_version(
            version,
            VersionState.READY,
            actor=Actor.system(),
            columns={
                **_columns(report),
                "runtime": report["served"]["runtime"],
                "served_key": served.key,
                "served_sha256": served.sha256,
                "served_size": served.size,
                "resident_bytes": report["measurements"]["resident_bytes"],
                "signature": signature_to_json(signature),
                # One row to try it with: the uploader's, else one that validation made.
                "example": _example(version, report),
            },
        )
        # Behind the compare-and-set: only the winner writes the one name without a digest.
        metadata = _put_metadata(version, finding, signature, (original, served))
        Artifact.objects.bulk_create(
            Artifact(version=version, role=one.role, key=one.key, sha256=one.sha256, size=one.size)
            for one in (original, served, metadata)
        )
        _drop_incoming_after_commit(version)
        entries.put_version(selectors.find_version(version.model, version.number))


def _example(version: ModelVersion, report: Mapping[str, Any]) -> Any:
    """Keep the uploader's example unless validation could not read it."""
    refused = any(
        one.get("name") == "example" and one.get("state") == "warning"
        for one in report.get("checks", ())
    )
    return report.get("example") if version.example is None or refused else version.example


def _columns(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "report": report,
        "format": str(report.get("format") or "")[:20],
        "container": str(report.get("container") or "")[:20],
        "decided": timezone.now(),
    }


def _reject(version: ModelVersion, reason: str, report: Mapping[str, Any] | None = None) -> None:
    """Refuse a version; its file is not kept, its digest and the report are."""
    body = dict(report or {"checks": []}) | {"verdict": "rejected", "reason": reason}
    with transaction.atomic():
        lifecycle.move_version(
            version,
            VersionState.REJECTED,
            actor=Actor.system(),
            reason=reason,
            columns=_columns(body),
        )
        _drop_incoming_after_commit(version)
    _remove_strays(version)


def _remove_strays(version: ModelVersion) -> None:
    """Remove what a beaten or killed run stored for a version whose verdict stands."""
    if ModelVersion.objects.filter(pk=version.pk, state__in=UNDER_WAY).exists():
        return
    store, folder = storage.artifacts(), folder_of(version)
    ours = set(Artifact.objects.filter(version=version).values_list("key", flat=True))
    try:
        _, names = store.listdir(folder)
        for name in names:
            if f"{folder}/{name}" not in ours:
                store.delete(f"{folder}/{name}")
    except FileNotFoundError:
        return
    except STORE_ERRORS as error:
        LOG.warning("stray files may stay in %s: %s", folder, error)


def _drop_incoming_after_commit(version: ModelVersion) -> None:
    """Remove the incoming file once the verdict stands; a failure leaves it to the sweeper."""
    key = version.incoming_key

    def drop() -> None:
        try:
            storage.delete(key)
        except STORE_ERRORS as error:
            LOG.warning("the incoming file %s stays for the sweeper: %s", key, error)

    transaction.on_commit(drop)

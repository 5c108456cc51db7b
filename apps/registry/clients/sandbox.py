"""Judges an upload: runs the sandbox's stages one after the other and merges what they found.

Each stage is a fresh confined process; this module opens nothing of an upload itself and imports
neither Django nor any ML library. What a stage reports is hostile data (a file may have taken over
the process that wrote it), so every field is checked for type and size before it is used, and what
must be true is established again by a stage that has not met the original file.
"""

import contextlib
import hashlib
import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from apps.core.confined import Ending, Limits, run_confined, work_folder
from apps.core.errors import PlatformError
from apps.registry.formats import CODE_BEARING, Container, Format
from apps.registry.signature import Signature, signature_from_json, signature_to_json

TOLERANCE = 1e-5
STAGE_SECONDS = 120.0
MOST_CHECKS = 60
MOST_TEXT = 700
MOST_NUMBER = 1 << 53
MOST_EXAMPLE_BYTES = 1 << 20
CHUNK = 1 << 20

DOING = {
    "recognise": "looking at the file",
    "scan": "scanning the pickle",
    "onnx-check": "checking the graph",
    "verify-onnx": "running the model",
    "convert-sklearn": "opening and converting the model",
    "measure-native": "running the model in scikit-learn",
    "convert-torch": "opening and converting the program",
    "measure-torch": "running the program in PyTorch",
}
# What the stages leave in their folders: a rewritten or converted graph, and the answers of the
# original.
GRAPH = "model.onnx"
REFERENCE = "reference.frame"


@dataclass(frozen=True, slots=True)
class Native:
    """How files of one library are opened, and what helps when they cannot be served as ONNX."""

    name: str
    convert: str
    measure: str
    remedy: str
    way_out: str


NATIVE: dict[Format, Native] = {
    Format.SKLEARN: Native(
        name="scikit-learn",
        convert="convert-sklearn",
        measure="measure-native",
        remedy="Use steps that skl2onnx supports to have it served as ONNX.",
        way_out="Change the model to steps that convert, upload an ONNX file,",
    ),
    Format.TORCH: Native(
        name="PyTorch",
        convert="convert-torch",
        measure="measure-torch",
        remedy="Use operators that torch.onnx supports to have it served as ONNX.",
        way_out="Change the model to operators that convert, upload an ONNX file,",
    ),
}


class CheckState(StrEnum):
    """How one check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    title: str
    state: CheckState
    message: str = ""
    remedy: str = ""
    seconds: float = 0.0

    def body(self) -> dict[str, Any]:
        """The plain form that is stored."""
        return {
            "name": self.name,
            "title": self.title,
            "state": self.state.value,
            "message": self.message,
            "remedy": self.remedy,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Policy:
    """What this installation and this uploader allow.

    Attributes:
        allow_code: The uploader may upload files that can run code.
        native_formats: Formats served by a runner when they do not convert.
        stage_seconds: Wall-clock deadline of each stage.
        folder: Where private work folders are made; None is the system's temporary folder.
    """

    allow_code: bool
    native_formats: frozenset[str] = frozenset()
    stage_seconds: float = STAGE_SECONDS
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of an inspection.

    Attributes:
        report: What is stored on the version and shown to people; plain JSON values.
        served: The file to serve, in the work folder or the upload itself; None if rejected.
        signature: What may be asked; None if rejected.
    """

    report: dict[str, Any]
    served: Path | None = None
    signature: Signature | None = None

    @property
    def ready(self) -> bool:
        return self.served is not None

    @property
    def reason(self) -> str | None:
        """Why it was rejected, in words."""
        reason: str | None = self.report["reason"]
        return reason


@contextlib.contextmanager
def inspect_upload(
    file: Path,
    *,
    display_name: str,
    policy: Policy,
    declared_format: str | None = None,
    example: bytes | None = None,
    signature: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Verdict]:
    """Judge one uploaded file.

    The verdict's served file may lie in a folder that is removed when the block is left: store it
    inside.

    Args:
        file: The upload, as it was received.
        display_name: What the uploader called it; only its ending is looked at.
        policy: What is allowed.
        declared_format: What the uploader says it is, if anything.
        example: A JSON document with one or more rows, if given.
        signature: What the uploader says of inputs and outputs, as stored; no file says how an
            image becomes an input, and a TorchScript file says nothing of them.
        tell: Hears what is being done, in words, as each stage begins.
    """
    with work_folder(policy.folder) as folder:
        # Only to be passed through: a stage may run as a user of its own (its folder stays 0700).
        folder.chmod(0o711)
        inspection = _Inspection(file.resolve(), display_name, policy, declared_format, folder)
        inspection.declared_signature = signature
        inspection.tell = tell
        inspection.take_example(example)
        try:
            inspection.judge()
        except (_Rejected, _NoConversion) as error:
            inspection.reject(error.reason)
        yield inspection.verdict()


class _Rejected(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _NoConversion(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Stage:
    """What one stage left behind, its types checked."""

    folder: Path
    checks: tuple[Check, ...]
    result: Mapping[str, Any]
    reason: str | None


@dataclass(slots=True)
class _Inspection:
    """One upload on its way through the stages."""

    file: Path
    name: str
    policy: Policy
    declared: str | None
    folder: Path
    example: str | None = None
    declared_signature: Mapping[str, Any] | None = None
    checks: list[Check] = field(default_factory=list)
    body: dict[str, Any] = field(default_factory=dict)
    served: Path | None = None
    signature: Signature | None = None
    reason: str | None = None
    stages: int = 0
    tell: Callable[[str], None] | None = None

    def take_example(self, example: bytes | None) -> None:
        if not example:
            return
        title = "The example can be read"
        try:
            text = example.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if not text or len(example) > MOST_EXAMPLE_BYTES:
            words = f"The example is not UTF-8 text of at most {MOST_EXAMPLE_BYTES >> 20} MB."
            self.checks.append(Check("example", title, CheckState.WARNING, words))
            return
        self.example = text

    def judge(self) -> None:
        found = self._stage(
            "recognise",
            {"file": str(self.file), "name": self.name[-200:], "declared": self.declared},
            reads=[self.file],
        )
        self._keep(found)
        container = _member(Container, found.result.get("container"))
        kind = _member(Format, found.result.get("format"))
        self.body |= {"container": container.value, "format": kind.value}
        self._check_permission(container)
        self._note_walls(found.result.get("walls"))
        if kind is Format.ONNX:
            self._judge_onnx()
        else:
            self._judge_code(kind, container)

    def reject(self, reason: str) -> None:
        self.reason = reason
        self.served = self.signature = None

    def verdict(self) -> Verdict:
        body: dict[str, Any] = {
            "verdict": "rejected" if self.served is None else "ready",
            "reason": self.reason,
            "format": None,
            "container": None,
            "checks": [one.body() for one in self.checks[:MOST_CHECKS]],
            "signature": signature_to_json(self.signature) if self.signature else None,
            "metadata": {},
            "served": None,
            "conversion": None,
            "measurements": None,
            "scanners": [],
            "example": None,
            **self.body,
        }
        return Verdict(body, self.served, self.signature)

    # -- ONNX ----------------------------------------------------------------------------------

    def _judge_onnx(self) -> None:
        checked = self._stage("onnx-check", {"file": str(self.file)}, reads=[self.file])
        self._keep(checked)
        served = self.file
        if checked.result.get("rewritten") is True:
            served = _plain_file(checked.folder / GRAPH)
        tried = self._stage("verify-onnx", {"file": str(served)}, [served], with_example=True)
        self._keep(tried)
        self.body["metadata"] = _metadata(checked.result.get("metadata"))
        self._accept(served, "onnx", tried)

    # -- scikit-learn and PyTorch --------------------------------------------------------------

    def _judge_code(self, kind: Format, container: Container) -> None:
        """Convert what may run code, behind walls; else measure it as it is."""
        if container in {Container.PICKLE, Container.JOBLIB}:
            self._scan()
        ask = {"file": str(self.file), "tolerance": TOLERANCE, "needs_walls": True}
        opened = self._stage(NATIVE[kind].convert, ask, [self.file], with_example=True)
        self._keep(opened)
        self.body["metadata"] = _metadata(opened.result.get("metadata"))
        try:
            self._prove(opened)
        except _NoConversion as error:
            self._judge_native(kind, error.reason)

    def _prove(self, opened: _Stage) -> None:
        """Put the converted graph through all checks, and compute its answers again."""
        conversion = opened.result.get("conversion")
        if not isinstance(conversion, Mapping):
            raise _NoConversion(_text(opened.result.get("not_convertible")) or "No reason given.")
        served = _plain_file(opened.folder / GRAPH)
        reference = _plain_file(opened.folder / REFERENCE)
        checked = self._stage("onnx-check", {"file": str(served)}, [served])
        self._keep_for_conversion(checked)
        ask = {"file": str(served), "reference": str(reference), "tolerance": TOLERANCE}
        tried = self._stage("verify-onnx", ask, [served, reference], with_example=True)
        self._keep_for_conversion(tried)
        parity = tried.result.get("parity")
        if not isinstance(parity, Mapping) or parity.get("agrees") is not True:
            raise _NoConversion("The converted graph does not give the answers of the original.")
        rows, far = _number(parity.get("rows")), _number(parity.get("max_abs_difference"))
        self.checks.append(
            Check(
                "parity",
                "The converted model answers like the original",
                CheckState.PASSED,
                f"{rows:.0f} rows, computed again in a fresh process; the largest difference is "
                f"{far:.2g}, the tolerance {TOLERANCE:g}.",
            )
        )
        self.body["conversion"] = {
            "converter": _text(conversion.get("converter")),
            "max_abs_difference": far,
            "tolerance": TOLERANCE,
            "rows": int(rows),
            "recomputed": True,
        }
        self._accept(served, "onnx", tried, described=opened.result.get("inputs"))

    def _judge_native(self, kind: Format, why: str) -> None:
        """Measure the file as it is, where the operator has it served so."""
        native = NATIVE[kind]
        self.checks.append(
            Check(
                "conversion",
                "It can be converted to ONNX",
                CheckState.WARNING,
                why,
                native.remedy,
            )
        )
        if kind.value not in self.policy.native_formats:
            raise _Rejected(
                f"The model cannot be served as ONNX: {why} Native {native.name} files are not "
                f"served by this installation. {native.way_out} or ask the operator to add "
                f"{kind.value} to MLP_NATIVE_FORMATS."
            )
        ask = {"file": str(self.file), "needs_walls": True}
        tried = self._stage(native.measure, ask, [self.file], with_example=True)
        self._keep(tried)
        self._accept(self.file, kind.value, tried)

    def _scan(self) -> None:
        """Ask the scanner; whatever happens to it, its finding is advice."""
        ask = {"file": str(self.file), "needs_walls": True}
        found = self._stage("scan", ask, [self.file])
        given = found.result.get("findings") if found.reason is None else None
        findings = [
            {"name": _text(one.get("name")), "safety": _text(one.get("safety"))}
            for one in (given if isinstance(given, list) else [])[:100]
            if isinstance(one, Mapping)
        ]
        entry: dict[str, Any] = {"name": "picklescan", "findings": findings}
        if found.reason is not None:
            entry["error"] = found.reason
        self.body["scanners"] = [entry]

    # -- what all share ------------------------------------------------------------------------

    def _check_permission(self, container: Container) -> None:
        if container not in CODE_BEARING:
            return
        title = "The uploader may upload files that can run code"
        if self.policy.allow_code:
            self.checks.append(Check("permission", title, CheckState.PASSED))
            return
        words = (
            f"A {container.value} file can run code when it is opened, and you do not have the "
            "permission to upload such files."
        )
        remedy = "Upload an ONNX or skops file, or ask a maintainer of the team to upload it."
        self.checks.append(Check("permission", title, CheckState.FAILED, words, remedy))
        raise _Rejected(f"{words} {remedy}")

    def _note_walls(self, walls: object) -> None:
        if isinstance(walls, Mapping) and walls.get("holds_code") is True:
            return
        self.checks.append(
            Check(
                "walls",
                "The sandbox has all its walls",
                CheckState.WARNING,
                "This machine's kernel lacks Landlock or seccomp; the file was opened behind "
                "resource limits only.",
                "Run the validator on Linux 5.13 or later.",
            )
        )

    def _keep(self, stage: _Stage) -> None:
        self.checks += stage.checks
        if stage.reason is not None:
            raise _Rejected(stage.reason)

    def _keep_for_conversion(self, stage: _Stage) -> None:
        """A converted file that fails a check is only not served; the original may still be."""
        for one in stage.checks:
            failed = one.state is CheckState.FAILED
            state = CheckState.WARNING if failed else one.state
            self.checks.append(
                Check(one.name, one.title, state, one.message, one.remedy, one.seconds)
            )
        if stage.reason is not None:
            raise _NoConversion(f"The converted graph was refused: {stage.reason}")

    def _accept(
        self, served: Path, runtime: str, tried: _Stage, *, described: object = None
    ) -> None:
        written = _described(tried.result.get("signature"), described)
        try:
            self.signature = signature_from_json(written)
        except PlatformError as error:
            raise _Rejected(f"The model's signature cannot be used: {error.message}") from error
        digest, size = _digest(served)
        self.body["served"] = {"runtime": runtime, "sha256": digest, "size": size}
        self.body["measurements"] = _measurements(tried.result.get("measurements"))
        self.body["example"] = _plain(tried.result.get("example"), MOST_TEXT)
        self.served = served

    def _stage(
        self,
        name: str,
        ask: Mapping[str, Any],
        reads: Sequence[Path],
        *,
        with_example: bool = False,
    ) -> _Stage:
        """Run one stage in a folder of its own below this inspection's."""
        self.stages += 1
        if self.tell is not None:
            self.tell(DOING[name][0].upper() + DOING[name][1:])
        work = self.folder / f"{self.stages}-{name}"
        work.mkdir(mode=0o700)
        if with_example and self.example is not None:
            (work / "example.json").write_text(self.example, encoding="utf-8")
            (work / "example.json").chmod(0o644)
            ask = {**ask, "example_file": "example.json"}
        if self.declared_signature is not None:
            (work / "signature.json").write_text(json.dumps(self.declared_signature))
            (work / "signature.json").chmod(0o644)
            ask = {**ask, "signature_file": "signature.json"}
        seconds = self.policy.stage_seconds
        limits = Limits.for_file(_size(reads), cpu_seconds=math.ceil(seconds) + 5)
        args = [name, "--ask", json.dumps(ask)]
        for path in reads:
            args += ["--read", str(path)]
        started = time.monotonic()
        outcome = run_confined(args, work=work, limits=limits, seconds=seconds)
        if outcome.ending is Ending.FINISHED and outcome.report is not None:
            stage = _read_stage(work, outcome.report)
            if stage is not None:
                return stage
        ended = outcome.ending is not Ending.FINISHED
        words = outcome.sentence() if ended else "It left no report that can be read."
        reason = f"The validator stopped while {DOING[name]}. {words}"
        check = Check(
            name,
            f"The sandbox finished {DOING[name]}",
            CheckState.FAILED,
            words,
            "Check the file on your own machine; a smaller or simpler model may pass.",
            round(time.monotonic() - started, 4),
        )
        return _Stage(work, (check,), {}, reason)


# -- reading what a stage says -----------------------------------------------------------------


def _read_stage(work: Path, written: bytes) -> _Stage | None:
    """Check the types of a report; None if it is not one."""
    try:
        body = json.loads(written, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or not isinstance(body.get("result"), dict):
        return None
    given = body.get("checks")
    if not isinstance(given, list) or len(given) > MOST_CHECKS:
        return None
    checks = [_check(one) for one in given]
    if any(one is None for one in checks):
        return None
    refused = body.get("refused")
    reason = None
    if refused is not None:
        if not isinstance(refused, dict):
            return None
        parts = (_text(refused.get("reason")), _text(refused.get("remedy")))
        reason = " ".join(part for part in parts if part) or "It was refused without a reason."
    return _Stage(work, tuple(one for one in checks if one is not None), body["result"], reason)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _check(one: object) -> Check | None:
    if not isinstance(one, Mapping):
        return None
    try:
        state = CheckState(_text(one.get("state")))
    except ValueError:
        return None
    return Check(
        name=_text(one.get("name"))[:60],
        title=_text(one.get("title"))[:200],
        state=state,
        message=_text(one.get("message")),
        remedy=_text(one.get("remedy")),
        seconds=round(_number(one.get("seconds")), 4),
    )


def _text(value: object) -> str:
    """Printable, bounded text; anything else is no text."""
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in value[:MOST_TEXT])


def _number(value: object) -> float:
    """A number from 0 up to what a column holds; anything else is 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 <= value <= MOST_NUMBER else 0.0


def _member(kind: type[Any], value: object) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise _Rejected("The sandbox left a report that cannot be read.") from error


def _plain(value: object, most_text: int, depth: int = 8) -> Any:
    """Plain JSON values with bounded depth, length and text; what is too much is left out."""
    if isinstance(value, str):
        return _text(value)[:most_text]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):  # beyond 64 bits the JSON of our doors cannot say an int
        return value if abs(value) < (2**63 if isinstance(value, int) else 1e300) else None
    if depth and isinstance(value, list):
        return [_plain(one, most_text, depth - 1) for one in value[:5000]]
    if depth and isinstance(value, Mapping):
        some = list(value.items())[:600]
        return {_text(key)[:500]: _plain(one, most_text, depth - 1) for key, one in some}
    return None


def _metadata(value: object) -> dict[str, Any]:
    plain = _plain(value, 500, depth=4)
    return plain if isinstance(plain, dict) else {}


def _measurements(value: object) -> dict[str, Any]:
    given = value if isinstance(value, Mapping) else {}
    latency = given.get("latency_ms")
    latency = latency if isinstance(latency, Mapping) else {}
    return {
        "load_seconds": _number(given.get("load_seconds")),
        "resident_bytes": int(_number(given.get("resident_bytes"))),
        "latency_ms": {
            "p50": _number(latency.get("p50")),
            "p99": _number(latency.get("p99")),
            "rows": int(_number(latency.get("rows"))),
        },
    }


def _described(signature: object, described: object) -> object:
    """Add column names and categories, which only the original file knows, to a signature."""
    if not isinstance(signature, Mapping) or not isinstance(described, list):
        return signature
    known = {one.get("name"): one for one in described if isinstance(one, Mapping)}
    inputs = signature.get("inputs")
    if not isinstance(inputs, list):
        return signature
    merged = []
    for one in inputs:
        extra = known.get(one.get("name")) if isinstance(one, Mapping) else None
        more = {k: extra[k] for k in ("columns", "categories") if k in extra} if extra else {}
        merged.append({**one, **more} if isinstance(one, Mapping) else one)
    return {**signature, "inputs": merged}


def _plain_file(path: Path) -> Path:
    """A file that a stage left: a regular one with one name, or nothing."""
    try:
        facts = path.lstat()
    except OSError as error:
        raise _NoConversion("The converter left no file.") from error
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
        raise _NoConversion("The converter left something that is no plain file.")
    return path


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
            size += len(part)
    return digest.hexdigest(), size

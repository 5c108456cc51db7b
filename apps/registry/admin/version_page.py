"""What the page of a version says, in the order in which people ask."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest
from django.utils.html import format_html

from apps.accounts.admin.door import caller_of_request
from apps.accounts.policies import Action, Thing, may
from apps.core.errors import Invalid
from apps.core.words import DASH, milliseconds_words, size_words
from apps.registry import selectors
from apps.registry.admin.model_page import primary_of
from apps.registry.formats import CODE_BEARING, Container
from apps.registry.metrics import Compared, as_number, compared
from apps.registry.models import Artifact, ModelVersion
from apps.registry.signature import Signature, TensorSpec, signature_from_json
from apps.registry.snippets import PRODUCTION
from apps.registry.states import RELEASABLE, UNDER_WAY

SHOWN_EVENTS = 50
MOST_NAMES = 40
FAILED = "failed"
WEB = ("https://", "http://")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; the first that failed stands open."""

    title: str
    state: str
    message: str
    remedy: str
    seconds: float
    is_open: bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output in words."""

    name: str
    dtype: str
    shape: str
    names: tuple[str, ...]
    names_of: str
    more_names: int
    limits: str
    image: str


@dataclass(frozen=True, slots=True)
class Rival:
    """The version that serves in production, which a new one is held against."""

    number: int
    pk: int
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric in words, beside the same of the version in production."""

    name: str
    mine: str
    theirs: str
    compared: str
    arrow: str
    verdict: str
    direction: str


@dataclass(frozen=True, slots=True)
class Served:
    """One environment in which the version is live."""

    environment: str
    share: float
    endpoint: Any


def page_context(request: HttpRequest, version: ModelVersion) -> dict[str, Any]:
    """Return what the page shows."""
    report: Mapping[str, Any] = version.report or {}
    endpoints: list[Any] = selectors.endpoints_of(version.model)
    rival = _rival(version, endpoints)
    signature = _signature(version)
    thing = Thing(version.model.team_id, version.model.name)
    caller = caller_of_request(request)
    is_good = version.state in RELEASABLE
    return {
        "version": version,
        "model": version.model,
        "title": str(version),
        "is_under_way": version.state in UNDER_WAY,
        "served": list(_served(version, endpoints)),
        "aliases": list(version.aliases.order_by("name")),
        "reason": report.get("reason"),
        "checks": checks_of(report.get("checks") or ()),
        "may_try": is_good and may(caller, Action.PREDICT_TRY, thing),
        "is_good": is_good,
        "inputs": [_tensor(one) for one in signature.inputs] if signature else [],
        "outputs": [_tensor(one) for one in signature.outputs] if signature else [],
        "batchable": signature.batchable if signature else False,
        "example": "" if version.example is None else json.dumps(version.example, indent=2),
        "rival": rival,
        "metrics": _metrics(version, rival),
        "facts": _facts(version),
        "measured": _measured(report.get("measurements") or {}),
        "safety": _safety(version, report),
        "files": _files(version) if may(caller, Action.VERSION_DOWNLOAD, thing) else (),
        "events": selectors.history_of(version)[:SHOWN_EVENTS],
    }


# -- header ------------------------------------------------------------------------------------


def _served(version: ModelVersion, endpoints: list[Any]) -> Iterable[Served]:
    for endpoint in endpoints:
        for release in endpoint.live:
            shares = [arm.share for arm in release.typed_arms() if arm.version == version.number]
            if shares:
                yield Served(endpoint.environment, sum(shares), endpoint)


def _rival(version: ModelVersion, endpoints: list[Any]) -> Rival | None:
    live = [
        endpoint.live[0]
        for endpoint in endpoints
        if endpoint.environment == PRODUCTION and endpoint.live
    ]
    if not live or primary_of(live[0]) == version.number:
        return None
    rows = ModelVersion.objects.filter(model_id=version.model_id, number=primary_of(live[0]))
    found = rows.values_list("number", "pk", "metrics").first()
    return None if found is None else Rival(found[0], found[1], found[2] or {})


# -- is it right? ------------------------------------------------------------------------------


def checks_of(found: Iterable[Mapping[str, Any]]) -> list[Check]:
    """Return the report's lines; what failed first is open."""
    checks: list[Check] = []
    for one in found:
        state = str(one.get("state") or "skipped")
        is_first = state == FAILED and not any(check.state == FAILED for check in checks)
        checks.append(
            Check(
                title=str(one.get("title") or one.get("name") or "A check"),
                state=state,
                message=str(one.get("message") or ""),
                remedy=str(one.get("remedy") or "") if state != "passed" else "",
                seconds=float(one.get("seconds") or 0),
                is_open=is_first,
            )
        )
    return checks


# -- signature ---------------------------------------------------------------------------------


def _signature(version: ModelVersion) -> Signature | None:
    if version.signature is None:
        return None
    try:
        return signature_from_json(version.signature)
    except Invalid:  # written by another release of the platform; the report still says what is
        return None


def shape_words(spec: TensorSpec) -> str:
    """Say a shape: *any number of rows x 13*, *one number*."""
    if not spec.shape:
        return "one number"
    sizes = ["any" if size == -1 else str(size) for size in spec.shape]
    if spec.has_batch:
        sizes[0] = "any number of rows"
    return " x ".join(sizes)


def _tensor(spec: TensorSpec) -> Tensor:
    said: Mapping[str, tuple[object, ...]] = {
        "Classes": spec.classes,
        "Columns": spec.columns,
        "Allowed values": spec.categories,
    }
    named = next(((words, names) for words, names in said.items() if names), ("", ()))
    return Tensor(
        name=spec.name,
        dtype=spec.dtype.value,
        shape=shape_words(spec),
        names=tuple(str(one) for one in named[1][:MOST_NAMES]),
        names_of=named[0],
        more_names=max(0, len(named[1]) - MOST_NAMES),
        limits=_limits(spec),
        image=_image(spec),
    )


def _limits(spec: TensorSpec) -> str:
    if spec.minimum is not None and spec.maximum is not None:
        return f"{spec.minimum:g} to {spec.maximum:g}"
    if spec.minimum is not None:
        return f"at least {spec.minimum:g}"
    return f"at most {spec.maximum:g}" if spec.maximum is not None else ""


def _image(spec: TensorSpec) -> str:
    image = spec.image
    if image is None:
        return ""
    kinds = " or ".join(one.removeprefix("image/").upper() for one in image.content_types)
    turned = f"{image.mode.value}, {image.width} x {image.height} pixels"
    mean = ", ".join(f"{one:g}" for one in image.means)
    std = ", ".join(f"{one:g}" for one in image.stds)
    return (
        f"Image: {kinds}, turned into {turned} ({image.resampling.value}); each value is "
        f"(pixel x {image.scale:.4g} - {mean}) / {std}."
    )


# -- how good ----------------------------------------------------------------------------------


def _metrics(version: ModelVersion, rival: Rival | None) -> list[Metric]:
    """The metrics of a version beside those of the one in production."""
    return [
        Metric(
            name=one.name,
            mine=number_words(one.mine),
            theirs=DASH if one.theirs is None else number_words(one.theirs),
            compared=change_words(one),
            arrow="" if not one.change else "▲" if one.change > 0 else "▼",
            verdict=one.verdict,
            direction="lower is better" if one.less_is_better else "higher is better",
        )
        for one in compared(version.metrics or {}, rival.metrics if rival else {})
    ]


def number_words(value: object) -> str:
    """Show a metric: six digits that count for a number, anything else as it is."""
    number = as_number(value)
    return str(value) if number is None else f"{number:.6g}"


def change_words(one: Compared) -> str:
    """Say how a metric compares: *better by 0.012 (1.2 %)*."""
    if one.verdict == "equal":
        return "equal"
    if not one.verdict or one.change is None:
        return DASH
    share = one.change_share
    part = f" ({abs(share) * 100:.3g} %)" if share is not None else ""
    return f"{one.verdict} by {abs(one.change):.3g}{part}"


# -- where from, how fast, how safe ------------------------------------------------------------


def _facts(version: ModelVersion) -> list[tuple[str, list[tuple[str, object]]]]:
    """Lineage, parameters and tags, each under its own heading; empty ones are left out."""
    said = (
        ("Lineage", version.lineage or {}),
        ("Parameters", version.params or {}),
        ("Tags", version.tags or {}),
    )
    return [
        (words, [(name, _value(value)) for name, value in sorted(found.items())])
        for words, found in said
        if found
    ]


def _value(value: object) -> object:
    """Show a value; a web address can be followed."""
    if isinstance(value, str) and value.startswith(WEB):
        return format_html(
            '<a class="mp-link" href="{}" rel="noopener noreferrer nofollow">{}</a>', value, value
        )
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _measured(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    latency = found.get("latency_ms") or {}
    rows = [
        ("One row, typical (p50)", milliseconds_words(_number(latency.get("p50")))),
        ("One row, slow (p99)", milliseconds_words(_number(latency.get("p99")))),
        ("Loads in", milliseconds_words(_milliseconds(found.get("load_seconds")))),
        ("Memory when loaded", size_words(_number(found.get("resident_bytes")) or 0)),
    ]
    return rows if found else []


def _milliseconds(seconds: object) -> float | None:
    known = _number(seconds)
    return None if known is None else known * 1000


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _safety(version: ModelVersion, report: Mapping[str, Any]) -> dict[str, Any]:
    """Say what kind of file it is, what the scanners found, and what it was turned into."""
    conversion = report.get("conversion") or None
    findings = [
        (scanner.get("name"), finding.get("name"), finding.get("safety"))
        for scanner in report.get("scanners") or ()
        for finding in scanner.get("findings") or ()
    ]
    return {
        "carries_code": version.container in {one.value for one in CODE_BEARING},
        "container": version.container,
        "is_native": bool(version.runtime) and version.runtime != Container.ONNX,
        "conversion": conversion,
        "scanners": [one.get("name") for one in report.get("scanners") or ()],
        "findings": findings,
    }


def _files(version: ModelVersion) -> list[dict[str, Any]]:
    """The stored files of a version and where to download them."""
    path = f"/api/v1/models/{quote(version.model.name)}/versions/{version.number}/artifact"
    kept = Artifact.objects.filter(version=version).order_by("role")
    return [
        {
            "role": one.role,
            "size": one.size,
            "sha256": one.sha256,
            "href": f"{path}?role={one.role}",
        }
        for one in kept
    ]

"""What the page of a model says, tab by tab; each tab reads only what it shows."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import urlencode

from apps.core.charts import colour_of
from apps.core.words import DASH, page_of
from apps.registry import selectors
from apps.registry.metrics import as_number, shared_names
from apps.registry.models import Endpoint, ModelVersion, RegisteredModel, Release
from apps.registry.snapshot import Arm, ArmRole
from apps.registry.snippets import PRODUCTION, Snippet, predict_url, snippets_for, upload_snippets
from apps.registry.states import VersionState

OVERVIEW = "overview"
SETTINGS = "settings"
PER_PAGE = 25
# Versions whose metrics decide which columns the list of versions has.
LOOKED_AT = 50


@dataclass(frozen=True, slots=True)
class Share:
    """One arm of a live release, as the share bar draws it."""

    version: int
    share: float
    role: str
    colour: str
    href: str

    @property
    def width(self) -> str:
        """Width of its part of the bar."""
        return f"{self.share * 100:.3f}%"


@dataclass(frozen=True, slots=True)
class Place:
    """One environment of a model and what serves there."""

    endpoint: Endpoint
    href: str
    live: Release | None
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """How the model is called where it serves."""

    url: str
    environment: str
    snippets: tuple[Snippet, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """A page of a long list that is not counted."""

    rows: list[Any]
    number: int
    has_next: bool


def page_context(request: HttpRequest, model: RegisteredModel) -> dict[str, Any]:
    """Return what the header and the open tab show."""
    versions = ModelVersion.objects.filter(model=model).count()
    tab = request.GET.get("tab", OVERVIEW)
    # A form that came back with an error is shown where it stands.
    tab = SETTINGS if request.method == "POST" else tab if tab in _PARTS else OVERVIEW
    places = _places(model)[::-1]  # production first
    return {
        "model": model,
        "tab": tab,
        "tabs": [
            (name, words, versions if name == "versions" else None)
            for name, (words, _) in _PARTS.items()
        ],
        "production": next(
            (one for one in places if one.endpoint.environment == PRODUCTION and one.live), None
        ),
        "upload_href": _upload_href(model),
        "upload_snippets": upload_snippets(host=request.build_absolute_uri("/"), model=model.name),
        **_PARTS[tab][1](request, model, places),
    }


def _upload_href(model: RegisteredModel) -> str:
    return f"{reverse('admin:registry_modelversion_add')}?{urlencode({'model': model.name})}"


# -- what serves -------------------------------------------------------------------------------


def _places(model: RegisteredModel) -> list[Place]:
    endpoints: list[Any] = selectors.endpoints_of(model)
    live = {one.pk: one.live[0] if one.live else None for one in endpoints}
    numbers = {n for one in live.values() if one is not None for n in one.version_numbers}
    ids = selectors.version_ids(model, numbers)
    return [Place(one, page_of(one), live[one.pk], _shares(live[one.pk], ids)) for one in endpoints]


def _shares(release: Release | None, ids: Mapping[int, int]) -> tuple[Share, ...]:
    if release is None:
        return ()
    return tuple(_share(arm, ids) for arm in release.typed_arms())


def _share(arm: Arm, ids: Mapping[int, int]) -> Share:
    href = reverse("admin:registry_modelversion_change", args=[ids.get(arm.version, 0)])
    return Share(arm.version, arm.share, arm.role.value, colour_of(arm.version), href)


def primary_of(release: Release) -> int:
    """Return the version that takes most of an endpoint's traffic."""
    arms = release.typed_arms()
    primaries = [arm for arm in arms if arm.role is ArmRole.PRIMARY] or list(arms)
    return max(primaries, key=lambda arm: arm.share).version


# -- tabs --------------------------------------------------------------------------------------


def _overview(request: HttpRequest, model: RegisteredModel, places: list[Place]) -> dict[str, Any]:
    return {
        "places": places,
        "aliases": selectors.aliases_of(model),
        "call": _call(request, model, places),
        "newest": selectors.versions_of(model).defer("report").first(),
    }


def _call(request: HttpRequest, model: RegisteredModel, places: list[Place]) -> Call | None:
    """Say how to call what is live; production if it is, else the last environment that is."""
    place = next((one for one in places if one.live is not None), None)
    if place is None or place.live is None:
        return None
    number = primary_of(place.live)
    example = selectors.example_of(model, number)
    host = request.build_absolute_uri("/").rstrip("/")
    environment = place.endpoint.environment
    snippets = snippets_for(host=host, model=model.name, environment=environment, body=example)
    return Call(predict_url(host, model.name, environment), environment, snippets)


def _versions(request: HttpRequest, model: RegisteredModel, places: list[Place]) -> dict[str, Any]:
    state = request.GET.get("state", "")
    rows = selectors.versions_for_list(model)
    if state in frozenset(VersionState):
        rows = rows.filter(state=state)
    page = Paginator(rows, PER_PAGE).get_page(request.GET.get("page"))
    metrics = shared_names(rows.values_list("metrics", flat=True)[:LOOKED_AT])
    return {
        "page": page,
        "metric_names": metrics,
        "state": state,
        "states": [one.value for one in VersionState],
        "rows": list(_version_rows(page.object_list, places, metrics)),
    }


def _version_rows(
    versions: Iterable[ModelVersion], places: list[Place], metrics: list[str]
) -> Iterable[dict[str, Any]]:
    for version in versions:
        yield {
            "version": version,
            "metrics": [(name, _metric((version.metrics or {}).get(name))) for name in metrics],
            "aliases": [alias.name for alias in version.aliases.all()],
            "environments": [
                one.endpoint.environment
                for one in places
                if any(share.version == version.number for share in one.shares)
            ],
        }


def _metric(value: object) -> str:
    number = as_number(value)
    return DASH if number is None else f"{number:.4g}"


def _history(request: HttpRequest, model: RegisteredModel, places: list[Place]) -> dict[str, Any]:
    asked = request.GET.get("page", "1")
    number = max(1, int(asked)) if asked.isdecimal() and len(asked) < 7 else 1
    start = (number - 1) * PER_PAGE
    rows = list(selectors.history_of_model(model)[start : start + PER_PAGE + 1])
    return {"events": Slice(rows[:PER_PAGE], number, len(rows) > PER_PAGE)}


def _nothing_more(
    request: HttpRequest, model: RegisteredModel, places: list[Place]
) -> dict[str, Any]:
    return {}


_Part = Callable[[HttpRequest, RegisteredModel, list[Place]], dict[str, Any]]
_PARTS: dict[str, tuple[str, _Part]] = {
    OVERVIEW: ("Overview", _overview),
    "versions": ("Versions", _versions),
    "traffic": ("Traffic", _nothing_more),
    "predictions": ("Predictions", _nothing_more),
    "history": ("History", _history),
    SETTINGS: ("Settings", _nothing_more),
}

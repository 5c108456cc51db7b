"""The page of traffic, its download, and the parts of it that other apps' pages show.

Everything that narrows what is seen stands in the address, so that a link shows the same thing to
a colleague who may see it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import orjson
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_GET

from apps.accounts.admin.door import caller_of_request
from apps.accounts.models import ApiKey, Team
from apps.accounts.policies import ENVIRONMENTS, Action, Thing, may, unseen
from apps.accounts.selectors import teams_of
from apps.core import words
from apps.core.admin import record_export
from apps.core.charts import Marker
from apps.core.errors import Invalid, NotFound
from apps.core.sheets import csv_lines
from apps.inference import traffic, windows
from apps.inference.api.analytics import AnalyticsSerializer, body_of, scope_and_window
from apps.inference.engine.buckets import span_start
from apps.inference.models import PredictionMinute
from apps.inference.pages.changes import error_rate, figures_of
from apps.inference.pages.charts import charts_of
from apps.inference.pages.door import model_for, page, page_context, version_for
from apps.inference.traffic import Scope
from apps.inference.windows import RANGES, Window
from apps.registry import selectors as registry
from apps.registry.models import RegisteredModel

FILTERS = ("team", "model", "version", "environment", "key")
WHEN = ("range", "from", "to")
MOST_MARKERS = 12
MOST_KEYS = 200
HOUR_MINUTES = 60


@dataclass(frozen=True, slots=True)
class Chip:
    """A choice that is one click away; ``href`` is empty on the one that is on."""

    words: str
    href: str
    is_on: bool = False


# --- the page -----------------------------------------------------------------------------------


@page
@require_GET
def traffic_page(request: HttpRequest) -> HttpResponse:
    """Traffic of all the caller may see, narrowed by the address."""
    asked = _asked(request)
    context: dict[str, Any] = {
        "filters": _fields(request, asked),
        "off": [Chip(f"{name}: {asked[name]}", _href(asked, **{name: ""}), is_on=True)
                for name in FILTERS if asked.get(name)],
        "since": asked.get("from", ""), "until": asked.get("to", ""),
    }  # fmt: skip
    try:
        scope, window = scope_and_window(caller_of_request(request), _typed(asked))
    except (Invalid, NotFound) as error:
        context |= {"problem": error.message, "ranges": _ranges(asked, "")}
        is_there = isinstance(error, Invalid)  # else a name was mistyped: the form stays to mend it
        return _page(request, context, HTTPStatus.OK if is_there else HTTPStatus.NOT_FOUND)
    context |= _seen(scope, window, name="traffic") | {
        "ranges": _ranges(asked, window.name),
        "is_of_many": scope.model is None and scope.key_id is None,
        "query": _query(asked),
        "downloads": [
            (kind, f"{reverse('inference-pages:traffic-download')}?{_query(asked, format=kind)}")
            for kind in ("csv", "json")
        ],
    }
    return _page(request, context)


def _page(
    request: HttpRequest, context: dict[str, Any], status: int = HTTPStatus.OK
) -> HttpResponse:
    context = page_context(request, "Traffic", **context)
    return render(request, "inference/traffic.html", context, status=status)


@page
@require_GET
def traffic_models(request: HttpRequest) -> HttpResponse:
    """The models side by side; apart from the page, because of many models it takes the longest."""
    asked = _asked(request)
    try:
        scope, window = scope_and_window(caller_of_request(request), _typed(asked))
    except Invalid as error:
        return HttpResponse(error.message, status=400, content_type="text/plain; charset=utf-8")
    found, there = traffic.by_model(scope, window)
    context = {
        "rows": _model_table(found, window, {k: v for k, v in asked.items() if v}),
        "more": max(0, there - len(found)),
        "shown": len(found),
    }
    return render(request, "inference/traffic_models.html", context)


@page
@require_GET
def download(request: HttpRequest) -> HttpResponseBase:
    """The same numbers as CSV or JSON."""
    asked = _asked(request)
    try:
        scope, window = scope_and_window(caller_of_request(request), _typed(asked))
    except Invalid as error:
        return HttpResponse(error.message, status=400, content_type="text/plain; charset=utf-8")
    body = AnalyticsSerializer(body_of(scope, window)).data
    record_export(
        "traffic.exported",
        PredictionMinute,
        request,
        what="steps of traffic",
        counts=dict.fromkeys(_teams_of(scope), len(body["steps"])),
        filters=_query(asked),
    )
    file = f"traffic-{window.start:%Y%m%dT%H%M}-{window.end:%Y%m%dT%H%M}"
    if request.GET.get("format") == "json":
        plain = orjson.dumps(body, option=orjson.OPT_INDENT_2)
        return _file(HttpResponse(plain, content_type="application/json"), f"{file}.json")
    lines = csv_lines(_CSV, _csv_rows(asked, body))
    return _file(
        StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8"), f"{file}.csv"
    )


_NUMBERS = (
    "requests", "rows", "errors", "cache_hits", "mean_ms", "p50_ms", "p95_ms", "p99_ms"
)  # fmt: skip
_CSV = ("from", "seconds", *FILTERS, *_NUMBERS)


def _teams_of(scope: Scope) -> frozenset[int | None]:
    """Return the teams whose traffic a scope adds up; None stands for all there are."""
    if scope.model is not None:
        named = RegisteredModel.objects.filter(name=scope.model).values_list("team_id", flat=True)
        return frozenset(named) or frozenset({None})
    return frozenset(scope.teams or {None})


def _csv_rows(asked: Mapping[str, str], body: Mapping[str, Any]) -> Iterator[list[object]]:
    about = [asked.get(name, "") for name in FILTERS]
    for step in body["steps"]:
        yield [step["at"], body["step_seconds"], *about, *(step[name] for name in _NUMBERS)]


def _file(reply: HttpResponseBase, name: str) -> HttpResponseBase:
    reply["Content-Disposition"] = f'attachment; filename="{name}"'
    return reply


# --- fragments ----------------------------------------------------------------------------------


@page
@require_GET
def model_traffic(request: HttpRequest, model: str) -> HttpResponse:
    """Traffic of a model, with the versions on each other."""
    caller, found = model_for(request, model, Action.PREDICTION_READ)
    scope = traffic.scope_of(caller, model=found.name)
    return _fragment(request, scope, {"model": found.name}, empty="Release a version and call it.")


@page
@require_GET
def version_traffic(request: HttpRequest, model: str, number: int) -> HttpResponse:
    """Traffic of a version, wherever it serves."""
    caller, found = version_for(request, model, number, Action.PREDICTION_READ)
    scope = traffic.scope_of(caller, model=model, version=found.number)
    about = {"model": model, "version": str(number)}
    return _fragment(request, scope, about, empty="Release this version, or give it a share.")


@page
@require_GET
def endpoint_traffic(request: HttpRequest, model: str, environment: str) -> HttpResponse:
    """Traffic of an endpoint, with its releases as lines."""
    caller, found = model_for(request, model, Action.PREDICTION_READ)
    endpoint = registry.find_endpoint(found, environment)
    scope = traffic.scope_of(caller, model=model, environment=endpoint.environment)
    window = _fragment_window(request)
    releases = (
        registry.releases_of(endpoint)
        .filter(decided__gte=window.start, decided__lt=window.end, state__in=("live", "replaced"))
        .values_list("number", "decided")[:MOST_MARKERS]
    )
    markers = [Marker(at, f"release {number}") for number, at in reversed(releases) if at]
    about = {"model": model, "environment": endpoint.environment}
    return _fragment(
        request, scope, about, markers=markers, empty="Release a version here and call it."
    )


@page
@require_GET
def endpoint_rate(request: HttpRequest, model: str, environment: str) -> HttpResponse:
    """How busy an endpoint is, in one line; a release's dialog says what it would move."""
    caller, found = model_for(request, model, Action.PREDICTION_READ)
    endpoint = registry.find_endpoint(found, environment)
    scope = traffic.scope_of(caller, model=model, environment=endpoint.environment)
    now = timezone.now()
    seen = traffic.look(scope, windows.named("hour", now=now)).total
    if not seen.count:
        return HttpResponse("No requests in the last hour.")
    return HttpResponse(
        format_html(
            '{}, last hour; {} errors, p95 {}',
            _hour_words(seen.count),
            words.percent_words(error_rate(seen) or 0.0),
            words.milliseconds_words(seen.p95_ms),
        )
    )  # fmt: skip


def _hour_words(count: int) -> str:
    """Say how many requests an hour had: a rate only where it is at least one a minute."""
    if count >= HOUR_MINUTES:
        return f"{words.count_words(count / HOUR_MINUTES)} requests/min"
    return "1 request" if count == 1 else f"{count} requests"


@page
@require_GET
def key_usage(request: HttpRequest, key: str) -> HttpResponse:
    """Usage of an API key: calls, errors by code, rows, latency; by the hour or day."""
    caller = caller_of_request(request)
    scope = traffic.scope_of(caller, key_id=key)
    return _fragment(request, scope, {"key": key}, empty="Call a model with this key.")


@page
@require_GET
def team_usage(request: HttpRequest, team: int) -> HttpResponse:
    """Usage of a team by model and by key."""
    caller = caller_of_request(request)
    scope = traffic.scope_of(caller, team_id=team)
    window = _fragment_window(request, usual="month")
    found = Team.objects.filter(pk=team).first()
    if found is None:
        raise unseen()
    models, more = traffic.by_model(scope, window)
    keys = {one.pk: one for one in ApiKey.objects.filter(team_id=team)[:MOST_KEYS]}
    used = traffic.by_key(scope, window, list(keys))
    context = {
        "ranges": _fragment_ranges(request, window),
        "window": window,
        "models": _model_table(models, window, {"team": found.slug}),
        "more": max(0, more - len(models)),
        "keys": words.table(
            ("Key", "Calls", "Rows", "Errors"),
            (
                (
                    words.link(keys[one.key_id], keys[one.key_id].name),
                    words.count_words(one.count),
                    words.count_words(one.rows),
                    _error_words(one.errors, one.count),
                )
                for one in used
            ),
        ),
    }
    return render(request, "inference/team_usage.html", context)


def _fragment(
    request: HttpRequest,
    scope: Scope,
    about: dict[str, str],
    *,
    empty: str,
    markers: list[Marker] | None = None,
) -> HttpResponse:
    window = _fragment_window(request, by_hour=scope.key_id is not None)
    name = "-".join(("seen", *about))
    context = _seen(scope, window, name=name, markers=markers or []) | {
        "ranges": _fragment_ranges(request, window),
        "whole": f"{reverse('inference-pages:traffic')}?{_query(about, range=window.name)}",
        "empty": empty,
    }
    return render(request, "inference/traffic_fragment.html", context)


def _fragment_window(
    request: HttpRequest, *, usual: str = windows.USUAL, by_hour: bool = False
) -> Window:
    name = request.GET.get("range", "")
    chosen = name if name in RANGES else usual
    least = windows.HOUR if by_hour else windows.MINUTE
    return windows.named(chosen, now=timezone.now(), least_step=least)


def _fragment_ranges(request: HttpRequest, window: Window) -> list[Chip]:
    return [
        Chip(said, f"{request.path}?range={name}", is_on=name == window.name)
        for name, (said, _) in RANGES.items()
    ]


# --- cells of lists -----------------------------------------------------------------------------


@page
@require_GET
def cells(request: HttpRequest) -> HttpResponse:
    """Numbers for the cells of a list of a lower app, all in one answer."""
    what = request.GET.get("what", "")
    ids = [one for one in request.GET.get("ids", "").split(",") if one][:MOST_KEYS]
    if what not in _CELLS:
        return HttpResponse("", status=400)
    counts = _CELLS[what](request, ids)
    return render(request, "inference/cells.html", {"what": what, "counts": counts})


def _key_calls(request: HttpRequest, ids: list[str]) -> dict[str, int]:
    """Calls of keys in the last 24 hours."""
    caller = caller_of_request(request)
    teams = ApiKey.objects.filter(pk__in=ids).values_list("pk", "team_id")
    mine = [pk for pk, team in teams if may(caller, Action.PREDICTION_READ, Thing(team))]
    since = span_start(timezone.now(), windows.HOUR) - timedelta(hours=23)
    found = traffic.calls_of_keys(mine, since=since)
    return {one: found.get(one, 0) for one in mine}


def _model_rates(request: HttpRequest, ids: list[str]) -> dict[str, int]:
    """Requests of models in the last hour."""
    caller = caller_of_request(request)
    models = registry.living_models().filter(name__in=ids).values_list("name", "team_id")
    mine = [name for name, team in models if may(caller, Action.PREDICTION_READ, Thing(team, name))]
    since = span_start(timezone.now(), windows.MINUTE) - timedelta(minutes=59)
    found = traffic.calls_of_models(mine, since=since)
    return {one: found.get(one, 0) for one in mine}


def _endpoint_rates(request: HttpRequest, ids: list[str]) -> dict[str, int]:
    """Requests of endpoints in the last hour; an id is environment and model, with a colon."""
    caller = caller_of_request(request)
    pairs = [(one.partition(":")[2], one.partition(":")[0]) for one in ids]
    names = {name for name, _ in pairs}
    teams = dict(registry.living_models().filter(name__in=names).values_list("name", "team_id"))
    mine = {
        name: team
        for name, team in teams.items()
        if may(caller, Action.PREDICTION_READ, Thing(team, name))
    }
    since = span_start(timezone.now(), windows.MINUTE) - timedelta(minutes=59)
    found = {
        environment: traffic.calls_of_models(mine, since=since, environment=environment)
        for environment in ENVIRONMENTS
    }
    return {
        f"{environment}:{name}": found[environment].get(name, 0)
        for name, environment in pairs
        if name in mine and environment in found
    }


_CELLS = {"key-calls": _key_calls, "model-rates": _model_rates, "endpoint-rates": _endpoint_rates}


# --- what the pages are made of -----------------------------------------------------------------


def _seen(
    scope: Scope, window: Window, *, name: str, markers: list[Marker] | None = None
) -> dict[str, Any]:
    seen = traffic.look(scope, window)
    before = traffic.look(scope, window.before)
    return {
        "window": window,
        "is_empty": not seen.total.count,
        "compares": bool(before.total.count),
        "figures": figures_of(seen.total, before.total, seconds=window.seconds, words=window.words),
        "charts": charts_of(seen, before, name=name, markers=markers or []),
        "by_hour": scope.key_id is not None,
    }


def _model_table(found: Any, window: Window, about: Mapping[str, str]) -> list[dict[str, Any]]:
    base = reverse("inference-pages:traffic")
    return [
        {
            "name": one.model,
            "href": f"{base}?{_query({**about, 'model': one.model}, **_when(window, about))}",
            "points": one.points,
            "line": f"Requests of {one.model}, {window.words}",
            "total": one.total,
            "rate": one.total.count / window.seconds,
            "errors": _error_words(one.total.errors, one.total.count),
        }
        for one in found
    ]


def _when(window: Window, about: Mapping[str, str]) -> dict[str, str]:
    return {} if about.get("from") else {"range": window.name}


def _error_words(errors: int, count: int) -> str:
    return words.percent_words(errors / count) if count else words.DASH


def _asked(request: HttpRequest) -> dict[str, str]:
    return {
        name: request.GET.get(name, "").strip().replace("\x00", "")[:200]
        for name in (*FILTERS, *WHEN)
    }


def _typed(asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the words of the address as the API's form gives them.

    Raises:
        Invalid: A version or environment is none.
    """
    version = asked.get("version", "")
    if version and not (version.isascii() and version.isdecimal() and 0 < int(version) < 2**31):
        raise Invalid(f"`{version[:20]}` is no version. A version is a number, as 3.")
    environment = asked.get("environment", "")
    if environment and environment not in ENVIRONMENTS:
        raise Invalid(
            f"There is no environment `{environment[:40]}`; there are {', '.join(ENVIRONMENTS)}."
        )
    return {**asked, "version": int(version) if version else None}


def _fields(request: HttpRequest, asked: Mapping[str, str]) -> list[dict[str, Any]]:
    """The form above the page: what can be typed or chosen."""
    teams = list(teams_of(caller_of_request(request)).order_by("name")[:MOST_KEYS])
    choices: dict[str, list[tuple[str, str]]] = {
        "team": [(one.slug, one.name) for one in teams] if len(teams) > 1 else [],
        "environment": [(one, one) for one in reversed(ENVIRONMENTS)],
    }
    labels = {"team": "Team", "model": "Model", "version": "Version",
              "environment": "Environment", "key": "Key (its 12 characters)"}  # fmt: skip
    return [
        {"name": name, "label": labels[name], "value": asked[name], "choices": choices.get(name)}
        for name in FILTERS
        if name != "team" or choices["team"]
    ]


def _ranges(asked: Mapping[str, str], chosen: str) -> list[Chip]:
    return [
        Chip(said, _href(asked, range=name, **{"from": "", "to": ""}), is_on=name == chosen)
        for name, (said, _) in RANGES.items()
    ]


def _href(asked: Mapping[str, str], **changed: str) -> str:
    return f"?{_query(asked, **changed)}"


def _query(asked: Mapping[str, str], **changed: str) -> str:
    return urlencode({name: value for name, value in {**asked, **changed}.items() if value})

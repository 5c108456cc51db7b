"""Parts of pages about the record: a model's newest predictions, and how often a match happened."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from apps.accounts.admin.door import caller_of_request
from apps.accounts.policies import ENVIRONMENTS, Action
from apps.core.errors import PlatformError
from apps.inference import selectors, traffic, windows
from apps.inference.engine.buckets import OK
from apps.inference.pages.charts import requests_chart
from apps.inference.pages.door import model_for, page
from apps.inference.selectors import ANY_ERROR, Traffic
from apps.inference.traffic import Seen

NEWEST = 20
SHOWN_DAYS = 30
# What the list of predictions calls a time, and what a window is called.
SPANS = {"hour": "hour", "day": "day", "week": "week", "month": "month", "all": "quarter"}


@page
@require_GET
def model_predictions(request: HttpRequest, model: str) -> HttpResponse:
    """The newest predictions of a model."""
    caller, found = model_for(request, model, Action.PREDICTION_READ)
    since = timezone.now() - timedelta(days=SHOWN_DAYS)
    wanted = selectors.Wanted(start=since, model=found.name)
    rows = selectors.predictions(wanted, caller=caller).defer("inputs", "outputs", "error")
    base = reverse("admin:inference_prediction_changelist")
    context = {
        "predictions": rows[:NEWEST],
        "newest": NEWEST,
        "all_url": f"{base}?{urlencode({'model': found.name, 'when': 'month'})}",
        "days": SHOWN_DAYS,
    }
    return render(request, "inference/model_predictions.html", context)


@page
@require_GET
def match_rate(request: HttpRequest) -> HttpResponse:
    """How often what a list of predictions shows happened, where counts kept beforehand can say."""
    asked = {name: str(value).strip().replace("\x00", "") for name, value in request.GET.items()}
    reason = _uncounted(asked)
    if reason:
        return render(request, "inference/match_rate.html", {"reason": reason})
    key_id = asked.get("key_id") or None
    least_step = windows.HOUR if key_id else windows.MINUTE
    try:
        window = _window(asked, least_step)
        scope = traffic.scope_of(
            caller_of_request(request),
            model=asked.get("model") or None,
            version=int(asked["version"]) if asked.get("version") else None,
            environment=asked.get("environment") or None,
            key_id=key_id,
        )
    except PlatformError as error:
        return render(request, "inference/match_rate.html", {"reason": error.message})
    seen = with_status(traffic.look(scope, window), asked.get("status", ""))
    context = {"chart": requests_chart(seen, name="match"), "total": seen.total, "window": window}
    return render(request, "inference/match_rate.html", context)


def _window(asked: Mapping[str, str], least_step: int) -> windows.Window:
    """Return the time that the list shows: from one's own moments, else of its chip."""
    now = timezone.now()
    if asked.get("from") or asked.get("to"):
        return windows.asked(asked, now=now, least_step=least_step)
    name = SPANS.get(asked.get("when", ""), windows.USUAL)
    return windows.named(name, now=now, least_step=least_step)


def with_status(seen: Seen, status: str) -> Seen:
    """Keep the counts of one status, or of all errors."""
    if not status:
        return seen
    codes = seen.codes.get(status, (0,) * len(seen.steps))
    counts = [
        one.count - one.errors if status == OK else one.errors if status == ANY_ERROR else codes[at]
        for at, one in enumerate(seen.steps)
    ]
    steps = tuple(_only(one, count) for one, count in zip(seen.steps, counts, strict=True))
    return replace(seen, steps=steps, total=_only(seen.total, sum(counts)))


def _only(one: Traffic, count: int) -> Traffic:
    return replace(one, count=count)


def _uncounted(asked: dict[str, str]) -> str:
    """Say why there are no counts of this match; empty when there are."""
    if asked.get("q") or asked.get("unit"):
        return "Single predictions and units are not counted beforehand, so there is no chart."
    version = asked.get("version", "")
    if version and not (version.isascii() and version.isdecimal() and len(version) < 10):
        return "A version is a number, as 3."
    if version and not (asked.get("model") or asked.get("key_id")):
        return "Name the model, too, to see how often its version was asked."
    if asked.get("environment") and asked["environment"] not in ENVIRONMENTS:
        return f"There are the environments {', '.join(ENVIRONMENTS)}."
    return ""

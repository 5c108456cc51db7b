"""Numbers, times and names as people say them; the same on every page."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Model
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.timesince import timesince

# The colour beside each state's word (UI language: grey waits, blue works, green is good, amber
# wants attention, red is bad). A state that is not here is grey.
TONES: dict[str, str] = {
    "validating": "working",
    "running": "working",
    "awaiting approval": "working",
    "rolling out": "working",
    "loading": "working",
    "ready": "good",
    "live": "good",
    "active": "good",
    "ok": "good",
    "done": "good",
    "passed": "good",
    "warm": "good",
    "verified": "good",
    "production": "good",
    "deprecated": "attention",
    "warning": "attention",
    "expires soon": "attention",
    "unused": "attention",
    "behind": "attention",
    "silent": "attention",
    "rejected": "bad",
    "failed": "bad",
    "revoked": "bad",
    "expired": "bad",
    "broken": "bad",
    "disabled": "bad",
    "never verified": "attention",
    "error": "bad",
}
# What unfold calls the tones, for its own list columns.
UNFOLD_LABELS = {"working": "info", "good": "success", "attention": "warning", "bad": "danger"}
DASH = "-"


def state_words(state: str) -> str:
    """Say a state with spaces: *awaiting approval*."""
    return state.replace("_", " ")


def tone_of(state: str) -> str:
    """Return ``waiting``, ``working``, ``good``, ``attention`` or ``bad`` for a state's word."""
    return TONES.get(state_words(state), "waiting")


def unfold_labels(states: Iterable[str]) -> dict[str, str]:
    """Return what unfold's ``display(label=...)`` wants: state to its kind of label."""
    return {one: UNFOLD_LABELS.get(tone_of(one), "") for one in states}


def size_words(size: float) -> str:
    """Say bytes: *1.2 MB* (powers of ten, as disks are sold)."""
    value = float(size)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def count_words(count: float, *, most: int | None = None) -> str:
    """Say a count with its thousands grouped; *10,000+* when it was not carried on for ever."""
    if most is not None and count >= most:
        return f"{most:,}+"
    return f"{count:,.0f}"


def percent_words(part: float) -> str:
    """Say a part of one: *0.4 %*, *100 %*."""
    percent = part * 100
    if percent and percent < 0.01:
        return "< 0.01 %"
    digits = 0 if percent >= 10 or percent == round(percent) else 1 if percent >= 1 else 2
    return f"{percent:.{digits}f} %"


def milliseconds_words(value: float | None) -> str:
    """Say a time in milliseconds: *1.24 ms*, *38 ms*, *2.10 s*."""
    if value is None:
        return DASH
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def seconds_words(value: float | None) -> str:
    """Say how long something took or will take: *0.8 s*, *42 s*, *3 min*, *2 h*."""
    if value is None:
        return DASH
    if value < 10:
        return f"{value:.1f} s"
    if value < 90:
        return f"{value:.0f} s"
    if value < 90 * 60:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h" if value < 48 * 3600 else f"{value / 86400:.0f} days"


def rate_words(per_second: float) -> str:
    """Say how often: per second when it is often, else per minute, hour or day."""
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h"), (86400, "day")):
        value = per_second * factor
        if value >= 1:
            return f"{value:,.0f}/{unit}" if value >= 100 else f"{value:.3g}/{unit}"
    return "< 1/day" if per_second else "0/h"


def age_words(moment: datetime, *, now: datetime | None = None) -> str:
    """Say how long ago, or how far ahead, a moment lies."""
    away = (now or timezone.now()) - moment
    if abs(away) < timedelta(minutes=1):
        return "just now" if away >= timedelta() else "in less than a minute"
    if away < timedelta():
        return f"in {timesince(moment + away, moment, depth=1)}"
    return f"{timesince(moment, moment + away, depth=1)} ago"


def ago(moment: datetime | None) -> str:
    """Return how long ago as HTML, with the exact time on hover and in the copy."""
    if moment is None:
        return DASH
    exact = timezone.localtime(moment).strftime("%Y-%m-%d %H:%M:%S %Z")
    return format_html(
        '<time class="mp-nowrap" datetime="{}" title="{}">{}</time>',
        moment.isoformat(),
        exact,
        age_words(moment),
    )


def state_pill(state: str, tone: str = "") -> str:
    """Return a state as HTML: its word beside its colour, which a word of its own app brings."""
    words = state_words(state)
    return format_html('<span class="mp-state mp-{}">{}</span>', tone or tone_of(words), words)


def page_of(row: Model) -> str:
    """Return where a row's page in the admin is."""
    opts = row._meta
    return reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[row.pk])


def page_of_kind(kind: str, key: str) -> str:
    """Return where the page of a thing is that is known by its table; empty when it has none."""
    try:
        return reverse(f"admin:{kind.replace('.', '_')}_change", args=[key])
    except NoReverseMatch:
        return ""


def link(row: Model, words: object) -> str:
    """Return a link to a row's page."""
    return format_html('<a class="mp-link" href="{}">{}</a>', page_of(row), words)


def table(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> dict[str, Any]:
    """Return what ``core/table.html`` draws."""
    return {"headers": list(headers), "rows": [list(row) for row in rows]}

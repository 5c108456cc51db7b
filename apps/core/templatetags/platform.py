"""Tags and filters of all our pages; the words come from ``core.words``."""

import json
from collections.abc import Sequence
from html import unescape
from typing import Any

from django import template
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from apps.core import sentences, words
from apps.core.charts import Chart, sparkline
from apps.core.models import Event

register = template.Library()

register.filter("ago", words.ago)
register.filter("size", words.size_words)
register.filter("percent", words.percent_words)
register.filter("ms", words.milliseconds_words)
register.filter("seconds", words.seconds_words)
register.filter("rate", words.rate_words)
register.filter("state_words", words.state_words)
register.filter("tone", words.tone_of)


@register.filter
def count(value: float | None) -> str:
    """Say a number with grouped thousands."""
    return words.DASH if value is None else words.count_words(value)


@register.filter
def event_words(event: Event) -> str:
    """Say what happened: *Released wine 4 to production*."""
    return sentences.headline(event)


@register.filter
def event_sentence(event: Event) -> str:
    """Say who did what and why: *Mara released wine 4 to production: better F1*."""
    return sentences.sentence(event)


@register.filter
def event_tone(event: Event) -> str:
    """Return the colour of an event's point in a timeline."""
    return sentences.tone(event)


@register.filter
def event_place(event: Event) -> str:
    """Return where the page of an event's thing is; empty when it has none."""
    return sentences.place_of(event)


@register.filter
def pretty_json(value: Any) -> str:
    """Write a value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


@register.filter
def labelled(row: Sequence[object], headers: Sequence[str]) -> list[tuple[str, object]]:
    """Put each cell of a row beside its column's header, for the narrow screen."""
    return list(zip(headers, row, strict=True))


@register.simple_tag
def state(word: str) -> str:
    """Draw a state's word beside its colour."""
    return words.state_pill(word)


@register.simple_tag
def digest(value: str, length: int = 12) -> str:
    """Draw a digest short, with the whole of it on hover and behind the copy button."""
    if not value:
        return words.DASH
    return format_html(
        '<span class="mp-digest"><code title="{}">{}</code>{}</span>',
        value,
        value[:length],
        copy(value, "Copy digest"),
    )


@register.simple_tag
def copy(value: str, label: str = "Copy") -> str:
    """Draw a button that copies a text."""
    return format_html(
        '<button type="button" class="mp-copy" data-copy="{}" aria-label="{}" title="{}">'
        '<span class="material-symbols-outlined" aria-hidden="true">content_copy</span></button>',
        value,
        label,
        label,
    )


@register.simple_tag
def fragment(name: str, *args: Any, **said: Any) -> str:
    """Load a part of the page from another app by its URL's name.

    ``every="3s"`` loads it again and again; ``query="a=1"`` goes into the address; ``label`` is
    what a screen reader hears while it loads.
    """
    address = reverse(name, args=args)
    if said.get("query"):
        address = f"{address}?{said['query']}"
    every = said.get("every")
    return format_html(
        '<div class="mp-fragment" hx-get="{}" hx-trigger="load{}" hx-swap="innerHTML" '
        'data-label="{}"><p class="mp-loading" role="status">Loading {}…</p></div>',
        address,
        f", every {every}" if every else "",
        said.get("label", "this part"),
        said.get("label", "this part"),
    )


@register.inclusion_tag("core/chart.html")
def chart(drawn: Chart) -> dict[str, Any]:
    """Draw a chart, with its numbers as a table below."""
    return {"chart": drawn, "data_id": f"chart-{drawn.name}", "rows": _number_rows(drawn)}


def _number_rows(drawn: Chart) -> str:
    """Write the numbers' rows here: hundreds of cells take a template too long."""
    return format_html_join(
        "\n",
        '<tr><th scope="row">{}</th>{}</tr>',
        (
            (
                f"{at:%Y-%m-%d %H:%M}",
                format_html_join(
                    "", '<td class="mp-right">{}</td>', ((_number(value),) for value in values)
                ),
            )
            for at, values in drawn.numbers
        ),
    )


def _number(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:,.2f}".removesuffix(".00")


@register.simple_tag
def spark(values: Sequence[float], label: str = "") -> str:
    """Draw a small line without axes; ``label`` says it in words."""
    points = sparkline(values)
    if not points:
        return ""
    return format_html(
        '<svg class="mp-spark" viewBox="0 0 120 28" preserveAspectRatio="none" role="img" '
        'aria-label="{}"><polyline points="{}"/></svg>',
        label,
        points,
    )


@register.simple_block_tag
def panel(content: str, title: str = "", note: str = "", name: str = "") -> str:
    """Draw a titled part of a page; ``name`` is its anchor."""
    head = (
        format_html(
            '<header class="mp-panel-head"><h2>{}</h2><span class="mp-note">{}</span></header>',
            title,
            note,
        )
        if title
        else ""
    )
    anchor = format_html(' id="{}"', name) if name else ""
    return format_html(
        '<section class="mp-panel"{}>{}<div class="mp-panel-body">{}</div></section>',
        anchor,
        head,
        content,
    )


@register.simple_block_tag
def snippet(content: str, label: str = "Copy") -> str:
    """Draw code with a copy button; what is inside is text and is escaped once."""
    text = unescape(str(content)).strip("\n")
    return format_html(
        '<div class="mp-code"><pre tabindex="0"><code>{}</code></pre>{}</div>',
        text,
        copy(text, label),
    )

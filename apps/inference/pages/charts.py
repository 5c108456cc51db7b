"""Traffic as charts: the same colour for the same thing on every page."""

from collections.abc import Sequence

from apps.core import charts
from apps.core.charts import Chart, Marker, Series, colour_of, largest
from apps.inference.selectors import Traffic
from apps.inference.traffic import Seen
from apps.inference.windows import MINUTE

CODE_COLOURS = ("--mp-red", "--mp-amber", "--mp-purple", "--mp-pink", "--mp-blue")


def charts_of(
    seen: Seen, before: Seen, *, name: str = "traffic", markers: Sequence[Marker] = ()
) -> list[Chart]:
    """Return the charts of a page of traffic, the most important first."""
    made = [requests_chart(seen, before, name=name, markers=markers)]
    if len(seen.versions) > 1:
        made.append(_versions_chart(seen, name, markers))
    made += [_errors_chart(seen, name, markers), _latency_chart(seen, name, markers)]
    if seen.total.rows > seen.total.count:
        made.append(_rows_chart(seen, name, markers))
    return made


def requests_chart(
    seen: Seen, before: Seen | None = None, *, name: str, markers: Sequence[Marker] = ()
) -> Chart:
    """Return requests over time, with the period before as a dashed line."""
    series = [Series("requests", _per_minute([one.count for one in seen.steps], seen))]
    if before is not None and before.total.count:
        counts = [one.count for one in before.steps]
        series.append(
            Series("the period before", _per_minute(counts, seen), charts.BEFORE, dashed=True)
        )
    return _chart(seen, f"{name}-requests", "Requests", "requests/min", series, markers=markers)


def _versions_chart(seen: Seen, name: str, markers: Sequence[Marker]) -> Chart:
    counts = {f"version {n}": _per_minute(values, seen) for n, values in seen.versions.items()}
    colours = {f"version {n}": colour_of(n) for n in seen.versions}
    return _chart(
        seen, f"{name}-versions", "Requests by version", "requests/min",
        largest(counts, colours), kind="stacked", markers=markers,
    )  # fmt: skip


def _errors_chart(seen: Seen, name: str, markers: Sequence[Marker]) -> Chart:
    counts = {code: [float(one) for one in values] for code, values in seen.codes.items()}
    ranked = sorted(counts, key=lambda code: (-sum(counts[code]), code))
    colours = dict(zip(ranked, CODE_COLOURS, strict=False))
    return _chart(
        seen, f"{name}-errors", "Errors by code", f"errors per {seen.window.step_words}",
        largest(counts, colours), kind="stacked", markers=markers,
    )  # fmt: skip


def _latency_chart(seen: Seen, name: str, markers: Sequence[Marker]) -> Chart:
    def values(of: str) -> list[float | None]:
        return [_rounded(one, of) for one in seen.steps]

    series = [
        Series("p50", values("p50_ms"), charts.P50),
        Series("p95", values("p95_ms"), charts.P95),
        Series("p99", values("p99_ms"), charts.P99),
    ]
    return _chart(seen, f"{name}-latency", "Latency", "ms", series, markers=markers)


def _rows_chart(seen: Seen, name: str, markers: Sequence[Marker]) -> Chart:
    series = [Series("rows", [float(one.rows) for one in seen.steps], charts.ROWS)]
    unit = f"rows per {seen.window.step_words}"
    return _chart(seen, f"{name}-rows", "Rows", unit, series, kind="bar", markers=markers)


def _chart(
    seen: Seen,
    name: str,
    title: str,
    unit: str,
    series: Sequence[Series],
    *,
    kind: str = "line",
    markers: Sequence[Marker] = (),
) -> Chart:
    window = seen.window
    return Chart(
        name=name,
        title=f"{title}, {window.words}",
        unit=unit,
        times=window.times,
        series=series,
        step_seconds=window.step_seconds,
        kind=kind,  # type: ignore[arg-type]  # one of the three words above
        markers=markers,
    )


def _per_minute(counts: Sequence[int], seen: Seen) -> list[float]:
    minutes = seen.window.step_seconds / MINUTE
    return [round(count / minutes, 4) for count in counts]


def _rounded(one: Traffic, of: str) -> float | None:
    value: float | None = getattr(one, of)
    return None if value is None else round(value, 3)

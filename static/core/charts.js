// Draws what core/chart.html describes, with the theme's chart library; colours follow the theme.
"use strict";

const MINUTE = 60_000, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

/** How a moment is written on the axis, in the viewer's zone: as fine as the step asks. */
function timeWords(at, step, zone, seconds = 0) {
  const clock = { hour: "2-digit", minute: "2-digit", hour12: false };
  const day = { month: "short", day: "numeric" };
  const options = step * 1000 >= DAY ? day : seconds * 1000 > 1.5 * DAY ? { ...day, ...clock } : clock;
  const words = new Date(at).toLocaleString("en-GB", { ...options, timeZone: zone });
  return words;
}

/** The full words of a step under the pointer. */
function stepWords(at, step, zone) {
  const options = { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false, timeZone: zone };
  const name = new Date(at).toLocaleString("en-GB", options);
  return step * 1000 >= DAY ? name.replace(/,? \d\d:\d\d$/, "") : name;
}

/** A number with grouped thousands and no needless digits. */
function numberWords(value) {
  if (value === null || value === undefined) return "–";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 2 : 3;
  return value.toLocaleString("en-US", { maximumFractionDigits: digits });
}

/** A value without neighbours has no line to lie on: it is drawn as a point. */
function pointSizes(values) {
  const known = (index) => values[index] !== null && values[index] !== undefined;
  return values.map((_, index) => (known(index) && !known(index - 1) && !known(index + 1) ? 3 : 0));
}

/** The index of the step in which a moment lies, between the steps' own centres. */
function placeOf(at, times, step) {
  if (!times.length) return null;
  const place = (at - times[0]) / (step * 1000);
  return place < -0.5 || place > times.length - 0.5 ? null : place;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#6b7280";
}

/** Vertical lines at moments worth one, with their words at the top. */
const markerLines = {
  id: "markerLines",
  afterDatasetsDraw(chart, _, options) {
    const { ctx, chartArea, scales } = chart;
    for (const marker of options.markers || []) {
      const place = placeOf(marker.at, options.times, options.step);
      if (place === null) continue;
      const low = scales.x.getPixelForValue(Math.floor(place));
      const high = scales.x.getPixelForValue(Math.min(Math.ceil(place), options.times.length - 1));
      const x = low + (high - low) * (place - Math.floor(place));
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = colour("--mp-soft");
      ctx.setLineDash([4, 3]);
      ctx.beginPath();
      ctx.moveTo(x, chartArea.top);
      ctx.lineTo(x, chartArea.bottom);
      ctx.stroke();
      ctx.font = "11px Inter, sans-serif";
      const width = ctx.measureText(marker.words).width;
      const left = x + 4 + width > chartArea.right ? x - 4 - width : x + 4;
      ctx.fillText(marker.words, left, chartArea.top + 10);
      ctx.restore();
    }
  },
};

function settings(body) {
  // A step of a day is a day of UTC, wherever the reader is.
  const zone = body.step * 1000 >= DAY ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone;
  const ink = colour("--mp-soft"), line = colour("--mp-line");
  const stacked = body.kind === "stacked";
  return {
    type: body.kind === "line" ? "line" : "bar",
    data: {
      labels: body.times,
      datasets: body.series.map((one) => ({
        label: one.name,
        data: one.values,
        borderColor: colour(one.colour),
        backgroundColor: colour(one.colour),
        borderDash: one.dashed ? [5, 4] : [],
        borderWidth: body.kind === "line" ? 2 : 0,
        pointRadius: pointSizes(one.values),
        pointHitRadius: 12,
        clip: 6,
        tension: 0.25,
        spanGaps: false,
        maxBarThickness: 26,
      })),
    },
    options: {
      responsive: true,
      maintainAspectRatio: false,
      animation: false,
      interaction: { mode: "index", intersect: false },
      scales: {
        x: {
          stacked,
          grid: { display: false },
          title: { display: true, text: `Time (${zone})`, color: ink, font: { size: 11 } },
          ticks: { color: ink, maxRotation: 0, autoSkipPadding: 24, callback: (_, index) => timeWords(body.times[index], body.step, zone, body.step * body.times.length) },
        },
        y: {
          stacked,
          beginAtZero: true,
          grid: { color: line },
          border: { display: false },
          ticks: { color: ink, maxTicksLimit: 6, callback: (value) => numberWords(value) },
        },
      },
      plugins: {
        legend: { display: body.series.length > 1, position: "top", align: "start", labels: { color: ink, boxWidth: 12, boxHeight: 12 } },
        tooltip: {
          callbacks: {
            title: (items) => (items.length ? stepWords(body.times[items[0].dataIndex], body.step, zone) : ""),
            label: (item) => `${item.dataset.label}: ${numberWords(item.raw)} ${body.unit}`,
          },
        },
        markerLines: { markers: body.markers, times: body.times, step: body.step },
      },
    },
    plugins: [markerLines],
  };
}

function draw(canvas) {
  const source = document.getElementById(canvas.dataset.chart);
  if (!source || typeof Chart === "undefined") return;
  Chart.getChart(canvas)?.destroy();
  new Chart(canvas, settings(JSON.parse(source.textContent)));
}

function drawAll(root = document) {
  root.querySelectorAll("canvas[data-chart]").forEach(draw);
}

if (typeof document !== "undefined") {
  document.addEventListener("DOMContentLoaded", () => {
    drawAll();
    document.addEventListener("htmx:afterSettle", (event) => drawAll(event.detail.elt));
    new MutationObserver(() => drawAll()).observe(document.documentElement, { attributeFilter: ["class"] });
  });
}

if (typeof module !== "undefined") module.exports = { numberWords, placeOf, pointSizes, stepWords, timeWords };

// The upload page: checks the fields, sends the form to the upload door, shows how far it is, then
// shows the checks on the same page until the version's own page opens.
"use strict";

/** Say bytes as people do: powers of ten, as disks are sold. */
function sizeWords(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** Say how long something will take. */
function secondsWords(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** How many bytes go out per second: over the last few seconds, so that a stall is seen. */
function speedOf(samples) {
  if (samples.length < 2) return 0;
  const [first, last] = [samples[0], samples[samples.length - 1]];
  const seconds = (last.at - first.at) / 1000;
  return seconds > 0 ? (last.sent - first.sent) / seconds : 0;
}

/** Keep the samples of the last few seconds, and one before them to measure from. */
function keptSamples(samples, now, windowMs = 5000) {
  const from = samples.findIndex((one) => now - one.at <= windowMs);
  return from <= 0 ? samples : samples.slice(from - 1);
}

/** How far the sending is, in one line. */
function sentWords(sent, total, speed) {
  const far = `${sizeWords(sent)} of ${sizeWords(total)} sent`;
  if (sent >= total) return `${far}. The server stores it.`;
  if (speed <= 0) return `${far}.`;
  return `${far}, ${sizeWords(Math.round(speed))}/s, about ${secondsWords((total - sent) / speed)} left.`;
}

/** What is wrong with a field that holds JSON; empty when nothing is. `kind` is object or any. */
function jsonProblem(text, kind) {
  if (text.trim() === "") return "";
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return `This is not JSON: ${reasonOf(error)}. Names and texts stand in double quotes, and there is no comma after the last entry.`;
  }
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return kind === "object" && !isObject ? "Give a JSON object: { \"name\": value }." : "";
}

/** What the browser found wrong, without the text it was found in. */
function reasonOf(error) {
  return error.message.split(/,| in JSON/)[0].trim();
}

/** Name of the field that a problem points at. */
function fieldOf(pointer) {
  return pointer.split("/")[1] || "";
}

/** What the server answered, or words for an answer that cannot be read. */
function problemIn(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { detail: "The server gave no answer that can be read. Send the file again." };
  }
}

/** The upload page's address while it shows the checks of a version. */
function addressOf(version) {
  return `?${new URLSearchParams({ model: version.model, checks: String(version.number) })}`;
}

/** The version whose checks the page's address names; null when it names none. */
function versionIn(query) {
  const asked = new URLSearchParams(query);
  const [model, number] = [asked.get("model"), asked.get("checks")];
  return model && /^[1-9][0-9]{0,8}$/.test(number || "") ? { model, number: Number(number) } : null;
}

/** The address of the checks of the version that was made. */
function progressOf(pattern, version) {
  return pattern.replace("NAME", encodeURIComponent(version.model)).replace("/0/", `/${version.number}/`);
}

function start(form) {
  const [live, bar, status, checks] = ["live", "progress", "status", "checks"]
    .map((name) => document.getElementById(`upload-${name}`));
  const zone = document.getElementById("drop-zone");
  const chosen = document.getElementById("file-words");
  const stop = document.getElementById("upload-stop");
  const button = form.querySelector("button[type=submit]");
  const input = form.elements.file;
  let samples = [];
  let leaving = null;

  const say = (words) => { status.textContent = words; };
  const placeFor = (name) => form.querySelector(`[data-error-for="${CSS.escape(name)}"]`);

  const mark = (name, words) => {
    const place = placeFor(name);
    const field = form.elements[name];
    place.textContent = words;
    place.hidden = words === "";
    if (words) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
    return field;
  };

  const clear = () => {
    for (const place of form.querySelectorAll("[data-error-for]")) mark(place.dataset.errorFor, "");
    status.classList.remove("mp-error");
    say("");
  };

  const open = (field) => {
    const folded = field.closest("details");
    if (folded) folded.open = true;
    field.focus();
  };

  const busy = (is) => {
    button.disabled = is;
    stop.hidden = !is;
    window.removeEventListener("beforeunload", leaving);
    leaving = is ? (event) => event.preventDefault() : null;
    if (is) window.addEventListener("beforeunload", leaving);
  };

  // Every wrong field gets its words beside it; what belongs to no field stands with the progress.
  const failed = (problem) => {
    const errors = problem.errors || [];
    const placed = errors.filter((one) => placeFor(fieldOf(one.pointer)));
    const fields = placed.map((one) => mark(fieldOf(one.pointer), one.detail));
    busy(false);
    bar.hidden = true;
    live.hidden = false;
    status.classList.add("mp-error");
    const loose = errors.filter((one) => !placed.includes(one) && one.detail !== problem.detail);
    const isSaid = placed.some((one) => one.detail === problem.detail);
    say([isSaid ? "Nothing was uploaded." : problem.detail, ...loose.map((one) => one.detail)].join(" "));
    if (fields.length > 0) open(fields[0]);
  };

  const problems = () => {
    const found = [];
    const wrong = (name, detail) => found.push({ pointer: `/${name}`, detail });
    const file = input.files[0];
    if (!file) wrong("file", "Choose the file that your training wrote.");
    else if (file.size === 0) wrong("file", "The file is empty. Choose the file that your training wrote.");
    const name = form.elements.name;
    if (name.value.trim() === "") wrong("name", "Name the model.");
    else if (!name.checkValidity()) wrong("name", "Use lower-case letters, digits, dot, dash and underscore; begin with a letter or digit.");
    for (const field of form.querySelectorAll("[data-json]")) {
      const detail = jsonProblem(field.value, field.dataset.json);
      if (detail) wrong(field.name, detail);
    }
    return found;
  };

  // The door checks what comes before the file before it takes the file: fields first, empty ones
  // not at all.
  const bodyOf = () => {
    const body = new FormData();
    for (const [name, value] of new FormData(form)) {
      if (typeof value === "string" && value.trim() !== "") body.append(name, value);
    }
    body.append("file", input.files[0]);
    return body;
  };

  const follow = (version) => {
    busy(false);
    button.disabled = true; // this file is a version now
    bar.hidden = true;
    document.getElementById("upload-live-title").textContent = `${version.model} ${version.number}`;
    say("The file is stored. Its checks run now; this page opens the version when the verdict is there.");
    checks.setAttribute("hx-get", progressOf(form.dataset.progress, version));
    checks.setAttribute("hx-trigger", "load, every 1s");
    window.htmx.process(checks);
    // The address names the version from now on, so that a reload shows its checks again.
    window.history.replaceState(null, "", addressOf(version));
  };

  const moved = (event) => {
    if (!event.lengthComputable) return;
    const now = Date.now();
    samples = keptSamples([...samples, { at: now, sent: event.loaded }], now);
    bar.value = event.loaded / event.total;
    say(sentWords(event.loaded, event.total, speedOf(samples)));
  };

  const send = () => {
    const request = new XMLHttpRequest();
    request.open("POST", form.dataset.action);
    request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
    request.upload.addEventListener("progress", moved);
    request.addEventListener("load", () => {
      if (request.status === 202) follow(JSON.parse(request.responseText));
      else failed(problemIn(request.responseText));
    });
    request.addEventListener("error", () => failed({ detail: "The connection broke. Send the file again." }));
    request.addEventListener("abort", () => failed({ detail: "The upload was stopped. Nothing was kept." }));
    stop.onclick = () => request.abort();
    request.send(bodyOf());
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clear();
    const found = problems();
    if (found.length > 0) {
      failed({ detail: found[0].detail, errors: found });
      return;
    }
    samples = [];
    live.hidden = false;
    bar.hidden = false;
    bar.value = 0;
    busy(true);
    send();
    live.scrollIntoView({ block: "nearest" });
  });

  for (const field of form.querySelectorAll("[data-json]")) {
    field.addEventListener("blur", () => mark(field.name, jsonProblem(field.value, field.dataset.json)));
  }

  const show = () => {
    const file = input.files[0];
    chosen.textContent = file ? `${file.name}, ${sizeWords(file.size)}` : "Drop the model's file here, or choose it";
    mark("file", "");
  };
  input.addEventListener("change", show);
  for (const kind of ["dragover", "dragleave", "drop"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.toggle("mp-over", kind === "dragover");
    });
  }
  zone.addEventListener("drop", (event) => {
    if (event.dataTransfer.files.length === 0) return;
    input.files = event.dataTransfer.files;
    show();
  });

  const underWay = versionIn(window.location.search);
  if (underWay) {
    live.hidden = false;
    follow(underWay);
  }
}

if (typeof document !== "undefined") {
  const form = document.getElementById("upload-form");
  if (form) start(form);
}

if (typeof module !== "undefined") {
  module.exports = { sizeWords, secondsWords, speedOf, keptSamples, sentWords, jsonProblem, fieldOf, problemIn, progressOf, addressOf, versionIn };
}

// Making a key: choose models of the team by a click; leave the secret only when it is stored.
"use strict";

/** Take the names of a comma-separated text apart. */
function namesIn(text) {
  return text.split(",").map((one) => one.trim()).filter((one) => one !== "");
}

/** Return the text with a name added, or without it when it was there. */
function toggled(text, name) {
  const names = namesIn(text);
  const others = names.filter((one) => one !== name);
  return (others.length < names.length ? others : [...names, name]).join(", ");
}

/** Put the secret where a shell command names the variable's stand-in. */
function withSecret(text, secret) {
  return `export MLP_API_KEY='${secret}'\n${text}`;
}

function watchModels(place) {
  const field = document.getElementById("id_model_names");
  // A key that is changed stays in its team.
  const team = document.getElementById("id_team") || { value: place.dataset.team };
  const mark = () => {
    const names = namesIn(field.value);
    for (const chip of place.querySelectorAll("[data-model-name]")) {
      const isOn = names.includes(chip.dataset.modelName);
      chip.setAttribute("aria-pressed", String(isOn));
      chip.classList.toggle("mp-on", isOn);
    }
  };
  const load = () => {
    place.replaceChildren();
    if (!team.value) return;
    const address = place.dataset.address.replace("/teams/0/", `/teams/${team.value}/`);
    window.htmx.ajax("GET", address, { target: place, swap: "innerHTML" }).then(mark);
  };
  place.addEventListener("click", (event) => {
    const chip = event.target.closest("[data-model-name]");
    if (!chip) return;
    field.value = toggled(field.value, chip.dataset.modelName);
    mark();
  });
  field.addEventListener("input", mark);
  if (team.addEventListener) team.addEventListener("change", load);
  load();
}

function watchDate(place) {
  const show = () => {
    const chosen = document.querySelector("[name=life]:checked");
    place.hidden = !chosen || chosen.value !== "date";
  };
  document.addEventListener("change", show);
  show();
}

function guardSecret(done) {
  const ask = (event) => event.preventDefault();
  window.addEventListener("beforeunload", ask);
  done.addEventListener("click", () => window.removeEventListener("beforeunload", ask));
}

function fillCurl(place) {
  document.addEventListener("htmx:afterSwap", (event) => {
    if (!place.contains(event.detail.target)) return;
    for (const code of place.querySelectorAll("[data-curl] code")) {
      code.textContent = withSecret(code.textContent, place.dataset.secret);
      const button = code.closest("[data-curl]").querySelector("[data-copy]");
      if (button) button.dataset.copy = code.textContent;
    }
  });
}

/** Open and close dialogs by the buttons that name them. */
function watchDialogs() {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens).showModal();
    const closer = event.target.closest("[data-closes]");
    if (closer) document.getElementById(closer.dataset.closes).close();
  });
}

if (typeof document !== "undefined") {
  watchDialogs();
  const start = (id, watch) => {
    const place = document.getElementById(id);
    if (place) watch(place);
  };
  start("team-models", watchModels);
  start("own-date", watchDate);
  start("key-is-stored", guardSecret);
  start("issued-curl", fillCurl);
}

if (typeof module !== "undefined") module.exports = { namesIn, toggled, withSecret };

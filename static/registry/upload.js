// The upload page: sends the form to the upload door, shows how far it is, then follows the
// version until its verdict is known and goes to its page.
"use strict";

(() => {
  const form = document.getElementById("upload-form");
  if (!form) return;
  const bar = document.getElementById("upload-progress");
  const status = document.getElementById("upload-status");
  const button = form.querySelector("button[type=submit], button");
  const POLL_MS = 1000;
  const BAD = ["text-red-600", "dark:text-red-500"];
  const STAGES = { uploaded: "is uploaded and waits for its checks", validating: "is being checked" };

  const say = (words) => { status.textContent = words; };

  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

  const problemIn = (text) => {
    try {
      return JSON.parse(text);
    } catch {
      return { detail: "The server gave no answer that can be read. Try again." };
    }
  };

  // Every wrong field gets its words beside it; what belongs to no field stands below the form.
  const placeOf = (one) => {
    const name = one.pointer.split("/")[1] || "";
    return form.querySelector(`[data-error-for="${CSS.escape(name)}"]`);
  };

  const mark = (place, words) => {
    const field = form.elements[place.dataset.errorFor];
    place.textContent = words;
    place.hidden = words === "";
    if (words) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
    return field;
  };

  const clear = () => {
    for (const place of form.querySelectorAll("[data-error-for]")) mark(place, "");
    status.classList.remove(...BAD);
    say("");
  };

  const failed = (problem) => {
    const errors = problem.errors || [];
    const fields = errors.filter(placeOf).map((one) => mark(placeOf(one), one.detail));
    const loose = errors.filter((one) => !placeOf(one));
    button.disabled = false;
    bar.hidden = true;
    status.classList.add(...BAD);
    if (fields.length > 0) fields[0].focus();
    const placed = errors.some((one) => placeOf(one) && one.detail === problem.detail);
    const below = loose.map((one) => one.detail).filter((words) => words !== problem.detail);
    say([placed ? "Nothing was uploaded." : problem.detail, ...below].join(" "));
  };

  // The door checks what comes before the file before it takes the file: fields first, empty ones
  // not at all.
  const bodyOf = () => {
    const body = new FormData();
    for (const [name, value] of new FormData(form)) {
      if (typeof value === "string" && value.trim() !== "") body.append(name, value);
    }
    body.append("file", form.elements.file.files[0]);
    return body;
  };

  const pageOf = (version) => form.dataset.page
    .replace("NAME", encodeURIComponent(version.model))
    .replace("/0/", `/${version.number}/`);

  const follow = async (version) => {
    say(`${version.model} ${version.number} ${STAGES[version.state] || `is ${version.state}`}.`);
    bar.removeAttribute("value"); // how long the checks take is not known
    if (version.state === "uploaded" || version.state === "validating") {
      await new Promise((wake) => { setTimeout(wake, POLL_MS); });
      const path = new URL(version.urls.status).pathname;
      try {
        const reply = await fetch(path, { credentials: "same-origin" });
        if (reply.ok) { await follow(await reply.json()); return; }
        if (reply.status < 500) { failed(problemIn(await reply.text())); return; }
      } catch { /* the connection will come back; the upload itself is safe */ }
      await follow(version);
      return;
    }
    window.location.assign(pageOf(version));
  };

  const send = () => {
    const request = new XMLHttpRequest();
    request.open("POST", form.dataset.action);
    request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
    request.upload.addEventListener("progress", (event) => {
      if (!event.lengthComputable) return;
      bar.value = event.loaded / event.total;
      say(`${megabytes(event.loaded)} of ${megabytes(event.total)} sent.`);
    });
    request.addEventListener("load", () => {
      if (request.status !== 202) { failed(problemIn(request.responseText)); return; }
      follow(JSON.parse(request.responseText));
    });
    request.addEventListener("error", () => {
      failed({ detail: "The connection broke. Send the file again." });
    });
    request.addEventListener("abort", () => failed({ detail: "The upload was stopped." }));
    request.send(bodyOf());
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clear();
    if (!form.reportValidity()) return;
    if (form.elements.file.files[0].size === 0) {
      const detail = "The file is empty. Choose the file that your training wrote.";
      failed({ detail, errors: [{ pointer: "/file", detail }] });
      return;
    }
    button.disabled = true;
    bar.hidden = false;
    bar.value = 0;
    send();
  });
})();

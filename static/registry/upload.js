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

  const say = (words) => { status.textContent = words; };

  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

  const problemIn = (text) => {
    try {
      const problem = JSON.parse(text);
      const places = (problem.errors || []).map((one) => `${one.pointer.slice(1)}: ${one.detail}`);
      return [problem.detail, ...places.filter((one) => !one.endsWith(problem.detail))].join(" ");
    } catch {
      return "The server gave no answer that can be read. Try again.";
    }
  };

  const failed = (words) => {
    button.disabled = false;
    bar.hidden = true;
    say(words);
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
    say(`${version.model} ${version.number} is ${version.state}.`);
    if (version.state === "uploaded" || version.state === "validating") {
      await new Promise((wake) => { setTimeout(wake, POLL_MS); });
      const path = new URL(version.urls.status).pathname;
      try {
        const reply = await fetch(path, { credentials: "same-origin" });
        if (reply.ok) { await follow(await reply.json()); return; }
        if (reply.status < 500) { say(problemIn(await reply.text())); return; }
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
    request.addEventListener("error", () => failed("The connection broke. Send the file again."));
    request.addEventListener("abort", () => failed("The upload was stopped."));
    request.send(bodyOf());
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!form.reportValidity()) return;
    button.disabled = true;
    bar.hidden = false;
    bar.value = 0;
    send();
  });
})();

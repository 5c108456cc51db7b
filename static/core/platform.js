// What all our pages do in the browser: copy buttons, news, fragments that fail. No framework.
"use strict";

/** Copy a text; true when it worked. The old way serves pages that are not on https. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.setAttribute("readonly", "");
    area.style.cssText = "position:fixed;opacity:0";
    document.body.append(area);
    area.select();
    const worked = document.execCommand("copy");
    area.remove();
    return worked;
  }
}

/** Show a short message in the corner; a screen reader hears it. */
function toast(words, seconds = 6) {
  let place = document.querySelector(".mp-toasts");
  if (!place) {
    place = document.createElement("div");
    place.className = "mp-toasts";
    place.setAttribute("role", "status");
    place.setAttribute("aria-live", "polite");
    document.body.append(place);
  }
  const one = document.createElement("p");
  one.className = "mp-toast";
  one.textContent = words;
  place.append(one);
  setTimeout(() => one.remove(), seconds * 1000);
  return one;
}

/** What a fragment says when it could not be loaded. */
function failureWords(status, label) {
  if (status === 401 || status === 403) return `You may not see ${label}.`;
  if (status === 404) return `There is nothing to show for ${label}.`;
  if (status === 0) return `${label} could not be loaded: the server does not answer. It is tried again when you reload the page.`;
  return `${label} could not be loaded (error ${status}). Reload the page; if it stays, tell your operator.`;
}

if (typeof document !== "undefined") {
  // Unfold's frame has no landmark for what the page is about; a screen reader jumps to it.
  document.addEventListener("DOMContentLoaded", () => {
    const place = document.getElementById("main") || document.querySelector("body.login #page");
    if (place) place.setAttribute("role", "main");
  });
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const worked = await copyText(button.dataset.copy);
    const icon = button.querySelector(".material-symbols-outlined");
    if (worked && icon) {
      icon.textContent = "check";
      button.classList.add("mp-copied");
      setTimeout(() => { icon.textContent = "content_copy"; button.classList.remove("mp-copied"); }, 1500);
    }
    toast(worked ? "Copied." : "Copying did not work. Select the text and copy it by hand.", 2);
  });
  // On a phone the open tab may lie beyond the edge.
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelector(".mp-tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  });
  // A session that ended answers a fragment with the sign-in page: go there instead of nesting it.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const asked = event.detail.xhr.responseURL || "";
    if (asked.includes("/login/?next=")) {
      event.detail.shouldSwap = false;
      window.location.reload();
    }
  });
  for (const kind of ["htmx:responseError", "htmx:sendError"]) {
    document.addEventListener(kind, (event) => {
      const place = event.detail.target;
      if (!place || !place.classList.contains("mp-fragment")) return;
      const line = document.createElement("p");
      line.className = "mp-empty-line";
      line.setAttribute("role", "status");
      const label = place.dataset.label || "This part";
      line.textContent = failureWords(event.detail.xhr ? event.detail.xhr.status : 0, label);
      place.replaceChildren(line);
    });
  }
}

if (typeof module !== "undefined") module.exports = { failureWords };

// The bell: opens and closes its list, keeps it open over an update, and says what is new.
"use strict";

const NEWEST = "mp-bell-newest";

/** Which of the shown news came after the newest that this tab has seen; none on the first look. */
function unseen(shown, newest) {
  if (newest === null) return [];
  return shown.filter((one) => one.isUnread && one.id > newest);
}

/** What is said of news: the title of one, else how many. */
function newsWords(titles) {
  return titles.length === 1 ? titles[0] : `${titles.length} new notifications`;
}

if (typeof document !== "undefined") {
  const bell = () => document.getElementById("mp-bell");
  const isOpen = () => Boolean(bell()?.querySelector("[aria-expanded='true']"));

  const setOpen = (open) => {
    const button = bell()?.querySelector("[aria-expanded]");
    if (!button) return;
    button.setAttribute("aria-expanded", String(open));
    bell().querySelector(".mp-bell-list").hidden = !open;
  };

  const announce = () => {
    const shown = [...bell().querySelectorAll("[data-notification]")].map((item) => ({
      id: Number(item.dataset.notification),
      isUnread: item.dataset.unread === "1",
      title: item.querySelector(".mp-bell-title").textContent,
    }));
    const kept = sessionStorage.getItem(NEWEST);
    const fresh = unseen(shown, kept === null ? null : Number(kept));
    if (fresh.length) toast(newsWords(fresh.map((one) => one.title)));
    sessionStorage.setItem(NEWEST, String(Math.max(0, Number(kept), ...shown.map((one) => one.id))));
    const place = document.getElementById("mp-bell-news");
    const words = bell().querySelector("[aria-expanded]")?.getAttribute("aria-label") || "";
    // The first look only tells where things stand; a change is said.
    if (place && place.dataset.said !== undefined && place.dataset.said !== words) place.textContent = words;
    if (place) place.dataset.said = words;
  };

  document.addEventListener("click", (event) => {
    if (event.target.closest("#mp-bell [aria-expanded]")) setOpen(!isOpen());
    else if (isOpen() && !event.target.closest("#mp-bell")) setOpen(false);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !isOpen()) return;
    setOpen(false);
    bell().querySelector("[aria-expanded]").focus();
  });

  let wasOpen = false;
  let hadFocus = false;
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target !== bell()) return;
    wasOpen = isOpen();
    hadFocus = bell().contains(document.activeElement);
  });
  document.addEventListener("htmx:afterSwap", () => {
    const fresh = bell();
    if (!fresh || fresh.dataset.mark === undefined || fresh.dataset.drawn) return;
    fresh.dataset.drawn = "1";
    if (wasOpen) setOpen(true);
    if (hadFocus) fresh.querySelector("[aria-expanded]").focus();
    announce();
  });
}

if (typeof module !== "undefined") module.exports = { unseen, newsWords };

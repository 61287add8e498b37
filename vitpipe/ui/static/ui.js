// Every page works without this. It brings what is drawn into view, and keeps a page with a running run up to date.
"use strict";

function centre() {
  for (const picture of document.querySelectorAll(".picture")) {
    const start = picture.querySelector(".start");
    if (!start) continue;
    const box = start.getBoundingClientRect(), frame = picture.getBoundingClientRect();
    picture.scrollLeft += box.left + box.width / 2 - frame.left - frame.width / 2;
  }
}

async function renew() {
  const old = document.querySelector("[data-live]");
  if (!old) return;
  try {
    if (document.visibilityState === "visible") {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-renew]");
      if (answer.ok && fresh && fresh.innerHTML !== old.innerHTML) {
        const focused = document.activeElement && document.activeElement.getAttribute("href");
        const scrolled = [...old.querySelectorAll(".scroll, .picture")].map((box) => box.scrollLeft);
        const opened = [...old.querySelectorAll("details")].map((one) => one.open);
        old.replaceWith(fresh);
        fresh.querySelectorAll(".scroll, .picture").forEach((box, place) => { box.scrollLeft = scrolled[place] || 0; });
        fresh.querySelectorAll("details").forEach((one, place) => { one.open = opened[place] || one.open; });
        if (focused) fresh.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
      }
    }
  } catch { /* the server is away: tried again */ }
  setTimeout(renew, 3000);
}

centre();
setTimeout(renew, 3000);

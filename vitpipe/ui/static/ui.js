// Every page works without this script. It centres pictures, copies ids and commands, and renews a page while a run is
// running.
"use strict";

function centre() {
  for (const picture of document.querySelectorAll(".picture")) {
    const start = picture.querySelector(".start, .running");
    if (!start) continue;
    const box = start.getBoundingClientRect(), frame = picture.getBoundingClientRect();
    picture.scrollLeft += box.left + box.width / 2 - frame.left - frame.width / 2;
  }
}

async function renew() {
  const old = document.querySelector("[data-live]");
  if (!old) return;
  try {
    const selected = !getSelection().isCollapsed; // a renewal would remove the selection
    if (document.visibilityState === "visible" && !selected) {
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
  } catch { /* the server does not answer: the next renewal tries again */ }
  setTimeout(renew, 3000);
}

if (navigator.clipboard) { // browsers provide it on this machine and over HTTPS
  document.documentElement.classList.add("copies");
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

centre();
setTimeout(renew, 3000);

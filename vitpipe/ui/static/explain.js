// Sends an image, and shows the answer in a frame that can neither read this page nor ask anyone.
"use strict";

const form = document.getElementById("ask"), told = document.getElementById("told");
const frame = document.getElementById("answer"), alone = document.getElementById("alone");
let last = null; // the image, for another model
let asking = false;

function tell(text, problem) {
  told.textContent = text;
  told.className = problem ? "note" : "soft";
}

async function ask(file) {
  if (asking) return tell("The image before is still looked at: try again when its answer is there.", true);
  frame.hidden = alone.hidden = true;
  if (!file) return tell("That was no file: drop, paste or choose a PNG or JPEG image.", true);
  if (file.size > form.dataset.most) {
    return tell(`${file.name} is larger than ${form.dataset.most / 2 ** 20} MiB: choose a smaller image, or run vitpipe explain.`, true);
  }
  asking = true;
  last = file;
  form.setAttribute("aria-busy", "true");
  tell(`Looking at ${file.name}. The first image also loads the model, which takes some seconds.`);
  try {
    const answer = await fetch(`${form.dataset.url}?model=${encodeURIComponent(form.elements.model.value)}`, {
      method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file,
    });
    if (answer.ok) {
      frame.src = alone.firstElementChild.href = answer.headers.get("Location");
      frame.hidden = alone.hidden = false;
      tell(`The answer to ${file.name} is below.`);
    } else {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      tell(page.querySelector(".note")?.textContent ?? `The server answered ${answer.status}: try again.`, true);
    }
  } catch {
    tell("The server does not answer: is vitpipe ui still running? Then try again.", true);
  }
  asking = false;
  form.removeAttribute("aria-busy");
}

if (form) {
  const dragging = (on) => document.body.classList.toggle("dragging", on);
  form.addEventListener("submit", (event) => event.preventDefault());
  const given = (files) => { form.elements.image.files = files; ask(files[0]); }; // so that its name is seen
  form.elements.image.addEventListener("click", (event) => { event.target.value = ""; }); // to choose the same again
  form.elements.image.addEventListener("change", (event) => { if (event.target.files.length) ask(event.target.files[0]); });
  form.elements.model.addEventListener("change", () => { if (last) ask(last); });
  frame.addEventListener("load", () => frame.focus()); // its keys move through blocks and heads
  addEventListener("paste", (event) => given(event.clipboardData.files));
  addEventListener("dragover", (event) => { event.preventDefault(); dragging(true); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) dragging(false); });
  addEventListener("drop", (event) => { event.preventDefault(); dragging(false); given(event.dataTransfer.files); });
}

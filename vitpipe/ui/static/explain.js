// Sends an image to the server and shows the answer in a sandboxed frame, which can neither read this page nor send
// requests.
"use strict";

const form = document.getElementById("ask"), status = document.getElementById("status");
const frame = document.getElementById("answer"), alone = document.getElementById("alone");
let last = null; // the newest image, which is sent again when another model is chosen
let asking = false;

function tell(text, problem) {
  status.textContent = text;
  status.className = problem ? "note" : "soft";
}

async function ask(file) {
  if (asking) return tell("The previous image is still being explained. Try again when its answer is shown.", true);
  frame.hidden = alone.hidden = true;
  if (!file) return tell("That is not a file. Drop, paste or choose a PNG or JPEG image.", true);
  if (file.size > form.dataset.most) {
    return tell(`${file.name} is larger than ${form.dataset.most / 2 ** 20} MiB. Choose a smaller image, or run vitpipe explain.`, true);
  }
  asking = true;
  last = file;
  form.setAttribute("aria-busy", "true");
  tell(`Explaining ${file.name}. The first image takes some seconds longer, because the model is loaded.`);
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
      tell(page.querySelector(".note")?.textContent ?? `The server answered with status ${answer.status}. Try again.`, true);
    }
  } catch {
    tell("The server does not answer. Check that vitpipe ui is running, then try again.", true);
  }
  asking = false;
  form.removeAttribute("aria-busy");
}

if (form) {
  const dragging = (on) => document.body.classList.toggle("dragging", on);
  form.addEventListener("submit", (event) => event.preventDefault());
  const send = (files) => { form.elements.image.files = files; ask(files[0]); }; // the input shows the file's name
  form.elements.image.addEventListener("click", (event) => { event.target.value = ""; }); // the same file can be chosen again
  form.elements.image.addEventListener("change", (event) => { if (event.target.files.length) ask(event.target.files[0]); });
  form.elements.model.addEventListener("change", () => { if (last) ask(last); });
  frame.addEventListener("load", () => frame.focus()); // arrow keys in the frame move through blocks and heads
  addEventListener("paste", (event) => send(event.clipboardData.files));
  addEventListener("dragover", (event) => { event.preventDefault(); dragging(true); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) dragging(false); });
  addEventListener("drop", (event) => { event.preventDefault(); dragging(false); send(event.dataTransfer.files); });
}

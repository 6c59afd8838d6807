// Every page works without this file. With it, commands are copied by a button, and a form that
// changes something is sent once.
"use strict";

if (navigator.clipboard) {
  for (const block of document.querySelectorAll("pre.command, pre[data-copy]")) {
    const text = block.textContent.trim();
    const button = document.createElement("button");
    const said = document.createElement("span");
    button.type = "button";
    button.className = "quiet copy";
    button.textContent = "Copy";
    said.className = "hidden";
    said.setAttribute("role", "status");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = said.textContent = "Copied";
      } catch {
        button.textContent = said.textContent = "Select the text, and copy it yourself";
      }
    });
    block.after(button, said);
  }
}

for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "1";
    form.setAttribute("aria-busy", "true");
  });
}

// the browser's way back shows the page as it was left
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    form.removeAttribute("aria-busy");
  }
});

// Every page works without this file.
"use strict";

// One box in the head of a table of boxes ticks them all.
for (const table of document.querySelectorAll("form table")) {
  const boxes = [...table.querySelectorAll("tbody input[type=checkbox][name=id]")];
  const head = table.querySelector("thead th:first-child");
  if (!boxes.length || !head) continue;
  const all = document.createElement("input");
  all.type = "checkbox";
  all.setAttribute("aria-label", "All of this page");
  all.addEventListener("change", () => boxes.forEach((box) => { box.checked = all.checked; }));
  head.replaceChildren(all);
}

// A second press of a confirming button sends nothing more.
for (const form of document.querySelectorAll("form.confirm")) {
  form.addEventListener("submit", () => {
    const button = form.querySelector("button[type=submit]");
    if (button) setTimeout(() => { button.disabled = true; }, 0);
  });
}

// Numbers of the page, renewed every ten seconds while somebody looks at it. Without this file the page renews itself every 30 s.
"use strict";
(() => {
  const EVERY = 10_000;
  const at = document.getElementById("live-at");
  const shown = [...document.querySelectorAll("[data-live]")];
  if (!at) return;
  let timer = null;
  let known = null;

  const find = (tree, path) => path.split(".").reduce((node, name) => (node == null ? node : node[name]), tree);
  const said = (value) => (typeof value === "number" ? value.toLocaleString("en-US") : String(value));

  const renew = (tree) => {
    for (const place of shown) {
      const value = find(tree, place.dataset.live);
      if (value !== undefined && value !== null) place.textContent = said(value);
    }
    const moment = new Date(tree.at);
    at.firstChild.textContent =
      `As of ${moment.toISOString().slice(0, 19).replace("T", " ")} UTC` +
      (tree.answering ? ". " : "; the database does not answer. ");
  };

  const ask = async () => {
    try {
      const answer = await fetch("/live.json", { headers: known ? { "If-None-Match": known } : {} });
      if (answer.status === 200) {
        known = answer.headers.get("ETag");
        renew(await answer.json());
      }
    } catch {
      // the next one may come through
    }
  };

  const look = () => {
    clearInterval(timer);
    timer = null;
    if (!document.hidden) {
      ask();
      timer = setInterval(ask, EVERY);
    }
  };

  document.addEventListener("visibilitychange", look);
  timer = setInterval(ask, EVERY);
})();

// Refreshes the live monitor. Without it, the page is complete but not updated.
"use strict";

(() => {
  const root = document.getElementById("videojobs-monitor");
  const button = root.querySelector("[data-pause-button]");
  const age = root.querySelector("[data-age]");
  const trouble = root.querySelector("[data-trouble]");
  const login = root.querySelector("[data-login]");
  const every = Number(root.dataset.refresh) * 1000;
  const slowest = 60000;
  const patience = 20000;

  // One request at a time: the timer starts after a response or a failure.
  let timer = 0;
  let looking = null;
  let failures = 0;
  let paused = false;
  let ended = false;
  let updated = new Date();

  // The time of the data in the site's time zone and format, which may differ from the browser's.
  let time = root.dataset.time;
  const setText = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };

  function show(data) {
    for (const node of root.querySelectorAll("[data-text]")) {
      const text = data.texts[node.dataset.text];
      if (text !== undefined) setText(node, text);
    }
    for (const node of root.querySelectorAll("[data-figure]")) {
      node.toggleAttribute("data-zero", data.zeros.includes(node.dataset.figure));
    }
    for (const link of root.querySelectorAll("a[data-query]")) {
      link.search = data.queries[link.dataset.query] ?? link.search;
    }
    for (const node of root.querySelectorAll("[data-part]")) {
      const html = data.parts[node.dataset.part];
      if (html === undefined || node.shown === html) continue;
      // Safe: the server renders this HTML from numbers, times and its own escaped texts. It contains
      // no text of callers or the provider.
      node.innerHTML = html;
      node.shown = html;
    }
  }

  function showStatus() {
    const seconds = Math.max(0, Math.round((Date.now() - updated) / 1000));
    const fresh = !paused && !ended && !failures;
    setText(age, fresh ? root.dataset.fresh.replace("%s", seconds) : "");
    const why = ended ? "ended" : paused ? "paused" : "failed";
    setText(trouble, fresh ? "" : root.dataset[why].replace("%s", time));
  }

  function plan() {
    clearTimeout(timer);
    if (paused || ended || document.hidden) return;
    timer = setTimeout(look, Math.min(every * 2 ** failures, slowest));
  }

  async function look() {
    clearTimeout(timer);
    if (looking || paused || ended || document.hidden) return;
    looking = new AbortController();
    const tooLong = setTimeout(() => looking.abort(), patience);
    try {
      const answer = await fetch(root.dataset.url, {
        cache: "no-store",
        headers: { Accept: "application/json" },
        // Without a session, Django redirects to the login page.
        redirect: "manual",
        signal: looking.signal,
      });
      if (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403) {
        ended = true;
        button.hidden = true;
        login.hidden = false;
      } else if (!answer.ok) {
        throw new Error(answer.status);
      } else {
        const data = await answer.json();
        show(data);
        time = data.time;
        updated = new Date();
        failures = 0;
      }
    } catch {
      failures += 1;
    } finally {
      clearTimeout(tooLong);
      looking = null;
      showStatus();
      plan();
    }
  }

  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? root.dataset.resume : root.dataset.pause;
    showStatus();
    if (paused) clearTimeout(timer);
    else look();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else look();
  });
  setInterval(showStatus, 1000);
  button.hidden = false;
  showStatus();
  plan();
})();

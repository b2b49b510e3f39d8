// Refreshes the page and searches without leaving it. The server makes every part; this swaps the parts that have
// changed, and keeps what a reader is doing: focus, selection, open details, the word being typed.
"use strict";
(() => {
  const REFRESH_MS = 5000;
  const TYPING_MS = 200;
  const PARTS = ["verdict", "taken", "glance", "found", "table"];
  const form = document.getElementById("search");
  const stale = document.getElementById("stale");
  let running = null;
  let timer = 0;
  let answered = new Date();

  document.documentElement.classList.add("scripted");

  async function refresh() {
    clearTimeout(timer);
    running?.abort();
    const mine = (running = new AbortController());
    const giveUp = setTimeout(() => mine.abort(), 2 * REFRESH_MS);
    try {
      const answer = await fetch(location.pathname + location.search, { signal: mine.signal, cache: "no-store" });
      if (answer.redirected) return location.reload();
      if (!answer.ok) throw new Error(String(answer.status));
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      answered = new Date();
      stale.hidden = true;
    } catch {
      if (running !== mine) return;
      stale.textContent =
        `gatewayd has not answered since ${answered.toLocaleTimeString()}, so this page is old. ` +
        "It may be restarting; systemctl status gatewayd and its log say more.";
      stale.hidden = false;
    } finally {
      clearTimeout(giveUp);
      if (running === mine) timer = setTimeout(tick, REFRESH_MS);
    }
  }

  function tick() {
    if (document.hidden) timer = setTimeout(tick, REFRESH_MS);
    else refresh();
  }

  function show(fresh) {
    const focused = document.activeElement?.id;
    const selection = getSelection();
    for (const id of PARTS) {
      const now = document.getElementById(id);
      const next = fresh.getElementById(id);
      if (!now || !next || now.outerHTML === next.outerHTML) continue;
      if (selection && !selection.isCollapsed && now.contains(selection.anchorNode)) continue;
      const open = [...now.querySelectorAll("details[open]")].map((one) => one.id);
      now.replaceWith(document.adoptNode(next));
      for (const one of open) document.getElementById(one)?.setAttribute("open", "");
    }
    if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus();
  }

  function go(search, { replace = false } = {}) {
    const url = location.pathname + search;
    if (replace) history.replaceState(null, "", url);
    else history.pushState(null, "", url);
    refresh();
  }

  function fill() {
    const words = new URLSearchParams(location.search);
    form.elements.search.value = words.get("search") ?? "";
    form.elements.state.value = words.get("state") ?? "";
  }

  function ask(options) {
    const words = new URLSearchParams(location.search);
    words.delete("offset");
    for (const name of ["search", "state"]) {
      const value = form.elements[name].value.trim();
      if (value) words.set(name, value);
      else words.delete(name);
    }
    go(words.size ? `?${words}` : "", options);
  }

  let typing = 0;
  form.addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => ask({ replace: true }), event.target.name === "search" ? TYPING_MS : 0);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask({ replace: true });
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("main a[href^='?']");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(new URL(link.href).search);
    fill();
    if (!link.closest("#table")) document.getElementById("devices").scrollIntoView();
  });
  addEventListener("popstate", () => {
    fill();
    refresh();
  });
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  timer = setTimeout(tick, REFRESH_MS);
})();

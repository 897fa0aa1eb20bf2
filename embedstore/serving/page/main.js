// Starts the page: reads the token and the store, and shows the view that the address names.

import { get, takeToken } from "./api.js";
import { browseView } from "./browse.js";
import { el, iconButton, problem, redraw } from "./dom.js";
import { pageKeys, showKeys } from "./keyboard.js";
import { canUndo, go, linkTo, listen, redo, start, state, undo } from "./state.js";

const NAMES = { search: "Search", teach: "Teach", map: "Map", head: "Heads" };

const main = document.getElementById("main");
const views = {};

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  (document.getElementById("results") ?? main).focus();
});

function tabs(now) {
  const place = document.getElementById("tabs");
  redraw(place, () => place.replaceChildren(...Object.entries(NAMES).map(([view, text]) =>
    el("a", { class: "tab", ...linkTo({ view }), text, "aria-current": view === now.view ? "page" : null }))));
}

function tools() {
  const back = iconButton("undo", "Undo (Ctrl Z)", undo);
  const forward = iconButton("redo", "Redo (Ctrl Shift Z)", redo);
  document.getElementById("tools").replaceChildren(back, forward, iconButton("keys", "Keys (?)", showKeys));
  return () => { back.disabled = !canUndo(); };
}

/** The view of that name; the map and the heads are loaded when they are first looked at. */
async function viewOf(name, store, reload) {
  if (name === "teach") return viewOf("search", store, reload);
  if (!views[name]) {
    if (name === "search") views.search = browseView(store, reload);
    else if (name === "map") views.map = (await import("./map.js")).mapView(store);
    else views.head = (await import("./head.js")).headView(store);
  }
  return views[name];
}

/** Reads the store anew until it has the head that was just saved; a server follows its store within seconds. */
async function readAgain(store, head) {
  for (let turn = 0; turn < 20; turn += 1) {
    Object.assign(store, await get("/v1/store"));
    if (store.heads.some(({ name }) => name === head)) return;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

async function run(store) {
  document.getElementById("store-name").textContent = store.name;
  document.title = `${store.name} · embedstore`;
  const reload = async (head) => {
    await readAgain(store, head);
    views.search.refresh();
  };
  const refreshTools = tools();
  let latest = 0;

  async function show(now, before) {
    const turn = ++latest;
    tabs(now);
    refreshTools();
    try {
      const view = await viewOf(now.view, store, reload);
      if (turn !== latest) return;
      if (main.firstElementChild !== view.element) main.replaceChildren(view.element);
      await view.show(now, before);
    } catch (error) {
      main.replaceChildren(problem(error, () => location.reload()));
    }
  }

  pageKeys(async () => {
    const box = document.getElementById("words");
    if (box?.offsetParent) { // on the page: at once, so that what is typed next goes into it
      box.focus();
      box.select();
      return;
    }
    if (state().view !== "search" && state().view !== "teach") go({ view: "search" });
    const view = await viewOf("search", store, reload);
    requestAnimationFrame(() => { view.input.focus(); view.input.select(); });
  });
  listen(show);
  start();
}

takeToken();
get("/v1/store").then(run, (error) => main.replaceChildren(problem(error, () => location.reload())));

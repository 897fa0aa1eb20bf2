// Search and Teach: the box, the facets, the line that says how the answer was made, and the grid.

import { answer, canTeach } from "./ask.js";
import { card } from "./cards.js";
import { announce, button, el, milliseconds, nothing, plural, problem, redraw } from "./dom.js";
import { askFacets, facetPanel, filterChips } from "./facets.js";
import { gridKeys, leadsTo, refocus } from "./keyboard.js";
import { searchBar } from "./searchbar.js";
import { go, state } from "./state.js";
import { teachPanel } from "./teach.js";

const STEP = 48;
const PARTS = [["encode", "encode"], ["search", "search"], ["fit", "fit"], ["rank", "rank"], ["rerank", "re-rank"], ["fetch", "fetch"]];

function latency(took) {
  const parts = PARTS.filter(([key]) => took[key] >= 0.05);
  const bar = el("span", { class: "split", "aria-hidden": "true" }, parts.map(([key]) => {
    const part = el("span", { class: `split-${key}` });
    part.style.setProperty("flex-grow", String(took[key]));
    return part;
  }));
  const said = parts.map(([key, text]) => `${text} ${milliseconds(took[key])}`).join(" · ");
  return el("span", { class: "latency", title: said }, el("b", { text: milliseconds(took.total) }), parts.length ? bar : null, el("span", { class: "muted split-said", text: said }));
}

function badge(index) {
  if (!index) return null;
  const recall = index.recall === null || index.recall === undefined ? "recall not measured" : `recall ${Number(index.recall).toFixed(3)}`;
  const where = `${index.type ?? "no index"}, generation ${index.generation ?? "–"}`;
  return index.exact ? el("span", { class: "badge badge-exact", title: where, text: "exact" })
    : el("span", { class: "badge badge-near", title: where, text: `approximate · ${recall}` });
}

const scope = (n, now) => `${plural(n, "item")}${now.filter.length ? " pass the filter" : ""}`;

function statusLine(got, now, n) {
  return [
    el("span", { text: n === null ? `${plural(got.results.length, "result")} shown` : scope(n, now) }),
    got.took_ms ? latency(got.took_ms) : null,
    badge(got.index),
    got.fingerprint ? el("span", { class: "muted origin", title: `What answered, and the fingerprint of its encoder: ${got.fingerprint}`, text: `${got.space ?? ""} · ${got.fingerprint.split(" + ").map((one) => one.slice(0, 16)).join(" + ")}` }) : null,
  ].filter(Boolean);
}

const keyOf = (now) => JSON.stringify([now.view, now.q, now.id, now.picture, now.pos, now.neg, now.space, now.weights, now.filter, now.head, now.exact, now.fold, now.diversity, now.min, now.view === "teach" ? [now.classes, now.rank] : 0]);

function skeleton() {
  return Array.from({ length: 12 }, () => el("li", { class: "card card-loading", "aria-hidden": "true" }));
}

function noResults(now) {
  if (now.filter.length) return nothing("Nothing passes.", "Lift a filter, or lower the lowest score in the options.");
  return nothing("Nothing is found.", now.min ? "Lower the lowest score in the options." : "The store has no item for this question.");
}

/** Gives the new cards the pictures that are already loaded, so that a grid ranked anew does not flicker. */
function keepPictures(grid, cards) {
  const loaded = new Map([...grid.querySelectorAll(".card-main > img")].filter((img) => img.complete).map((img) => [img.closest(".card").dataset.id, img]));
  for (const one of cards) {
    const img = loaded.get(one.dataset.id);
    if (img) one.querySelector(".card-main > img")?.replaceWith(img);
  }
}

/** The view: {element, input, show(state)}. */
export function browseView(store, storeChanged) {
  const bar = searchBar(store);
  const facets = facetPanel();
  const teach = teachPanel(store, storeChanged);
  const chips = el("ul", { class: "tokens filters", "aria-label": "Filters" });
  const line = el("p", { class: "status" });
  const grid = el("ul", { class: "grid", id: "results", tabindex: "-1", "aria-label": "Results" });
  const tail = el("div", { class: "tail" });
  const results = el("section", { class: "results" }, teach.element, chips, line, grid, tail);
  const element = el("div", { class: "browse" }, bar.element, el("div", { class: "columns" }, facets.element, results));
  gridKeys(grid, bar.input);
  leadsTo(bar.input, grid);
  gridKeys(teach.strip, bar.input);

  let leaving = new AbortController();
  let asked = ""; // what is shown, or on its way
  let shown = { key: "", items: [], full: false, n: null };
  let faceted = "";
  let passing = { key: "", n: null };
  const counted = (now) => (passing.key === JSON.stringify(now.filter) ? passing.n : null);

  async function load(now, { offset = 0, k = now.k } = {}) {
    leaving.abort();
    leaving = new AbortController();
    asked = keyOf(now);
    const { signal } = leaving;
    const slow = setTimeout(() => { if (!signal.aborted && !offset) (shown.items.length ? grid.classList.add("busy") : grid.replaceChildren(...skeleton())); }, 120);
    tail.replaceChildren();
    try {
      const got = await answer(now, { offset, k, signal });
      take(now, got, offset, k);
    } catch (error) {
      if (error.name === "AbortError") return;
      fail(error, offset, () => load(now, { offset, k }));
    } finally {
      clearTimeout(slow);
      if (!signal.aborted) grid.classList.remove("busy");
    }
  }

  function take(now, got, offset, k) {
    shown = { key: keyOf(now), items: offset ? [...shown.items, ...got.results] : got.results, full: got.results.length >= k, n: got.n ?? got.total ?? (offset ? shown.n : counted(now)) };
    draw(now, offset);
    line.replaceChildren(...statusLine(got, now, shown.n));
    if (!offset) teach.answered(now, got);
    announce(shown.items.length ? `${plural(shown.items.length, "result")} shown` : "Nothing is found.");
    if (!performance.getEntriesByName("first-results").length) performance.mark("first-results");
  }

  function draw(now, from = 0) {
    const teaching = now.view === "teach";
    const cards = shown.items.slice(from).map((item, at) => card(item, { teaching, first: from + at === 0 }));
    if (from) grid.append(...cards);
    else refocus(grid, () => { keepPictures(grid, cards); grid.replaceChildren(...cards); });
    if (!shown.items.length) tail.replaceChildren(noResults(now));
    else if (shown.full) tail.replaceChildren(button("Show more", () => showMore()));
  }

  function showMore() {
    const offset = shown.items.length;
    go({ k: Math.min(1000, offset + STEP) }, { replace: true });
    load(state(), { offset, k: STEP });
  }

  /** Says what went wrong; what was shown before `offset` stays. */
  function fail(error, offset, again) {
    if (!offset) {
      asked = "";
      shown = { key: "", items: [], full: false, n: null };
      grid.replaceChildren();
      line.replaceChildren();
    }
    tail.replaceChildren(problem(error, again));
  }

  /** Lets an answer that is on its way go: its question was taken back, and what is shown is asked for again. */
  function stay(now) {
    leaving.abort();
    asked = shown.key;
    grid.classList.remove("busy");
    draw(now);
  }

  async function loadFacets(now) {
    const key = JSON.stringify(now.filter);
    if (faceted === key) return;
    faceted = key;
    try {
      const got = await askFacets(now.filter);
      if (faceted !== key) return;
      passing = { key, n: got.n };
      facets.update(got, now.filter);
      if (got.n !== null && shown.n === null) {
        shown.n = got.n;
        if (line.firstChild) line.firstChild.textContent = scope(shown.n, now);
      }
    } catch (error) {
      if (faceted !== key) return;
      faceted = "";
      facets.element.lastChild.replaceChildren(problem(error, () => loadFacets(state())));
    }
  }

  function show(now, before) {
    const teaching = now.view === "teach";
    element.classList.toggle("teaching", teaching);
    bar.update(now);
    redraw(chips, () => chips.replaceChildren(...filterChips(now.filter)), bar.input);
    teach.show(now, canTeach(now));
    loadFacets(now);
    if (before && (before.q !== now.q || before.id !== now.id || before.picture !== now.picture)) window.scrollTo({ top: 0 });
    if (keyOf(now) === asked) return;
    if (keyOf(now) === shown.key) stay(now);
    else load(now);
  }

  /** After the store changed: its heads are offered, and the results asked for again. */
  function refresh() {
    faceted = "";
    bar.update(state());
    loadFacets(state());
  }

  return { element, input: bar.input, show, refresh };
}

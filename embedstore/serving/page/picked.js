// What was chosen on the map: how many of which class, the items as a grid, a CSV of their ids, and a label for all of them.

import { post } from "./api.js";
import { remark, shownClass, smallCard } from "./cards.js";
import { announce, button, count, csv, decimal, download, el, iconButton, plural, problem, select } from "./dom.js";
import { linkTo, markAs, state } from "./state.js";
import { colourOf } from "./palette.js";

const SHOWN = 60;
const BATCH = 1000;
const MOST_LABELLED = 500;

/** Wilson's 95 % interval of `k` among `n`. */
export function wilson(k, n) {
  const z = 1.96;
  const p = k / n;
  const middle = (p + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

/** How many of which class (`counts` by slot); of a head's errors the share that is wrong. */
function composition(counts, legend) {
  if (legend.error) {
    const wrong = counts[1];
    const known = wrong + counts[0];
    if (!known) return null;
    const [low, high] = wilson(wrong, known);
    return el("p", { class: "muted", text: `${count(wrong)} of ${count(known)} wrong: ${decimal(wrong / known, 2)} [${decimal(low, 2)}, ${decimal(high, 2)}]` });
  }
  const largest = legend.entries.filter(({ slot }) => counts[slot]).sort((a, b) => counts[b.slot] - counts[a.slot]).slice(0, 6);
  return el("ul", { class: "picked-classes" }, largest.map(({ slot, name }) => {
    const dot = el("span", { class: "dot" });
    dot.style.setProperty("background-color", colourOf(slot, legend.error));
    return el("li", {}, dot, el("span", { class: "legend-name", text: name }), el("span", { class: "muted", text: count(counts[slot]) }));
  }));
}

/** The panel: {element, show(key, rows, counts, legend), update(), clear()}; `outdated(error)` sees to a map that is no longer there. */
export function pickedPanel(cleared, outdated) {
  const element = el("aside", { class: "picked", "aria-label": "Selection", hidden: true });
  let current = null;
  const named = () => JSON.stringify(state().classes.map(([name]) => name));

  async function items({ key, rows }, from, to) {
    return post("/v1/map/items", { key, rows: [...rows.subarray(from, to)] });
  }

  async function ids(selection, most, told) {
    const found = [];
    for (let from = 0; from < Math.min(most, selection.rows.length); from += BATCH) {
      told?.(from);
      found.push(...(await items(selection, from, Math.min(most, from + BATCH))).ids);
    }
    return found;
  }

  async function guarded(said, does) {
    const mine = current;
    try {
      await does();
    } catch (error) {
      if (mine === current && !outdated(error)) said.replaceChildren(problem(error));
    }
  }

  function listing(selection, said) {
    const list = el("ul", { class: "picked-grid", "aria-label": "Selected items" });
    const more = el("div", { class: "tail" });
    const next = () => guarded(said, async () => {
      const from = list.childElementCount;
      const got = await items(selection, from, from + SHOWN);
      if (selection !== current) return;
      list.append(...got.items.map((item) => smallCard({ score: null, ...item })));
      more.replaceChildren(...(list.childElementCount < selection.rows.length ? [button("Show more", next)] : []));
    });
    next();
    return [list, more];
  }

  function labelling(selection, said) {
    const names = state().classes.map(([name]) => [name, shownClass(name)]);
    const chooser = select("Class", names, names[0][0], () => {});
    const go = button("Label", () => guarded(said, async () => {
      const chosen = await ids(selection, MOST_LABELLED);
      markAs(chooser.value, chosen.length === 1 ? [chosen[0], chosen[0]] : chosen);
      said.replaceChildren(`${plural(chosen.length, "item")} marked ${shownClass(chooser.value)}${selection.rows.length > MOST_LABELLED ? ` (the first ${MOST_LABELLED})` : ""}. `,
        el("a", { ...linkTo({ view: "teach" }), text: "Go on in Teach" }));
      announce(`${chosen.length} items marked`);
    }));
    return el("div", { class: "row" }, el("span", { text: "Label as" }), chooser, go);
  }

  function show(key, rows, counts, legend) {
    current = { key, rows, counts, legend, classes: named() };
    const selection = current;
    const said = el("p", { class: "save-said", role: "status" });
    const save = button("CSV of ids", () => guarded(said, async () => {
      const all = await ids(selection, Infinity, (done) => said.replaceChildren(`${count(done)} of ${count(rows.length)}…`));
      said.replaceChildren(`${plural(all.length, "id")} saved.`);
      download("selection.csv", csv([["id"], ...all.map((id) => [id])]));
    }));
    element.replaceChildren(
      el("header", { class: "picked-head" }, el("h2", { text: `${plural(rows.length, "item")} selected` }), iconButton("close", "Clear the selection (Esc)", cleared)),
      composition(counts, legend) ?? "",
      el("div", { class: "row" }, save), labelling(selection, said), said, ...(rows.length ? listing(selection, said) : []));
    element.hidden = false;
    announce(`${rows.length} items selected`);
  }

  /** After the marks changed. */
  function update() {
    if (!current) return;
    const { key, rows, counts, legend, classes } = current;
    if (classes === named()) remark(element);
    else show(key, rows, counts, legend);
  }

  function clear() {
    current = null;
    element.hidden = true;
    element.replaceChildren();
  }

  return { element, show, update, clear };
}

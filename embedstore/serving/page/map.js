// The map of a space: its points, coloured by a column, a head's prediction or its errors; hover, lasso, legend.

import { bytesWhenReady, getWhenReady, post } from "./api.js";
import { Cloud } from "./cloud.js";
import { openDetails } from "./details.js";
import { announce, button, count, el, iconButton, plural, problem, redraw, select, setOptions, svg } from "./dom.js";
import { face, nameOf } from "./face.js";
import { listenToHands } from "./gestures.js";
import { PICKED, colourOf, legendOf, paletteOf, slotsOf } from "./palette.js";
import { pickedPanel } from "./picked.js";
import { Stage } from "./stage.js";
import { go, state } from "./state.js";

const REACH = 9; // pixels from a point at which it is hovered
const NO_LEGEND = { slots: new Uint8Array(0), entries: [], error: false };

/** What a head can be coloured by: itself, or each of its targets as HEAD/TARGET; with the column that has the truth. */
function sayings({ name, target, targets }) {
  return targets.length ? targets.map((one) => [`${name}/${one}`, `${name}, ${one}`, one]) : [[name, name, target]];
}

function colourings(store) {
  const said = store.heads.flatMap(sayings);
  return [
    ["", "One colour"],
    ...store.columns.map(({ name }) => [`column:${name}`, name]),
    ...said.map(([key, text]) => [`prediction:${key}`, `${text}: prediction`]),
    ...said.filter(([, , truth]) => store.columns.some(({ name }) => name === truth)).map(([key, text]) => [`error:${key}`, `${text}: errors`]),
  ];
}

function usualColour(store) {
  const columns = store.columns.map(({ name }) => name);
  const wanted = [...store.heads.flatMap(sayings).map(([, , truth]) => truth), "label", "class", "category"].find((name) => columns.includes(name));
  return wanted ? `column:${wanted}` : "";
}

function asked(colour) {
  const [what, ...rest] = colour.split(":");
  const name = rest.join(":");
  if (what === "column") return { column: name };
  const [head, ...target] = name.split("/");
  return target.length ? { head, what, target: target.join("/") } : { head, what };
}

/** The view: {element, show(state)}. */
export function mapView(store) {
  const spaces = select("Space of the map", store.spaces.filter(({ aligned }) => !aligned).map(({ name }) => [name, name]), "", (space) => set({ space }));
  const methods = select("Projection", [["pca", "PCA"], ["umap", "UMAP"]], "pca", (method) => set({ method }));
  const colours = select("Colour by", [["", ""]], "", (colour) => set({ colour: colour || "none:" }));
  const lasso = iconButton("lasso", "Lasso (L, or hold Shift)", () => useLasso(!lassoing), { "aria-pressed": "false" });
  const bar = el("div", { class: "map-bar" },
    el("label", {}, el("span", { text: "Space" }), spaces), el("label", {}, el("span", { text: "Projection" }), methods), el("label", {}, el("span", { text: "Colour" }), colours),
    el("span", { class: "row map-tools" }, lasso, iconButton("fit", "Show all (0)", reset), button("Select what is in view", pickView, { class: "button button-plain" })));
  const outline = svg("svg", { class: "map-line", "aria-hidden": "true" });
  const tip = el("div", { class: "map-tip", hidden: true });
  const legendBox = el("ul", { class: "legend", "aria-label": "Legend" });
  const note = el("p", { class: "map-note", role: "status" });
  const host = el("div", { class: "map-stage", tabindex: "0", role: "group", "aria-label": "Map of the items. Arrows move, plus and minus zoom, 0 shows all, L is the lasso." }, outline, tip, note);
  const picked = pickedPanel(clear, outdated);
  const element = el("div", { class: "map" }, bar, el("div", { class: "map-body" }, host, el("div", { class: "map-side" }, legendBox, picked.element)));
  const stage = new Stage(host);

  let loaded = "";
  let coloured = null;
  let map = null;
  let cloud = null;
  let slots = new Uint8Array(0);
  let legend = NO_LEGEND;
  let chosen = new Uint32Array(0);
  let lassoing = false;
  let leaving = new AbortController();
  const hidden = new Set();
  const visible = (i) => !hidden.has(slots[i] & ~PICKED);
  const known = new Map();

  const set = (patch) => go({ map: { ...state().map, ...patch } });
  const settings = (now) => ({ space: now.map.space || store.spaces[0]?.name || "", method: now.map.method, colour: now.map.colour || usualColour(store) });

  listenToHands(host, {
    lassoing: () => lassoing,
    moved: (dx, dy) => { stage.eye.pan(dx, dy); stage.move(); },
    zoomed: (x, y, factor) => { stage.eye.zoomAt(x, y, factor); stage.move(); },
    hovered: hover,
    clicked: look,
    drawing: outlineOf,
    drawn: pick,
    key: (name) => {
      if (name === "0") reset();
      else if (name === "l" || name === "L") useLasso(!lassoing);
      else if (name === "Escape") clear();
      else return false;
      return true;
    },
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

  function useLasso(on) {
    lassoing = on;
    lasso.setAttribute("aria-pressed", String(on));
    host.classList.toggle("lassoing", on);
    announce(on ? "Lasso on: draw around points" : "Lasso off");
  }

  function reset() {
    stage.eye.reset(host.clientWidth, host.clientHeight);
    stage.move();
  }

  function outlineOf(line) {
    outline.replaceChildren(...(line ? [svg("polygon", { points: line.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ") })] : []));
  }

  function pick(line) {
    if (!cloud) return;
    performance.mark("lasso-start");
    choose(cloud.inside(line.map(([x, y]) => stage.eye.point(x, y)), hidden.size ? visible : null));
    performance.measure("lasso", "lasso-start");
    outlineOf(null);
    if (lassoing) useLasso(false);
  }

  function pickView() {
    const { width, height } = stage.eye;
    pick([[0, 0], [width, 0], [width, height], [0, height]]);
  }

  function choose(points) {
    for (const point of chosen) slots[point] &= ~PICKED;
    const counts = new Uint32Array(256);
    for (const point of points) {
      counts[slots[point]] += 1;
      slots[point] |= PICKED;
    }
    chosen = points;
    stage.colour(slots);
    paint();
    if (points.length) picked.show(map.key, cloud.rowsOf(points), counts, legend);
    else picked.clear();
  }

  function clear() {
    if (chosen.length) choose(new Uint32Array(0));
    outlineOf(null);
  }

  function paint() {
    stage.paint(paletteOf({ hidden, picking: chosen.length > 0, error: legend.error }));
    legendBox.replaceChildren(...legend.entries.map(({ slot, name, count: n }) => {
      const dot = el("span", { class: "dot" });
      dot.style.setProperty("background-color", colourOf(slot, legend.error));
      return el("li", {}, el("button", {
        type: "button", class: "legend-item", "aria-pressed": String(!hidden.has(slot)), title: "Show or hide; double-click shows it alone",
        on: { click: () => toggle(slot), dblclick: () => alone(slot) },
      }, dot, el("span", { class: "legend-name", text: String(name) }), el("span", { class: "muted", text: count(n) })));
    }));
  }

  function toggle(slot) {
    if (!hidden.delete(slot)) hidden.add(slot);
    redraw(legendBox, paint);
  }

  function alone(slot) {
    const only = legend.entries.every((one) => one.slot === slot || hidden.has(one.slot));
    hidden.clear();
    if (!only) for (const one of legend.entries) if (one.slot !== slot) hidden.add(one.slot);
    redraw(legendBox, paint);
  }

  async function itemAt(x, y) {
    if (!cloud || !map) return null;
    const at = cloud.nearest(...stage.eye.point(x, y), REACH / stage.eye.scale, visible);
    if (at < 0) return null;
    const row = cloud.rows[at];
    if (!known.has(row)) {
      if (known.size > 2000) known.clear();
      known.set(row, post("/v1/map/items", { key: map.key, rows: [row] }).then(({ items }) => items[0] ?? null));
      known.get(row).catch(() => known.delete(row));
    }
    return known.get(row);
  }

  /** Whether an error is of a map that the store no longer has, which is then made anew. */
  function outdated(error) {
    if (error.status !== 400) return false;
    if (loaded) { // else it is on its way
      loaded = "";
      show(state());
    }
    return true;
  }

  async function look(x, y) {
    try {
      const item = await itemAt(x, y);
      if (item) openDetails(item);
    } catch (error) {
      if (!outdated(error)) say(problem(error, () => { say(""); look(x, y); }));
    }
  }

  let hovering = 0;
  let shownTip = "";

  function hover(x, y) {
    const turn = ++hovering;
    clearTimeout(hover.wait);
    if (x === null) {
      tip.hidden = true;
      return;
    }
    hover.wait = setTimeout(async () => {
      const item = await itemAt(x, y).catch((error) => (outdated(error), null));
      if (turn !== hovering) return;
      tip.hidden = !item;
      host.classList.toggle("over-point", item !== null);
      if (item) showTip(item, x, y);
    }, 30);
  }

  function showTip(item, x, y) {
    if (shownTip !== item.id) tip.replaceChildren(el("div", { class: `tip-face card-${item.kind}` }, face(item, 128)), el("p", { text: nameOf(item) }));
    shownTip = item.id;
    const left = Math.min(x + 14, host.clientWidth - tip.offsetWidth - 8);
    const top = y + 14 + tip.offsetHeight > host.clientHeight ? y - tip.offsetHeight - 10 : y + 14;
    tip.style.setProperty("transform", `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`);
  }

  async function load({ space, method }, signal) {
    say("Projecting…");
    const told = (seconds) => say(`Computing the ${method.toUpperCase()} · ${Math.round(seconds)} s…`);
    const found = await getWhenReady("/v1/map", { space, method }, signal, told);
    const { buffer } = await bytesWhenReady("/v1/map/points", { key: found.key }, signal, told);
    performance.mark("map-columns");
    map = found;
    cloud = new Cloud(new Float32Array(buffer));
    chosen = new Uint32Array(0);
    known.clear();
    picked.clear();
    stage.load(cloud);
  }

  async function colour({ colour: by }, signal) {
    coloured = null;
    hidden.clear();
    legend = NO_LEGEND;
    slots = new Uint8Array(cloud.n);
    stage.colour(slots);
    paint(); // in one colour, whatever comes of the rest
    if (by && !by.startsWith("none")) {
      const { buffer, headers } = await bytesWhenReady("/v1/map/colour", { key: map.key, ...asked(by) }, signal, (seconds) => say(`Colouring · ${Math.round(seconds)} s…`));
      const codes = new Uint16Array(buffer);
      legend = legendOf(codes, JSON.parse(decodeURIComponent(headers.get("X-Legend") ?? "%5B%5D")).map(String));
      slots = slotsOf(codes, legend, cloud.rows);
    }
    choose(chosen); // its classes are others now
  }

  function say(text) {
    note.replaceChildren(text);
    note.hidden = !text;
  }

  async function show(now) {
    const wanted = settings(now);
    spaces.value = wanted.space;
    methods.value = wanted.method;
    setOptions(colours, colourings(store), wanted.colour.startsWith("none") ? "" : wanted.colour);
    picked.update();
    const key = JSON.stringify([wanted.space, wanted.method]);
    leaving.abort();
    if (loaded === key && coloured === wanted.colour) return stage.resize();
    leaving = new AbortController();
    const old = loaded === key;
    try {
      if (loaded !== key) {
        loaded = "";
        await load(wanted, leaving.signal);
        loaded = key;
      }
      await colour(wanted, leaving.signal);
      coloured = wanted.colour;
      await drawn();
    } catch (error) {
      if (error.name === "AbortError" || (old && outdated(error))) return undefined;
      say(problem(error, () => show(state())));
    }
    return undefined;
  }

  async function drawn() {
    say("");
    await stage.drawNow();
    performance.measure("map-drawn", "map-columns");
    host.dataset.points = String(cloud.n);
    const left = cloud.total - cloud.n;
    announce(`Map of ${plural(cloud.n, "item")}${left ? `, ${count(left)} have no vector in this space` : ""}`);
  }

  return { element, show };
}

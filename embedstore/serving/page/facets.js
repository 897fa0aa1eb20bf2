// The metadata's values with their counts, each a filter.

import { post } from "./api.js";
import { button, count, el, iconButton, redraw } from "./dom.js";
import { sayFilter } from "./ask.js";
import { go, state } from "./state.js";

const SHOWN = 10;

/** Facets under the filter; a column that is filtered counts as if it were not, so that a second value can be added. */
export async function askFacets(filter, signal) {
  const columns = [...new Set(filter.map(({ field }) => field))];
  const [all, ...own] = await Promise.all([
    post("/v1/facets", { filter, limit: SHOWN }, signal),
    ...columns.map((column) => post("/v1/facets", { filter: filter.filter(({ field }) => field !== column), columns: [column], limit: SHOWN }, signal)),
  ]);
  const better = new Map(own.flatMap(({ facets }) => facets).map((facet) => [facet.column, facet]));
  const asked = (facet) => ({ ...facet, ...better.get(facet.column), ...("min" in facet && !facet.values.length ? { values: [] } : {}) });
  return { n: all.n, facets: all.facets.map(asked) };
}

function chosen(filter, column) {
  const own = filter.find(({ field, op }) => field === column && (op === "=" || op === "in"));
  return own ? [own.value].flat() : [];
}

function toggle(column, value) {
  const { filter } = state();
  const has = chosen(filter, column);
  const values = has.includes(value) ? has.filter((one) => one !== value) : [...has, value];
  replace(column, ["=", "in"], values.length > 1 ? [{ field: column, op: "in", value: values }] : values.length ? [{ field: column, op: "=", value: values[0] }] : []);
}

function replace(column, ops, filters) {
  go({ filter: [...state().filter.filter(({ field, op }) => field !== column || !ops.includes(op)), ...filters], k: 48 });
}

function row(column, { value, count: n }, largest, has) {
  const bar = el("span", { class: "facet-bar" });
  bar.style.setProperty("--part", String(n / Math.max(1, largest)));
  return el("li", {}, el("button", { type: "button", class: "facet", "aria-pressed": String(has.includes(value)), on: { click: () => toggle(column, value) } },
    bar, el("span", { class: "facet-value", text: value === "" ? "(empty)" : String(value) }), el("span", { class: "facet-count", text: count(n) })));
}

function missing(column, n, filter) {
  if (!n) return null;
  const on = filter.some(({ field, op }) => field === column && op === "missing");
  return el("li", {}, el("button", {
    type: "button", class: "facet facet-missing", "aria-pressed": String(on),
    on: { click: () => replace(column, ["missing"], on ? [] : [{ field: column, op: "missing", value: true }]) },
  }, el("span", { class: "facet-value", text: "missing" }), el("span", { class: "facet-count", text: count(n) })));
}

const MOMENT = "\\d{4}-\\d{2}-\\d{2}([T ]\\d{2}:\\d{2}(:\\d{2}(\\.\\d{1,6})?)?)?";
const ranged = ({ min }) => min !== undefined && min !== null;

/** The last moment of a day, where only the day is written, so that "to" means all of it. */
const lastOf = (written, edge) => (edge.length > 10 && written.length === 10 ? `${written}T23:59:59.999999` : written);

function range(facet, filter) {
  if (!ranged(facet)) return null;
  const timed = typeof facet.min === "string";
  const kind = (edge) => (timed
    ? { type: "text", pattern: MOMENT, placeholder: edge.slice(0, 10), title: edge }
    : { type: "number", step: "any", placeholder: String(Number(edge.toPrecision(6))) });
  const read = (op, written, edge) => (timed ? (op === "<=" ? lastOf(written, edge) : written) : Number(written));
  const end = (op, label, edge) => {
    const own = filter.find((one) => one.field === facet.column && one.op === op);
    const input = el("input", { ...kind(edge), "aria-label": `${facet.column} ${label}`, value: own?.value ?? "" });
    input.addEventListener("change", () => {
      const written = input.value.trim();
      if (input.reportValidity()) replace(facet.column, [op], written === "" ? [] : [{ field: facet.column, op, value: read(op, written, edge) }]);
    });
    return input;
  };
  return el("div", { class: "facet-range" }, end(">=", "from", facet.min), el("span", { text: "–" }), end("<=", "to", facet.max));
}

function contains(facet, filter) {
  if (!facet.other || ranged(facet)) return null;
  const own = filter.find(({ field, op }) => field === facet.column && op === "contains");
  const input = el("input", { type: "search", class: "facet-contains", placeholder: "contains…", "aria-label": `${facet.column} contains`, value: own?.value ?? "" });
  input.addEventListener("change", () => replace(facet.column, ["contains"], input.value ? [{ field: facet.column, op: "contains", value: input.value }] : []));
  return input;
}

function tells(facet, n) {
  const covered = facet.values.reduce((sum, { count: c }) => sum + c, 0);
  return ranged(facet) || chosen(state().filter, facet.column).length > 0 || (facet.values[0]?.count > 1 && covered + facet.missing >= n * 0.2);
}

function group(facet, filter, n, open) {
  const has = chosen(filter, facet.column);
  const hidden = !facet.values.length && ranged(facet) ? [] : has.filter((value) => !facet.values.some((one) => one.value === value)).map((value) => ({ value, count: 0 }));
  const largest = facet.values[0]?.count ?? 1;
  return el("details", { class: "facet-group", data: { column: facet.column }, open: open(facet.column, tells(facet, n)) },
    el("summary", { text: facet.column }),
    range(facet, filter),
    el("ul", {}, [...facet.values, ...hidden].map((one) => row(facet.column, one, largest, has)), missing(facet.column, facet.missing, filter)),
    facet.other && facet.values.length ? el("p", { class: "muted facet-other", text: `${count(facet.other)} with other values` }) : null,
    contains(facet, filter));
}

/** The panel: {element, update(answer, filter)}; a group that its user opened or closed stays so. */
export function facetPanel() {
  const body = el("div", { class: "facet-body" });
  const outer = el("details", { class: "facets", id: "facets" }, el("summary", { class: "facets-title", text: "Filter" }), body);
  outer.open = !matchMedia("(max-width: 860px)").matches;
  const touched = new Map();
  body.addEventListener("click", (event) => {
    const summary = event.target.closest("summary");
    if (summary) touched.set(summary.parentElement.dataset.column, !summary.parentElement.open);
  });
  const open = (column, usual) => touched.get(column) ?? usual;

  function update(answer, filter) {
    const n = answer.n ?? 1;
    const told = [...answer.facets].sort((a, b) => tells(b, n) - tells(a, n));
    redraw(body, () => body.replaceChildren(...told.map((facet) => group(facet, filter, n, open))));
    if (!answer.facets.length) body.append(el("p", { class: "muted", text: "This store has no metadata." }));
  }
  return { element: outer, update };
}

/** The filters in force, each with a button that lifts it. */
export function filterChips(filter) {
  if (!filter.length) return [];
  const chips = filter.map((one) => el("li", { class: "token" }, el("span", { text: sayFilter(one) }),
    iconButton("close", `Lift ${sayFilter(one)}`, () => go({ filter: state().filter.filter((other) => JSON.stringify(other) !== JSON.stringify(one)) }), { class: "icon-button token-remove" })));
  return filter.length > 1 ? [...chips, el("li", {}, button("Lift all", () => go({ filter: [] }), { class: "button button-plain" }))] : chips;
}

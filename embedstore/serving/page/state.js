// What the page shows, kept in the address (`#/search?q=…`): links can be shared, and Back is the undo of every step.

export const VIEWS = ["search", "teach", "map", "head"];

const DEFAULTS = {
  view: "search",
  q: "", // words
  id: "", // the item that the results are similar to
  picture: "", // the key of a picture that this tab holds
  pos: [], // more like these
  neg: [], // less like these
  space: "",
  weights: {}, // space -> weight; several spaces fused
  filter: [], // {field, op, value}
  head: "",
  k: 48,
  exact: false,
  fold: true,
  diversity: 0,
  min: "",
  classes: [["+", []], ["-", []]], // what was marked: [name, ids]
  rank: "+",
  map: { space: "", method: "pca", colour: "" },
  look: "", // the head that the head view shows
  target: "", // of that head, where it has several
  cell: [], // [truth, predicted], or [] for all mistakes
  part: "mistakes", // or "labels"
};

const strings = (value) => Array.isArray(value) && value.every((one) => typeof one === "string");
const CHECKS = {
  pos: strings,
  neg: strings,
  cell: strings,
  weights: (value) => Object.values(value).every(Number.isFinite),
  filter: (value) => Array.isArray(value) && value.every((one) => one && typeof one.field === "string" && typeof one.op === "string"),
  classes: (value) => Array.isArray(value) && value.length > 1 && value.every((one) => typeof one?.[0] === "string" && strings(one[1])),
  k: (value) => Number.isInteger(value) && value > 0 && value <= 1000,
  map: (value) => Object.values(value).every((one) => typeof one === "string"),
};

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** The address of a state: only what differs from the defaults. */
export function encode(state) {
  const params = new URLSearchParams();
  for (const [key, usual] of Object.entries(DEFAULTS)) {
    if (key === "view" || same(state[key], usual)) continue;
    params.set(key, typeof usual === "string" ? state[key] : JSON.stringify(state[key]));
  }
  return `#/${state.view}${params.size ? `?${params}` : ""}`;
}

/** The state of an address; what cannot be read there is left at its default, because anybody can write a link. */
export function decode(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const state = structuredClone(DEFAULTS);
  if (VIEWS.includes(path)) state.view = path;
  for (const [key, text] of new URLSearchParams(query)) {
    if (!(key in DEFAULTS) || key === "view") continue;
    const value = read(key, text);
    if (value !== undefined) state[key] = value;
  }
  return state;
}

function read(key, text) {
  const usual = DEFAULTS[key];
  if (typeof usual === "string") return text;
  try {
    const value = JSON.parse(text);
    if (value === null || typeof value !== typeof usual || Array.isArray(value) !== Array.isArray(usual)) return undefined;
    if (CHECKS[key] && !CHECKS[key](value)) return undefined;
    return key === "map" ? { ...usual, ...value } : value;
  } catch {
    return undefined;
  }
}

let current = decode("");
let depth = 0;
const listeners = [];

export const state = () => current;

export function listen(listener) {
  listeners.push(listener);
}

function tell() {
  const before = current;
  if (/^(#\/|$)/.test(location.hash)) current = decode(location.hash); // another fragment is a place in the page, not a state
  depth = history.state?.depth ?? 0;
  for (const listener of listeners) listener(current, before);
}

/** Changes the state. Each change is a step that Back undoes, unless it replaces the step before. */
export function go(patch, { replace = false } = {}) {
  const hash = encode({ ...current, ...patch });
  if (hash === encode(current)) return;
  if (replace) history.replaceState({ depth }, "", hash);
  else history.pushState({ depth: depth + 1 }, "", hash);
  tell();
}

/** The attributes of a link to the state with `patch`, whatever the state is by the time that it is followed. */
export function linkTo(patch) {
  return { href: encode({ ...current, ...patch }), data: { patch: JSON.stringify(patch) } };
}

export const canUndo = () => depth > 0;
export const undo = () => depth > 0 && history.back();
export const redo = () => history.forward();

const linkOf = (event) => event.target.closest?.('a[href^="#/"]');

/** A link that is about to be used has the address as it is now: it may be opened in a tab, or copied. */
function renew(event) {
  const link = linkOf(event);
  if (link?.dataset.patch) link.setAttribute("href", encode({ ...current, ...JSON.parse(link.dataset.patch) }));
}

/** A link of the page's own is a step like any other; with a modifier key it opens a tab, as links do. */
function follow(event) {
  const link = linkOf(event);
  if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.dataset.patch ? JSON.parse(link.dataset.patch) : decode(link.getAttribute("href")));
}

export function start() {
  window.addEventListener("popstate", tell);
  for (const use of ["pointerdown", "keydown"]) document.addEventListener(use, renew);
  document.addEventListener("click", follow);
  tell();
}

/** What a new question leaves behind: everything that says what is looked for, but not where. */
export const NO_QUERY = { q: "", id: "", picture: "", pos: [], neg: [], k: DEFAULTS.k };

export const similarTo = (id) => ({ ...NO_QUERY, id, view: "search" });

/** Marks an item as more (`pos`) or less (`neg`) like what is looked for; the same mark again takes it away. */
export function lean(id, side) {
  const other = side === "pos" ? "neg" : "pos";
  const has = current[side].includes(id);
  go({ [side]: has ? current[side].filter((one) => one !== id) : [...current[side], id], [other]: current[other].filter((one) => one !== id) });
}

/** Puts items into a class of the teacher's, and out of the others; one item that is in it already is taken out. */
export function markAs(name, ids) {
  const chosen = new Set(ids);
  const takeOut = ids.length === 1 && current.classes.some(([one, has]) => one === name && has.includes(ids[0]));
  go({
    classes: current.classes.map(([one, has]) => {
      const rest = has.filter((id) => !chosen.has(id));
      return [one, one === name && !takeOut ? [...rest, ...chosen] : rest];
    }),
  });
}

export const classOf = (id) => current.classes.find(([, ids]) => ids.includes(id))?.[0] ?? null;
export const marks = () => current.classes.reduce((sum, [, ids]) => sum + ids.length, 0);

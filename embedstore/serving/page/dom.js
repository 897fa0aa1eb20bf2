// Makes elements. Everything that comes from a store (ids, captions, metadata) goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14Zm5.2 12.2L21 21",
  upload: "M12 16V5m0 0L7.5 9.5M12 5l4.5 4.5M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  info: "M12 11v6m0-9.5v.1M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Z",
  undo: "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  redo: "m15 14 5-5-5-5m5 5H10a6 6 0 0 0 0 12h3",
  close: "m6 6 12 12M18 6 6 18",
  lasso: "M7 20c-1.5 0-2-1-2-2s1-2 2-2 2 1 2 2-1 2-2 2Zm0-4c-2.5-1-4-3-4-5.5C3 6.5 7 4 12 4s9 2.5 9 6.5S17 17 12 17c-1 0-2 0-3-.3",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  download: "M12 4v11m0 0-4.5-4.5M12 15l4.5-4.5M4 19h16",
  keys: "M3 6.5h18v11H3zM7 10h.1M11 10h.1M15 10h.1M7.5 14h9",
  copies: "M8 8V4h12v12h-4M4 8h12v12H4z",
  play: "M9 6.5v11l9-5.5z",
  sound: "M9 18V6l10-2v12M9 18a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0Zm10-2a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0Z",
};

/** An element with attributes (`class`, `href`, `aria-label`, …), `text`, `data`, `on` (listeners) and children. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, does] of Object.entries(value)) node.addEventListener(event, does);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An element of SVG: attributes and children only. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

export function icon(name) {
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

/** A button that shows an icon; `label` is its name for people who do not see it, and its tooltip. */
export function iconButton(name, label, click, props = {}) {
  return el("button", { type: "button", class: "icon-button", "aria-label": label, title: label, on: { click }, ...props }, icon(name));
}

export function button(text, click, props = {}) {
  return el("button", { type: "button", class: "button", text, on: { click }, ...props });
}

/** A select with `[value, text]` options. */
export function select(label, options, value, change) {
  const box = el("select", { "aria-label": label, on: { change: () => change(box.value) } });
  setOptions(box, options, value);
  return box;
}

export function setOptions(box, options, value) {
  box.replaceChildren(...options.map(([key, text]) => el("option", { value: key, text })));
  box.value = options.some(([key]) => key === value) ? value : (options[0]?.[0] ?? "");
}

/** Draws what is in `place` anew. If one of its controls had the focus, the one in its place has it, or `otherwise` where none is left. */
export function redraw(place, draw, otherwise = null) {
  const controls = () => [...place.querySelectorAll("a[href], button, input, select, summary")];
  const held = controls().indexOf(document.activeElement);
  draw();
  if (held < 0) return;
  const left = controls();
  (left[held] ?? left.at(-1) ?? otherwise)?.focus();
}

/** Says it to screen readers. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

/** One number as people read it: 3,738 · 0.734. */
export function count(n) {
  return Number(n).toLocaleString("en");
}

export function decimal(x, digits = 3) {
  return x === null || x === undefined || !Number.isFinite(Number(x)) ? "–" : Number(x).toFixed(digits);
}

export function milliseconds(ms) {
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${ms >= 10 ? Math.round(ms) : Number(ms).toFixed(1)} ms`;
}

export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** Saves text as a file of the user's. */
export function download(name, text, type = "text/csv") {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Rows as CSV (RFC 4180), the first of them the header. */
export function csv(rows) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return rows.map((row) => row.map((value) => cell(String(value ?? ""))).join(",")).join("\r\n") + "\r\n";
}

/** A box that says what went wrong and what to do next. */
export function problem(error, retry = null) {
  return el("div", { class: "notice notice-error", role: "alert" },
    el("p", { class: "notice-title", text: error.message || String(error) }),
    error.next ? el("p", { text: error.next }) : null,
    retry ? button("Try again", retry) : null);
}

export function nothing(title, hint) {
  return el("div", { class: "notice" }, el("p", { class: "notice-title", text: title }), hint ? el("p", { text: hint }) : null);
}

// Keys: arrows walk a grid, Enter opens, + and − and 1–9 mark, Esc goes back to the box, `/` from anywhere.

import { playIn } from "./media.js";
import { lean, markAs, redo, state, undo } from "./state.js";
import { el, iconButton } from "./dom.js";

const KEYS = [
  ["/", "to the search box"],
  ["↑ ↓ ← →", "from the box to the results, and from one to another"],
  ["Enter", "find similar"],
  ["+  −", "more or less like this; in Teach: mark"],
  ["1 … 9", "in Teach: mark as the class of that number"],
  ["p", "play the sound or film of the result, or stop it"],
  ["i", "details of the result"],
  ["Esc", "back to the box; close what is open"],
  ["Ctrl Z", "undo, as Back does"],
  ["Ctrl Shift Z", "redo"],
  ["In the map", "arrows move, + and − zoom, 0 shows all, L is the lasso"],
];

const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]") !== null;

const links = (grid) => [...grid.querySelectorAll(".card > .card-main")];

function focusOn(all, at) {
  const link = all[Math.max(0, Math.min(all.length - 1, at))];
  if (!link) return;
  for (const one of all) one.tabIndex = -1;
  link.tabIndex = 0;
  link.focus();
  link.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function columns(all) {
  const top = all[0].parentElement.offsetTop;
  const next = all.findIndex((link) => link.parentElement.offsetTop !== top);
  return next < 0 ? all.length : next;
}

function mark(id, key) {
  const now = state();
  const teaching = now.view === "teach";
  if (key === "+" || key === "=") return teaching ? markAs(now.classes[0][0], [id]) : lean(id, "pos");
  if (key === "-" || key === "−") return teaching ? markAs(now.classes[1][0], [id]) : lean(id, "neg");
  const named = now.classes[Number(key) - 1];
  return teaching && named ? markAs(named[0], [id]) : null;
}

/** Lets the arrow down in `box` lead to the first card of `grid`. */
export function leadsTo(box, grid) {
  box.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" || !links(grid).length) return;
    event.preventDefault();
    focusOn(links(grid), 0);
  });
}

/** Keys for the cards in `grid`; Esc gives the focus to `box`. */
export function gridKeys(grid, box) {
  grid.addEventListener("focusin", (event) => {
    const link = event.target.closest(".card")?.querySelector(".card-main");
    if (link) for (const one of links(grid)) one.tabIndex = one === link ? 0 : -1;
  });
  grid.addEventListener("keydown", (event) => {
    const own = event.target.closest(".card");
    if (!own || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = links(grid);
    const at = all.findIndex((link) => link.parentElement === own);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(all), ArrowUp: -columns(all) }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      if (at + step >= 0 && at + step < all.length) focusOn(all, at + step);
    } else if (event.key === "Home" || event.key === "End") {
      event.preventDefault();
      focusOn(all, event.key === "Home" ? 0 : all.length - 1);
    } else if (event.key === "Escape") {
      box.focus();
      box.select();
    } else if (event.key === "i") {
      own.querySelector(".card-info")?.click();
    } else if (event.key === "p") {
      playIn(own);
    } else if (/^[+=\-−1-9]$/.test(event.key)) {
      event.preventDefault();
      grid.dataset.next = all[at + 1]?.parentElement.dataset.id ?? "";
      mark(own.dataset.id, event.key);
    }
  });
}

/** Draws the grid anew and gives the focus, if a card had it, to the card after the one just marked, else to the same place. */
export function refocus(grid, redraw) {
  const held = document.activeElement?.closest?.(".card");
  const inside = held && grid.contains(held);
  const before = inside ? links(grid).findIndex((link) => link.parentElement === held) : -1;
  const wanted = grid.dataset.next;
  delete grid.dataset.next;
  redraw();
  if (!inside) return;
  const all = links(grid);
  const at = wanted ? all.findIndex((link) => link.parentElement.dataset.id === wanted) : -1;
  focusOn(all, at >= 0 ? at : before);
}

const dialog = el("dialog", { class: "dialog dialog-small", "aria-labelledby": "keys-title" });

export function showKeys() {
  if (!dialog.isConnected) document.body.append(dialog);
  dialog.replaceChildren(
    el("header", { class: "dialog-head" }, el("h2", { id: "keys-title", text: "Keys" }), iconButton("close", "Close", () => dialog.close())),
    el("dl", { class: "keys" }, KEYS.map(([key, does]) => el("div", {}, el("dt", {}, el("kbd", { text: key })), el("dd", { text: does })))));
  dialog.showModal();
}

/** The keys that work anywhere. */
export function pageKeys(focusBox) {
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing(event.target)) {
      event.preventDefault();
      if (event.shiftKey) redo();
      else undo();
    } else if (event.key === "/" && !typing(event.target) && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      focusBox();
    } else if (event.key === "?" && !typing(event.target)) {
      showKeys();
    }
  });
}

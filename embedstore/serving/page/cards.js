// One result as a card: its picture, text or sound, which can be played, its score, what a head says of it, and the buttons that mark it.

import { openDetails } from "./details.js";
import { count, decimal, el, icon, iconButton } from "./dom.js";
import { face, nameOf } from "./face.js";
import { player, soundButton, placeOf } from "./media.js";
import { classOf, linkTo, lean, markAs, similarTo, state } from "./state.js";

export const DRAGGED = "application/x-embedstore-id";

export function shownClass(name) {
  return name === "-" ? "−" : name;
}

function drags(link, id) {
  link.draggable = true;
  link.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData(DRAGGED, id);
    event.dataTransfer.setData("text/plain", id);
    event.dataTransfer.effectAllowed = "copy";
    document.body.classList.add("dragging-item");
  });
  link.addEventListener("dragend", () => document.body.classList.remove("dragging-item"));
}

/** What each space added to the class that the head names: a bar to the right for it, to the left against it. */
export function contributions(given) {
  const parts = Object.entries(given ?? {});
  if (!parts.length) return null;
  const largest = Math.max(...parts.map(([, value]) => Math.abs(value)), 1e-9);
  return el("span", { class: "why" }, parts.map(([space, value]) => {
    const bar = el("span", { class: value < 0 ? "why-bar why-against" : "why-bar" });
    bar.style.setProperty("--part", String(Math.abs(value) / largest));
    const said = `${space} ${value < 0 ? "against" : "for"}: ${decimal(value, 2)}`;
    return el("span", { class: "why-row", title: said }, el("span", { class: "why-name", text: space }), el("span", { class: "why-track" }, bar),
      el("span", { class: "why-value", text: decimal(value, 2).replace("-", "−") }));
  }));
}

/** A class, a number or several labels, as a head says them. */
function classText(value) {
  if (Array.isArray(value)) return value.join(", ") || "none";
  if (value && typeof value === "object") return Object.entries(value).map(([target, own]) => `${target}: ${classText(own)}`).join(" · ");
  return typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value);
}

function prediction(given) {
  if (!given) return null;
  const probability = typeof given.probability !== "number" ? "" : `${Math.round(given.probability * 100)} %`;
  return el("div", { class: "card-says" },
    el("span", { class: "card-class" }, el("b", { text: classText(given.class) }), " ", el("span", { class: "muted", text: probability })),
    contributions(given.contributions));
}

function marker(side, name, label, pressed, data, click) {
  return iconButton(side === "pos" ? "plus" : "minus", label, click, {
    class: `icon-button mark mark-${side}`, "aria-pressed": String(pressed), "aria-label": `${label}: ${name}`, tabindex: "-1", data,
  });
}

function leanButtons(item) {
  const now = state();
  const name = nameOf(item);
  return [
    marker("pos", name, "More like this", now.pos.includes(item.id), { lean: "pos" }, () => lean(item.id, "pos")),
    marker("neg", name, "Less like this", now.neg.includes(item.id), { lean: "neg" }, () => lean(item.id, "neg")),
  ];
}

/** The buttons that put an item into a class: + and −, or one for each named class. */
export function classButtons(item) {
  const { classes } = state();
  const mine = classOf(item.id);
  if (classes.length === 2 && classes[0][0] === "+" && classes[1][0] === "-") {
    return [["pos", "+", "Mark +"], ["neg", "-", "Mark −"]].map(([side, name, label]) =>
      marker(side, nameOf(item), label, mine === name, { mark: name }, () => markAs(name, [item.id])));
  }
  return classes.map(([name], at) =>
    el("button", {
      type: "button", class: "class-pill", tabindex: "-1", "aria-pressed": String(mine === name), data: { hue: at % 8, mark: name },
      title: `Mark ${shownClass(name)}`, "aria-label": `Mark ${shownClass(name)}: ${nameOf(item)}`, on: { click: () => markAs(name, [item.id]) },
    }, el("kbd", { text: String(at + 1) }), el("span", { class: "class-pill-name", text: shownClass(name) })));
}

function foot(item, { teaching, extra }) {
  const score = item.score === null || item.score === undefined ? null
    : el("span", { class: "card-score", title: teaching ? "probability of the class" : "cosine similarity", text: decimal(item.score) });
  const caption = item.kind === "text" ? null : el("span", { class: "card-caption", text: item.text || item.metadata?.title || item.id });
  return el("div", { class: "card-foot" },
    caption,
    item.piece ? el("span", { class: "card-piece", title: `The ${item.piece.unit} that is nearest`, text: placeOf(item.piece) }) : null,
    extra,
    el("div", { class: "card-row" },
      score,
      item.folded?.length ? el("button", {
        type: "button", class: "card-folded", tabindex: "-1", title: "Near-duplicates folded under this result", on: { click: () => openDetails(item) },
      }, icon("copies"), `+${count(item.folded.length)}`) : null,
      el("span", { class: "card-tools" },
        teaching ? classButtons(item) : leanButtons(item),
        iconButton("info", `Details: ${nameOf(item)}`, () => openDetails(item), { class: "icon-button card-info", tabindex: "-1" }))));
}

/** What plays the item's sound in the card, and its film in the dialog. */
function players(item) {
  return [
    item.media?.includes("video") ? iconButton("play", `Play the film: ${nameOf(item)}`, () => openDetails(item, { play: true }), { class: "card-play", tabindex: "-1" }) : null,
    item.media?.includes("audio") ? player(item, "audio") : null,
  ];
}

/** A card. `teaching`: its buttons put it into classes. `extra`: an element of the caller's in its foot. */
export function card(item, { teaching = false, extra = null, first = false } = {}) {
  const name = nameOf(item);
  const link = el("a", {
    class: `card-main card-${item.kind}`, ...linkTo(similarTo(item.id)), "aria-label": `Find similar to ${name}`, title: "Find similar",
    tabindex: first ? "0" : "-1",
  }, face(item));
  drags(link, item.id);
  const mark = cardMark(item.id, teaching);
  return el("li", { class: `card${mark ? ` card-marked card-${mark}` : ""}`, data: { id: item.id } }, link, players(item), prediction(item.prediction), foot(item, { teaching, extra }));
}

function cardMark(id, teaching) {
  const now = state();
  if (teaching) {
    const name = classOf(id);
    return name === null ? "" : name === now.classes[0][0] ? "pos" : "neg";
  }
  return now.pos.includes(id) ? "pos" : now.neg.includes(id) ? "neg" : "";
}

/** Shows on the cards in `grid` how they are marked by now, where a mark asks for no other results. */
export function remark(grid) {
  const now = state();
  for (const one of grid.querySelectorAll(".card [aria-pressed]:is([data-lean], [data-mark])")) {
    const { id } = one.closest(".card").dataset;
    const { lean: side, mark } = one.dataset;
    one.setAttribute("aria-pressed", String(side ? now[side].includes(id) : classOf(id) === mark));
    if (side) one.closest(".card").classList.toggle(`card-${side}`, now[side].includes(id));
  }
  for (const one of grid.querySelectorAll(".card")) one.classList.toggle("card-marked", one.matches(".card-pos, .card-neg"));
}

/** A small card for a strip: the picture, what plays its sound, and the buttons that mark it. */
export function smallCard(item) {
  const link = el("a", { class: `card-main card-${item.kind}`, ...linkTo(similarTo(item.id)), "aria-label": `Find similar to ${nameOf(item)}`, tabindex: "-1" }, face(item, 128));
  drags(link, item.id);
  return el("li", { class: "card card-small", data: { id: item.id } }, link, item.media?.includes("audio") ? soundButton(item) : null,
    el("div", { class: "card-row" }, el("span", { class: "card-score", text: decimal(item.score, 2) }), el("span", { class: "card-tools" }, classButtons(item))));
}

// Everything about one item, in a dialog: its picture or text, its metadata, and the near-duplicates folded under it.

import { get } from "./api.js";
import { el, iconButton, problem } from "./dom.js";
import { face, nameOf } from "./face.js";
import { playIn, player } from "./media.js";
import { linkTo, similarTo } from "./state.js";

let turn = 0; // which item is looked at
const dialog = el("dialog", { class: "dialog", "aria-labelledby": "details-title" });
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => dialog.replaceChildren());

function table(metadata) {
  const rows = Object.entries(metadata ?? {}).filter(([, value]) => value !== null && value !== "");
  return el("dl", { class: "facts" }, rows.map(([name, value]) => {
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    return el("div", {}, el("dt", { text: name }), el("dd", { text }));
  }));
}

function folded({ folded: ids, kind }) {
  if (!ids?.length) return null;
  return el("section", {}, el("h3", { text: `Near-duplicates (${ids.length})` }),
    el("ul", { class: "strip" }, ids.map((id) =>
      el("li", { class: "card card-small" }, el("a", { class: "card-main", ...linkTo(similarTo(id)), title: id, on: { click: () => dialog.close() } }, face({ id, kind: kind === "text" ? "image" : kind, text: id }, 128))))));
}

function told(item, metadata, texts) {
  return el("div", { class: "dialog-told" },
    el("p", { class: "muted id", text: item.id }),
    texts.map(([space, text]) => el("section", {}, el("h3", { text: space }), el("p", { class: "prose", text }))),
    table(metadata),
    folded(item),
    el("p", {}, el("a", { class: "button", ...linkTo(similarTo(item.id)), text: "Find similar", on: { click: () => dialog.close() } })));
}

/** What is seen of an item, with what plays its sound or film; a film that can be played is seen there. */
function shown(item, players) {
  const seen = item.media?.includes("video") && item.kind === "video" ? null : el("div", { class: `dialog-face card-${item.kind}` }, face(item, 512));
  return el("div", {}, seen, players);
}

function body(item, players) {
  return [
    el("header", { class: "dialog-head" }, el("h2", { id: "details-title", text: nameOf(item) }), iconButton("close", "Close", () => dialog.close())),
    el("div", { class: "dialog-body" }, shown(item, players), told(item, item.metadata, [])),
  ];
}

/** Opens the dialog at once with what is known, and adds what the server knows of the item. `play`: its film starts. */
export async function openDetails(item, { play = false } = {}) {
  const mine = ++turn;
  const looked = () => dialog.open && mine === turn;
  if (!dialog.isConnected) document.body.append(dialog);
  const players = (item.media ?? []).map((modality) => player(item, modality));
  dialog.replaceChildren(...body(item, players));
  if (!dialog.open) dialog.showModal();
  if (play) playIn(dialog);
  try {
    const whole = await get("/v1/item", { id: item.id });
    const texts = Object.entries(whole.payloads ?? {}).filter(([, payload]) => payload?.text).map(([space, payload]) => [space, payload.text]);
    if (looked()) dialog.querySelector(".dialog-told").replaceWith(told(item, whole.metadata, texts)); // what plays goes on
  } catch (error) {
    if (looked()) dialog.append(problem(error));
  }
}

// Everything about one item, in a dialog: its picture or text, its metadata, and the near-duplicates folded under it.

import { get } from "./api.js";
import { el, iconButton, problem } from "./dom.js";
import { face, nameOf } from "./face.js";
import { href, similarTo } from "./state.js";

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

function folded(ids) {
  if (!ids?.length) return null;
  return el("section", {}, el("h3", { text: `Near-duplicates (${ids.length})` }),
    el("ul", { class: "strip" }, ids.map((id) =>
      el("li", { class: "card card-small" }, el("a", { class: "card-main", href: href(similarTo(id)), title: id, on: { click: () => dialog.close() } }, face({ id, kind: "image", text: id }, 128))))));
}

function body(item, metadata, texts) {
  return [
    el("header", { class: "dialog-head" }, el("h2", { id: "details-title", text: nameOf(item) }), iconButton("close", "Close", () => dialog.close())),
    el("div", { class: "dialog-body" },
      el("div", { class: `dialog-face card-${item.kind}` }, face(item, 512)),
      el("div", {},
        el("p", { class: "muted id", text: item.id }),
        texts.map(([space, text]) => el("section", {}, el("h3", { text: space }), el("p", { class: "prose", text }))),
        table(metadata),
        folded(item.folded),
        el("p", {}, el("a", { class: "button", href: href(similarTo(item.id)), text: "Find similar", on: { click: () => dialog.close() } })))),
  ];
}

/** Opens the dialog at once with what is known, and adds what the server knows of the item. */
export async function openDetails(item) {
  if (!dialog.isConnected) document.body.append(dialog);
  dialog.replaceChildren(...body(item, item.metadata, []));
  if (!dialog.open) dialog.showModal();
  try {
    const whole = await get("/v1/item", { id: item.id });
    const texts = Object.entries(whole.payloads ?? {}).filter(([, payload]) => payload?.text).map(([space, payload]) => [space, payload.text]);
    if (dialog.open) dialog.replaceChildren(...body(item, whole.metadata, texts));
  } catch (error) {
    if (dialog.open) dialog.append(problem(error));
  }
}

// What an item looks like: its picture, its text well set, or its sound.

import { showPicture } from "./api.js";
import { el, icon } from "./dom.js";

/** How an item is called where its picture cannot be seen. */
export function nameOf(item) {
  return item.text || item.metadata?.title || item.id;
}

function words(item) {
  const text = nameOf(item);
  const size = text.length < 40 ? "large" : text.length < 140 ? "medium" : "small";
  return el("span", { class: `card-text card-text-${size}`, text });
}

function sound(item) {
  return el("span", { class: "card-sound" }, icon("sound"), words(item));
}

/** The picture, text or sound of an item; an item whose picture does not come shows its text. */
export function face(item, size = 256) {
  if (item.kind === "text") return words(item);
  if (item.kind === "audio") return sound(item);
  const img = el("img", { alt: nameOf(item), decoding: "async", draggable: "false" });
  img.addEventListener("error", () => img.replaceWith(words(item)), { once: true });
  showPicture(img, item.id, size);
  return img;
}

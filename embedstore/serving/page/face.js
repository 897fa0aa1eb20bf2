// What an item looks like: its picture, its text well set, its sound's waveform, or a frame of its film.

import { showPicture } from "./api.js";
import { el, icon } from "./dom.js";

const SEEN = { image: "", audio: "Waveform of the sound: ", video: "Frame of the film: " };

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

/** The picture, text, waveform or frame of an item; an item of which none comes shows its text. */
export function face(item, size = 256) {
  if (item.kind === "text") return words(item);
  const img = el("img", { class: item.kind === "audio" ? "wave" : null, alt: `${SEEN[item.kind] ?? ""}${nameOf(item)}`, decoding: "async", draggable: "false" });
  img.addEventListener("error", () => img.replaceWith(item.kind === "audio" ? sound(item) : words(item)), { once: true });
  showPicture(img, item.id, size);
  return img;
}

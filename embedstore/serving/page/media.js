// Sounds and films, to be played. Nothing is loaded before somebody wants to hear or see it, and one plays at a time.

import { mediaAddress, mediaBlob, needsToken, thumbnailAddress } from "./api.js";
import { button, el, iconButton } from "./dom.js";
import { nameOf } from "./face.js";

const WORDS = { audio: "Sound", video: "Film" };

document.addEventListener("play", ({ target }) => {
  for (const other of document.querySelectorAll("audio, video")) if (other !== target) other.pause();
}, true);

function element(item, modality, src) {
  const made = el(modality, {
    class: `player player-${modality}`, controls: true, preload: "none", tabindex: "-1", src, poster: modality === "video" && !needsToken() ? thumbnailAddress(item.id, 512) : null, "aria-label": `${WORDS[modality]}: ${nameOf(item)}`,
  });
  made.addEventListener("error", () => made.replaceWith(el("p", { class: "muted player-failed", text: `This browser cannot play the ${WORDS[modality].toLowerCase()}.` })), { once: true });
  return made;
}

const clock = (seconds) => {
  const tenths = Math.round(seconds * 10);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
};

/** Which frame, window or token of an item is meant, in words: when it is, or its number. */
export function placeOf({ unit, number, start, end }) {
  if (start === undefined) return `${unit} ${number + 1}`;
  return start === end ? `at ${clock(start)}` : `${clock(start)}–${clock(end)}`;
}

/** `src`, from where the nearest piece of the item begins. */
const fromPiece = (src, item) => (item.piece?.start ? `${src}#t=${item.piece.start}` : src);

/** What plays an item's sound or film. With a token it is fetched on a click, because a `src` carries no header. */
export function player(item, modality) {
  if (!needsToken()) return element(item, modality, fromPiece(mediaAddress(item.id, modality), item));
  const start = button("Play", async () => {
    start.disabled = true;
    try {
      const made = element(item, modality, fromPiece(await mediaBlob(item.id, modality), item));
      start.replaceWith(made);
      await made.play();
    } catch (error) {
      start.textContent = error.message;
    }
  }, { class: "button player-start", tabindex: "-1", "aria-label": `Play the ${WORDS[modality].toLowerCase()}: ${nameOf(item)}` });
  return start;
}

/** A button that plays an item's sound, or stops it, where there is no room for more. */
export function soundButton(item) {
  let made = null;
  const start = iconButton("play", `Play the sound: ${nameOf(item)}`, async () => {
    try {
      if (!made) {
        made = el("audio", { src: needsToken() ? await mediaBlob(item.id, "audio") : mediaAddress(item.id, "audio") });
        start.after(made); // in the page, so that it stops when another one plays
      }
      if (made.paused) await made.play();
      else made.pause();
    } catch (error) {
      start.title = error.message;
      start.disabled = true;
    }
  }, { class: "card-play", tabindex: "-1" });
  return start;
}

/** Plays what a card has, or stops it. */
export function playIn(card) {
  const made = card.querySelector(".player, .player-start, .card-play");
  if (made?.matches("button")) made.click();
  else if (made?.paused) made.play().catch(() => {});
  else made?.pause();
}

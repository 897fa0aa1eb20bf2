// The box that takes words, pictures, sounds, films and results, with the choosers under it.

import { showPicture } from "./api.js";
import { keepPicture, pictureOf } from "./ask.js";
import { DRAGGED } from "./cards.js";
import { announce, el, icon, iconButton, redraw, select, setOptions } from "./dom.js";
import { NO_QUERY, go, lean, state } from "./state.js";

const MEDIA = /^(image|audio|video)\/|^application\/ogg$|^$/; // a type that the browser does not know is empty

/** Searches by the first of some files that may be a picture, sound or film. */
function searchFile(files) {
  const file = [...files].find(({ type }) => MEDIA.test(type));
  if (file) go({ ...NO_QUERY, picture: keepPicture(file), view: "search" });
  else if (files.length) announce(`${files[0].name} is no picture, sound or film.`);
  return file !== undefined;
}

function dropped(transfer, onBox) {
  if (transfer.files.length) searchFile(transfer.files);
  else if (onBox && transfer.getData(DRAGGED)) like(transfer.getData(DRAGGED));
}

function like(id) {
  const { q, id: now, picture, pos, neg } = state();
  if (q || now || picture || pos.length || neg.length) {
    if (!pos.includes(id)) lean(id, "pos");
  } else go({ ...NO_QUERY, id, view: "search" });
}

function takesDrops(box) {
  const wanted = ({ dataTransfer: { types } }) => types.includes("Files") || types.includes(DRAGGED);
  document.addEventListener("dragover", (event) => {
    if (!wanted(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  for (const over of ["dragend", "drop"]) document.addEventListener(over, () => document.body.classList.remove("dragging", "dragging-item"));
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && document.body.classList.remove("dragging"));
  document.addEventListener("drop", (event) => {
    if (!wanted(event)) return;
    event.preventDefault();
    dropped(event.dataTransfer, box.contains(event.target));
  });
  document.addEventListener("paste", (event) => {
    if (searchFile(event.clipboardData?.files ?? [])) event.preventDefault();
  });
}

/** The picture of what is looked for, a film's first frame, or the mark of a sound. */
function faceOf(picture) {
  const kind = picture.file?.type.split("/")[0];
  if (kind === "audio" || picture.file?.type === "") return icon("sound");
  const face = kind === "video" ? el("video", { src: picture.url, muted: true, preload: "metadata", "aria-hidden": "true" }) : el("img", { src: picture.url, alt: "" });
  if (picture.id) showPicture(face, picture.id, 128);
  face.addEventListener("error", () => face.remove(), { once: true });
  return face;
}

function token(kind, label, picture, remove) {
  return el("li", { class: `token token-${kind}` }, picture ? faceOf(picture) : null, el("span", { text: label }), iconButton("close", `Remove ${label}`, remove, { class: "icon-button token-remove" }));
}

function tokens(store, now) {
  const seen = store.spaces.some(({ modality }) => modality !== "text"); // a text has no picture to ask for
  const of = (id) => (seen ? { id } : null);
  const without = (side, id) => () => go({ [side]: now[side].filter((one) => one !== id) });
  const picture = pictureOf(now.picture);
  return [
    now.picture ? token("query", picture?.file.name || "A file that is no longer here", picture, () => go({ picture: "" })) : null,
    now.id ? token("query", `like ${now.id}`, of(now.id), () => go({ id: "" })) : null,
    ...now.pos.map((id) => token("pos", `+ ${id}`, of(id), without("pos", id))),
    ...now.neg.map((id) => token("neg", `− ${id}`, of(id), without("neg", id))),
  ].filter(Boolean);
}

function weightSliders(store, now) {
  return store.spaces.map(({ name }) => {
    const value = now.weights[name] ?? 0;
    const out = el("output", { text: value.toFixed(1) });
    const slider = el("input", {
      type: "range", min: "0", max: "1", step: "0.1", value, "aria-label": `Weight of ${name}`,
      on: { input: () => { out.textContent = Number(slider.value).toFixed(1); }, change: () => go({ weights: { ...now.weights, [name]: Number(slider.value) } }) },
    });
    return el("label", { class: "option" }, el("span", { text: name }), slider, out);
  });
}

function options(store, now) {
  const diversity = el("input", { type: "range", min: "0", max: "1", step: "0.1", value: now.diversity, "aria-label": "Diversity", on: { change: () => go({ diversity: Number(diversity.value) }) } });
  const min = el("input", { type: "number", step: "0.05", min: "-1", max: "1", value: now.min, "aria-label": "Lowest score", placeholder: "any", on: { change: () => go({ min: min.value }) } });
  const tick = (name, text) => {
    const box = el("input", { type: "checkbox", on: { change: () => go({ [name]: box.checked }) } });
    box.checked = now[name];
    return el("label", { class: "option" }, box, el("span", { text }));
  };
  return [
    tick("exact", "Exact search"),
    tick("fold", "Fold near-duplicates"),
    el("label", { class: "option" }, el("span", { text: "Diversity" }), diversity, el("output", { text: now.diversity.toFixed(1) })),
    el("label", { class: "option" }, el("span", { text: "Lowest score" }), min),
    ...(Object.keys(now.weights).length ? weightSliders(store, now) : []),
  ];
}

const FILES = { image: "picture", audio: "sound", video: "film" };
const FUSED = "\u0000fused";

function spaceChosen(store, value) {
  if (value === FUSED) go({ space: "", weights: Object.fromEntries(store.spaces.filter(({ aligned }) => !aligned).map(({ name }) => [name, 1])) });
  else go({ space: value, weights: {} });
}

/** The options with what a link names and the store does not have, so that it can be seen and left. */
function withChosen(options, value) {
  return options.some(([key]) => key === value) ? options : [...options, [value, `${value} (not there)`]];
}

/** The search bar: {element, input, update(state)}. */
export function searchBar(store) {
  const input = el("input", {
    type: "search", id: "words", autocomplete: "off", spellcheck: "false", enterkeyhint: "search", maxlength: "2000",
    "aria-label": "Search by words", "aria-keyshortcuts": "/",
  });
  const file = el("input", { type: "file", hidden: true, on: { change: () => { searchFile(file.files); file.value = ""; } } });
  const choose = iconButton("upload", "", () => file.click());
  const held = el("ul", { class: "tokens", "aria-label": "What is looked for" });
  const box = el("div", { class: "box" }, icon("search"), el("div", { class: "box-text" }, held, input), el("kbd", { class: "hint", text: "/", "aria-hidden": "true" }),
    choose, file);
  const form = el("form", {
    class: "search", role: "search",
    on: { submit: (event) => { event.preventDefault(); go({ q: input.value.trim(), id: "", picture: "", k: 48, view: "search" }); } },
  }, box);
  const spaces = select("Space", [["", ""]], "", (value) => spaceChosen(store, value));
  const heads = select("Head", [["", ""]], "", (value) => go({ head: value }));
  const more = el("details", { class: "options" }, el("summary", { text: "Options" }), el("div", { class: "options-body" }));
  document.addEventListener("click", (event) => { if (!more.contains(event.target) && event.target.isConnected) more.open = false; });
  const choosers = el("div", { class: "choosers" }, el("label", {}, el("span", { text: "Space" }), spaces), el("label", {}, el("span", { text: "Head" }), heads), more);
  takesDrops(box);
  let asked = "";

  /** Says what files the store can be searched by. */
  function offer() {
    const kinds = Object.keys(FILES).filter((kind) => store.spaces.some(({ accepts }) => accepts?.includes(kind)));
    const words = `a ${kinds.map((kind) => FILES[kind]).join(", ").replace(/, (?=\w+$)/, " or ")}`;
    input.placeholder = kinds.length ? `Describe it, or drop ${words}` : "Describe it";
    file.accept = kinds.map((kind) => `${kind}/*`).join(",");
    choose.hidden = !kinds.length;
    choose.title = `Search by ${words}`;
    choose.setAttribute("aria-label", choose.title);
  }

  function update(now) {
    offer();
    const fused = Object.keys(now.weights).length > 0;
    if (now.q !== asked) input.value = now.q; // what is being typed stays when something else changes
    asked = now.q;
    redraw(held, () => held.replaceChildren(...tokens(store, now)), input);
    box.classList.toggle("box-held", held.childElementCount > 0);
    const fusible = store.spaces.filter(({ accepts }) => !now.q || accepts?.includes("text")); // words reach only some
    const both = fused || fusible.length > 1 ? [[FUSED, "All, weighted"]] : [];
    setOptions(spaces, withChosen([["", "Any space"], ...store.spaces.map(({ name, encoder }) => [name, `${name} · ${encoder}`]), ...both], now.space), fused ? FUSED : now.space);
    setOptions(heads, withChosen([["", store.heads.length ? "No head" : "No head yet"], ...store.heads.map(({ name, task }) => [name, `${name} · ${task}`])], now.head), now.head);
    heads.disabled = heads.options.length === 1;
    redraw(more.lastChild, () => more.lastChild.replaceChildren(...options(store, now)));
  }

  return { element: el("div", { class: "searchbar" }, form, choosers), input, update };
}

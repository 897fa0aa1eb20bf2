// The front of Teach: classes and their marks, how good the head is by now, what to mark next, and saving.

import { post } from "./api.js";
import { taught, taughtOn } from "./ask.js";
import { shownClass, smallCard } from "./cards.js";
import { announce, button, count, csv, download, el, iconButton, milliseconds, problem, redraw } from "./dom.js";
import { refocus } from "./keyboard.js";
import { progress } from "./progress.js";
import { go, marks, state } from "./state.js";

function renamed(at, name) {
  const { classes, rank } = state();
  const clean = name.trim();
  if (!clean || classes.some(([one], other) => one === clean && other !== at)) return false;
  go({ classes: classes.map(([one, ids], here) => [here === at ? clean : one, ids]), rank: rank === classes[at][0] ? clean : rank });
  return true;
}

function added() {
  const { classes } = state();
  let name = classes.length + 1;
  while (classes.some(([one]) => one === `class ${name}`)) name += 1;
  go({ classes: [...classes, [`class ${name}`, []]] });
}

function removed(at) {
  const { classes, rank } = state();
  const rest = classes.filter((_, here) => here !== at);
  go({ classes: rest, rank: rest.some(([name]) => name === rank) ? rank : rest[0][0] });
}

function classChip([name, ids], at, classes, rank) {
  const input = el("input", { class: "class-name", value: shownClass(name), size: Math.max(2, shownClass(name).length), "aria-label": `Name of class ${at + 1}`, maxlength: "60" });
  input.addEventListener("change", () => { if (input.value === shownClass(name) || !renamed(at, input.value)) input.value = shownClass(name); });
  input.addEventListener("keydown", (event) => event.key === "Enter" && input.blur());
  const wanted = el("input", { type: "radio", name: "rank", "aria-label": `Rank by ${shownClass(name)}`, title: "Rank the grid by this class", on: { change: () => go({ rank: name }) } });
  wanted.checked = name === rank;
  return el("li", { class: "class-chip", data: { hue: at % 8 } }, wanted, input, el("span", { class: "class-count", text: count(ids.length) }),
    classes.length > 2 ? iconButton("close", `Remove class ${shownClass(name)}`, () => removed(at), { class: "icon-button token-remove" }) : null);
}

const HINTS = [
  "Mark what you look for with + (key: +). The grid follows at once.",
  "Now mark something else with − (key: −): two classes make a head.",
];

function hint(now, ready) {
  if (ready) return "";
  if (now.classes.length > 2) return "Mark items of two classes at least (keys: 1, 2, 3, …).";
  return now.classes[0][1].length ? HINTS[1] : HINTS[0];
}

function labels() {
  const rows = state().classes.flatMap(([name, ids]) => ids.map((id) => [id, name]));
  download("labels.csv", csv([["id", "label"], ...rows]));
}

/** Saves the marks as a head of the store: a name, and one line that says what came of it. */
function saving(store, saved) {
  const name = el("input", { type: "text", "aria-label": "Name of the head", placeholder: "name of the head", required: true, maxlength: "80", pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", title: "letters, digits, dots, dashes" });
  const said = el("p", { class: "save-said", role: "status" });
  const form = el("form", {
    class: "save",
    on: {
      submit: async (event) => {
        event.preventDefault();
        said.replaceChildren("Saving…");
        try {
          const { head } = await post("/v1/teach/save", { name: name.value, classes: taught(state()), ...taughtOn(state()) });
          said.replaceChildren(`Saved as the head “${head}”.`);
          name.value = "";
          await saved(head);
          announce(`Saved as the head ${head}.`);
        } catch (error) {
          said.replaceChildren(problem(error));
        }
      },
    },
  }, name, el("button", { class: "button button-strong", text: "Save as a head" }));
  if (!store.writable) return el("p", { class: "muted save-said", text: "Read-only: `embedstore serve --writable` lets this page save heads." });
  return el("div", {}, form, said);
}

/** The panel: {element, strip, show(state, ready), answered(state, answer)}. */
export function teachPanel(store, saved) {
  const classes = el("ul", { class: "classes", "aria-label": "Classes" });
  const help = el("p", { class: "teach-hint" });
  const grown = progress();
  const fitted = el("span", { class: "muted fitted" });
  const strip = el("ul", { class: "strip", "aria-label": "Mark these next" });
  const next = el("section", { class: "next" }, el("h2", { text: "Mark these next" }), el("p", { class: "muted", text: "Mostly what the head doubts, and some that it does not: both teach it." }), strip);
  const save = el("section", { class: "teach-save" }, el("h2", { text: "Keep it" }), saving(store, saved),
    el("div", { class: "row" }, button("Download labels (CSV)", labels), button("Clear all marks", () => go({ classes: state().classes.map(([name]) => [name, []]) }), { class: "button button-plain" })));
  const made = el("div", { class: "teach-made" }, el("section", { class: "teach-quality" }, el("h2", { text: "How good it is" }), grown.element, fitted), save);
  const element = el("section", { class: "teach", "aria-label": "Teach" },
    el("div", { class: "row teach-head" }, classes, button("Add a class", added, { class: "button button-plain" })), help, made, next);

  function show(now, ready) {
    element.hidden = now.view !== "teach";
    if (element.hidden) return;
    redraw(classes, () => classes.replaceChildren(...now.classes.map((one, at) => classChip(one, at, now.classes, now.rank))));
    help.textContent = hint(now, ready);
    help.hidden = ready;
    made.hidden = !ready;
    if (!marks()) next.hidden = true;
  }

  function answered(now, got) {
    if (element.hidden) return;
    const uncertain = got.uncertain ?? [];
    next.hidden = !uncertain.length;
    refocus(strip, () => strip.replaceChildren(...uncertain.map((item) => smallCard(item))));
    grown.add(marks(), got.accuracy);
    fitted.textContent = got.took_ms?.fit === undefined ? "" : `fitted in ${milliseconds(got.took_ms.fit)}, answered in ${milliseconds(got.took_ms.total)}`;
    if (got.accuracy && now.classes) announce(`Leave-one-out accuracy ${got.accuracy.value.toFixed(2)}`);
  }

  return { element, strip, show, answered };
}

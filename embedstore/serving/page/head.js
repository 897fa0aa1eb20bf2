// Look at a head: its numbers beside its baselines, the confusion matrix whose cells open their items, all mistakes, and the labels
// that are likely wrong, to accept or reject.

import { get } from "./api.js";
import { card, remark, shownClass } from "./cards.js";
import { button, count, csv, decimal, download, el, nothing, plural, problem, redraw, select } from "./dom.js";
import { gridKeys } from "./keyboard.js";
import { go, state } from "./state.js";

const STEP = 48;

const SHORT = { auroc: "AUROC", auprc: "AUPRC", nll: "NLL", ece: "ECE", brier: "Brier score", f1: "F1", map: "mAP", rmse: "RMSE", mae: "MAE", r2: "R²" };

function metricName(name) {
  return name.split("_").map((word) => SHORT[word] ?? word).join(" ");
}

function number({ name, value, low, high }, base) {
  const whisker = el("span", { class: "whisker", "aria-hidden": "true" }, el("span", { class: "whisker-range" }), el("span", { class: "whisker-dot" }));
  const inside = [value, low ?? value, high ?? value].every((one) => Number.isFinite(one) && one >= 0 && one <= 1);
  if (inside) for (const [key, at] of [["--value", value], ["--low", low ?? value], ["--high", high ?? value]]) whisker.style.setProperty(key, String(at));
  const said = Number.isFinite(low) ? `${decimal(value)} [${decimal(low)}, ${decimal(high)}]` : decimal(value);
  return el("li", { class: base ? "number number-base" : "number" }, el("span", { class: base ? "muted" : "number-main", text: metricName(name) }),
    inside ? whisker : null, el("span", { class: "number-value", text: said.replaceAll("-", "−") }));
}

/** The metrics, and under the first of them what each baseline reaches in it. */
function numbers(head) {
  const metrics = (head.metrics ?? []).filter(({ value }) => Number.isFinite(value));
  if (head.leave_one_out) metrics.push({ name: "accuracy, leaving one mark out", ...head.leave_one_out });
  if (!metrics.length) return null;
  const [first, ...rest] = metrics;
  const beside = Object.entries(head.baselines ?? {}).filter(([, scores]) => Number.isFinite(scores[first.name]?.value))
    .map(([name, scores]) => number({ name: `${name} (baseline)`, ...scores[first.name] }, true));
  return el("section", {}, el("h2", { text: "Numbers, with their 95 % intervals" }), el("ul", { class: "numbers" }, number(first, false), beside, rest.map((one) => number(one, false))));
}

function taught(head) {
  if (!head.taught) return null;
  return el("p", { class: "muted", text: `Taught with ${Object.entries(head.taught).map(([name, n]) => `${plural(n, "mark")} of ${shownClass(name)}`).join(", ")}.` });
}

function matrix(head, cell) {
  const { classes, confusion } = head;
  if (!confusion?.length) return el("p", { class: "muted", text: head.taught ? "A taught head has seen all its marks: there are no items left to count mistakes on." : (head.note ?? "") });
  const rows = confusion.map((row, truth) => {
    const all = row.reduce((sum, n) => sum + n, 0) || 1;
    return el("tr", {}, el("th", { scope: "row", text: classes[truth], title: classes[truth] }), row.map((n, predicted) => {
      const chosen = cell[0] === classes[truth] && cell[1] === classes[predicted];
      const one = el("button", {
        type: "button", class: `cell ${truth === predicted ? "cell-right" : "cell-wrong"}`, text: count(n), disabled: n === 0, "aria-pressed": String(chosen),
        "aria-label": `${plural(n, "item")} of ${classes[truth]} predicted as ${classes[predicted]}`, title: `${classes[truth]} → ${classes[predicted]}: ${count(n)}`,
        on: { click: () => go({ part: "mistakes", cell: chosen ? [] : [classes[truth], classes[predicted]] }) },
      });
      one.style.setProperty("--part", String(Math.sqrt(n / all)));
      return el("td", {}, one);
    }));
  });
  return el("section", {}, el("h2", { text: `Confusion on ${plural(head.n, "item")}: the true class to the left, the predicted one above` }), el("div", { class: "matrix-wrap" },
    el("table", { class: "matrix" }, el("thead", {}, el("tr", {}, el("td"), classes.map((name) => el("th", { scope: "col", title: name }, el("span", { text: name }))))), el("tbody", {}, rows))));
}

/** What was decided about likely label errors, kept in this browser for each head: id -> "accept" or "reject". */
function decisions(store, head) {
  const key = `embedstore.labels.${store.name}.${head}`;
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(key) ?? "{}");
  } catch {
    kept = {};
  }
  return {
    of: (id) => kept[id]?.verdict ?? "",
    accepted: () => Object.entries(kept).filter(([, { verdict }]) => verdict === "accept"),
    decide(item, verdict) {
      if (kept[item.id]?.verdict === verdict) delete kept[item.id];
      else kept[item.id] = { verdict, given: item.given, proposed: item.proposed };
      try {
        localStorage.setItem(key, JSON.stringify(kept));
      } catch {
        // A browser that keeps nothing still has the decisions until the page is left.
      }
    },
  };
}

function verdicts(item, decided, changed) {
  const choose = (verdict, text) => button(text, () => { decided.decide(item, verdict); tell(); changed(); }, { data: { verdict } });
  const both = [choose("accept", `→ ${item.proposed}`), choose("reject", "Keep")];
  function tell() {
    for (const one of both) one.setAttribute("aria-pressed", String(decided.of(item.id) === one.dataset.verdict));
  }
  tell();
  return el("div", { class: "verdict" }, both);
}

function mistake(item) {
  const sure = item.probability === undefined || item.probability === null ? "" : ` ${Math.round(item.probability * 100)} %`;
  return el("span", { class: "truth" }, el("b", { text: String(item.truth) }), " taken for ", el("b", { text: String(item.predicted) }), el("span", { class: "muted", text: sure }));
}

function suspect(item, decided, changed) {
  return el("div", {}, el("span", { class: "truth" }, "labelled ", el("b", { text: String(item.given) })), verdicts(item, decided, changed));
}

/** The view: {element, show(state)}. */
export function headView(store) {
  const element = el("div", { class: "heads" });
  const grid = el("ul", { class: "grid", "aria-label": "Items of the head" });
  gridKeys(grid, { focus: () => document.getElementById("tabs").querySelector("[aria-current]")?.focus(), select: () => {} });
  let shown = "";
  let turn = 0;

  const nameOf = (now) => (store.heads.some(({ name }) => name === now.look) ? now.look : store.heads[0]?.name);

  const ofTarget = (now) => (now.target ? { target: now.target } : {});

  async function page(now, name, offset, tail, decided, changed, told) {
    const mine = turn;
    const labels = now.part === "labels";
    const path = `/v1/heads/${encodeURIComponent(name)}/${labels ? "label-errors" : "items"}`;
    const cell = now.cell.length === 2 ? { truth: now.cell[0], predicted: now.cell[1] } : {};
    tail.replaceChildren(el("p", { class: "muted", text: "Looking…" }));
    try {
      const got = await get(path, { offset, k: STEP, ...ofTarget(now), ...(labels ? {} : cell) });
      if (mine !== turn) return;
      grid.append(...got.results.map((item, at) => card({ ...item, score: null }, { first: offset + at === 0, extra: labels ? suspect(item, decided, changed) : mistake(item) })));
      told.textContent = plural(got.total, labels ? "label" : "item");
      const more = offset + STEP < got.total;
      tail.replaceChildren(...(more ? [button("Show more", () => page(now, name, offset + STEP, tail, decided, changed, told))] : []));
      if (!grid.childElementCount) tail.replaceChildren(nothing(labels ? "No label looks wrong." : "No mistake here."));
    } catch (error) {
      if (mine === turn) tail.replaceChildren(problem(error, () => page(now, name, offset, tail, decided, changed, told)));
    }
  }

  function items(now, name) {
    const decided = decisions(store, now.target ? `${name}/${now.target}` : name);
    const tail = el("div", { class: "tail" });
    const told = el("span", { class: "muted" });
    const save = button("", () => download(`${now.target ? `${name}-${now.target}` : name}-labels.csv`, csv([["id", now.target || "label", "was"], ...decided.accepted().map(([id, one]) => [id, one.proposed, one.given])])));
    const changed = () => { const n = decided.accepted().length; save.textContent = `Accepted labels as CSV (${n})`; save.disabled = n === 0; };
    changed();
    const tab = (part, text) => button(text, () => go({ part, cell: [] }), { "aria-pressed": String(now.part === part) });
    grid.replaceChildren();
    page(now, name, 0, tail, decided, changed, told);
    const cell = now.cell.length === 2 ? [el("span", { class: "token" }, el("span", { text: `${now.cell[0]} → ${now.cell[1]}` })), button("All mistakes", () => go({ cell: [] }), { class: "button button-plain" })] : [];
    return el("section", { id: "results", tabindex: "-1" }, el("div", { class: "parts", role: "group", "aria-label": "Items" }, tab("mistakes", "Mistakes"), tab("labels", "Likely label errors"), cell, told, now.part === "labels" ? save : null), grid, tail);
  }

  async function show(asked) {
    const name = nameOf(asked);
    const targets = store.heads.find((one) => one.name === name)?.targets ?? [];
    const now = { ...asked, target: targets.includes(asked.target) ? asked.target : (targets[0] ?? "") };
    const key = JSON.stringify([name, now.target, now.part, now.cell]);
    remark(grid);
    if (shown === key) return;
    shown = key;
    turn += 1;
    if (!name) {
      shown = "";
      element.replaceChildren(nothing("This store has no head yet.", "Teach one here, or train one: embedstore train STORE label"));
      return;
    }
    const mine = turn;
    try {
      const head = await get(`/v1/heads/${encodeURIComponent(name)}`, ofTarget(now));
      if (mine !== turn) return;
      const chooser = select("Head", store.heads.map((one) => [one.name, one.name]), name, (look) => go({ look, target: "", cell: [] }));
      const which = select("Target", targets.map((one) => [one, one]), now.target, (target) => go({ target, cell: [] }));
      redraw(element, () => element.replaceChildren(
        el("div", { class: "heads-top" }, el("h1", { text: name }), el("span", { class: "muted", text: [head.task, head.target && `target ${head.target}`, head.classes?.length && plural(head.classes.length, "class", "classes")].filter(Boolean).join(" · ") }), store.heads.length > 1 ? chooser : null, targets.length ? which : null),
        numbers(head) ?? "", taught(head) ?? "", matrix(head, now.cell), head.confusion ? items(now, name) : ""));
    } catch (error) {
      if (mine !== turn) return;
      shown = "";
      element.replaceChildren(problem(error, () => show(state())));
    }
  }

  return { element, show };
}

// How the leave-one-out accuracy grows with the marks: the number, its interval, and a small chart of both.

import { decimal, el, plural, svg } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 56;

function chart(points) {
  const first = points[0].n;
  const span = Math.max(1, points.at(-1).n - first);
  const x = ({ n }) => (4 + ((n - first) / span) * (WIDTH - 8)).toFixed(1);
  const y = (value) => (HEIGHT - 4 - value * (HEIGHT - 8)).toFixed(1);
  const upper = points.map((one) => `${x(one)},${y(one.high)}`);
  const lower = points.map((one) => `${x(one)},${y(one.low)}`).reverse();
  const last = points.at(-1);
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "grown", role: "img", "aria-label": "Accuracy by the number of marks" },
    svg("line", { x1: 4, x2: WIDTH - 4, y1: y(1), y2: y(1), class: "grown-edge" }),
    svg("line", { x1: 4, x2: WIDTH - 4, y1: y(0), y2: y(0), class: "grown-edge" }),
    svg("polygon", { points: [...upper, ...lower].join(" "), class: "grown-band" }),
    svg("polyline", { points: points.map((one) => `${x(one)},${y(one.value)}`).join(" "), class: "grown-line" }),
    svg("circle", { cx: x(last), cy: y(last.value), r: 3, class: "grown-dot" }));
}

/** {element, add(marks, accuracy)}: going back to fewer marks takes the later points away. */
export function progress() {
  const element = el("div", { class: "progress" });
  let points = [];

  function add(n, accuracy) {
    points = points.filter((one) => one.n < n);
    if (!accuracy) {
      element.replaceChildren(el("p", { class: "muted", text: "Two marks in each class give a leave-one-out accuracy." }));
      return;
    }
    points.push({ n, ...accuracy });
    element.replaceChildren(
      el("p", { class: "quality" }, el("b", { text: decimal(accuracy.value, 2) }), " ",
        el("span", { class: "muted", text: `[${decimal(accuracy.low, 2)}, ${decimal(accuracy.high, 2)}] leave-one-out accuracy, ${plural(n, "mark")}` })),
      chart(points));
  }

  return { element, add };
}

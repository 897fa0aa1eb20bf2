// How a hand moves the map: drag and arrows pan, wheel, pinch and + − zoom, Shift or the lasso tool draws a line around points.

const PAN = 60;
const CLICK = 4; // pixels that a click may wander

function middleOf(pointers) {
  const [a, b] = [...pointers.values()];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
}

/**
 * Listens on `stage` and tells: moved(dx, dy), zoomed(x, y, factor), hovered(x, y) or hovered(null), clicked(x, y),
 * drawing(line), drawn(line) in pixels of the stage, and key(name) for the rest. `lassoing()` says whether the tool is on.
 */
export function listenToHands(stage, { moved, zoomed, hovered, clicked, drawing, drawn, key, lassoing }) {
  const pointers = new Map();
  let line = null;
  let travelled = 0;
  let pinch = null;

  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest("button, a, input, select")) return;
    stage.setPointerCapture(event.pointerId);
    const at = place(event);
    pointers.set(event.pointerId, at);
    travelled = 0;
    pinch = pointers.size === 2 ? middleOf(pointers) : null;
    line = pointers.size === 1 && (lassoing() || event.shiftKey) ? [[at.x, at.y]] : null;
    if (!line) drawing(null);
  });

  stage.addEventListener("pointermove", (event) => {
    const at = place(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      hovered(at.x, at.y);
      return;
    }
    travelled += Math.hypot(at.x - before.x, at.y - before.y);
    pointers.set(event.pointerId, at);
    if (pinch) {
      const now = middleOf(pointers);
      moved(now.x - pinch.x, now.y - pinch.y);
      zoomed(now.x, now.y, now.apart / Math.max(1, pinch.apart));
      pinch = now;
    } else if (line) {
      const [x, y] = line.at(-1);
      if (Math.hypot(at.x - x, at.y - y) > 2.5) line.push([at.x, at.y]);
      drawing(line);
    } else if (travelled > CLICK) {
      hovered(null);
      moved(at.x - before.x, at.y - before.y);
    }
  });

  const lift = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    pinch = null;
    const at = place(event);
    if (line && line.length > 2) drawn(line);
    else if (travelled <= CLICK && event.type === "pointerup") clicked(at.x, at.y);
    line = null;
  };
  stage.addEventListener("pointerup", lift);
  stage.addEventListener("pointercancel", lift);
  stage.addEventListener("pointerleave", () => pointers.size === 0 && hovered(null));
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = place(event);
    const step = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
    zoomed(at.x, at.y, Math.exp(-Math.max(-120, Math.min(120, step)) * (event.ctrlKey ? 0.01 : 0.0022)));
  }, { passive: false });

  stage.addEventListener("keydown", (event) => {
    if (event.target !== stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const pan = { ArrowLeft: [PAN, 0], ArrowRight: [-PAN, 0], ArrowUp: [0, PAN], ArrowDown: [0, -PAN] }[event.key];
    const zoom = { "+": 1.35, "=": 1.35, "-": 1 / 1.35 }[event.key];
    const { width, height } = stage.getBoundingClientRect();
    if (pan) moved(...pan);
    else if (zoom) zoomed(width / 2, height / 2, zoom);
    else if (!key(event.key)) return;
    event.preventDefault();
  });
}

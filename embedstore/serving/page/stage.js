// The map's picture: a canvas, its painter, and when to draw. While a hand moves, a fair sample of the points is drawn, as large
// as keeps the pace; a moment after, all of them.

import { makeFlat } from "./paint_2d.js";
import { makeGl } from "./paint_gl.js";
import { Eye } from "./view2d.js";
import { el } from "./dom.js";

const STILL = 140; // ms after the last movement until all points are drawn
const FAST = 22; // ms a frame may take before fewer points are drawn
const SLOW = 30;
const LEAST = 20_000;

/** A canvas with the painter that works here; a canvas whose WebGL failed cannot be used again, so the fallback has its own. */
function painted() {
  const canvas = () => el("canvas", { class: "map-canvas", "aria-hidden": "true" });
  let made = canvas();
  let painter = null;
  try {
    painter = makeGl(made);
  } catch {
    painter = null; // A driver that fails is as good as none.
  }
  if (!painter) {
    made = canvas();
    painter = makeFlat(made);
  }
  return { canvas: made, painter };
}

export class Stage {
  constructor(host) {
    Object.assign(this, painted(), { host, eye: new Eye(), part: 250_000, moving: false, asked: 0, frames: 0 });
    this.canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); this.fallBack(); });
    this.canvas.dataset.painter = this.painter.kind;
    host.prepend(this.canvas);
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(host);
  }

  fallBack() {
    const canvas = el("canvas", { class: "map-canvas", "aria-hidden": "true", data: { painter: "canvas" } });
    this.canvas.replaceWith(canvas);
    this.canvas = canvas;
    this.painter = makeFlat(canvas);
    if (this.cloud) this.painter.load(this.cloud);
    if (this.codes) this.painter.colour(this.codes);
    if (this.inks) this.painter.paint(this.inks);
    this.resize();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (!width || !height) return;
    if (this.eye.width === 1) this.eye.reset(width, height);
    else this.eye.resize(width, height);
    const many = this.cloud?.n > 200_000 || this.painter.kind === "canvas";
    this.painter.resize(width, height, many ? 1 : Math.min(2, window.devicePixelRatio || 1));
    this.draw();
  }

  load(cloud) {
    this.cloud = cloud;
    this.codes = new Uint8Array(cloud.n);
    this.eye.reset(this.host.clientWidth || 1, this.host.clientHeight || 1);
    this.painter.load(cloud);
    this.painter.colour(this.codes);
    this.resize();
  }

  colour(codes) {
    this.codes = codes;
    this.painter.colour(codes);
    this.draw();
  }

  paint(inks) {
    this.inks = inks;
    this.painter.paint(inks);
    this.draw();
  }

  /** Says that a hand moves: a sample now, everything when it rests. */
  move() {
    clearTimeout(this.rest);
    this.rest = setTimeout(() => { this.moving = false; this.last = 0; this.draw(); }, STILL);
    this.moving = true;
    this.draw();
  }

  draw() {
    if (this.asked || !this.cloud || !this.inks) return;
    this.asked = requestAnimationFrame((now) => {
      this.asked = 0;
      if (this.moving) this.pace(now);
      this.drawNow();
    });
  }

  pace(now) {
    const took = this.last ? now - this.last : 0;
    this.last = now;
    if (took > SLOW && took < 1000) this.part = Math.max(LEAST, this.part * 0.7);
    else if (took && took < FAST) this.part = Math.min(this.cloud.n, this.part * 1.1);
    this.frames += 1;
  }

  drawNow() {
    const part = this.moving ? Math.min(this.cloud.n, Math.floor(this.part)) : this.cloud.n;
    this.painter.draw(this.eye, part);
    Object.assign(this.canvas.dataset, { frames: String(this.frames), drawn: String(part) });
  }
}

// The map's picture: a canvas, its painter, and when to draw. While a hand moves, the last picture moves with it, and a fair
// sample of the points is drawn as often and as large as the machine can; a moment after, all of them.

import { makeFlat } from "./paint_2d.js";
import { makeGl } from "./paint_gl.js";
import { Eye } from "./view2d.js";
import { el } from "./dom.js";

const STILL = 140; // ms after the last movement until all points are drawn
const AIM = 12; // ms that the sample of a moving picture should cost
const SHARE = 2; // a moving picture is drawn anew after this many times what it costs
const LEAST = 20_000;
const SOFTWARE = 100_000; // points up to which a WebGL without a graphics card is faster than the canvas

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
    Object.assign(this, painted(), { host, eye: new Eye(), part: 250_000, cost: 0, drawnAt: 0, drawn: null, drawing: false, moving: false, asked: 0, frames: 0 });
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
    this.eye.bounds = cloud.bounds;
    this.eye.reset(this.host.clientWidth || 1, this.host.clientHeight || 1);
    if (this.painter.software && cloud.n > SOFTWARE) {
      this.fallBack();
      return;
    }
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

  /** Says that a hand moves: the last picture moves at once, a sample is drawn as often as it is cheap, everything when it rests. */
  move() {
    clearTimeout(this.rest);
    this.rest = setTimeout(() => { this.moving = false; this.draw(); }, STILL);
    this.moving = true;
    this.draw();
  }

  draw() {
    if (this.asked || !this.cloud || !this.inks) return;
    this.asked = requestAnimationFrame((now) => {
      this.asked = 0;
      if (!this.moving || (!this.drawing && now - this.drawnAt > SHARE * this.cost)) this.drawNow();
      else this.shift();
      this.frames += 1;
      this.canvas.dataset.frames = String(this.frames);
    });
  }

  /** Moves the last picture to where the eye is now. */
  shift() {
    if (!this.drawn) return;
    const { eye, drawn } = this;
    const factor = eye.scale / drawn.scale;
    const [x, y] = eye.pixel(...drawn.corner);
    this.canvas.style.setProperty("transform", `translate(${x}px, ${y}px) scale(${factor})`);
  }

  /** Draws; resolves when it is drawn. */
  async drawNow() {
    const { cloud, eye, painter } = this;
    const part = this.moving ? Math.min(cloud.n, Math.floor(this.part)) : cloud.n;
    this.drawing = true;
    this.drawn = { scale: eye.scale, corner: eye.point(0, 0) };
    const start = performance.now();
    painter.draw(eye, part);
    this.canvas.style.setProperty("transform", "none");
    this.canvas.dataset.drawn = String(part);
    await painter.finish();
    this.drawing = false;
    this.drawnAt = performance.now();
    if (!this.moving) return;
    this.cost = this.drawnAt - start;
    this.part = Math.max(LEAST, Math.min(cloud.n, this.part * Math.max(0.5, Math.min(1.3, AIM / this.cost))));
  }
}

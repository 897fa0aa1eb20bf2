// Where the map's eye is: the middle and the scale, and how points and pixels turn into one another.

export class Eye {
  constructor() {
    this.bounds = [-1, -1, 1, 1];
    this.reset(1, 1);
  }

  /** Shows everything, which lies in `bounds`, in a window of that size (CSS pixels). */
  reset(width, height) {
    const [left, low, right, high] = this.bounds;
    Object.assign(this, { x: (left + right) / 2, y: (low + high) / 2, width, height });
    this.scale = this.whole;
  }

  get whole() {
    const [left, low, right, high] = this.bounds;
    return Math.min(this.width / Math.max(1e-3, right - left), this.height / Math.max(1e-3, high - low)) * 0.92;
  }

  get zoom() {
    return this.scale / this.whole;
  }

  resize(width, height) {
    const zoom = this.zoom || 1;
    Object.assign(this, { width, height });
    this.scale = this.whole * zoom;
  }

  point(px, py) {
    return [this.x + (px - this.width / 2) / this.scale, this.y - (py - this.height / 2) / this.scale];
  }

  pixel(x, y) {
    return [(x - this.x) * this.scale + this.width / 2, this.height / 2 - (y - this.y) * this.scale];
  }

  pan(dx, dy) {
    this.x = Math.max(-1.2, Math.min(1.2, this.x - dx / this.scale));
    this.y = Math.max(-1.2, Math.min(1.2, this.y + dy / this.scale));
  }

  /** Zooms by `factor` so that the point under (px, py) stays there. */
  zoomAt(px, py, factor) {
    const [x, y] = this.point(px, py);
    this.scale = Math.max(this.whole * 0.5, Math.min(this.whole * 400, this.scale * factor));
    const [nx, ny] = this.point(px, py);
    this.x += x - nx;
    this.y += y - ny;
  }
}

/** The diameter of a point in CSS pixels: smaller where there are many, growing slowly as one comes nearer. */
export function pointSize(n, zoom) {
  const base = n > 300_000 ? 1.4 : n > 50_000 ? 2 : n > 8_000 ? 3.2 : n > 1_500 ? 4.6 : 6.5;
  return Math.max(1, Math.min(14, base * Math.max(1, zoom) ** 0.4));
}

/** How many points lie over one another where they are densest, as they are drawn. */
export function overlap(cloud, eye, size) {
  const cell = ((2 / cloud.side) * eye.scale) ** 2;
  return Math.max(1, Math.min(2000, (cloud.densest * size * size) / cell));
}

/** The opacity of a place with `count` points: one is seen, and more of them show as a logarithm does. */
export function opacity(count, peak) {
  if (count <= 0) return 0;
  const least = peak > 40 ? 0.22 : peak > 6 ? 0.5 : 0.85;
  return Math.min(1, least + (1 - least) * (Math.log(1 + count) - Math.LN2) / Math.max(0.7, Math.log(1 + peak) - Math.LN2));
}

// Draws the points without WebGL: sums colours and counts pixel by pixel, then shows them with the same opacity as paint_gl.js.

import { opacity, overlap, pointSize } from "./view2d.js";

const WORK = 6_000_000; // pixels touched in one picture; bounds the size of the dots where there are many

function disc(size) {
  const radius = size / 2;
  const reach = Math.floor(radius);
  const places = [];
  for (let y = -reach; y <= reach; y += 1) for (let x = -reach; x <= reach; x += 1) if (x * x + y * y <= radius * radius + 0.25) places.push([x, y]);
  return places.length ? places : [[0, 0]];
}

class FlatPainter {
  constructor(canvas, context) {
    Object.assign(this, { canvas, context, kind: "canvas" });
    this.inks = new Float32Array(256 * 4);
  }

  load(cloud) {
    this.cloud = cloud;
  }

  colour(codes) {
    this.codes = codes;
  }

  paint(palette) {
    for (let code = 0; code < 256; code += 1) {
      const weight = palette[4 * code + 3] / 255;
      for (let channel = 0; channel < 3; channel += 1) this.inks[4 * code + channel] = palette[4 * code + channel] * weight;
      this.inks[4 * code + 3] = weight;
    }
  }

  resize(width, height, ratio) {
    this.ratio = ratio;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    this.sums = new Float32Array(4 * this.canvas.width * this.canvas.height);
    this.image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  draw(eye, part) {
    const size = Math.min(pointSize(this.cloud.n, eye.zoom) * this.ratio, Math.sqrt(WORK / Math.max(1, part)));
    this.sums.fill(0);
    this.add(eye, part, disc(size));
    this.show(overlap(this.cloud, eye, Math.max(1, size / this.ratio)), this.cloud.n / Math.max(1, part));
  }

  add(eye, part, places) {
    const { inks, codes, sums } = this;
    const { xy } = this.cloud;
    const { width, height } = this.canvas;
    const scale = eye.scale * this.ratio;
    const left = width / 2 - eye.x * scale;
    const top = height / 2 + eye.y * scale;
    for (let i = 0; i < part; i += 1) {
      const ink = 4 * codes[i];
      if (inks[ink + 3] === 0) continue;
      const px = (xy[2 * i] * scale + left) | 0;
      const py = (top - xy[2 * i + 1] * scale) | 0;
      if (px < 8 || py < 8 || px >= width - 8 || py >= height - 8) continue;
      for (let k = 0; k < places.length; k += 1) {
        const at = 4 * ((py + places[k][1]) * width + px + places[k][0]);
        sums[at] += inks[ink];
        sums[at + 1] += inks[ink + 1];
        sums[at + 2] += inks[ink + 2];
        sums[at + 3] += inks[ink + 3];
      }
    }
  }

  show(peak, weight) {
    const { sums, pixels } = this;
    const steps = new Uint8Array(1024); // opacity by the square root of the count
    for (let step = 0; step < 1024; step += 1) steps[step] = 255 * opacity((step / 20) ** 2, peak);
    for (let at = 0; at < pixels.length; at += 1) {
      const count = sums[4 * at + 3];
      if (count === 0) {
        pixels[at] = 0;
        continue;
      }
      const alpha = steps[Math.min(1023, (Math.sqrt(count * weight) * 20) | 0)] * Math.min(1, count * weight);
      pixels[at] = (alpha << 24) | ((sums[4 * at + 2] / count) << 16) | ((sums[4 * at + 1] / count) << 8) | (sums[4 * at] / count);
    }
    this.context.putImageData(this.image, 0, 0);
  }

  /** Everything is drawn when `draw` returns. */
  async finish() {}
}

export function makeFlat(canvas) {
  return new FlatPainter(canvas, canvas.getContext("2d", { willReadFrequently: true }));
}

// Draws the points with WebGL2: their colours are summed in a half-float picture, then shown with an opacity that follows the
// logarithm of how many lie there. Without WebGL2 or half-float pictures `makeGl` gives null, and the page draws with paint_2d.js.

import { overlap, pointSize } from "./view2d.js";

const POINTS = `#version 300 es
precision highp float;
layout(location=0) in vec2 place;
layout(location=1) in uint code;
uniform vec4 eye; // middle x, y; scale x, y to clip space
uniform float size, weight;
uniform sampler2D palette;
flat out vec4 colour;
void main() {
  vec4 ink = texelFetch(palette, ivec2(int(code), 0), 0);
  gl_Position = ink.a == 0.0 ? vec4(2.0, 2.0, 2.0, 1.0) : vec4((place - eye.xy) * eye.zw, 0.0, 1.0);
  gl_PointSize = size;
  colour = vec4(ink.rgb, 1.0) * ink.a * weight;
}`;

const DOT = `#version 300 es
precision highp float;
flat in vec4 colour;
uniform float size;
out vec4 sum;
void main() {
  if (size > 2.5) {
    vec2 from = gl_PointCoord - 0.5;
    if (dot(from, from) > 0.25) discard;
  }
  sum = colour;
}`;

const WHOLE = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0), 0.0, 1.0); }`;

const TONE = `#version 300 es
precision highp float;
uniform sampler2D sums;
uniform float peak, least;
out vec4 shown;
void main() {
  vec4 sum = texelFetch(sums, ivec2(gl_FragCoord.xy), 0);
  if (sum.a <= 0.0) { shown = vec4(0.0); return; }
  float known = min(1.0, sum.a);
  float alpha = known * min(1.0, least + (1.0 - least) * max(0.0, log(1.0 + sum.a) - 0.693) / max(0.7, log(1.0 + peak) - 0.693));
  shown = vec4(sum.rgb / sum.a * alpha, alpha);
}`;

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) {
    console.warn(`The map is drawn without WebGL: ${gl.getProgramInfoLog(made)}`);
    return null;
  }
  const uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i += 1) {
    const { name } = gl.getActiveUniform(made, i);
    uniforms[name] = gl.getUniformLocation(made, name);
  }
  return { made, uniforms };
}

function texture(gl) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const key of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, key, gl.NEAREST);
  return made;
}

function isSoftware(gl) {
  const told = gl.getExtension("WEBGL_debug_renderer_info");
  return /swiftshader|llvmpipe|software|basic render/i.test(String(gl.getParameter(told ? told.UNMASKED_RENDERER_WEBGL : gl.RENDERER)));
}

class GlPainter {
  constructor(gl, points, tone) {
    Object.assign(this, { gl, points, tone, kind: "webgl2", software: isSoftware(gl) });
    this.places = gl.createBuffer();
    this.codes = gl.createBuffer();
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.places);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.codes);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribIPointer(1, 1, gl.UNSIGNED_BYTE, 0, 0);
    this.palette = texture(gl);
    this.sums = texture(gl);
    this.frame = gl.createFramebuffer();
  }

  load(cloud) {
    const { gl } = this;
    this.cloud = cloud;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.places);
    gl.bufferData(gl.ARRAY_BUFFER, cloud.xy, gl.STATIC_DRAW);
  }

  colour(codes) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.codes);
    gl.bufferData(gl.ARRAY_BUFFER, codes, gl.DYNAMIC_DRAW);
  }

  /** 256 colours, RGBA in 0–255; the alpha is the weight of a point of that code, 0 hides it. */
  paint(palette) {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D, this.palette);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, palette);
  }

  resize(width, height, ratio) {
    const { gl } = this;
    this.ratio = ratio;
    gl.canvas.width = Math.max(1, Math.round(width * ratio));
    gl.canvas.height = Math.max(1, Math.round(height * ratio));
    gl.bindTexture(gl.TEXTURE_2D, this.sums);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, gl.canvas.width, gl.canvas.height, 0, gl.RGBA, gl.HALF_FLOAT, null);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.sums, 0);
  }

  /** Draws the first `part` of the points as if they were all. */
  draw(eye, part) {
    const { gl, cloud } = this;
    const { width, height } = gl.canvas;
    const size = pointSize(cloud.n, eye.zoom) * this.ratio;
    const peak = overlap(cloud, eye, size / this.ratio);
    gl.viewport(0, 0, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.useProgram(this.points.made);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE);
    gl.bindVertexArray(this.array);
    gl.bindTexture(gl.TEXTURE_2D, this.palette);
    const { eye: at, size: big, weight } = this.points.uniforms;
    gl.uniform4f(at, eye.x, eye.y, (2 * eye.scale) / eye.width, (2 * eye.scale) / eye.height);
    gl.uniform1f(big, size);
    gl.uniform1f(weight, Math.min(64, cloud.n / Math.max(1, part)));
    gl.drawArrays(gl.POINTS, 0, part);
    this.show(peak);
  }

  show(peak) {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.disable(gl.BLEND);
    gl.useProgram(this.tone.made);
    gl.bindTexture(gl.TEXTURE_2D, this.sums);
    gl.uniform1f(this.tone.uniforms.peak, peak);
    gl.uniform1f(this.tone.uniforms.least, peak > 40 ? 0.22 : peak > 6 ? 0.5 : 0.85);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  /** Resolves when what was asked is drawn. */
  async finish() {
    const { gl } = this;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    while (fence && !gl.isContextLost() && gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED) await new Promise((resolve) => setTimeout(resolve, 2));
    gl.deleteSync(fence);
  }
}

/** A painter on `canvas`, or null where WebGL2 or half-float pictures are missing. */
export function makeGl(canvas) {
  const gl = canvas.getContext("webgl2", { alpha: true, premultipliedAlpha: true, antialias: false, powerPreference: "high-performance" });
  if (!gl || !(gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float"))) return null;
  const points = program(gl, POINTS, DOT);
  const tone = program(gl, WHOLE, TONE);
  return points && tone ? new GlPainter(gl, points, tone) : null;
}

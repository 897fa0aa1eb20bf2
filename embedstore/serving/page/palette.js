// Colours for the classes on the map: the largest classes get one each, the rest share grey.

const LIGHT = ["#2f4cc9", "#c8501e", "#11713f", "#b0268c", "#8a6a00", "#0b7d8c", "#b3261e", "#6f42c1", "#5a7a12", "#915b3c", "#3b82d6", "#d9822b", "#3aa776", "#d25c9d", "#b79a1d", "#45aebd", "#e06a5f", "#9b7fd6"];
const DARK = ["#9db0ff", "#ff9d66", "#5fd092", "#f58ad4", "#f0cf58", "#5bd3e2", "#ff8278", "#c6a4ff", "#b9da5f", "#d9a784", "#5f9df0", "#ffc27a", "#8ae6bb", "#ffb3d9", "#d8c45a", "#9be8f2", "#ffb8b0", "#ddccff"];
const RIGHT = { light: ["#8d96a5", "#c3241b"], dark: ["#79838f", "#ff7466"] };

export const OTHER = LIGHT.length;
export const MISSING = OTHER + 1;
export const PICKED = 0x80; // the bit of a code that says: selected
const NONE = 65535;

/** How the codes of a column become colours: {slots (uint8 by code), names, counts}, the largest classes first. */
export function legendOf(codes, names) {
  const counts = new Uint32Array(names.length + 1);
  for (let i = 0; i < codes.length; i += 1) counts[codes[i] === NONE ? names.length : Math.min(codes[i], names.length)] += 1;
  const error = names.length === 2 && names[0] === "right" && names[1] === "wrong";
  const order = [...names.keys()];
  if (!error) order.sort((a, b) => counts[b] - counts[a]);
  const slots = new Uint8Array(names.length).fill(OTHER);
  order.slice(0, OTHER).forEach((code, slot) => { slots[code] = slot; });
  const entries = order.slice(0, OTHER).map((code, slot) => ({ slot, name: names[code], count: counts[code] }));
  const rest = order.slice(OTHER).reduce((sum, code) => sum + counts[code], 0);
  if (rest) entries.push({ slot: OTHER, name: `other (${order.length - OTHER})`, count: rest });
  if (counts[names.length]) entries.push({ slot: MISSING, name: "missing", count: counts[names.length] });
  return { slots, entries, error };
}

/** The slot of each point of a cloud, from the codes of the store's rows. */
export function slotsOf(codes, legend, rows) {
  const made = new Uint8Array(rows.length);
  for (let i = 0; i < rows.length; i += 1) {
    const code = codes[rows[i]];
    made[i] = code === NONE ? MISSING : (legend.slots[code] ?? OTHER);
  }
  return made;
}

const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;

/** The colour of a slot, as CSS writes it. */
export function colourOf(slot, error) {
  if (slot >= OTHER) return dark() ? "#59616e" : "#a9b0bb";
  if (error) return RIGHT[dark() ? "dark" : "light"][slot === 0 ? 0 : 1];
  return (dark() ? DARK : LIGHT)[slot];
}

/** 256 RGBA colours by code: hidden slots weigh nothing, and what is not picked weighs little while anything is. */
export function paletteOf({ hidden, picking, error }) {
  const made = new Uint8Array(256 * 4);
  for (let code = 0; code < 256; code += 1) {
    const slot = code & ~PICKED;
    if (slot > MISSING || hidden.has(slot)) continue;
    const hex = colourOf(slot, error);
    for (let channel = 0; channel < 3; channel += 1) made[4 * code + channel] = parseInt(hex.slice(1 + 2 * channel, 3 + 2 * channel), 16);
    made[4 * code + 3] = picking && !(code & PICKED) ? 36 : 255;
  }
  return made;
}

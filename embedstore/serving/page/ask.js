// Turns the state of the page into a question for the server.

import { ApiError, post, upload } from "./api.js";

export const UNCERTAIN = 8;

const pictures = new Map();

/** Keeps a picture of the user's in this tab and says its key. */
export function keepPicture(file) {
  const own = crypto.getRandomValues(new Uint32Array(1))[0].toString(36); // the address outlives the tab: no other's picture has its key
  const key = `${own}-${file.name || "picture"}`;
  pictures.set(key, { file, url: URL.createObjectURL(file) });
  return key;
}

export const pictureOf = (key) => pictures.get(key) ?? null;

/** The body of /v1/search for a state, of `k` results from `offset`; a picture of the user's is not in it. */
export function request(state, { offset = 0, k = state.k } = {}) {
  const body = { k, offset, fold: state.fold };
  if (state.id) body.query = { id: state.id };
  else if (state.q && !state.picture) body.query = { text: state.q };
  if (state.pos.length) body.positive = state.pos;
  if (state.neg.length) body.negative = state.neg;
  const weights = Object.fromEntries(Object.entries(state.weights).filter(([, weight]) => weight > 0));
  if (Object.keys(weights).length) body.weights = weights;
  else if (state.space) body.space = state.space;
  if (state.filter.length) body.filter = state.filter;
  if (state.head) body.head = state.head;
  if (state.exact) body.exact = true;
  if (state.diversity > 0) body.diversity = state.diversity;
  if (state.min !== "" && Number.isFinite(Number(state.min))) body.min_score = Number(state.min);
  return body;
}

/** Whether two classes have marks. With one alone the server ranks too: what is not marked counts a little as the other. */
export function canTeach(state) {
  return state.classes.filter(([, ids]) => ids.length).length >= 2;
}

function teaching(state, { offset, k }) {
  const body = { classes: taught(state), rank: state.rank, k, offset, uncertain: offset ? 0 : UNCERTAIN };
  if (!body.classes[body.rank]) body.rank = Object.keys(body.classes)[0];
  if (state.filter.length) body.filter = state.filter;
  return { ...body, ...taughtOn(state) };
}

/** The spaces that a taught head sees: the one chosen, or those that are fused. */
export function taughtOn({ space, weights }) {
  const spaces = Object.keys(weights).filter((name) => weights[name] > 0);
  return spaces.length ? { spaces } : space ? { space } : {};
}

export function taught(state) {
  return Object.fromEntries(state.classes.filter(([, ids]) => ids.length));
}

/** The answer for a state: of the head that is being taught once something is marked, else of a search. */
export async function answer(state, { offset = 0, k = state.k, signal } = {}) {
  const page = { offset, k };
  if (state.view === "teach" && Object.keys(taught(state)).length) return post("/v1/teach", teaching(state, page), signal);
  const picture = pictureOf(state.picture);
  if (state.picture && !picture) throw new ApiError("The file that was searched by is no longer in this tab.", { next: "Drop it again, or remove it from the box." });
  if (picture) return upload("/v1/search/upload", picture.file, request(state, page), signal);
  return post("/v1/search", request(state, page), signal);
}

const OPS = { "=": "=", "!=": "≠", "<": "<", "<=": "≤", ">": ">", ">=": "≥", in: "in", contains: "contains" };

/** A filter as people read it. */
export function sayFilter({ field, op, value }) {
  if (op === "missing") return `${field} is ${value === false ? "there" : "missing"}`;
  return `${field} ${OPS[op] ?? op} ${Array.isArray(value) ? value.join(", ") : value}`;
}

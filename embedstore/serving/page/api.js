// Asks the server. Holds the token of a server that wants one; knows nothing of the page.

const KEY = "embedstore.token";
let token = "";

/** Moves `#token=…` from the address into this tab's memory, so that no link that people copy has it. */
export function takeToken() {
  const found = /^#token=([^&]*)/.exec(location.hash);
  const given = found ? decoded(found[1]) : "";
  try {
    if (found) sessionStorage.setItem(KEY, given);
    token = sessionStorage.getItem(KEY) ?? "";
  } catch {
    token = given;
  }
  if (found) history.replaceState(null, "", `${location.pathname}#/search`);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** What the server refused: `message`, what to do `next`, and the HTTP `status` (0: not reached). */
export class ApiError extends Error {
  constructor(message, { next = "", status = 0 } = {}) {
    super(message);
    this.next = next;
    this.status = status;
  }
}

async function refusal(response) {
  let said = {};
  try {
    said = await response.json();
  } catch {
    // An answer that is not JSON says nothing more than its status.
  }
  const message = typeof said.error === "string" ? said.error : `The server answered ${response.status}.`;
  if (response.status === 401) {
    return new ApiError("This server asks for a token.", { status: 401, next: "Open the address that `embedstore serve` printed: it ends in #token=…" });
  }
  return new ApiError(message, { next: said.next ?? "", status: response.status });
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer.", { next: "See whether `embedstore serve` still runs, then try again." });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

function address(path, params) {
  const given = Object.entries(params ?? {}).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

export async function get(path, params, signal) {
  return (await ask(address(path, params), { signal })).json();
}

export async function post(path, body, signal) {
  const options = { method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return (await ask(path, options)).json();
}

const FIELD = /^(image|audio|video)\//;

/** Sends a file under its modality; where the browser does not know it, the server looks at its bytes. */
export async function upload(path, file, request, signal) {
  const body = new FormData();
  body.append("request", JSON.stringify(request));
  body.append(FIELD.exec(file.type)?.[1] ?? "file", file, file.name || "file");
  return (await ask(path, { method: "POST", signal, body })).json();
}

/** GET that is asked again while the server answers 202 (it is computing); `wait` hears for how many seconds. */
async function ready(path, params, signal, wait) {
  for (;;) {
    const response = await ask(address(path, params), { signal });
    if (response.status !== 202) return response;
    wait((await response.json()).seconds);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    if (signal?.aborted) throw new DOMException("left", "AbortError");
  }
}

export async function getWhenReady(path, params, signal, wait) {
  return (await ready(path, params, signal, wait)).json();
}

/** The answer's bytes and headers: {buffer, headers}. */
export async function bytesWhenReady(path, params, signal, wait) {
  const response = await ready(path, params, signal, wait);
  return { buffer: await response.arrayBuffer(), headers: response.headers };
}

/** From paths to addresses of what was fetched from them, of which the last `most` are kept. */
function fetched(most) {
  const blobs = new Map();
  return (path) => {
    if (!blobs.has(path)) {
      const url = ask(path).then((response) => response.blob()).then((blob) => URL.createObjectURL(blob));
      blobs.set(path, url);
      url.catch(() => blobs.get(path) === url && blobs.delete(path)); // the next who wants it asks again
      if (blobs.size > most) {
        const [oldest, last] = blobs.entries().next().value;
        blobs.delete(oldest);
        last.then((gone) => URL.revokeObjectURL(gone), () => {});
      }
    }
    return blobs.get(path);
  };
}

const blobOf = fetched(800);
const playedOf = fetched(8);

export const needsToken = () => token !== "";

export const thumbnailAddress = (id, size) => address("/v1/thumbnail", { id, size });

export const mediaAddress = (id, modality) => address("/v1/media", { id, modality });

/** The address of an item's sound or film that was fetched whole. */
export const mediaBlob = (id, modality) => playedOf(mediaAddress(id, modality));

const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    blobOf(target.dataset.path).then((url) => { target.src = url; }, () => target.dispatchEvent(new Event("error")));
  }
}, { rootMargin: "300px" });

/** Shows an item's picture in `img`. With a token it is fetched, because an `src` carries no header. */
export function showPicture(img, id, size = 256) {
  const path = thumbnailAddress(id, size);
  if (!token) {
    img.loading = "lazy";
    img.src = path;
  } else {
    img.dataset.path = path;
    seen.observe(img);
  }
}

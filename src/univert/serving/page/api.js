/** The service's HTTP interface. Every failure comes out as a `Problem`. */

import { apiKey } from "./key.js";
import { FACETS } from "./place.js";

const PATIENCE_MS = 30_000;

/** What went wrong, in the service's words: `kind` is the last part of the problem's type, or "network". */
export class Problem extends Error {
  constructor({ kind, detail = "", status = 0, requestId = null, retryAfterS = null }) {
    super(detail || kind);
    Object.assign(this, { kind, detail, status, requestId, retryAfterS });
  }
}

/**
 * The answer to a search: `photo` is {file, box} as photo.js prepares it, `like` an item's id, `text` words, which
 * may come with a photo.
 */
export function search({ photo = null, like = null, text = null, filters, k }, signal) {
  const form = new FormData();
  if (like !== null) form.set("like", like);
  if (text) form.set("text", text);
  if (photo) form.set("photo", photo.file, photo.file.name || "photo");
  if (photo?.box) form.set("box", photo.box.join(","));
  form.set("k", String(k));
  for (const facet of FACETS) for (const value of filters[facet]) form.append(facet, value);
  return ask("search", { method: "POST", body: form }, signal);
}

/** What there is to search: verticals, brands, styles, sources, each with its number of images. */
export function inventory(signal) {
  return ask("verticals", {}, signal);
}

/** The columns of an item. */
export function item(id, signal) {
  return ask(itemUrl(id), {}, signal);
}

/** Tell whether an item is the product in a photo; `photo` as for a search. */
export async function tell({ photo, id, same }) {
  const form = new FormData();
  form.set("photo", photo.file, photo.file.name || "photo");
  if (photo.box) form.set("box", photo.box.join(","));
  form.set("item", id);
  form.set("same", String(same));
  await fetchOrProblem("feedback", { method: "POST", body: form });
}

function itemUrl(id) {
  return `items/${encodeURIComponent(id)}`;
}

export function thumbnailUrl(id, size_px) {
  return `${itemUrl(id)}/thumbnail?size_px=${size_px}`;
}

/** A picture behind an API key, which an <img> cannot send. */
export async function picture(url, signal) {
  return (await fetchOrProblem(url, {}, signal)).blob();
}

/** What the service answers to a request, as JSON; `headers` go with it. */
export async function ask(url, options, signal, headers = {}) {
  const response = await fetchOrProblem(url, options, signal, headers);
  try {
    return await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem({ kind: "network", detail: "The answer was cut short." });
  }
}

async function fetchOrProblem(url, options, signal, given = {}) {
  const headers = apiKey() ? { ...given, "X-API-Key": apiKey() } : given;
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let response;
  try {
    response = await fetch(url, {
      ...options,
      headers,
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem({ kind: patience.aborted ? "deadline" : "network" });
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  let said = {};
  try {
    said = await response.json();
  } catch {
    // A proxy in between answers in a format of its own: the status is all there is.
  }
  const type = typeof said.type === "string" ? said.type.split("/").pop() : "";
  return new Problem({
    kind: type && type !== "about:blank" ? type : kindOfStatus(response.status),
    detail: typeof said.detail === "string" ? said.detail : "",
    status: response.status,
    requestId: response.headers.get("X-Request-ID") ?? said.request_id ?? null,
    retryAfterS: seconds(response.headers.get("Retry-After")),
  });
}

function kindOfStatus(status) {
  const kinds = {
    401: "unauthorised",
    403: "unauthorised",
    404: "not-found",
    413: "too-large",
    415: "unsupported-type",
  };
  return (
    { ...kinds, 422: "validation", 429: "rate-limited", 503: "overloaded", 504: "deadline" }[status] ??
    "internal"
  );
}

/** Retry-After is a number of seconds or a date. */
function seconds(header) {
  if (!header) return null;
  const number = Number(header);
  const value = Number.isFinite(number) ? number : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(value) ? Math.max(0, Math.ceil(value)) : null;
}

/**
 * Where the visitor is: what is asked, within which filters, how many answers. A place lives in the address, so that
 * links and the back button work; a photo cannot be in an address, so only its key is remembered with the visit.
 *
 * place = { query: null | {kind: "item", id} | {kind: "words", text} | {kind: "photo", key, text}, box: [x0, y0, x1, y1] px | null, filters, k,
 *           from: {key, box} of the photo that led to an item, or null }
 */

export const FACETS = ["vertical", "brand", "style", "source"];
export const FEW = 24;
export const MOST = 100;

/** No filters: a list of chosen values for each facet. */
export function noFilters() {
  return Object.fromEntries(FACETS.map((facet) => [facet, []]));
}

/** The place that an address and what the browser remembers with it stand for. */
export function readPlace(address, remembered) {
  const asked = new URL(address).searchParams;
  const filters = noFilters();
  for (const facet of FACETS) filters[facet] = [...new Set(asked.getAll(facet))].filter(Boolean);
  const wanted = Number.parseInt(asked.get("k") ?? "", 10);
  const k = Number.isFinite(wanted) ? Math.min(MOST, Math.max(1, wanted)) : FEW;
  const like = asked.get("like");
  if (like)
    return { query: { kind: "item", id: like }, box: null, filters, k, from: remembered?.from ?? null };
  const text = asked.get("text");
  if (text?.trim()) return { query: { kind: "words", text: text.trim() }, box: null, filters, k, from: null };
  const key = remembered?.photo;
  const steered = remembered?.text ? { text: remembered.text } : {};
  return { query: key ? { kind: "photo", key, ...steered } : null, box: remembered?.box ?? null, filters, k, from: null };
}

/** The address of a place, relative to the page, which a proxy may show under a path of its own. */
export function placeUrl({ query, filters, k }) {
  const asked = new URLSearchParams();
  if (query?.kind === "item") asked.set("like", query.id);
  if (query?.kind === "words") asked.set("text", query.text);
  for (const facet of FACETS) for (const value of filters[facet]) asked.append(facet, value);
  if (k !== FEW) asked.set("k", String(k));
  const text = asked.toString();
  return text ? `?${text}` : ".";
}

/** What the browser is to remember with a place besides its address. */
export function toRemember({ query, box, from }) {
  return query?.kind === "photo" ? { photo: query.key, box, text: query.text } : { from: from ?? null };
}

/** A name that two places share only if they have the same answer. */
export function placeKey(place) {
  return JSON.stringify([
    place.query,
    place.box,
    FACETS.map((facet) => [...place.filters[facet]].sort()),
    place.k,
  ]);
}

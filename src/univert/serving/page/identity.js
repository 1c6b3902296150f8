/** What it is: vertical, brand, style and product with confidence, "not sure" where that is the answer, and why. */

import { thumbnailUrl } from "./api.js";
import { byId, count, element, fill } from "./dom.js";
import { tile } from "./pictures.js";

const FIELDS = ["product", "vertical", "style", "brand"];
/** Of the evidence, the nearest. */
const MOST_SHOWN = 8;
/** A guess that is worth less than this is not worth reading. */
const LEAST_GUESS = 0.1;
const WORDS = { product: "Product", vertical: "Vertical", style: "Style", brand: "Brand" };

/** One line that names the thing, as exactly as the answer dares. */
export function headline(identity) {
  const known = (name) => (identity?.[name]?.known ? identity[name].value : null);
  if (known("product")) return known("product");
  if (known("style")) return known("style");
  if (known("vertical")) return `Something in ${known("vertical")}`;
  return "Not sure what this is";
}

/** Show the identity; `linkTo(id)` is the address of more like an item. */
export function showIdentity(identity, hits, linkTo) {
  const card = byId("identity");
  card.hidden = !identity;
  if (!identity) return;
  const sure = FIELDS.some((name) => identity[name]?.known);
  card.classList.toggle("unsure", !sure);
  // A product that is sure is the headline; its confidence goes with it instead of a row that says the same again.
  const named = identity.product?.known ? `${percent(identity.product.confidence)} sure` : null;
  const rows = FIELDS.filter((name) => identity[name] && !(name === "product" && named));
  fill(
    card,
    element(
      "p",
      { class: "line" },
      element("span", { class: "eyebrow" }, sure ? "What it is" : "Nothing near enough"),
      named && element("span", { class: "note" }, named),
    ),
    element("h2", { id: "identity-title" }, headline(identity)),
    !sure &&
      element(
        "p",
        { class: "note" },
        "The nearest images are shown, but they don't agree, or aren't close enough, to put a name to it.",
      ),
    element(
      "dl",
      { class: "identity" },
      rows.map((name) => row(name, identity[name])),
    ),
    evidence(identity, hits, linkTo),
  );
}

/** Grey bones while the answer is on its way. */
export function showIdentityBones() {
  const card = byId("identity");
  card.hidden = false;
  card.classList.remove("unsure");
  card.replaceChildren(
    element("p", { class: "eyebrow" }, "What it is"),
    element("h2", { id: "identity-title", class: "bone" }, "Looking"),
    element(
      "div",
      { class: "identity", "aria-hidden": "true" },
      FIELDS.map(() => element("span", { class: "bone" })),
    ),
  );
}

function percent(part) {
  return `${Math.round(100 * part)}%`;
}

function row(name, { value, confidence, known }) {
  if (value === null || (!known && confidence < LEAST_GUESS)) {
    return element(
      "div",
      { class: "guess" },
      element("dt", {}, WORDS[name]),
      element("dd", { class: "value" }, "Not sure"),
    );
  }
  const bar = element("i");
  bar.style.setProperty("width", percent(confidence));
  const guess = element("span", {}, element("span", { class: "maybe" }, "maybe "), value);
  const sure = element("span", {}, percent(confidence), element("span", { class: "hidden" }, " sure"));
  return element(
    "div",
    { class: known ? "known" : "guess" },
    element("dt", {}, WORDS[name]),
    element("dd", { class: "value" }, known ? value : guess),
    element("dd", { class: "sure" }, element("span", { class: "bar", "aria-hidden": "true" }, bar), sure),
  );
}

function evidence(identity, hits, linkTo) {
  const near = identity.evidence ?? [];
  if (near.length === 0) return null;
  const named = new Map(hits.map((hit) => [hit.id, hit]));
  const agreeing = FIELDS.filter((name) => identity[name]?.value)
    .map(
      (name) => `${WORDS[name].toLowerCase()} ${near.filter(({ agrees }) => agrees.includes(name)).length}`,
    )
    .join(", ");
  return element(
    "details",
    { class: "why" },
    element("summary", {}, `Why? ${count(near.length, "image")} agree`),
    element("p", { class: "note" }, `Nearer images count more. How many agree on each: ${agreeing}.`),
    element(
      "ol",
      { class: "evidence" },
      near.slice(0, MOST_SHOWN).map((vote) => voter(vote, named.get(vote.id), linkTo)),
    ),
  );
}

function voter({ id, distance, agrees }, hit, linkTo) {
  const name = hit?.product ?? id;
  const tags = agrees.length
    ? agrees.map((field) => element("span", { class: "tag" }, field))
    : element("span", { class: "note" }, "disagrees");
  return element(
    "li",
    {},
    element(
      "a",
      { href: linkTo(id), "data-like": id },
      tile(thumbnailUrl(id, 128)),
      element("span", { class: "name" }, name),
      element("span", { class: "distance" }, distance.toFixed(2)),
    ),
    element("span", { class: "tags" }, tags),
  );
}

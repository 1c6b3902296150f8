/** What it is: vertical, brand, style and product with confidence, "not sure" where that is the answer, and why. */

import { thumbnailUrl } from "./api.js";
import { bar, byId, count, element, fill, nameOf, percent, readable } from "./dom.js";
import { tile } from "./pictures.js";

const FIELDS = ["product", "vertical", "style", "brand"];
/** Of the evidence, the nearest. */
const MOST_SHOWN = 8;
/** A guess that is worth less than this is not worth reading. */
const LEAST_GUESS = 0.25;
const WORDS = { product: "Product", vertical: "Vertical", style: "Style", brand: "Brand" };

/** One line that names the thing, as exactly as the answer dares; of several items `found` in a photo, their number. */
export function headline(identity, found = []) {
  const known = (name) => (identity?.[name]?.known ? readable(identity[name].value) : null);
  if (known("product")) return known("product");
  if (known("style")) return known("style");
  if (known("vertical")) return known("vertical");
  return found.length ? `${count(found.length, "item")} found` : "Not sure what this is";
}

/** Show the identity; `linkTo(id)` is the address of more like an item, `found` are the items found in the photo. */
export function showIdentity(identity, hits, linkTo, found = []) {
  const card = byId("identity");
  const sure = FIELDS.some((name) => identity?.[name]?.known);
  const room = !sure && found.length > 0;
  card.hidden = !identity && !room;
  card.classList.toggle("unsure", !sure && !room);
  if (room) showRoom(card, found);
  if (!identity || room) return;
  // A product that is sure is the headline; its confidence goes with it instead of a row that says the same again.
  const named = identity.product?.known ? `${percent(identity.product.confidence)} sure` : null;
  const told = FIELDS.filter((name) => identity[name] && !(name === "product" && named));
  const worth = ({ value, known, confidence }) => value !== null && (known || confidence >= LEAST_GUESS);
  const rows = told.filter((name) => worth(identity[name]));
  const untold = told.filter((name) => !rows.includes(name)).map((name) => WORDS[name].toLowerCase());
  const short = rows
    .filter((name) => identity[name].known || identity[name].confidence >= 0.5)
    .map((name) => phrase(name, identity[name]))
    .filter((words) => words !== headline(identity));
  const promised = promise(identity);
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
        "The nearest images are shown, but too few of them agree, or they aren't close enough, to put a name to it.",
      ),
    element("p", { class: "short", "aria-hidden": "true" }, short.join(" · ")),
    element(
      "dl",
      { class: "identity" },
      rows.map((name) => row(name, identity[name])),
    ),
    sure && untold.length > 0 && element("p", { class: "note promise" }, `Can't tell: ${untold.join(", ")}.`),
    promised && element("p", { class: "note promise" }, promised),
    evidence(identity, hits, linkTo, sure),
  );
}

/** A photo of several things, which as a whole is none of them. */
function showRoom(card, found) {
  fill(
    card,
    element("p", { class: "eyebrow" }, "In this photo"),
    element("h2", { id: "identity-title" }, headline(null, found)),
    element("p", { class: "note" }, "Choose one to see what it is, and what is like it."),
  );
}

/** What a name is worth: "Named when right 9 times in 10"; attributes with another precision, or none, are told apart. */
function promise(identity) {
  const calibrated = FIELDS.filter((name) => identity[name]?.known_precision);
  const fields = calibrated.filter((name) => identity[name].known_threshold !== null);
  const never = calibrated.filter((name) => !fields.includes(name) && identity[name].value !== null);
  const worth = new Map(fields.map((name) => [name, times(identity[name].known_precision)]));
  const said = [...worth.values()];
  if (said.length === 0) return null;
  const often = (one) => said.filter((other) => other === one).length;
  const usual = said.reduce((best, one) => (often(one) > often(best) ? one : best));
  const others = fields
    .filter((name) => worth.get(name) !== usual)
    .map((name) => `${WORDS[name].toLowerCase()} ${worth.get(name)}`);
  const apart = others.length ? ` (${others.join(", ")})` : "";
  const words = never.map((name) => WORDS[name]).join(" and ").toLowerCase();
  const rest = never.length ? ` The ${words} can't be told that surely here.` : "";
  return `Named when right ${usual}${apart}, otherwise “maybe”.${rest}`;
}

/** 0.9 -> "9 times in 10", 0.75 -> "75 times in 100"; rounded down, so as not to promise more. */
function times(precision) {
  for (const of of [10, 100, 1000]) {
    const right = Math.round(precision * of);
    if (Math.abs(right / of - precision) < 1e-9) return `${right} times in ${of}`;
  }
  return `${Math.floor(precision * 1000)} times in 1000`;
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

/** Names of makers are written as they write them. */
function spoken(name, value) {
  return name === "brand" ? value : readable(value);
}

function phrase(name, { value, known }) {
  return known ? spoken(name, value) : `maybe ${spoken(name, value)}`;
}

function row(name, { value, confidence, known }) {
  const guess = element("span", {}, element("span", { class: "maybe" }, "maybe "), spoken(name, value));
  const sure = element("span", {}, percent(confidence), element("span", { class: "hidden" }, " sure"));
  return element(
    "div",
    { class: known ? "known" : "guess" },
    element("dt", {}, WORDS[name]),
    element("dd", { class: "value" }, known ? spoken(name, value) : guess),
    element("dd", { class: "sure" }, bar(confidence), sure),
  );
}

function evidence(identity, hits, linkTo, sure) {
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
    element(
      "summary",
      {},
      sure ? "Why?" : "Why not?",
      element("span", {}, sure ? ` ${count(near.length, "image")} agree` : ` ${count(near.length, "image")} came near`),
    ),
    element(
      "p",
      { class: "note" },
      `Nearer images count more. How many ${sure ? "agree on each" : "speak for the best guess"}: ${agreeing}.`,
    ),
    element(
      "ol",
      { class: "evidence" },
      near.slice(0, MOST_SHOWN).map((vote) => voter(vote, named.get(vote.id), linkTo)),
    ),
  );
}

function voter({ id, agrees }, hit, linkTo) {
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
      element("span", { class: "name" }, hit ? nameOf(hit) : id),
    ),
    element("span", { class: "tags" }, tags),
  );
}

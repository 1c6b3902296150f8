/** The grid of what was found. */

import { thumbnailUrl } from "./api.js";
import { bar, byId, count, element, icon, nameOf, percent, readable } from "./dom.js";
import { tile } from "./pictures.js";
import { MOST } from "./place.js";

const BONES = 12;
const CARD_PX = 256;
/** Pictures in the first rows load at once, the others when they come near. */
const EAGER = 8;
/** Below this, a result is likelier something else than the same kind of thing. */
const WEAK = 0.5;

/**
 * Show an answer. `same` is the product that was asked about, if it is known; `linkTo(id)` the address of an item;
 * `onMore` asks for more answers, `onClear` drops the filters.
 */
export function showResults({ hits }, place, { same, linkTo, onMore, onClear }) {
  settle();
  const cards = hits.map((hit, rank) => card(hit, rank, same, linkTo));
  const weak = hits.findIndex(({ similarity }) => similarity !== null && similarity < WEAK);
  const strong = weak < 0 ? hits.length : weak;
  if (weak >= 0) cards.splice(weak, 0, element("li", { class: "weak" }, "Weak matches below"));
  byId("grid").replaceChildren(...cards);
  const found = place.query.text ? "image" : "similar image";
  byId("results-title").textContent = strong
    ? count(strong, found)
    : hits.length
      ? "Nothing much like it"
      : "Nothing found";
  byId("ranked").textContent = hits.length > 1 ? (found === "image" ? "Best match first" : "Most similar first") : "";
  if (hits.length === 0) showNothing(onClear);
  else byId("more").replaceChildren(hits.length >= place.k && place.k < MOST ? moreButton(onMore) : "");
}

/** Bones where the results will be. */
export function showBones() {
  const grid = byId("grid");
  grid.setAttribute("aria-busy", "true");
  grid.classList.remove("stale");
  byId("results-title").textContent = "Searching";
  byId("ranked").textContent = "";
  byId("more").replaceChildren();
  const bone = () =>
    element(
      "li",
      { class: "card", "aria-hidden": "true" },
      element("span", { class: "tile bone" }),
      element(
        "span",
        { class: "text" },
        element("span", { class: "bone" }),
        element("span", { class: "bone short" }),
      ),
    );
  grid.replaceChildren(...Array.from({ length: BONES }, bone));
}

/** What is shown belongs to the question before: it stays, paler, until the answer is there. */
export function showStale() {
  const grid = byId("grid");
  if (!grid.querySelector("a")) {
    showBones();
    return;
  }
  grid.setAttribute("aria-busy", "true");
  grid.classList.add("stale");
}

/** Nothing to show: an error has the word. */
export function showNone() {
  settle();
  byId("grid").replaceChildren();
  byId("more").replaceChildren();
  byId("results-title").textContent = "Results";
  byId("ranked").textContent = "";
}

function settle() {
  byId("grid").removeAttribute("aria-busy");
  byId("grid").classList.remove("stale");
}

function card(hit, rank, same, linkTo) {
  const text = element(
    "span",
    { class: "text" },
    element(
      "span",
      { class: hit.product ? "name" : "name unnamed" },
      hit.product && hit.product === same && sameMark(),
      nameOf(hit),
    ),
    element("span", { class: "what" }, [readable(hit.vertical), hit.brand].filter(Boolean).join(" · ")),
    hit.similarity !== null &&
      element(
        "span",
        { class: "near" },
        bar(hit.similarity),
        element("span", { class: "hidden" }, "similarity "),
        percent(hit.similarity),
      ),
  );
  return element(
    "li",
    { class: "card" },
    element(
      "a",
      { href: linkTo(hit.id), "data-like": hit.id },
      tile(thumbnailUrl(hit.id, CARD_PX), { eager: rank < EAGER }),
      text,
    ),
  );
}

/** A tick before the name of what the answer says the photo shows. */
function sameMark() {
  return element(
    "span",
    { class: "same", title: "The product that was found" },
    icon("check"),
    element("span", { class: "hidden" }, "Same product: "),
  );
}

function moreButton(onMore) {
  return element("button", { type: "button", class: "button", onclick: onMore }, "Show more");
}

function showNothing(onClear) {
  byId("ranked").textContent = "";
  byId("more").replaceChildren(
    element(
      "div",
      { class: "panel empty" },
      icon("none"),
      element("h3", {}, "Nothing in the index fits these filters"),
      element("p", { class: "advice" }, "Take one away, or all of them."),
      element(
        "div",
        { class: "choices" },
        element("button", { type: "button", class: "button primary", onclick: onClear }, "Clear the filters"),
      ),
    ),
  );
}

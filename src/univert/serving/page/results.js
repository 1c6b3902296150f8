/** The grid of what was found. */

import { byId, count, element, icon } from "./dom.js";
import { tile } from "./pictures.js";
import { MOST } from "./place.js";

const BONES = 12;
/** Pictures in the first rows load at once, the others when they come near. */
const EAGER = 8;

/**
 * Show an answer. `same` is the product that was asked about, if it is known; `linkTo(id)` the address of more like an
 * item; `onMore` asks for more answers, `onClear` drops the filters.
 */
export function showResults({ hits, took_ms }, place, { same, linkTo, onMore, onClear }) {
  settle();
  byId("grid").replaceChildren(...hits.map((hit, rank) => card(hit, rank, same, linkTo)));
  byId("results-title").textContent = hits.length
    ? `${count(hits.length, "nearest image")}`
    : "Nothing found";
  const tookMs = Math.max(1, Math.round(took_ms?.total ?? 0));
  byId("measured").textContent = `${tookMs} ms · distance 0 is identical, 2 unrelated`;
  if (hits.length === 0) showNothing(onClear);
  else byId("more").replaceChildren(hits.length >= place.k && place.k < MOST ? moreButton(onMore) : "");
}

/** Bones where the results will be. */
export function showBones() {
  const grid = byId("grid");
  grid.setAttribute("aria-busy", "true");
  grid.classList.remove("stale");
  byId("results-title").textContent = "Searching";
  byId("measured").textContent = "";
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
  byId("measured").textContent = "";
}

function settle() {
  byId("grid").removeAttribute("aria-busy");
  byId("grid").classList.remove("stale");
}

function card(hit, rank, same, linkTo) {
  const name = hit.product ?? "Unnamed";
  const near = element("i");
  near.style.setProperty("width", `${Math.max(0, Math.min(100, 100 * (1 - hit.distance / 2)))}%`);
  const text = element(
    "span",
    { class: "text" },
    element(
      "span",
      { class: hit.product ? "name" : "name unnamed" },
      hit.product && hit.product === same && sameMark(),
      name,
    ),
    element("span", { class: "what" }, [hit.vertical, hit.brand].filter(Boolean).join(" · ")),
    element(
      "span",
      { class: "far" },
      element("span", { class: "bar", "aria-hidden": "true" }, near),
      element("span", { class: "hidden" }, "distance "),
      element("span", { class: "distance" }, hit.distance.toFixed(2)),
    ),
  );
  const like = element("span", { class: "like" }, icon("like"), "More like this");
  return element(
    "li",
    { class: "card" },
    element(
      "a",
      { href: linkTo(hit.id), "data-like": hit.id },
      tile(hit.thumbnail, { eager: rank < EAGER }),
      like,
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
  byId("measured").textContent = "";
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

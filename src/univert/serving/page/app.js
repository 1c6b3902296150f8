/** The page: one place at a time (place.js), shown, asked about, and put into the address. */

import { Searcher } from "./answers.js";
import { inventory } from "./api.js";
import { byId, count, element, nameOf, speak, toast } from "./dom.js";
import { Filters } from "./filters.js";
import { headline, showIdentity, showIdentityBones } from "./identity.js";
import { choosePhoto, takeIn } from "./intake.js";
import { askForKey } from "./key.js";
import { addPhoto, findPhoto } from "./photo.js";
import { FEW, MOST, noFilters, placeUrl, readPlace, toRemember } from "./place.js";
import { wordsFor } from "./problems.js";
import { QueryView } from "./query.js";
import { showBones, showNone, showResults, showStale } from "./results.js";
import { hideTrouble, showTrouble } from "./trouble.js";
import { wordsForm } from "./words.js";

/** While a box is being dragged the newest one is asked about this long after the pointer rests. */
const DRAG_PAUSE_MS = 180;
const SETTLE_PAUSE_MS = 60;

let place = readPlace(location.href, history.state);
let comingBack = null;
let takesFeedback = false;
let takesText = false;
const known = new Map();

const searcher = new Searcher({ onAnswer, onTrouble });
const filters = new Filters((chosen, again) =>
  go({ ...place, filters: chosen, k: FEW }, { replace: again || place.query === null }),
);
const queryView = new QueryView((box, final) => {
  place = { ...place, box, k: FEW };
  if (final) remember(); // browsers limit how often a page may do this
  ask(final ? SETTLE_PAUSE_MS : DRAG_PAUSE_MS);
});

/** Go to a place: into the address, onto the screen, to the service. */
function go(next, { replace = false } = {}) {
  const sameQuery = JSON.stringify(next.query) === JSON.stringify(place.query);
  if (replace) history.replaceState(toRemember(next), "", placeUrl(next));
  else {
    remember({ scroll: scrollY, focus: document.activeElement?.dataset?.like ?? null });
    history.pushState(toRemember(next), "", placeUrl(next));
  }
  place = next;
  comingBack = null;
  show({ sameQuery, moved: !sameQuery });
  if (!sameQuery) scrollTo({ top: 0, behavior: "instant" });
}

/** Note with the current entry of the history what is needed to come back to it. */
function remember(more = {}) {
  history.replaceState({ ...history.state, ...toRemember(place), ...more }, "", placeUrl(place));
}

function linkTo(id) {
  return placeUrl({ query: { kind: "item", id }, filters: place.filters, k: FEW });
}

/** Show the place; `moved`: the visitor comes from another question, and what had the focus stays behind with it. */
function show({ sameQuery = false, moved = false } = {}) {
  const { query } = place;
  const photo = query?.kind === "photo" ? findPhoto(query.key) : null;
  const gone = query?.kind === "photo" && !photo;
  if (gone) place = { ...place, query: null, box: null };
  document.body.dataset.view = place.query ? "search" : "start";
  byId("start").hidden = place.query !== null;
  byId("search").hidden = place.query === null;
  document.body.dataset.query = place.query?.kind ?? "";
  if (moved) byId(place.query ? "query-title" : "start-title").focus({ preventScroll: true });
  byId("start-trouble").replaceChildren(
    gone
      ? element(
          "p",
          { class: "panel notice", role: "status" },
          "Photos aren't kept, so the one from before is gone. Choose it again to search with it.",
        )
      : "",
  );
  if (place.query === null) {
    searcher.stop();
    hideTrouble({ forgiven: true });
    queryView.clear();
    filters.showStart(place.filters);
    document.title = "Univert · visual search";
    return;
  }
  filters.show(place.filters);
  byId("trail").hidden = photo !== null || !findPhoto(place.from?.key);
  if (photo) queryView.photo(photo, place.box, { text: query.text, onWords: takesText ? steer : null });
  else if (query.kind === "words") queryView.words(query.text, askWords);
  else showItem(query.id);
  ask(0, sameQuery);
}

function askWords(text) {
  go({ query: { kind: "words", text }, box: null, filters: place.filters, k: FEW });
}

/** The photo, but as these words say; without words the photo alone. */
function steer(text) {
  const { kind, key } = place.query;
  go({ ...place, query: text ? { kind, key, text } : { kind, key }, k: FEW });
}

async function showItem(id) {
  const photo = findPhoto(place.from?.key);
  const asked = photo?.size ? { photo, box: place.from.box } : null;
  const columns = await queryView.item(id, { known: known.get(id), asked, canTell: takesFeedback });
  if (columns) known.set(id, { ...known.get(id), ...columns });
}

function ask(pauseMs = 0, sameQuery = true) {
  hideTrouble();
  const before = searcher.remembered(place);
  if (before) {
    searcher.stop();
    onAnswer(before, place);
    return;
  }
  if (sameQuery) showStale();
  else {
    showBones();
    if (place.query.kind === "photo") showIdentityBones();
    else showIdentity(null, [], linkTo); // it is known what an item of the index is
  }
  searcher.ask(place, pauseMs);
}

function onAnswer(answer, asked) {
  for (const hit of answer.hits) known.set(hit.id, hit);
  const photo = asked.query.kind === "photo" ? findPhoto(asked.query.key) : null;
  if (photo && answer.detector) {
    photo.found = answer.found;
    queryView.showFound(photo);
  }
  hideTrouble({ forgiven: true });
  const held = document.activeElement?.closest?.("#grid a")?.dataset.like;
  const same = asked.query.kind === "item" ? known.get(asked.query.id)?.product : productOf(answer.identity);
  showResults(answer, asked, { same, linkTo, onMore: showMore, onClear: () => filters.clear() });
  const found = answer.found ?? [];
  showIdentity(answer.identity, answer.hits, linkTo, found);
  performance.mark("univert:results");
  const item = known.get(asked.query.id);
  const words = asked.query.text ?? null;
  const told = words === null ? "" : queryView.tellWords(answer.query);
  const named =
    answer.identity || found.length ? headline(answer.identity, found) : item ? nameOf(item) : (words ?? "Search");
  document.title = `${named} · Univert`;
  byId("about").textContent = about(answer);
  const heard = answer.identity || found.length ? ` ${headline(answer.identity, found)}.` : "";
  speak(`${count(answer.hits.length, "result")}.${heard}${told && ` ${told}`}`);
  if (held) focusCard(held);
  if (comingBack) comeBack();
}

function productOf(identity) {
  return identity?.product?.known ? identity.product.value : null;
}

function onTrouble(problem, asked) {
  if (problem.kind === undefined) throw problem; // a slip of this page, not of the service
  showNone();
  showIdentity(null, [], linkTo);
  speak(wordsFor(problem).title);
  document.title = `${wordsFor(problem).title} · Univert`;
  showTrouble(problem, {
    again: () => ask(0, false),
    photo: choosePhoto,
    whole: () => queryView.removeBox(),
    clear: () => filters.clear(),
    start: () => go({ query: null, box: null, filters: noFilters(), k: FEW }),
    key: () => enterKey(() => ask(0, false)),
  });
  if (problem.kind === "unauthorised" && asked === place) enterKey(() => ask(0, false));
}

async function enterKey(then) {
  if (document.querySelector("dialog.key")) return;
  if (!(await askForKey())) return;
  takeStock();
  then();
}

function showMore() {
  const next = place.k < MOST / 2 ? 2 * place.k : MOST;
  const last = byId("grid").lastElementChild?.querySelector("a")?.dataset.like;
  go({ ...place, k: next }, { replace: true });
  if (last) focusCard(last);
}

function focusCard(id) {
  byId("grid")
    .querySelector(`[data-like="${CSS.escape(id)}"]`)
    ?.focus({ preventScroll: true });
}

/** Where the list was left; the focus is on the title already, and stays there if no card was left. */
function comeBack() {
  const { scroll, focus } = comingBack;
  comingBack = null;
  if (focus) focusCard(focus);
  scrollTo({ top: scroll ?? 0, behavior: "instant" });
}

function about(answer) {
  const took = answer.took_ms ? ` · ${Math.max(1, Math.round(answer.took_ms.total))} ms` : "";
  return `Index version ${answer.index_version} · model ${answer.model.slice(0, 8)}${took}`;
}

/** What there is to search: for the first view and for the filters. */
async function takeStock() {
  try {
    const stock = await inventory();
    const kinds = stock.verticals.length;
    takesFeedback = stock.feedback;
    byId("scope").textContent =
      `Find it among ${count(stock.images, "image")}${kinds > 1 ? ` in ${kinds} verticals` : ""}, with everything like it.`;
    byId("about").textContent = about(stock);
    filters.offer(stock);
    const learned = stock.text && !takesText;
    takesText = stock.text;
    byId("by-words").hidden = !stock.text;
    if (learned && place.query?.kind === "photo") show({ sameQuery: true });
    if (stock.text && !byId("by-words").firstChild) byId("by-words").append(wordsForm("", askWords));
    if (place.query === null) filters.showStart(place.filters);
  } catch (problem) {
    if (place.query !== null) return; // the search says it
    if (problem.kind === "unauthorised") enterKey(() => {});
    else if (problem.kind === undefined) throw problem;
    else {
      const { title, advice } = wordsFor(problem);
      const again = element(
        "button",
        {
          type: "button",
          class: "quiet",
          onclick: () => (byId("start-trouble").replaceChildren(), takeStock()),
        },
        "Try again",
      );
      byId("start-trouble").replaceChildren(
        element(
          "div",
          { class: "panel notice", role: "alert" },
          element("p", {}, element("strong", {}, title), ". ", advice),
          again,
        ),
      );
    }
  }
}

async function share() {
  const address = location.href;
  try {
    if (navigator.share && matchMedia("(pointer: coarse)").matches)
      await navigator.share({ title: document.title, url: address });
    else {
      await navigator.clipboard.writeText(address);
      toast("Link copied");
    }
  } catch (error) {
    if (error.name !== "AbortError") toast("The link is in the address bar, to copy by hand");
  }
}

takeIn((file) => {
  performance.mark("univert:photo");
  const photo = addPhoto(file);
  go({ query: { kind: "photo", key: photo.key }, box: null, filters: place.filters, k: FEW });
});

/** Links to items work without leaving the page; with a modifier key they open where the visitor wants them. */
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-like], a#home, a#back");
  if (!link || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const id = link.dataset.like;
  const { query, box, filters, from } = place;
  if (link.id === "home") go({ query: null, box: null, filters: noFilters(), k: FEW });
  else if (link.id === "back") go({ query: { kind: "photo", key: from.key, text: from.text }, box: from.box, filters, k: FEW });
  else {
    const origin = query?.kind === "photo" ? { key: query.key, box, text: query.text } : from;
    go({ query: { kind: "item", id }, box: null, filters, k: FEW, from: origin });
  }
});

/** Without an entry of its own in the history: that would know nothing of the photo. */
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("results").scrollIntoView();
  byId("results").focus({ preventScroll: true });
});

addEventListener("popstate", (event) => {
  const before = JSON.stringify(place.query);
  place = readPlace(location.href, event.state);
  comingBack = event.state ?? {};
  document.querySelector("dialog[open]")?.close();
  show({ moved: place.query === null || JSON.stringify(place.query) !== before });
});
addEventListener("online", () => {
  if (document.querySelector('[data-problem="network"]')) ask(0, false);
});
byId("share").addEventListener("click", share);
history.scrollRestoration = "manual";
show();
takeStock();

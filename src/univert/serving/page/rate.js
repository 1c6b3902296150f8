/** The rating page: who rates, the triplet in sight, keys and buttons. */

import { ask } from "./api.js";
import { bar, byId, element, fill, speak, toast } from "./dom.js";
import { QUESTIONS, Work } from "./rate-work.js";

const VERDICTS = { yes: "Yes", no: "No", unsure: "Unsure" };
const KEYS = { 1: "yes", 2: "no", 3: "unsure" };
const LOOK_AGAIN_MS = 30_000;
const VIEWS = ["enter", "rate", "rest"];

let work = null;
let shown = null;
let verdicts = {};
let shownAt = 0;
let looking = 0;
let undos = 0;

function show(view) {
  for (const name of VIEWS) byId(name).hidden = name !== view;
  byId("progress").hidden = view === "enter";
  byId("leave").hidden = view === "enter";
  byId("foot").hidden = view === "enter";
  byId("keys").hidden = view !== "rate";
}

/** Ask who it is, or begin. */
async function start() {
  const { rater, by_key } = await ask("session", {});
  byId("rater-label").textContent = by_key ? "Your key" : "Your name";
  byId("rater").type = by_key ? "password" : "text";
  byId("rater").autocomplete = by_key ? "off" : "name";
  if (rater === null) {
    show("enter");
    byId("rater").focus();
    return;
  }
  byId("leave").textContent = rater;
  byId("leave").setAttribute("aria-label", `${rater}: not you?`);
  byId("leave").title = "Not you?";
  work = new Work(rater, { changed: update, failed: start });
  shown = null;
  await work.load();
}

async function enter(event) {
  event.preventDefault();
  try {
    const body = JSON.stringify({ rater: byId("rater").value });
    await ask("session", { method: "POST", body }, null, { "Content-Type": "application/json" });
    byId("rater").value = "";
    byId("refused").textContent = "";
    await start();
  } catch (problem) {
    byId("refused").textContent = problem.status ? `Sorry, ${problem.detail}.` : "The service does not answer. Try again.";
  }
}

async function leave() {
  await work.save();
  await ask("session", { method: "DELETE" });
  await start();
}

/** Bring the page up to date with the work. */
function update() {
  const { progress, unsaved, offline } = work;
  if (progress) {
    const words = `${progress.rated.toLocaleString()} of ${progress.triplets.toLocaleString()}`;
    const mine = element("span", {}, `${progress.mine.toLocaleString()} by you`);
    fill(byId("progress"), mine, bar(progress.triplets ? progress.rated / progress.triplets : 0), `${words} done`);
  }
  const many = unsaved.length === 1 ? "1 answer is" : `${unsaved.length} answers are`;
  const waits = unsaved.length ? `${many} not saved yet. ` : "";
  byId("unsaved").textContent = offline ? `The service does not answer. ${waits}Trying again.` : "";
  if (shown === null || !work.queue.includes(shown)) next();
}

/** Show the next triplet, or say why there is none. */
function next() {
  shown = work.queue[0] ?? null;
  verdicts = {};
  if (shown === null) return rest();
  show("rate");
  for (const image of shown.pictures) place(image);
  byId("vertical").textContent = shown.vertical;
  mark();
  shownAt = performance.now();
  speak(`Next: ${shown.vertical}`);
  const triplet = shown;
  Promise.all(triplet.pictures.map(({ ready }) => ready)).then(() =>
    requestAnimationFrame(() => performance.mark("univert:shown", { detail: triplet.id })),
  );
}

function place(image) {
  const frame = byId(["anchor", "positive", "negative"][shown.pictures.indexOf(image)]);
  fill(frame, image);
  image.onerror = () => fill(frame, element("span", { class: "note" }, "No picture"));
  if (image.complete && image.naturalWidth === 0) image.onerror();
}

function rest() {
  clearTimeout(looking);
  if (work.loading || work.sending || work.offline || !work.progress) {
    byId("rest-title").textContent = work.offline ? "The service does not answer" : "One moment";
    byId("rest-words").textContent = work.offline ? "Your answers are kept here and sent as soon as it does." : "";
  } else {
    const { rated, triplets } = work.progress;
    const all = rated >= triplets;
    byId("rest-title").textContent = all ? "All done. Thank you." : "You have done your part";
    byId("rest-words").textContent = all
      ? `All ${triplets.toLocaleString()} triplets have been rated.`
      : "What is left is with other raters, or needs another pair of eyes. More may come back to you.";
    if (!all) looking = setTimeout(() => work.load(), LOOK_AGAIN_MS);
  }
  byId("look").hidden = !work.progress || work.loading || work.sending !== null;
  show("rest");
}

function asked() {
  return QUESTIONS.find((question) => !(question in verdicts));
}

/** Mark the question that keys answer, and what was said so far. */
function mark() {
  for (const card of document.querySelectorAll("[data-question]")) {
    const { question } = card.dataset;
    card.classList.toggle("asked", question === asked());
    for (const button of card.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(verdicts[question] === button.value));
  }
}

function say(question, verdict) {
  if (byId("rate").hidden || shown === null || undos) return;
  verdicts[question] = verdict;
  if (asked()) return mark();
  performance.mark("univert:answered", { detail: shown.id });
  const seconds = Math.round(performance.now() - shownAt) / 1000;
  work.answer(shown, { same: verdicts.same, different: verdicts.different }, seconds);
  next();
}

async function undo() {
  if (Object.keys(verdicts).length) {
    verdicts = {};
    return mark();
  }
  undos += 1;
  if (undos > 1) return; // the one under way goes on to it
  while (undos) {
    const undone = await work.undo();
    if (!undone) toast(work.offline ? "The service does not answer. Undo when it does." : "There is nothing to undo.");
    undos = undone ? undos - 1 : 0;
  }
  update();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || work === null) return;
  if (event.target.matches("input") || byId("enter").hidden === false) return;
  if (event.key in KEYS && asked()) say(asked(), KEYS[event.key]);
  else if (event.key === "Backspace") undo();
}

for (const card of document.querySelectorAll("[data-question]")) {
  const { question } = card.dataset;
  const buttons = Object.entries(VERDICTS).map(([value, words], place) =>
    element(
      "button",
      { type: "button", class: "button", value, "aria-pressed": "false", onclick: (event) => clicked(event, question, value) },
      words,
      element("kbd", { class: "fine", "aria-hidden": "true" }, String(place + 1)),
    ),
  );
  fill(card.querySelector(".verdicts"), ...buttons);
}

/** Who goes by Tab and Enter starts the next triplet at its first button. */
function clicked(event, question, value) {
  say(question, value);
  if (event.detail === 0 && !Object.keys(verdicts).length) document.querySelector(".positive button").focus();
}

byId("who").addEventListener("submit", enter);
byId("leave").addEventListener("click", leave);
byId("undo").addEventListener("click", undo);
byId("look").addEventListener("click", () => work.load());
document.addEventListener("keydown", pressed);
start().catch(() => {
  byId("rest-title").textContent = "The service does not answer";
  byId("rest-words").textContent = "Load the page again when it does.";
  show("rest");
});

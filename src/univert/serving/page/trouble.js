/** The panel that says what went wrong and offers the way on; problems that pass are asked again by themselves. */

import { byId, element, fill, icon } from "./dom.js";
import { wordsFor } from "./problems.js";

const LABELS = {
  again: "Try again",
  photo: "Choose another photo",
  whole: "Search the whole photo",
  clear: "Clear the filters",
  start: "Start with a photo",
  key: "Enter the key",
};
/** After this many times by itself, the page leaves it to the visitor. */
const MOST_RETRIES = 4;
let ticking = 0;
let retries = 0;

/** Say what went wrong. `doers` has a function for each action of problems.js. */
export function showTrouble(problem, doers) {
  hideTrouble();
  const words = wordsFor(problem);
  const waits = words.waits && retries < MOST_RETRIES;
  const countdown = waits ? element("p", { class: "countdown", "aria-live": "off" }) : null;
  const buttons = words.actions.map((name, rank) =>
    element(
      "button",
      { type: "button", class: rank ? "button" : "button primary", onclick: doers[name] },
      waits && name === "again" ? "Try now" : LABELS[name],
    ),
  );
  fill(
    byId("trouble"),
    element(
      "div",
      { class: "panel trouble", role: "alert", "data-problem": problem.kind },
      icon(words.icon),
      element("h3", {}, words.title),
      element("p", { class: "advice" }, words.advice),
      words.detail && element("p", { class: "detail" }, words.detail),
      countdown,
      element("div", { class: "choices" }, buttons),
      problem.requestId &&
        element(
          "p",
          { class: "note" },
          "If you report this, mention request ",
          element("code", {}, problem.requestId),
        ),
    ),
  );
  if (waits) count(countdown, Math.max(1, problem.retryAfterS ?? words.waitS), doers.again);
}

/** All is well: `forgiven` also forgets how often it was tried. */
export function hideTrouble({ forgiven = false } = {}) {
  clearInterval(ticking);
  if (forgiven) retries = 0;
  fill(byId("trouble"));
}

function count(line, leftS, again) {
  const due = Date.now() + 1000 * leftS;
  const tick = () => {
    const left = Math.ceil((due - Date.now()) / 1000);
    line.textContent = left > 0 ? `Trying again in ${left} s` : "Trying again";
    if (left > 0) return;
    clearInterval(ticking);
    retries += 1;
    again();
  };
  ticking = setInterval(tick, 250);
  tick();
}

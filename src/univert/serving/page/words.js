/** Asking with words: the field, and what there is to tell of the words that were asked with. */

import { element } from "./dom.js";

const LONGEST = 200;

/** A field for words, filled with `text`; `onWords(words)` is told what is asked. */
export function wordsForm(text, onWords, placeholder = "Or describe it in words") {
  const field = element("input", {
    type: "search",
    name: "text",
    maxlength: String(LONGEST),
    autocomplete: "off",
    enterkeyhint: "search",
    "aria-label": "Search by words",
    placeholder,
  });
  field.value = text;
  const form = element(
    "form",
    { class: "by-words", role: "search" },
    field,
    element("button", { class: "button" }, "Search"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const words = field.value.trim();
    if (/[\p{L}\p{N}]/u.test(words) || text) onWords(words);
    else field.focus();
  });
  return form;
}

/** What was replaced, and what is not known, in sentences; empty where there is nothing to tell. */
export function toldOf({ text, words, unknown, known }) {
  const told = [];
  if (words !== text) told.push(`Searched for “${words}”.`);
  if (unknown.length) told.push(`Not known here: ${unknown.map((word) => `“${word}”`).join(", ")}.`);
  if (!known) told.push("No word is known, so the answer goes by meaning alone.");
  return told.join(" ");
}

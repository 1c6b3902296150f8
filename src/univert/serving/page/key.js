/** The API key, where the service asks for one: entered once, kept until the tab closes or, if wished, longer. */

import { element } from "./dom.js";

const NAME = "univert-api-key";
let held = null;

/** The key to send, or null. */
export function apiKey() {
  if (held === null) held = stored("sessionStorage") ?? stored("localStorage") ?? "";
  return held || null;
}

/** Ask for the key. Resolves to true if one was entered, false if the visitor thought better of it. */
export function askForKey() {
  const refused = apiKey() !== null;
  const field = element("input", {
    type: "password",
    id: "key",
    autocomplete: "off",
    required: true,
    spellcheck: "false",
  });
  const keep = element("input", { type: "checkbox" });
  const message = element(
    "p",
    { class: "wrong", role: "alert" },
    refused ? "The service did not accept that key." : "",
  );
  const form = element(
    "form",
    { method: "dialog" },
    element("h2", { id: "key-title" }, "Enter your API key"),
    element(
      "p",
      { class: "advice" },
      "Whoever runs this service hands them out. It is sent with each search, to this service only.",
    ),
    element("label", { for: "key" }, "API key"),
    field,
    message,
    element("label", { class: "tick" }, keep, "Remember it on this device"),
    element(
      "div",
      { class: "choices" },
      element("button", { type: "button", class: "button", onclick: () => dialog.close("") }, "Cancel"),
      element("button", { type: "submit", class: "button primary", value: "use" }, "Use this key"),
    ),
  );
  const dialog = element("dialog", { class: "panel key", "aria-labelledby": "key-title" }, form);
  document.body.append(dialog);
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const entered = dialog.returnValue === "use" && field.value.trim() !== "";
      if (entered) remember(field.value.trim(), keep.checked);
      dialog.remove();
      resolve(entered);
    });
  });
}

function remember(key, long) {
  held = key;
  for (const [name, wanted] of [
    ["sessionStorage", !long],
    ["localStorage", long],
  ]) {
    try {
      if (wanted) window[name].setItem(NAME, key);
      else window[name].removeItem(NAME);
    } catch {
      // Storage may be off; the key then lasts as long as the page.
    }
  }
}

function stored(name) {
  try {
    return window[name].getItem(NAME);
  } catch {
    return null;
  }
}

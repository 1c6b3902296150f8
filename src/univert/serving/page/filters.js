/** The filters: a button for each facet opens its values, the chosen ones stand beside as chips. */

import { byId, element, icon, readable } from "./dom.js";
import { FACETS } from "./place.js";

const WORDS = { vertical: "Vertical", brand: "Brand", style: "Style", source: "Source" };
const LISTS = { vertical: "verticals", brand: "brands", style: "styles", source: "sources" };
/** Longer lists of values get a field to search them. */
const SHORT = 9;
const WIDE_PX = 640;

/** `onChange(filters, again)` is told of each change; `again`: one of several in the same open list. */
export class Filters {
  constructor(onChange) {
    this.onChange = onChange;
    this.inventory = null;
    this.filters = null;
  }

  /** What there is to choose from, as /verticals gives it. */
  offer(inventory) {
    this.inventory = inventory;
    if (this.filters) this.show(this.filters);
  }

  /** Show the chosen values. */
  show(filters) {
    this.filters = filters;
    const bar = byId("filters");
    const held = document.activeElement?.dataset?.facet;
    const chips = FACETS.flatMap((facet) => filters[facet].map((value) => this.#chip(facet, value)));
    const clear = element(
      "button",
      { type: "button", class: "quiet", onclick: () => this.clear() },
      "Clear all",
    );
    bar.replaceChildren(
      ...FACETS.filter((facet) => this.#values(facet).length).map((facet) => this.#button(facet)),
      ...chips,
      chips.length > 1 ? clear : "",
    );
    if (held) bar.querySelector(`[data-facet="${held}"]`)?.focus({ preventScroll: true });
  }

  /** Drop them all. */
  clear() {
    this.onChange(Object.fromEntries(FACETS.map((facet) => [facet, []])), false);
    byId("filters").querySelector("button")?.focus({ preventScroll: true });
  }

  /** The chips of the first view: verticals to search within, and whatever else the address has narrowed to. */
  showStart(filters) {
    this.filters = filters;
    const values = this.#values("vertical");
    const offered = new Set(values.map(({ name }) => name));
    const others = FACETS.flatMap((facet) =>
      filters[facet]
        .filter((value) => facet !== "vertical" || values.length < 2 || !offered.has(value))
        .map((value) => this.#chip(facet, value, { inStart: true })),
    );
    byId("within").hidden = values.length < 2 && others.length === 0;
    const chip = ({ name, images }) =>
      element(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": String(filters.vertical.includes(name)),
          "data-value": name,
          onclick: () => this.#toggle("vertical", name, false),
        },
        shown("vertical", name),
        element("span", { class: "number" }, images.toLocaleString()),
      );
    const held = document.activeElement?.dataset?.value;
    const list = byId("within").querySelector("ul");
    const verticals = values.length < 2 ? [] : values.map(chip);
    list.replaceChildren(...[...verticals, ...others].map((one) => element("li", {}, one)));
    if (held) list.querySelector(`[data-value="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  }

  #values(facet) {
    return this.inventory?.[LISTS[facet]] ?? [];
  }

  #toggle(facet, value, again) {
    const chosen = this.filters[facet];
    const next = chosen.includes(value) ? chosen.filter((other) => other !== value) : [...chosen, value];
    this.onChange({ ...this.filters, [facet]: next }, again);
  }

  #button(facet) {
    const chosen = this.filters[facet].length;
    return element(
      "button",
      {
        type: "button",
        class: chosen ? "facet on" : "facet",
        "data-facet": facet,
        "aria-haspopup": "dialog",
        onclick: ({ currentTarget }) => this.#open(facet, currentTarget),
      },
      WORDS[facet],
      chosen
        ? element(
            "span",
            { class: "number" },
            String(chosen),
            element("span", { class: "hidden" }, " chosen"),
          )
        : icon("down"),
    );
  }

  /** A chosen value, to take away; in the first view, where no button beside it says what it is, it says so itself. */
  #chip(facet, value, { inStart = false } = {}) {
    const remove = () => {
      this.#toggle(facet, value, false);
      const next = inStart
        ? (byId("within").querySelector("button") ?? byId("start-title"))
        : byId("filters").querySelector(`[data-facet="${facet}"]`);
      next?.focus({ preventScroll: true });
    };
    return element(
      "button",
      {
        type: "button",
        class: "chip on",
        onclick: remove,
        "aria-label": `Remove the filter ${WORDS[facet].toLowerCase()} ${shown(facet, value)}`,
      },
      element("span", { class: "words" }, inStart ? `${WORDS[facet]}: ${shown(facet, value)}` : shown(facet, value)),
      icon("close"),
    );
  }

  #open(facet, button) {
    let again = false;
    const change = (value) => {
      this.#toggle(facet, value, again);
      again = true;
    };
    const rows = this.#values(facet).map(({ name, images }) => {
      const box = element("input", { type: "checkbox", onchange: () => change(name) });
      box.checked = this.filters[facet].includes(name);
      return {
        name: `${name} ${shown(facet, name)}`,
        node: element(
          "li",
          {},
          element(
            "label",
            { class: "tick" },
            box,
            element("span", { class: "words" }, shown(facet, name)),
            element("span", { class: "number" }, images.toLocaleString()),
          ),
        ),
      };
    });
    const list = element(
      "ul",
      {},
      rows.map(({ node }) => node),
    );
    const none = element("p", { class: "note", hidden: true, role: "status" }, "No such value");
    const narrow = ({ currentTarget }) => {
      const wanted = currentTarget.value.trim().toLowerCase();
      let left = 0;
      for (const { name, node } of rows) left += !(node.hidden = !name.toLowerCase().includes(wanted));
      none.hidden = left > 0;
    };
    const field =
      rows.length > SHORT
        ? element("input", {
            type: "search",
            placeholder: `Find a ${WORDS[facet].toLowerCase()}`,
            "aria-label": `Find a ${WORDS[facet].toLowerCase()}`,
            oninput: narrow,
          })
        : null;
    const dialog = element(
      "dialog",
      {
        class: "sheet",
        "aria-label": WORDS[facet],
        onclick: ({ target }) => target === dialog && dialog.close(),
      },
      element(
        "div",
        { class: "sheet-body" },
        element(
          "div",
          { class: "line" },
          element("h2", {}, WORDS[facet]),
          element("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Done"),
        ),
        field,
        list,
        none,
      ),
    );
    document.body.append(dialog);
    dialog.addEventListener("close", () => {
      dialog.remove();
      byId("filters").querySelector(`[data-facet="${facet}"]`)?.focus({ preventScroll: true });
    });
    dialog.showModal();
    under(button, dialog);
    (field ?? list.querySelector("input"))?.focus({ preventScroll: true });
  }
}

/** Names of makers and sources are written as they write them. */
function shown(facet, value) {
  return facet === "vertical" || facet === "style" ? readable(value) : value;
}

/** On wide screens the list hangs under its button; on a phone the style sheet puts it at the foot. */
function under(button, dialog) {
  if (innerWidth < WIDE_PX) return;
  const { left, bottom } = button.getBoundingClientRect();
  const { width, height } = dialog.getBoundingClientRect();
  dialog.style.setProperty("left", `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`);
  dialog.style.setProperty("top", `${Math.max(8, Math.min(bottom + 6, innerHeight - height - 8))}px`);
}

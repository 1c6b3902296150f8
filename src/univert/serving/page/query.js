/** What is asked, shown: the photo with its box, the item, or the words. */

import { BoxEditor } from "./box-editor.js";
import { between } from "./box.js";
import { byId, element, fill, icon, nameOf } from "./dom.js";
import { FoundItems } from "./found.js";
import { showItem } from "./item.js";
import { toldOf, wordsForm } from "./words.js";

const SIDES = ["Left", "Top", "Right", "Bottom"];

/** The place of the photo or the item. `onBox(box, final)` is told of every change of the box. */
export class QueryView {
  constructor(onBox) {
    this.onBox = onBox;
    this.editor = null;
    this.shown = null;
  }

  /** Show the photo; the box can be drawn as soon as the browser knows its size. */
  async photo(photo, box, { text, onWords }) {
    if (this.shown === photo) {
      this.#steering(text, onWords);
      this.#box(box);
      return;
    }
    this.#begin(photo, "Your photo");
    const image = element("img", { src: photo.url, alt: `Your photo, ${photo.name}`, draggable: "false" });
    const frame = element("div", { class: "photo" }, image);
    this.panel.replaceChildren(element("div", { class: "mat" }, frame));
    const readable = await photo.loaded;
    if (this.shown !== photo) return;
    if (!readable) {
      frame.replaceChildren(
        element("p", { class: "unseen" }, icon("photo"), "This browser can't show this photo"),
      );
      return;
    }
    frame.style.setProperty("--ratio", String(photo.size.width / photo.size.height));
    frame.style.setProperty("--wide", `${photo.size.width}px`);
    frame.classList.add("known");
    this.found = new FoundItems(photo, (chosen) => this.editor.change(chosen, true));
    this.editor = new BoxEditor(frame, photo.size, this.found, (changed, final) => this.#changed(changed, final));
    this.editor.onRemoved = () => this.select.focus();
    this.panel.append(this.#tools());
    this.#steering(text, onWords);
    this.showFound(photo);
    this.#box(box);
  }

  /** Show what was found in the photo, `photo.found`: a list, or null where nobody looked. */
  showFound(photo) {
    if (this.shown !== photo || !this.editor) return;
    const items = photo.found ?? [];
    const [drag, tap] = items.length
      ? ["Or drag over the photo to search any part of it.", "Or tap beside them to search any part."]
      : photo.found
        ? ["No items found. Drag over a thing to search it alone.", "No items found. Tap a thing to search it alone."]
        : ["Drag over the photo to search one thing in it.", "Tap a thing in the photo to search it alone."];
    fill(this.hint, element("span", { class: "fine" }, drag), element("span", { class: "touch" }, tap));
    this.tools.classList.toggle("with-found", items.length > 0);
    this.found.show(items, this.editor.box);
    this.#told(this.editor.box);
  }

  /** Show an item of the index, as item.js does. Returns its columns, or null. */
  async item(id, more) {
    const shown = `${id} ${JSON.stringify(more.asked?.box)}`;
    if (this.shown === shown) return null;
    this.#begin(shown, more.known ? nameOf(more.known) : "Similar items");
    return showItem(this.panel, id, { ...more, current: () => this.shown === shown });
  }

  /** Show the words, in a field to change them. */
  words(text, onWords) {
    const shown = `words ${text}`;
    if (this.shown === shown) return;
    this.#begin(shown, `“${text}”`);
    this.wordsTold = element("p", { class: "note", hidden: true });
    this.panel.replaceChildren(wordsForm(text, onWords), this.wordsTold);
  }

  /** A field for words under the photo; `onWords` is null where the index knows none. */
  #steering(text, onWords) {
    this.steering?.remove();
    this.steering = null;
    if (!onWords || !this.editor) return;
    this.wordsTold = element("p", { class: "note", hidden: true });
    const form = wordsForm(text ?? "", onWords, "This, but in red");
    this.steering = element("div", {}, form, this.wordsTold);
    this.panel.append(this.steering);
  }

  /** Tell how the words were read; returns what is told. */
  tellWords(query) {
    if (!this.wordsTold) return "";
    const told = toldOf(query);
    this.wordsTold.textContent = told;
    this.wordsTold.hidden = !told;
    return told;
  }

  /** Forget what is shown. */
  clear() {
    this.shown = this.editor = this.found = null;
    this.panel.replaceChildren();
  }

  /** The whole photo again. */
  removeBox() {
    this.editor?.change(null, true);
  }

  get panel() {
    return byId("stage");
  }

  #begin(shown, title) {
    this.shown = shown;
    this.editor = this.wordsTold = null;
    byId("query-title").textContent = title;
    byId("share").hidden = typeof shown !== "string";
  }

  #tools() {
    this.select = element(
      "button",
      { type: "button", class: "quiet", onclick: () => this.editor.begin() },
      icon("crop"),
      element("span", {}, "Search a part"),
    );
    this.whole = element(
      "button",
      { type: "button", class: "quiet", hidden: true, onclick: () => this.#toWhole() },
      icon("close"),
      "Whole photo",
    );
    this.numbers = element(
      "details",
      { class: "numbers", hidden: true },
      element("summary", {}, "In numbers"),
      this.#fields(),
    );
    this.hint = element("p", { class: "note" });
    const help = element(
      "p",
      { id: "box-help", class: "hidden" },
      "Arrow keys move the area, with Shift they resize it, with Alt in larger steps. Delete goes back to the whole photo.",
    );
    this.tools = element(
      "div",
      { class: "box-tools" },
      this.found.row,
      element("div", { class: "line" }, this.select, this.whole, this.numbers),
      this.hint,
      help,
    );
    return this.tools;
  }

  #fields() {
    const { width, height } = this.shown.size;
    this.fields = SIDES.map((name, side) =>
      element("input", {
        type: "number",
        inputmode: "numeric",
        min: "0",
        max: String(side % 2 ? height : width),
        step: "1",
        "aria-label": `${name}, in pixels`,
        onchange: () => this.#typed(),
      }),
    );
    return element(
      "div",
      { class: "fields" },
      SIDES.map((name, side) => element("label", {}, name, this.fields[side])),
    );
  }

  #typed() {
    const [x0, y0, x1, y1] = this.fields.map((field) => Number(field.value) || 0);
    this.editor.change(between([x0, y0], [x1, y1], this.shown.size), true);
  }

  #toWhole() {
    this.removeBox();
    this.select.focus();
  }

  #changed(box, final) {
    this.#told(box);
    this.onBox(box, final);
  }

  #box(box) {
    if (!this.editor) return;
    if (String(this.editor.box) !== String(box)) this.editor.show(box);
    this.#told(box);
  }

  /** Buttons and numbers follow the box. */
  #told(box) {
    const boxed = this.editor.box !== null;
    this.select.hidden = this.hint.hidden = boxed;
    this.numbers.hidden = !boxed;
    this.whole.hidden = !boxed || this.found.items.length > 0; // the row of items has it
    this.found.choose(this.editor.box);
    const numbers = box ?? [0, 0, this.shown.size.width, this.shown.size.height];
    this.fields.forEach((field, side) => (field.value = String(numbers[side])));
  }
}

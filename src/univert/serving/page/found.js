/** The items that were found in a photo: frames and dots over it, and a row of buttons to choose one. */

import { settled } from "./box.js";
import { element, fill, icon, readable } from "./dom.js";

const CROP_PX = 64;
/** As far from a dot a press still means it, in pixels of the screen. */
const REACH_PX = { mouse: 12, pen: 16, touch: 24 };

/** The items of an answer, each {box, vertical, identity, hits} with its box in pixels of the photo as it is here. */
export async function foundIn(answer, photo) {
  if (!answer.items?.length || !(await photo.loaded)) return [];
  const scale = photo.size.width / answer.query.width_px;
  return answer.items
    .map((item) => ({ ...item, box: settled(item.box_xyxy_px.map((side) => scale * side), photo.size) }))
    .filter(({ box }) => box !== null); // one as large as the photo is what the photo is asked about anyway
}

const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
const holds = ([x0, y0, x1, y1], [x, y]) => x0 <= x && x <= x1 && y0 <= y && y <= y1;
const away = ([x0, y0, x1, y1], [x, y]) => Math.hypot((x0 + x1) / 2 - x, (y0 + y1) / 2 - y);

/**
 * The item that a press at a point means: the one whose dot is near, else the smallest around it. `chosen` is the box
 * that is searched already: a press within it means only what is smaller.
 */
export function itemAt(items, point, { reach, chosen }) {
  const others = items.filter(({ box }) => String(box) !== String(chosen));
  const near = others.filter(({ box }) => away(box, point) <= reach);
  if (near.length) return near.reduce((one, other) => (away(one.box, point) <= away(other.box, point) ? one : other));
  const most = chosen && holds(chosen, point) ? area(chosen) : Infinity;
  const around = others.filter(({ box }) => holds(box, point) && area(box) < most);
  return around.length ? around.reduce((one, other) => (area(one.box) <= area(other.box) ? one : other)) : null;
}

/** Shows the items of one photo. `onChoose(box)` is told what is chosen; null is the whole photo. */
export class FoundItems {
  constructor(photo, onChoose) {
    this.photo = photo;
    this.onChoose = onChoose;
    this.items = [];
    this.marks = element("div", { class: "marks", "aria-hidden": "true" });
    this.row = element("div", { class: "found", role: "group", "aria-label": "Found in the photo", hidden: true });
  }

  show(items, chosen) {
    if (JSON.stringify(items) !== JSON.stringify(this.items)) {
      this.items = items;
      const large = items.toSorted((one, other) => area(other.box) - area(one.box));
      fill(this.marks, large.map((item) => this.#mark(item)));
      const buttons = items.map((item, rank) => this.#button(item, `${rank + 1} of ${items.length}`));
      fill(this.row, items.length > 0 && this.#whole(), buttons);
      this.row.hidden = items.length === 0;
    }
    this.choose(chosen);
  }

  /** Show which box is searched: an item's, another, or none. */
  choose(box) {
    this.marks.classList.toggle("aside", box !== null);
    for (const node of [...this.marks.children, ...this.row.children]) {
      const chosen = node.dataset.box === String(box ?? "");
      if (node.matches("button")) node.setAttribute("aria-pressed", String(chosen));
      else node.hidden = chosen;
    }
    const pressed = this.row.querySelector("[aria-pressed=true]");
    if (pressed) this.row.scrollTo({ left: pressed.offsetLeft - (this.row.clientWidth - pressed.offsetWidth) / 2 });
  }

  /** The item that a press at a point of the photo means; `scale` is of pixels of the photo to those of the screen. */
  at(point, { pointer, scale, chosen }) {
    return itemAt(this.items, point, { reach: (REACH_PX[pointer] ?? REACH_PX.mouse) / scale, chosen });
  }

  #mark({ box }) {
    const mark = element("span", { class: "mark", "data-box": String(box) }, element("i"));
    const { width, height } = this.photo.size;
    const [x0, y0, x1, y1] = box;
    const place = { left: x0 / width, top: y0 / height, width: (x1 - x0) / width, height: (y1 - y0) / height };
    for (const [side, part] of Object.entries(place)) mark.style.setProperty(side, `${100 * part}%`);
    return mark;
  }

  #whole() {
    return this.#chip(null, icon("photo"), "Whole photo");
  }

  #button({ box, vertical, identity }, place) {
    const product = identity?.product?.known ? identity.product.value : null;
    const words = element("span", { class: "words" }, readable(product ?? vertical));
    return this.#chip(box, this.#crop(box), words, element("span", { class: "hidden" }, `, item ${place}`));
  }

  #chip(box, ...children) {
    const chosen = { type: "button", class: "chip", "data-box": String(box ?? ""), onclick: () => this.onChoose(box) };
    return element("button", chosen, ...children);
  }

  /** A small square of the photo around the item. */
  #crop([x0, y0, x1, y1]) {
    const canvas = element("canvas", { width: String(CROP_PX), height: String(CROP_PX), "aria-hidden": "true" });
    const side = Math.min(Math.max(x1 - x0, y1 - y0), this.photo.size.width, this.photo.size.height);
    const clamp = (value, most) => Math.min(Math.max(value, 0), most);
    const left = clamp((x0 + x1 - side) / 2, this.photo.size.width - side);
    const top = clamp((y0 + y1 - side) / 2, this.photo.size.height - side);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.photo.image, left, top, side, side, 0, 0, CROP_PX, CROP_PX);
    return canvas;
  }
}

/** The box on the photo: drawn, moved and resized by mouse, touch, pen and keyboard. */

import * as geometry from "./box.js";
import { element } from "./dom.js";

const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 0.02;
const BIG_STEP = 0.1;
/** A press that moves less than this, in pixels of the screen, is a tap. */
const TAP_PX = 6;

/**
 * Puts a box over `stage`, which holds the picture and nothing else. `found` marks the items found in the photo, and
 * knows which one a press means. `onChange(box, final)`: null is the whole photo.
 */
export class BoxEditor {
  constructor(stage, photo, found, onChange) {
    this.stage = stage;
    this.photo = photo;
    this.found = found;
    this.onChange = onChange;
    this.box = null;
    this.hole = element("i");
    this.shade = element("span", { class: "shade", hidden: true }, this.hole);
    this.frame = element(
      "div",
      {
        class: "box",
        hidden: true,
        tabindex: "0",
        role: "application",
        "aria-roledescription": "movable area",
        "aria-describedby": "box-help",
      },
      HANDLES.map((name) => element("span", { class: `handle ${name}`, "data-handle": name })),
    );
    stage.append(this.shade, found.marks, this.frame);
    stage.addEventListener("pointerdown", (event) => this.#press(event));
    this.frame.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Show a box, or none, without telling anyone. */
  show(box) {
    this.box = box;
    this.shade.hidden = this.frame.hidden = box === null;
    this.stage.classList.toggle("boxed", box !== null);
    if (box === null) return;
    const { width, height } = this.photo;
    const [x0, y0, x1, y1] = box;
    const place = {
      left: x0 / width,
      top: y0 / height,
      width: (x1 - x0) / width,
      height: (y1 - y0) / height,
    };
    for (const [side, part] of Object.entries(place)) {
      for (const node of [this.frame, this.hole]) node.style.setProperty(side, `${100 * part}%`);
    }
    this.frame.setAttribute("aria-label", `Searched area: ${geometry.described(box, this.photo)}`);
  }

  /** Begin with a box in the middle, ready for the keyboard. */
  begin() {
    this.change(geometry.around(this.photo), true);
    this.frame.focus({ preventScroll: true });
  }

  /** Show a box and tell. */
  change(box, final) {
    const whole = geometry.settled(box, this.photo);
    this.show(final ? whole : box);
    this.onChange(whole, final);
  }

  #at(event) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return [
      ((event.clientX - left) / width) * this.photo.width,
      ((event.clientY - top) / height) * this.photo.height,
    ];
  }

  #press(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    const handle = event.target.dataset.handle ?? null;
    const inside = !handle && this.frame.contains(event.target);
    // Without a box a finger scrolls the page: a tap starts the box instead of a stroke.
    const draws = !handle && !inside && (event.pointerType === "mouse" || this.box !== null);
    const start = this.#at(event);
    const before = this.box;
    let dragged = false;
    const move = (next) => {
      if (next.pointerId !== event.pointerId) return;
      dragged ||= Math.hypot(next.clientX - event.clientX, next.clientY - event.clientY) >= TAP_PX;
      if (!dragged) return;
      const [x, y] = this.#at(next);
      const [dx, dy] = [x - start[0], y - start[1]];
      if (handle) this.change(geometry.resized(before, handle, dx, dy, this.photo), false);
      else if (inside) this.change(geometry.moved(before, dx, dy, this.photo), false);
      else if (draws) this.change(geometry.between(start, [x, y], this.photo), false);
    };
    const finish = (next) => {
      if (next.pointerId !== event.pointerId) return;
      for (const [name, listener] of listeners) this.stage.removeEventListener(name, listener);
      const cancelled = next.type === "pointercancel";
      if (cancelled && dragged && (draws || before)) this.change(before, true);
      else if (dragged && (draws || handle || inside)) this.change(this.box, true);
      else if (!dragged && !cancelled && !handle) this.#tap(start, event.pointerType);
      if (this.box && (dragged || inside)) this.frame.focus({ preventScroll: true });
    };
    const listeners = [
      ["pointermove", move],
      ["pointerup", finish],
      ["pointercancel", finish],
    ];
    for (const [name, listener] of listeners) this.stage.addEventListener(name, listener);
    if (draws || handle || inside) {
      this.stage.setPointerCapture(event.pointerId);
      event.preventDefault();
    }
  }

  /** A press without a stroke chooses an item; where there is none, a finger's begins a box. */
  #tap(point, pointer) {
    const scale = this.stage.clientWidth / this.photo.width;
    const item = this.found.at(point, { pointer, scale, chosen: this.box });
    if (item) this.change(item.box, true);
    else if (pointer !== "mouse" && this.box === null) this.change(geometry.around(this.photo, point, 0.5), true);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape" || event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      this.change(null, true);
      this.onRemoved?.();
      return;
    }
    const direction = ARROWS[event.key];
    if (!direction || this.box === null) return;
    event.preventDefault();
    const step = (event.altKey ? BIG_STEP : STEP) * Math.min(this.photo.width, this.photo.height);
    const [dx, dy] = direction.map((sign) => sign * step);
    const box = event.shiftKey
      ? geometry.resized(this.box, "se", dx, dy, this.photo)
      : geometry.moved(this.box, dx, dy, this.photo);
    // A box grown to the whole photo stays while the keys are on it: vanishing under the fingers would be a surprise.
    this.show(box.map(Math.round));
    this.onChange(geometry.settled(box, this.photo), true);
  }
}

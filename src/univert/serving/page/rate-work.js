/** A rater's work: triplets whose pictures are loaded before they are needed, and answers that are kept until saved. */

import { ask, Problem } from "./api.js";

export const QUESTIONS = ["same", "different"];
const ROLES = ["anchor", "positive", "negative"];
const RETRY_MS = 2000;
/** Problems that asking again does not mend. */
const FINAL = ["validation", "not-found", "too-large"];

export class Work {
  /** `changed` is called when there is something new to show, `failed` with a problem that the rater must solve. */
  constructor(rater, { changed, failed }) {
    Object.assign(this, { rater, changed, failed, queue: [], progress: null, loading: false, offline: false });
    this.store = `univert-rate:${rater}`;
    this.unsaved = restored(this.store);
    this.sending = null;
  }

  /** Ask for the next triplets; first of all, save what an earlier visit could not. */
  async load() {
    this.loading = true;
    await this.save();
    try {
      this.take(await ask("triplets", {}));
      this.offline = false;
    } catch (problem) {
      this.trouble(problem);
    }
    this.loading = false;
    this.changed();
  }

  /** The answer to a triplet; it is saved while the next one is rated. */
  answer(triplet, verdicts, seconds) {
    this.queue = this.queue.filter(({ id }) => id !== triplet.id);
    this.unsaved.push({ triplet: triplet.id, ...verdicts, seconds });
    this.remember();
    this.save();
  }

  /** Take the last answer back. True if its triplet is now the first. */
  async undo() {
    await this.save();
    if (this.unsaved.length) return false;
    try {
      const work = await ask("undo", { method: "POST" });
      this.queue = [];
      this.take(work);
      return work.undone !== null;
    } catch (problem) {
      this.trouble(problem);
      return false;
    }
  }

  /** Send the answers that wait, one after the other. */
  save() {
    this.sending ??= this.send().finally(() => {
      this.sending = null;
      this.changed();
    });
    return this.sending;
  }

  async send() {
    while (this.unsaved.length) {
      try {
        const answer = JSON.stringify(this.unsaved[0]);
        const work = await ask("answers", { method: "POST", body: answer }, null, { "Content-Type": "application/json" });
        this.offline = false;
        this.unsaved.shift();
        this.remember();
        this.take(work);
      } catch (problem) {
        if (problem instanceof Problem && FINAL.includes(problem.kind)) {
          this.unsaved.shift();
          this.remember();
          continue;
        }
        this.trouble(problem);
        break;
      }
    }
  }

  trouble(problem) {
    if (problem.kind === "unauthorised") return this.failed(problem);
    this.offline = true;
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.load(), RETRY_MS);
    this.changed();
  }

  /** Put what the service says behind what is there. */
  take({ triplets, progress }) {
    const there = new Map(this.queue.map((triplet) => [triplet.id, triplet]));
    const answered = new Set(this.unsaved.map(({ triplet }) => triplet));
    this.progress = progress;
    const fresh = triplets.filter(({ id }) => !there.has(id) && !answered.has(id));
    for (const triplet of fresh) triplet.pictures = ROLES.map((role) => picture(triplet[role], role));
    this.queue.push(...fresh);
  }

  remember() {
    try {
      localStorage.setItem(this.store, JSON.stringify(this.unsaved));
    } catch {
      // Storage may be off; unsaved answers then last as long as the page.
    }
  }
}

const ALT = {
  anchor: "The product to compare with",
  positive: "Perhaps the same product",
  negative: "Perhaps another product",
};

/** A picture that is fetched and decoded ahead of its turn; its third of a wide window decides how large. */
function picture(id, role) {
  const size_px = Math.min(1024, Math.max(256, Math.ceil((innerWidth / 3) * devicePixelRatio)));
  const image = new Image();
  image.alt = ALT[role];
  image.draggable = false;
  image.src = `pictures?id=${encodeURIComponent(id)}&size_px=${size_px}`;
  image.ready = image.decode().catch(() => null);
  return image;
}

function restored(store) {
  try {
    return JSON.parse(localStorage.getItem(store)) ?? [];
  } catch {
    return [];
  }
}

/** Asking: one question at a time, the newest; older ones are called off, answered ones remembered for "back". */

import { search } from "./api.js";
import { foundIn } from "./found.js";
import { findPhoto, prepared } from "./photo.js";
import { placeKey } from "./place.js";

const MOST_KEPT = 64;

/** Calls `onAnswer(answer, place)` or `onTrouble(problem, place)` for the last place that was asked about. */
export class Searcher {
  #calling = null;
  #timer = 0;
  #kept = new Map();

  constructor({ onAnswer, onTrouble }) {
    this.onAnswer = onAnswer;
    this.onTrouble = onTrouble;
  }

  /** The answer, if this was asked before. */
  remembered(place) {
    return this.#kept.get(placeKey(place)) ?? null;
  }

  /** Ask, after a pause in which a newer question may take its place. */
  ask(place, pauseMs = 0) {
    this.stop();
    const calling = (this.#calling = new AbortController());
    if (pauseMs) this.#timer = setTimeout(() => this.#send(place, calling.signal), pauseMs);
    else this.#send(place, calling.signal);
  }

  /** Call off what is under way. */
  stop() {
    clearTimeout(this.#timer);
    this.#calling?.abort();
  }

  async #send(place, signal) {
    try {
      const answer = await search(await this.#question(place), signal);
      if (place.query.kind === "photo") answer.found = await foundIn(answer, findPhoto(place.query.key));
      if (signal.aborted) return;
      this.#keep(place, answer);
      this.onAnswer(answer, place);
    } catch (problem) {
      if (signal.aborted) return;
      this.onTrouble(problem, place);
    }
  }

  async #question({ query, box, filters, k }) {
    if (query.kind === "item") return { like: query.id, filters, k };
    if (query.kind === "words") return { text: query.text, filters, k };
    return { photo: await prepared(findPhoto(query.key), box), text: query.text, filters, k };
  }

  /** Each item in a photo is answered with it: what a search with the item's box would answer. */
  #keep(place, answer) {
    for (const { box, identity, hits } of answer.found ?? []) {
      this.#kept.set(placeKey({ ...place, box }), { ...answer, identity, hits, detector: null, found: [] });
    }
    this.#kept.set(placeKey(place), answer);
    for (const key of [...this.#kept.keys()].slice(0, -MOST_KEPT)) this.#kept.delete(key);
  }
}

/** Pictures of items: plain <img> addresses, or fetched with the API key where there is one. */

import { picture } from "./api.js";
import { element, icon } from "./dom.js";
import { apiKey } from "./key.js";

const fetched = new Map();
const MOST_FETCHED = 400;

/** Fetch what comes near the screen, not all at once. */
const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      fetchInto(target);
    }
  },
  { rootMargin: "400px" },
);

/** A square tile that shows the picture at `url`, or says that there is none. */
export function tile(url, { alt = "", eager = false } = {}) {
  const image = element("img", {
    alt,
    decoding: "async",
    loading: eager ? "eager" : "lazy",
    draggable: "false",
  });
  const frame = element("span", { class: "tile" }, image);
  image.addEventListener("load", () => frame.classList.add("shown"));
  image.addEventListener("error", () =>
    frame.replaceChildren(element("span", { class: "gone" }, icon("photo"), "No picture")),
  );
  if (apiKey()) {
    image.dataset.behindKey = url;
    near.observe(image);
  } else {
    image.src = url;
  }
  return frame;
}

async function fetchInto(image) {
  const url = image.dataset.behindKey;
  try {
    if (!fetched.has(url)) {
      fetched.set(url, URL.createObjectURL(await picture(url)));
      forgetOldest();
    }
    image.src = fetched.get(url);
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}

function forgetOldest() {
  if (fetched.size <= MOST_FETCHED) return;
  const [url, held] = fetched.entries().next().value;
  URL.revokeObjectURL(held);
  fetched.delete(url);
}

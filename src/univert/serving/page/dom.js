/** Making and finding elements. Text goes in as text, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id; it is in index.html. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * A new element. Attributes that are false or null are left out, true ones are empty; `onclick` and its like are
 * listeners. Children may be nodes, text, or null.
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  return fill(node, ...children);
}

/** Put these children, and nothing else, into a node; null and false stand for no child. */
export function fill(node, ...children) {
  node.replaceChildren(
    ...children.flat().filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

/** One of the icons in index.html; always decoration beside words. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** 7828 -> "7,828", as the reader's language writes it. */
export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString()} ${number === 1 ? one : many}`;
}

/** A product, style or vertical as people say it: "rescue-workers-helmet" -> "Rescue workers helmet", "a-17" stays. */
export function readable(name) {
  const words = name.split(/[-_]+/);
  const spoken = words.filter((word) => /^\p{L}{2,}$/u.test(word)).length;
  if (name !== name.toLowerCase() || /\s/.test(name) || spoken < Math.min(2, words.length)) return name;
  return name[0].toUpperCase() + words.join(" ").slice(1);
}

/** What to call an item of the catalogue. */
export function nameOf({ product, style, vertical }) {
  return readable(product ?? style ?? vertical);
}

/** 0.873 -> "87%" */
export function percent(part) {
  return `${Math.round(100 * part)}%`;
}

/** A bar that is filled to a share; decoration beside the number. */
export function bar(part) {
  const filled = element("i");
  filled.style.setProperty("width", percent(part));
  return element("span", { class: "bar", "aria-hidden": "true" }, filled);
}

/** Say something to people who listen to the page. */
export function speak(words) {
  byId("spoken").textContent = words;
}

let toastTimer = 0;

/** Say something for a few seconds at the foot of the page, to those who look and those who listen. */
export function toast(words) {
  const note = byId("toast");
  note.hidden = false;
  note.textContent = words;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (note.hidden = true), 5000);
}

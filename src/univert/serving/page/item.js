/** The view of an item: its picture, large, beside the photo that led to it; what is known of it; what people say. */

import { item, tell, thumbnailUrl } from "./api.js";
import { byId, element, fill, icon, nameOf, readable, speak, toast } from "./dom.js";
import { prepared } from "./photo.js";
import { tile } from "./pictures.js";
import { wordsFor } from "./problems.js";

const ITEM_PX = 1024;
const CROP_PX = 640;
const FACTS = ["vertical", "style", "brand", "source"];
const told = new Map();

/**
 * Show an item in `panel`; its columns follow when they arrive. Returns them, or null.
 *
 * `known` are columns that are there already; `asked` is {photo, box} where a photo led here; `canTell`: whether the
 * service takes feedback; `current()` is false once something else is shown.
 */
export async function showItem(panel, id, { known, asked, canTell, current }) {
  const about = element("div", { class: "about" });
  const picture = tile(thumbnailUrl(id, ITEM_PX), { alt: "This item", eager: true });
  const crop = asked && element("canvas", { role: "img", "aria-label": "What you asked about" });
  fill(
    panel,
    element(
      "div",
      { class: crop ? "of-item compared" : "of-item" },
      crop && figure("Your photo", element("span", { class: "tile shown" }, crop)),
      figure(crop ? "This item" : "", picture),
      about,
    ),
  );
  if (crop) draw(crop, asked);
  const question = asked && canTell ? verdict(id, asked) : null;
  const show = (columns) => {
    byId("query-title").textContent = nameOf(columns);
    fill(about, facts(columns), columns.link && linkOut(columns.link), question);
  };
  if (known) show(known);
  try {
    const columns = await item(id);
    if (current()) show(columns);
    return columns;
  } catch {
    return null; // the search for the same item says what is wrong; once is enough
  }
}

function figure(words, content) {
  return element("figure", {}, content, words && element("figcaption", { class: "note" }, words));
}

/** The part of the photo that was asked about. */
function draw(canvas, { photo, box }) {
  const [x0, y0, x1, y1] = box ?? [0, 0, photo.size.width, photo.size.height];
  const scale = Math.min(1, CROP_PX / Math.max(x1 - x0, y1 - y0));
  canvas.width = Math.max(1, Math.round((x1 - x0) * scale));
  canvas.height = Math.max(1, Math.round((y1 - y0) * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(photo.image, x0, y0, x1 - x0, y1 - y0, 0, 0, canvas.width, canvas.height);
}

function facts(columns) {
  const shown = (name) => (name === "brand" || name === "source" ? columns[name] : readable(columns[name]));
  return element(
    "dl",
    { class: "facts" },
    FACTS.filter((name) => columns[name]).map((name) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, shown(name))),
    ),
    element("div", {}, element("dt", {}, "id"), element("dd", { class: "id" }, columns.id)),
  );
}

function linkOut(link) {
  const { host } = new URL(link);
  return element(
    "a",
    { class: "button primary", href: link, target: "_blank", rel: "noopener" },
    icon("out"),
    `See it at ${host}`,
  );
}

/** The question whether it is the product in the photo; asked once. */
function verdict(id, { photo, box }) {
  const key = JSON.stringify([id, photo.key, box]);
  const group = element("div", { class: "verdict", role: "group", "aria-labelledby": "verdict-title" });
  const thanks = () => fill(group, element("p", { class: "note" }, icon("check"), "Thank you, that is noted."));
  const answer = async (same) => {
    for (const button of group.querySelectorAll("button")) button.disabled = true;
    try {
      await tell({ photo: await prepared(photo, box), id, same });
      told.set(key, same);
      thanks();
      byId("query-title").focus({ preventScroll: true });
      speak("Thank you, that is noted.");
    } catch (problem) {
      if (problem.kind === undefined) throw problem;
      for (const button of group.querySelectorAll("button")) button.disabled = false;
      toast(`${wordsFor(problem).title}. That was not noted.`);
    }
  };
  const button = (words, same) =>
    element("button", { type: "button", class: "button", onclick: () => answer(same) }, words);
  if (told.has(key)) return thanks();
  return fill(
    group,
    element("h2", { id: "verdict-title" }, "Is this the product in your photo?"),
    element("div", { class: "choices" }, button("Yes, it is", true), button("No, it isn't", false)),
  );
}

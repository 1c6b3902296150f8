/**
 * Geometry of the box: [x0, y0, x1, y1] in pixels of the upright photo, x0 < x1 and y0 < y1, always inside it.
 * A handle is named by the sides that it moves: "n", "se" and so on.
 */

/** Sides shorter than this say too little to search by. */
const LEAST_PX = 16;
const WHOLE = 0.995;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const least = (length) => Math.min(LEAST_PX, length);

/** The box between two points, widened where it is too narrow. */
export function between([ax, ay], [bx, by], photo) {
  const [x0, x1] = span(ax, bx, photo.width);
  const [y0, y1] = span(ay, by, photo.height);
  return [x0, y0, x1, y1];
}

function span(a, b, length) {
  let [low, high] = [clamp(Math.min(a, b), 0, length), clamp(Math.max(a, b), 0, length)];
  const missing = least(length) - (high - low);
  if (missing > 0) {
    low = clamp(low - missing / 2, 0, length - least(length));
    high = low + least(length);
  }
  return [low, high];
}

/** The box moved, as far as the photo goes. */
export function moved([x0, y0, x1, y1], dx, dy, photo) {
  const right = clamp(dx, -x0, photo.width - x1);
  const down = clamp(dy, -y0, photo.height - y1);
  return [x0 + right, y0 + down, x1 + right, y1 + down];
}

/** The box with the handle's sides moved; a side stops before it meets the opposite one. */
export function resized([x0, y0, x1, y1], handle, dx, dy, photo) {
  const [wide, high] = [least(photo.width), least(photo.height)];
  if (handle.includes("w")) x0 = clamp(x0 + dx, 0, x1 - wide);
  if (handle.includes("e")) x1 = clamp(x1 + dx, x0 + wide, photo.width);
  if (handle.includes("n")) y0 = clamp(y0 + dy, 0, y1 - high);
  if (handle.includes("s")) y1 = clamp(y1 + dy, y0 + high, photo.height);
  return [x0, y0, x1, y1];
}

/** A box in the middle, or around a point: a place to start from. */
export function around(photo, [x, y] = [photo.width / 2, photo.height / 2], part = 0.6) {
  const half = (Math.min(photo.width, photo.height) * part) / 2;
  const box = between([x - half, y - half], [x + half, y + half], photo);
  return box;
}

/** Whole pixels; null if the box is as good as the whole photo. */
export function settled(box, photo) {
  if (!box) return null;
  const [x0, y0, x1, y1] = box.map(Math.round);
  return (x1 - x0) * (y1 - y0) >= WHOLE * photo.width * photo.height ? null : [x0, y0, x1, y1];
}

/** The box in words, for those who cannot see it. */
export function described(box, photo) {
  const percent = (value, length) => Math.round((100 * value) / length);
  const [x0, y0, x1, y1] = box;
  const [wide, high] = [percent(x1 - x0, photo.width), percent(y1 - y0, photo.height)];
  const [left, top] = [percent(x0, photo.width), percent(y0, photo.height)];
  return `${wide} % of the width and ${high} % of the height, starting ${left} % from the left and ${top} % from the top`;
}

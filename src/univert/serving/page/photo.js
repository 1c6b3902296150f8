/** The photos of this visit. They live in this page alone: nothing is stored, and reloading forgets them. */

/** Up to this many bytes a photo goes as it is, at once. */
const SMALL_BYTES = 1_500_000;
/** Longest side of what is redrawn. Models read a few hundred pixels a side: docs/page.md has the measured difference. */
const LONGEST_PX = 1280;
const JPEG_QUALITY = 0.92;
const SENT_AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp"];
const MOST_KEPT = 12;

const photos = new Map();
let made = 0;

/**
 * A photo that was given to the page; `url` shows it, `size` is its upright {width, height}, null if unreadable here;
 * `found` are the items found in it, null where nobody looked.
 */
class Photo {
  constructor(file) {
    this.key = `${Date.now().toString(36)}-${(made += 1)}`;
    this.file = file;
    this.name = file.name || "photo";
    this.url = URL.createObjectURL(file);
    this.image = new Image();
    this.size = null;
    this.found = null;
    this.reduced = null;
    this.loaded = new Promise((resolve) => {
      this.image.onload = () => {
        this.size = { width: this.image.naturalWidth, height: this.image.naturalHeight };
        resolve(this.size.width > 0);
      };
      this.image.onerror = () => resolve(false);
    });
    this.image.src = this.url;
  }
}

/** Take in a file; it is found again under its key for as long as the page lives. */
export function addPhoto(file) {
  const photo = new Photo(file);
  photos.set(photo.key, photo);
  if (photos.size > MOST_KEPT) {
    const [key, oldest] = photos.entries().next().value;
    URL.revokeObjectURL(oldest.url);
    photos.delete(key);
  }
  return photo;
}

export function findPhoto(key) {
  return photos.get(key) ?? null;
}

/**
 * What to send for a photo and a box: {file, box}. Small photos go untouched. Of large ones, which take a phone longer
 * to send than the answer takes, only the part that is asked about goes, cut out at full size and then reduced. What
 * this browser cannot show goes untouched too: the service may know more formats, and says so if not.
 */
export async function prepared(photo, box) {
  const plain = SENT_AS_THEY_ARE.includes(photo.file.type);
  if (plain && photo.file.size <= SMALL_BYTES) return { file: photo.file, box };
  if (!(await photo.loaded)) return { file: photo.file, box };
  const { width, height } = photo.size;
  if (plain && Math.max(width, height) <= LONGEST_PX) return { file: photo.file, box };
  if (box) return { file: await drawn(photo, box), box: null };
  photo.reduced ??= drawn(photo, [0, 0, width, height]);
  return { file: await photo.reduced, box: null };
}

/** A part of the photo as a JPEG, on white where it is transparent. */
async function drawn(photo, [x0, y0, x1, y1]) {
  const scale = Math.min(1, LONGEST_PX / Math.max(x1 - x0, y1 - y0));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round((x1 - x0) * scale));
  canvas.height = Math.max(1, Math.round((y1 - y0) * scale));
  const pen = canvas.getContext("2d", { alpha: false });
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(photo.image, x0, y0, x1 - x0, y1 - y0, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
  return blob ? new File([blob], "photo.jpg", { type: "image/jpeg" }) : photo.file;
}

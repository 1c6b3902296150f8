/** The ways a photo gets in: choosing, the camera, dropping, pasting. */

import { byId, toast } from "./dom.js";

/** Call `onFile` with each file that the visitor gives to the page. */
export function takeIn(onFile) {
  const inputs = { choose: byId("file"), camera: byId("camera") };
  for (const input of Object.values(inputs)) {
    input.addEventListener("change", () => {
      if (input.files.length) onFile(input.files[0]);
      input.value = ""; // so that the same file can be chosen again
    });
  }
  for (const button of document.querySelectorAll("[data-intake]")) {
    const way = button.dataset.intake;
    if (way === "paste") button.hidden = !navigator.clipboard?.read;
    button.addEventListener("click", () => (way === "paste" ? pasteByButton(onFile) : inputs[way].click()));
  }
  byId("drop").addEventListener("click", ({ target }) => {
    if (!target.closest("button")) inputs.choose.click();
  });
  if (/Mac|iPhone|iPad/.test(navigator.platform)) byId("paste-keys").textContent = "⌘ V";
  document.addEventListener("paste", (event) => paste(event, onFile));
  dropAnywhere(onFile);
}

/** Open the file chooser, as the buttons do. */
export function choosePhoto() {
  byId("file").click();
}

function paste(event, onFile) {
  if (event.target.closest?.("input, textarea, dialog")) return;
  const file = [...(event.clipboardData?.files ?? [])].find(isPhoto);
  if (file) {
    event.preventDefault();
    onFile(file);
  } else {
    toast("There is no picture in what you pasted. Copy a picture, not its link.");
  }
}

async function pasteByButton(onFile) {
  try {
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((name) => name.startsWith("image/"));
      if (type) {
        onFile(new File([await item.getType(type)], "pasted", { type }));
        return;
      }
    }
    toast("There is no picture to paste. Copy a picture first.");
  } catch {
    toast("The browser didn't allow pasting. Use its own paste, or choose a file.");
  }
}

/** Dropping works all over the page; `depth` counts the elements that the pointer is in. */
function dropAnywhere(onFile) {
  const veil = byId("veil");
  let depth = 0;
  const carries = (event) =>
    [...(event.dataTransfer?.types ?? [])].some((type) => type === "Files" || type === "text/uri-list");
  document.addEventListener("dragenter", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth += 1;
    veil.hidden = false;
  });
  document.addEventListener("dragover", (event) => {
    if (carries(event)) event.preventDefault();
  });
  document.addEventListener("dragleave", (event) => {
    if (!carries(event)) return;
    depth = Math.max(0, depth - 1);
    if (depth === 0) veil.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    depth = 0;
    veil.hidden = true;
    if (!carries(event)) return;
    event.preventDefault();
    const files = [...event.dataTransfer.files];
    const file = files.find(isPhoto) ?? files[0];
    if (file) onFile(file);
    else toast("That was a link to a picture. Save the picture first, then drop the file.");
    if (files.length > 1) toast("One photo at a time: this is the first.");
  });
}

function isPhoto(file) {
  return file.type.startsWith("image/");
}

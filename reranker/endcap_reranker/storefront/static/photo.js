// Search by photo: the camera button, drag and drop, paste, and the chip that shows what is searched by.

import { el, pictureUrl } from "./view.js";

const SENT_SIDE = 1024;  // no encoder looks at more, and a phone's photo has ten megabytes
const THUMB_SIDE = 112;
const $ = (id) => document.getElementById(id);

function scaled(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = el("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";  // what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// {blob, thumb, name}; what the browser cannot read goes to the server as it is, which says what is wrong with it.
async function prepared(file) {
  const name = file.name || "photo";
  try {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    const thumb = scaled(bitmap, THUMB_SIDE).toDataURL("image/jpeg", 0.85);
    const blob = await new Promise((resolve) => scaled(bitmap, SENT_SIDE).toBlob(resolve, "image/jpeg", 0.9));
    bitmap.close();
    return { blob: blob ?? file, thumb, name };
  } catch {
    return { blob: file, thumb: "", name };
  }
}

export function photoSearch({ samples, first }, changed) {
  const take = async (file) => {
    if (file) changed(await prepared(file));
  };
  const choose = () => $("photo").click();

  $("photo-button").addEventListener("click", choose);
  const touch = matchMedia("(pointer: coarse)").matches;
  if (touch) $("photo").setAttribute("capture", "environment");
  $("photo").addEventListener("change", () => {
    take($("photo").files[0]);
    $("photo").value = "";  // the same file may be chosen again
  });

  const brings = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;  // the page's parts each report entering and leaving
  const show = (by) => {
    depth = Math.max(0, by === 0 ? 0 : depth + by);
    $("drop").hidden = depth === 0;
  };
  document.addEventListener("dragenter", (event) => { if (brings(event)) { event.preventDefault(); show(1); } });
  document.addEventListener("dragover", (event) => { if (brings(event)) event.preventDefault(); });
  document.addEventListener("dragleave", (event) => { if (brings(event)) show(-1); });
  document.addEventListener("drop", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    show(0);
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) { event.preventDefault(); take(file); }
  });

  const trySample = async (path) => {
    const answer = await fetch(pictureUrl(path)).catch(() => null);
    if (answer?.ok) take(new File([await answer.blob()], path.split("/").at(-1)));
  };
  if (first || samples.length) {
    $("photo-hint").replaceChildren(
      el("h2", { id: "photo-hint-title" }, "Find a product by its photo"),
      el("p", {}, touch ? "" : "Drop a photo anywhere on this page, paste one, or ",
        el("button", { type: "button", className: "link", onclick: choose }, touch ? "Take a photo" : "choose one"),
        samples.length ? ". Or try one of these:" : "."),
      samples.length ? el("div", { className: "samples", role: "group", "aria-label": "Photos to try" },
        ...samples.map((path, n) => el("button", { type: "button", "aria-label": `Try photo ${n + 1}`, onclick: () => trySample(path) },
          el("img", { src: pictureUrl(path), alt: "", loading: "lazy" })))) : null);
    $("photo-hint").hidden = false;
  }
}

// The photo in force, or none.
export function drawPhoto(photo, remove) {
  document.body.classList.toggle("by-photo", Boolean(photo));
  const chip = $("photo-chip");
  chip.hidden = !photo;
  chip.replaceChildren(...(photo ? [
    photo.thumb ? el("img", { src: photo.thumb, alt: "Your photo" }) : null,
    el("span", {}, el("strong", {}, "Your photo"), el("small", {}, "Type words to say what the picture does not.")),
    el("button", { type: "button", "aria-label": "Remove the photo", title: "Remove the photo", onclick: remove }, "×"),
  ].filter(Boolean) : []));
}

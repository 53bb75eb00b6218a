// Two small helps; every page works without them.

// A part of the page that renews itself until the server says that it is done.
async function poll(part) {
  const pause = Number(part.dataset.seconds || 2) * 1000;
  for (;;) {
    await new Promise((go) => setTimeout(go, pause));
    if (document.hidden) continue;
    let answer;
    try {
      answer = await fetch(part.dataset.poll, { headers: { "X-Endcap-Part": "1" }, credentials: "same-origin" });
    } catch {
      continue; // the server restarts: ask again
    }
    if (answer.status === 401) return location.reload();
    if (!answer.ok) continue;
    const html = await answer.text();
    if (!part.contains(document.activeElement)) {
      part.innerHTML = html;
      part.dispatchEvent(new CustomEvent("renewed", { bubbles: true }));
    }
    if (answer.headers.get("X-Endcap-Done")) {
      if (part.dataset.then === "reload") location.reload();
      return;
    }
  }
}
document.querySelectorAll("[data-poll]").forEach(poll);

// On a phone a row of a table becomes a card: every cell is then told its column's name.
function name(within) {
  for (const table of within.querySelectorAll("table")) {
    const heads = [...table.querySelectorAll("thead th")].map((one) => one.textContent);
    table.querySelectorAll("table, tbody, tr, td, tbody th").forEach((one) => {
      one.setAttribute("role", { TBODY: "rowgroup", TR: "row", TH: "rowheader", TD: "cell" }[one.tagName]);
    });
    table.setAttribute("role", "table");
    table.classList.add("stacks");
    for (const row of table.tBodies[0]?.rows || []) {
      [...row.cells].forEach((cell, place) => (cell.dataset.label = heads[place] || ""));
    }
  }
}
name(document);
document.addEventListener("renewed", (event) => name(event.target));

// What cannot be undone asks first.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && !confirm(form.dataset.confirm)) return event.preventDefault();
  // A form is sent once, however often its button is hit; after a download it can be sent again.
  const able = (yes) => form.querySelectorAll("button").forEach((button) => (button.disabled = !yes));
  setTimeout(() => able(false));
  setTimeout(() => able(true), 3000);
});
addEventListener("pageshow", () => document.querySelectorAll("form button").forEach((button) => (button.disabled = false)));

// The menu is open where there is room for it.
const menu = document.getElementById("menu");
const wide = matchMedia("(min-width: 821px)");
if (menu) {
  const fit = () => (menu.open = wide.matches);
  fit();
  wide.addEventListener("change", fit);
}

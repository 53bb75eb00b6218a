// Draws. Text goes in as text, never as HTML.

const AISLES = {
  "Produce": "produce", "Meat & Seafood": "meat", "Deli": "deli", "Bakery": "bakery", "Dairy & Eggs": "dairy",
  "Frozen": "frozen", "Pantry": "pantry", "Breakfast": "breakfast", "Snacks": "snacks", "Candy": "candy",
  "Beverages": "beverages", "Beer, Wine & Spirits": "wine", "Natural Foods": "natural", "Baby": "baby",
  "Pets": "pets", "Household": "household", "Health & Beauty": "health", "Flowers & Garden": "flowers",
  "Home & Leisure": "home",
};
const SVG = "http://www.w3.org/2000/svg";
const money = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });
export const count = new Intl.NumberFormat("en-US");
const day = new Intl.DateTimeFormat("en-US", { day: "numeric", month: "short" });

export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "role") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${document.body.dataset.icons}#${name}`);
  svg.append(use);
  return svg;
}

function paths(...shapes) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  for (const shape of shapes) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", shape);
    svg.append(path);
  }
  return svg;
}

export const leaf = (paths) => [...(paths ?? [])].sort((a, b) => b.length - a.length)[0] ?? "";

function tile(product) {
  const name = AISLES[leaf(product.category).split(" > ")[0]] ?? "other";
  const holder = el("span", { className: `tile aisle-${name}` }, icon(name));
  if (document.body.dataset.pictures && product.image && !/^https?:/.test(product.image)) {
    const image = el("img", {
      src: pictureUrl(product.image), alt: "", loading: "lazy",
      onload: () => holder.classList.add("pictured"), onerror: () => image.remove(),
    });
    holder.append(image);
  }
  return holder;
}

export const pictureUrl = (path) => document.body.dataset.pictures + path.replace(/^\/+/, "").split("/").map(encodeURIComponent).join("/");

function about(product) {
  const { variety } = product.attributes ?? {};
  return [product.brand, variety && `variety ${variety}`].filter(Boolean).join(" · ");
}

function movement(hit, place) {
  const by = hit.engine_position - place;
  if (by === 0) return el("span", { className: "move", title: "Same place as in the engine’s order" }, "=");
  const words = `${Math.abs(by)} ${Math.abs(by) === 1 ? "place" : "places"} ${by > 0 ? "up" : "down"} from the engine’s ${hit.engine_position}`;
  return el("span", { className: `move ${by > 0 ? "up" : "down"}`, title: words },
    el("span", { "aria-hidden": "true" }, `${by > 0 ? "▲" : "▼"}${Math.abs(by)}`),
    el("span", { className: "visually-hidden" }, words));
}

const ACTIONS = [["click", "View"], ["add_to_cart", "Add to cart", "Add"], ["purchase", "Buy"]];

export function actions(hit, place, act) {
  const title = hit.document.title ?? hit.id;
  return ACTIONS.map(([name, label, short]) => el("button", {
    type: "button", className: name === "purchase" ? "act buy" : "act", "data-action": name,
    "aria-label": `${label}: ${title}`, onclick: () => act(name, hit, place),
  }, short ?? label));
}

export function card(hit, place, { mine, act }) {
  const product = hit.document;
  return el("li", { className: "card", "data-id": hit.id },
    el("span", { className: "rank", title: `Place ${place}` }, String(place)),
    tile(product),
    el("div", { className: "what" },
      el("button", { type: "button", className: "title", onclick: () => act("click", hit, place) }, product.title ?? hit.id),
      el("div", { className: "meta" },
        (hit.labels ?? []).includes("sponsored") ? el("b", {}, "Sponsored · ") : null, about(product))),
    el("div", { className: "right" },
      product.price === undefined ? null : el("span", { className: "price" }, money.format(product.price)),
      mine ? movement(hit, place) : null),
    el("div", { className: "bottom" },
      el("div", { className: "why", title: (hit.reasons ?? []).join(" · ") },
        ...(mine ? hit.reasons ?? [] : []).map((why) => el("span", {}, why))),
      el("div", { className: "acts" }, ...actions(hit, place, act))));
}

export function ghosts(n) {
  return Array.from({ length: n }, () => el("li", { className: "ghost", "aria-hidden": "true" }));
}

export function shopperButton(shopper, pressed, choose) {
  const guest = shopper.kind === "guest";
  const random = shopper.kind === "random";
  const initials = shopper.name?.match(/\d+/)?.[0].slice(-4) ?? "";
  const face = guest ? paths("M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Z", "M4.5 20.5c.5-4 3.5-6 7.5-6s7 2 7.5 6")
    : random ? paths("M4 7h3.5c4.5 0 5 10 9.5 10H20m0 0-2.5-2.5M20 17l-2.5 2.5M4 17h3.5c1.3 0 2.2-.9 2.9-2M13.6 9c.7-1.2 1.7-2 3.4-2h3m0 0-2.5-2.5M20 7l-2.5 2.5")
      : document.createTextNode(initials);
  const hue = [...String(shopper.id ?? shopper.kind)].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) >>> 0, 7) % 10;
  return el("button", {
    type: "button", className: "shopper", "aria-pressed": String(pressed), "data-shopper": shopper.id ?? shopper.kind, onclick: choose,
  },
  el("span", { className: `avatar hue-${hue}`, "aria-hidden": "true" }, face),
  el("b", {}, shopper.name), el("small", {}, shopper.line));
}

export function historyItems(history) {
  if (!history.length) return [el("li", { className: "none" }, "Nothing yet. Every view, cart and purchase below counts at once.")];
  return history.map((one) => el("li", { className: one.action },
    el("span", {}, one.title),
    el("small", {}, `${one.verb} · ${day.format(new Date(one.time))}${one.brand ? ` · ${one.brand}` : ""}`)));
}

// Products beside the one in view; nothing where there are none.
export function shelf(title, items, open) {
  if (!items.length) return null;
  return el("section", { className: "shelf", "aria-label": title },
    el("h3", {}, title),
    el("ul", {}, ...items.map((item) => el("li", {}, el("button", { type: "button", "data-id": item.id, onclick: () => open(item) },
      tile(item.document), el("span", {}, item.document.title ?? item.id, el("small", {}, about(item.document))),
      item.document.price === undefined ? null : el("span", { className: "price" }, money.format(item.document.price)))))));
}

export function productDialog(dialog, hit, place, act, shelves) {
  const product = hit.document;
  const facts = [
    ["Brand", product.brand], ["Size", product.attributes?.size], ["Shelf", leaf(product.category).replaceAll(" > ", " › ")],
    ["Variety", product.attributes?.variety], ["Price", product.price === undefined ? "" : money.format(product.price)],
    ["Engine’s place", hit.engine_position && String(hit.engine_position)], ["Why here", (hit.reasons ?? []).join("; ")],
  ].filter(([, value]) => value);
  dialog.replaceChildren(
    el("header", {}, tile(product), el("h2", { id: "product-title" }, product.title ?? hit.id)),
    el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    el("div", { className: "row" },
      ...actions(hit, place, (name) => { dialog.close(); act(name, hit, place); }).slice(1),
      el("button", { type: "button", className: "act", onclick: () => dialog.close() }, "Close")),
    el("div", { className: "shelves" }));
  dialog.dataset.id = hit.id;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTo({ top: 0 });
  shelves(hit).then((found) => {
    if (dialog.dataset.id === hit.id) dialog.querySelector(".shelves").replaceChildren(...found.filter(Boolean));
  });
}

// Moves cards from where they were to where they are (FLIP), so that the eye can follow.
export function moveInto(list, cards) {
  const before = new Map([...list.children].map((node) => [node.dataset.id, node.getBoundingClientRect().top]));
  list.replaceChildren(...cards);
  if (!before.size || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const node of list.children) {
    const old = before.get(node.dataset.id);
    const now = node.getBoundingClientRect().top;
    if (old === undefined) node.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 260 });
    else if (Math.abs(old - now) > 1) {
      node.animate([{ transform: `translateY(${old - now}px)`, zIndex: 2 }, { transform: "none", zIndex: 2 }], { duration: 480, easing: "cubic-bezier(.2,.8,.2,1)" });
    }
  }
}

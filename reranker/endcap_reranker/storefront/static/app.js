// The storefront: one state, drawn after each change.

import { createApi } from "./api.js";
import { wirePage } from "./page.js";
import { drawPhoto, photoSearch } from "./photo.js";
import { autocomplete } from "./suggest.js";
import { card, count, el, ghosts, historyItems, leaf, moveInto, productDialog, shelf, shopperButton } from "./view.js";

const boot = JSON.parse(document.getElementById("boot").textContent);
const api = createApi(boot);
const $ = (id) => document.getElementById(id);
const SIZE = 12;
const DONE = { click: "Viewed", add_to_cart: "Added to cart", purchase: "Bought" };

const address = new URLSearchParams(location.search);
const state = {
  q: address.get("q") ?? (boot.photos && !boot.anyone ? "" : boot.queries[0] ?? ""),
  page: Math.max(1, Number(address.get("page")) || 1),
  filters: {},
  shopper: null,
  random: null,
  answer: null,
  photo: null,
  session: crypto.randomUUID?.() ?? String(Math.random()).slice(2),
};
let running = null;

// -- shoppers ---------------------------------------------------------------------------------------------------------

function guestCard() {
  return { kind: "guest", id: boot.guest?.id, token: boot.guest?.token, name: "You, a new shopper", line: "Starts with nothing; learns from each click" };
}

function drawShoppers() {
  const chosen = state.shopper?.id;
  const random = state.random ?? { kind: "random", name: "Someone else", line: "Any of the other households" };
  $("shoppers").replaceChildren(
    shopperButton(guestCard(), state.shopper?.kind === "guest", () => choose(guestCard())),
    ...boot.shoppers.map((one) => shopperButton(one, one.id === chosen, () => choose(one))),
    ...(boot.anyone ? [shopperButton({ ...random, kind: "random" }, state.random !== null && state.random.id === chosen, chooseRandom)] : []));
}

const chosenButton = () => document.querySelector(`.shopper[aria-pressed="true"]`);

// Scrolls the list, not the page.
function showChosen() {
  const button = chosenButton();
  const list = $("shoppers");
  if (button) list.scrollTo({ left: button.offsetLeft - list.offsetLeft - 14, top: button.offsetTop - list.offsetTop - 60 });
}

async function choose(shopper, { focus = true } = {}) {
  if (shopper.kind === "guest" && !shopper.token) {
    try {
      boot.guest = await api.newShopper();
    } catch (error) {
      return toast(error.message, true);
    }
    shopper = guestCard();
  }
  state.shopper = shopper;
  state.page = 1;
  drawShoppers();
  showChosen();
  if (focus) chosenButton()?.focus({ preventScroll: true });
  await refresh();
}

async function chooseRandom() {
  try {
    state.random = await api.randomShopper();
  } catch (error) {
    return toast(error.message, true);
  }
  await choose(state.random);
}

async function drawHistory() {
  const wanted = state.shopper.id;
  try {
    const shopper = await api.shopper(wanted);
    if (state.shopper.id !== wanted) return;
    $("history-list").replaceChildren(...historyItems(shopper.history));
    $("history-count").textContent = shopper.purchases ? `· ${count.format(shopper.purchases)} purchases` : "";
    showChosen();
  } catch {
    $("history-list").replaceChildren(el("li", { className: "none" }, "The history is not available right now."));
  }
}

// -- searching --------------------------------------------------------------------------------------------------------

function filterList() {
  return Object.entries(state.filters).map(([field, value]) => ({ field, values: [value] }));
}

async function refresh({ touched = "" } = {}) {
  running?.abort();
  const { signal } = (running = new AbortController());
  remember();
  $("columns").setAttribute("aria-busy", "true");
  if (!state.answer) for (const id of ["cards-engine", "cards-mine"]) $(id).replaceChildren(...ghosts(6));
  const wanted = { q: state.q, page: state.page, size: SIZE, filters: filterList() };
  try {
    const [engine, mine] = await Promise.all([
      state.photo ? null : api.search(wanted, state.shopper.token, false, signal),
      state.photo ? api.photo(state.photo.blob, wanted, state.shopper.token, signal) : api.search(wanted, state.shopper.token, true, signal),
      drawHistory(),
    ]);
    state.answer = mine;
    drawAnswer(engine, mine, touched);
  } catch (error) {
    if (error.name === "AbortError") return;
    state.answer = null;
    const without = el("button", { type: "button", className: "chip", onclick: () => searchPhoto(null) }, "Remove the photo");
    notice(true, state.photo ? "The photo cannot be searched by" : "The search did not work", error.message, [...(state.photo ? [without] : []), el("button", { type: "button", className: "primary", onclick: () => refresh() }, "Try again")]);
  }
  if (!signal.aborted) $("columns").removeAttribute("aria-busy");
}

function drawAnswer(engine, mine, touched) {
  drawFacts(engine, mine);
  drawFacets(mine);
  if (!mine.total) {
    const other = mine.suggestion ? [example(mine.suggestion)] : boot.queries.slice(0, 5).map(example);
    const clear = Object.keys(state.filters).length
      ? [el("button", { type: "button", className: "primary", onclick: () => { state.filters = {}; refresh(); } }, "Remove the filters")] : [];
    return notice(false, state.q ? `Nothing found for “${state.q}”` : "Nothing here",
      mine.suggestion ? "Did you mean:" : "Try one of these:", [...clear, ...other]);
  }
  $("notice").hidden = true;
  $("columns").hidden = false;
  const first = (state.page - 1) * SIZE + 1;
  if (engine) moveInto($("cards-engine"), engine.hits.map((hit, n) => card(hit, first + n, { mine: false, act })));
  moveInto($("cards-mine"), mine.hits.map((hit, n) => card(hit, first + n, { mine: Boolean(engine), act })));
  if (touched) {
    for (const node of document.querySelectorAll(`.card[data-id="${CSS.escape(touched)}"]`)) {
      node.classList.add("touched");
      setTimeout(() => node.classList.remove("touched"), 4000);
    }
  }
  const guest = state.shopper.kind === "guest";
  $("head-mine").textContent = state.photo ? "What looks like your photo" : guest ? "Your order" : `${state.shopper.name}’s order`;
  $("tab-mine").textContent = guest ? "You" : state.shopper.name;
  $("sub-mine").textContent = state.photo ? (state.q ? "and is what you typed" : "Nearest first") : mine.ranking.personalized ? "Reordered for one person"
    : mine.ranking.degraded ? "Not now: the engine’s order" : "New here: by what sells";
  drawPager(mine);
}

function drawFacts(engine, mine) {
  const { ranking } = mine;
  const reasons = { no_vectors: "meaning search is off" };
  const parts = [
    el("span", {}, el("strong", {}, count.format(mine.total)), mine.total === 1 ? " product" : " products"),
    state.photo ? el("span", { className: "pill", title: "For everyone alike" }, state.q ? "by photo and words" : "by photo") : ranking.personalized
      ? el("span", { className: "pill", title: "Who scored the products" }, `personal · ${ranking.scorer || "scorer"}`)
      : el("span", { className: "pill plain", hidden: !mine.total }, "not personal yet"),
    el("span", { title: "Endcap’s own part of the time" }, `${state.photo ? "" : `ranked in ${ranking.took_ms.toFixed(1)} ms, `}answered in ${mine.took_ms.toFixed(0)} ms`),
  ];
  for (const reason of (ranking.degraded ?? "").split(",").filter(Boolean)) {
    parts.push(el("span", { className: "pill warn", title: "Why this answer is less than it could be" }, reasons[reason] ?? reason.replaceAll("_", " ")));
  }
  for (const given of mine.relaxed ?? []) {
    parts.push(el("span", { className: "pill plain", title: "Nothing matched all that was typed" }, given === "spelling" ? "spelling corrected" : given));
  }
  if (mine.suggestion && mine.total) {
    parts.push(el("span", {}, "Did you mean ", el("button", { type: "button", className: "link", onclick: () => search(mine.suggestion) }, mine.suggestion), "?"));
  }
  $("facts").replaceChildren(...parts);
}

function drawFacets(mine) {
  const chosen = state.filters;
  const chips = [];
  const toggle = (field, value, label, n) => chips.push(el("button", {
    type: "button", className: "chip", "aria-pressed": String(chosen[field] === value),
    onclick: () => { if (chosen[field] === value) delete chosen[field]; else chosen[field] = value; state.page = 1; refresh(); },
  }, label, n === undefined ? null : el("span", { className: "n" }, count.format(n))));
  const shelves = (mine.facets.category ?? []).filter(({ value }) => value.split(" > ").length === 2).slice(0, 5);
  if (chosen.category && !shelves.some(({ value }) => value === chosen.category)) toggle("category", chosen.category, leaf([chosen.category]).split(" > ").at(-1));
  if (shelves.length > 1 || chosen.category) for (const { value, count: n } of shelves) toggle("category", value, value.split(" > ").at(-1), n);
  for (const { value, count: n } of mine.facets["attributes.label"] ?? []) toggle("attributes.label", value, value, n);
  $("facets").replaceChildren(...chips);
}

function drawPager(mine) {
  $("pager").hidden = mine.pages < 2;
  const go = (page) => { state.page = page; refresh(); $("results").scrollIntoView({ block: "start" }); };
  $("pager").replaceChildren(
    el("button", { type: "button", disabled: state.page <= 1, onclick: () => go(state.page - 1) }, "Previous"),
    el("span", {}, `Page ${state.page} of ${count.format(mine.pages)}`),
    el("button", { type: "button", disabled: state.page >= mine.pages, onclick: () => go(state.page + 1) }, "Next"));
}

function notice(bad, title, text, buttons) {
  $("columns").hidden = true;
  $("pager").hidden = true;
  if (bad) for (const id of ["facts", "facets"]) $(id).replaceChildren();
  const box = $("notice");
  box.hidden = false;
  box.classList.toggle("bad", bad);
  box.replaceChildren(el("h2", {}, title), el("p", {}, text), el("div", { className: "row" }, ...buttons));
}

function search(q) {
  state.q = q.trim();
  state.page = 1;
  state.filters = {};
  $("q").value = state.q;
  drawExamples();
  scrollTo({ top: 0 });
  return refresh();
}

// A photo instead of the words so far; null takes it away.
function searchPhoto(photo) {
  state.photo = photo;
  drawPhoto(photo, () => { searchPhoto(null); $("photo-button").focus(); });
  return search("");
}

// -- reacting ---------------------------------------------------------------------------------------------------------

function ubi(action, hit, place) {
  return {
    action_name: action,
    client_id: state.shopper.token,
    session_id: state.session,
    query_id: state.answer?.ranking.id ?? "",
    user_query: state.q,
    timestamp: new Date().toISOString(),
    event_attributes: {
      object: { object_id: hit.id, object_id_field: "id" },
      position: { ordinal: place },
      ...(action === "purchase" ? { quantity: 1, value: hit.document.price ?? 0 } : {}),
    },
  };
}

async function act(action, hit, place) {
  const buttons = document.querySelectorAll(`.card[data-id="${CSS.escape(hit.id)}"] .act`);
  const place0 = [...$("cards-mine").children].findIndex((node) => node.dataset.id === hit.id);
  for (const button of buttons) button.disabled = true;
  if (action === "click") productDialog($("product"), hit, place, act, beside);
  try {
    await api.record(ubi(action, hit, place));
    await refresh({ touched: hit.id });
    const now = [...$("cards-mine").children].findIndex((node) => node.dataset.id === hit.id);
    const moved = place0 < 0 || now < 0 || place0 === now ? "" : ` It moved ${Math.abs(place0 - now)} ${place0 > now ? "up" : "down"}.`;
    toast(`${DONE[action]}: ${hit.document.title}.${moved}`);
  } catch (error) {
    toast(`Not recorded: ${error.message}`, true);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

async function beside(hit) {
  const none = { items: [] };
  const [similar, together] = await Promise.all([
    api.similar(hit.id, state.shopper.token).catch(() => none),
    api.together(hit.id, state.shopper.token).catch(() => none),
  ]);
  const truly = together.items.filter((item) => item.sources.includes("bought_together"));
  const open = (item) => act("click", { ...item, engine_position: 0 }, 0);
  return [shelf("Similar", similar.items, open), shelf("Often bought together", truly, open)];
}

function suggested(kind, value) {
  if (kind !== "category") return search(kind === "query" ? value.text : value.title);
  state.q = "";
  state.page = 1;
  state.filters = { category: value.path };
  $("q").value = "";
  drawExamples();
  return refresh();
}

let toastTimer = 0;
function toast(text, bad = false) {
  const box = $("toast");
  box.textContent = text;
  box.classList.toggle("bad", bad);
  box.classList.add("on");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.classList.remove("on"), 3500);
}

// -- page -------------------------------------------------------------------------------------------------------------

function example(text) {
  return el("button", { type: "button", className: "chip", "aria-pressed": String(text === state.q), onclick: () => search(text) }, text);
}

function drawExamples() {
  $("examples").replaceChildren(...boot.queries.map(example));
}

function remember() {
  const parameters = new URLSearchParams();
  if (state.q) parameters.set("q", state.q);
  if (state.shopper?.kind !== "guest") parameters.set("shopper", state.shopper.id);
  if (state.page > 1) parameters.set("page", state.page);
  history.replaceState(null, "", `?${parameters}`);
}

function showTab(name) {
  for (const one of ["mine", "engine"]) {
    const on = one === name;
    $(`tab-${one}`).setAttribute("aria-selected", String(on));
    $(`tab-${one}`).tabIndex = on ? 0 : -1;
    $(`panel-${one}`).dataset.tab = on ? "on" : "off";
  }
}

function wire() {
  $("q").value = state.q;
  $("search").addEventListener("submit", (event) => { event.preventDefault(); search($("q").value); $("q").blur(); });
  autocomplete($("q"), $("suggestions"), (q, signal) => api.suggest(q, state.shopper?.token, signal), suggested);
  for (const name of ["mine", "engine"]) $(`tab-${name}`).addEventListener("click", () => showTab(name));
  document.querySelector(".tabs").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const next = $("tab-mine").getAttribute("aria-selected") === "true" ? "engine" : "mine";
    showTab(next);
    $(`tab-${next}`).focus();
  });
  // The same product in the other column lights up.
  for (const type of ["mouseover", "focusin"]) {
    $("columns").addEventListener(type, (event) => {
      const id = event.target.closest(".card")?.dataset.id;
      for (const node of document.querySelectorAll(".card")) node.classList.toggle("twin", node.dataset.id === id);
    });
  }
  $("columns").addEventListener("mouseleave", () => { for (const node of document.querySelectorAll(".twin")) node.classList.remove("twin"); });
  wirePage($);
  if (boot.photos) photoSearch({ samples: boot.samples, first: !boot.anyone }, searchPhoto);
  if (matchMedia("(max-width: 860px)").matches) $("history").open = false;
}

async function start() {
  wire();
  showTab("mine");
  drawExamples();
  const asked = address.get("shopper");
  let shopper = boot.shoppers.find((one) => one.id === asked) ?? null;
  if (asked && !shopper) shopper = state.random = await api.shopper(asked).catch(() => null);
  shopper ??= boot.shoppers[0] ?? guestCard();
  await choose(shopper, { focus: false });
}

start();

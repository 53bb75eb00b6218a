// Autocomplete: a combobox with a list under the search box, as in the ARIA Authoring Practices.

import { el, leaf } from "./view.js";

const WAIT_MS = 90;

export function autocomplete(input, list, ask, choose) {
  let timer = 0;
  let running = null;
  let chosen = -1;

  function close() {
    clearTimeout(timer);
    running?.abort();
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function option(kind, text, beside, value) {
    return el("li", {
      role: "option", id: `suggestion-${kind}-${value.id ?? value.path ?? text}`, "aria-selected": "false", "data-kind": kind,
      onmousedown: (event) => { event.preventDefault(); close(); choose(kind, value); },
    }, el("span", {}, text), beside ? el("small", {}, beside) : null);
  }

  function draw(answer) {
    const options = [
      ...answer.queries.map((one) => option("query", one.text, "", one)),
      ...answer.categories.map((one) => option("category", one.name, `${one.products} products`, one)),
      ...answer.products.map((one) => option("product", one.title, [one.brand, leaf([one.category]).split(" > ").at(-1)].filter(Boolean).join(" · "), one)),
    ];
    list.replaceChildren(...options);
    list.hidden = !options.length;
    chosen = -1;
    input.setAttribute("aria-expanded", String(options.length > 0));
    input.removeAttribute("aria-activedescendant");
  }

  function mark(place) {
    const options = [...list.children];
    chosen = (place + options.length) % options.length;
    for (const [n, one] of options.entries()) one.setAttribute("aria-selected", String(n === chosen));
    input.setAttribute("aria-activedescendant", options[chosen].id);
    options[chosen].scrollIntoView({ block: "nearest" });
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    running?.abort();
    if (!input.value.trim()) return close();
    timer = setTimeout(async () => {
      running = new AbortController();
      try {
        draw(await ask(input.value, running.signal));
      } catch (error) {
        if (error.name !== "AbortError") close();  // a search works without suggestions
      }
    }, WAIT_MS);
  });
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    if (event.key === "ArrowDown") mark(chosen + 1);
    else if (event.key === "ArrowUp") mark(chosen < 0 ? -1 : chosen - 1);
    else if (event.key === "Escape") close();
    else if (event.key === "Enter" && chosen >= 0) list.children[chosen].dispatchEvent(new MouseEvent("mousedown", { cancelable: true }));
    else return;
    event.preventDefault();
  });
  input.addEventListener("blur", close);
  input.form.addEventListener("submit", close);
}

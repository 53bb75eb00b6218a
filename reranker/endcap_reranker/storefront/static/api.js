// Everything the page asks of the server.

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function json(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The shop cannot be reached. Is the server still running?");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Problem(response.status, body?.detail ?? `The shop answered ${response.status}.`);
  return body;
}

export function createApi(boot) {
  const as = (token) => (token ? { [boot.shopperHeader]: encodeHeader(token) } : {});
  return {
    search({ q, page, size, filters }, token, personalize, signal) {
      return json("/v1/search", {
        method: "POST",
        headers: { "Content-Type": "application/json", ...as(token) },
        body: JSON.stringify({
          q, page, size, filters, personalize,
          explain: personalize,
          facets: personalize ? { category: 60, "attributes.label": 4 } : {},
        }),
        signal,
      });
    },
    photo(picture, { q, page, size, filters }, token, signal) {
      const form = new FormData();
      form.append("image", picture, "photo");
      for (const [name, value] of Object.entries({ q, page, size, facets: "category:60,attributes.label:4" })) form.append(name, value);
      for (const { field, values } of filters) for (const value of values) form.append(field, value);
      return json("/v1/search", { method: "POST", headers: as(token), body: form, signal });
    },
    suggest: (q, token, signal) => json(`/v1/suggest?${new URLSearchParams({ q, queries: 4, categories: 3, products: 5 })}`, { headers: as(token), signal }),
    similar: (id, token) => json(`/v1/similar/${encodeURIComponent(id)}?size=4`, { headers: as(token) }),
    together: (id, token) => json(`/v1/cross-sell?${new URLSearchParams({ ids: id, size: 4 })}`, { headers: as(token) }),
    shopper: (id, signal) => json(`/storefront/shoppers/${encodeURIComponent(id)}`, { signal }),
    randomShopper: () => json("/storefront/shoppers/random"),
    newShopper: () => json("/storefront/shoppers", { method: "POST" }),
    async record(event) {
      await json("/v1/events", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(event),
        keepalive: true,
      });
    },
    // For what nobody waits for: it arrives even if the page is left.
    beacon: (event) => navigator.sendBeacon("/v1/events", JSON.stringify(event)),
  };
}

// Header values are bytes; an id may hold any letter.
function encodeHeader(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
}

"""A shopper: what Endcap remembers, what he did, his order beside the engine's, and why; export and erasure."""

from __future__ import annotations

import time
from typing import Any

from flask import Response, request, url_for

from endcap.engines import SearchRequest
from endcap.errors import InvalidInput
from endcap.recall import Recaller
from endcap.runtime import Runtime
from endcap_reranker.admin.shoppers import checked_shopper, exported, titles, why
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes

_HISTORY, _PAGE = 40, 20


def _routes(routes: Routes) -> None:
    runtime = routes.runtime
    recaller = Recaller(
        runtime.engine, runtime.encoder, lambda: runtime.synonyms.current, lambda: runtime.discovery.compounds
    )

    @routes.get()
    def show() -> str:
        shopper, query = request.args.get("id", "").strip(), request.args.get("q", "").strip()[:200]
        if not shopper:
            return render("console/shopper.html", shopper="", query=query)
        shopper = checked_shopper(shopper)
        also = runtime.aliases.of(shopper)
        profile = runtime.profiles.get(shopper)
        now = time.time()
        events = runtime.log.history(shopper, _HISTORY, also)
        compared = _compare(runtime, recaller, shopper, query) if query else None
        return render(
            "console/shopper.html",
            shopper=shopper,
            query=query,
            also=also,
            parted=runtime.aliases.parted(shopper),
            profile=profile,
            buys=int(profile.buys().sum()),
            interest=float(profile.weights(now).sum()),
            events=events,
            titles=titles(runtime, [event.product for event in events]),
            compared=compared,
            excluded=shopper in runtime.flags.excluded_shoppers(),
        )

    @routes.post("/export", role="admin")
    def export() -> Response:
        return exported(runtime, checked_shopper(request.form.get("id", "")))

    @routes.post("/erase", role="admin")
    def erase() -> Response:
        shopper = checked_shopper(request.form.get("id", ""))
        if request.form.get("confirm", "").strip() != shopper:
            raise InvalidInput("to erase, write the shopper's id into the field once more")
        gone = sum(runtime.erasure.erase(shopper).values())
        return back(f"Everything about {shopper} is erased: {gone} rows.", url_for("endcap_console.shopper_show"))

    @routes.post("/part", role="admin")
    def part() -> Response:
        shopper, alias = checked_shopper(request.form.get("id", "")), request.form.get("alias", "")
        runtime.erasure.separate(alias, shopper)
        return back(f"{alias} no longer counts for {shopper}.", url_for("endcap_console.shopper_show", id=shopper))

    @routes.post("/join", role="admin")
    def join() -> Response:
        shopper, alias = checked_shopper(request.form.get("id", "")), checked_shopper(request.form.get("alias", ""))
        runtime.identify(alias, shopper, by_hand=True)
        return back(f"{alias} counts for {shopper} again.", url_for("endcap_console.shopper_show", id=shopper))


def _compare(runtime: Runtime, recaller: Recaller, shopper: str, query: str) -> dict[str, Any]:
    """The two orders of one search. Nothing of it is logged: nobody was shown anything."""
    mine = why(runtime, recaller, shopper, query, _PAGE)
    recall = recaller.recall(SearchRequest(text=query), runtime.settings.window)
    plain = list(recall.ids[:_PAGE])
    names = titles(runtime, plain)
    return {"mine": mine, "total": recall.total, "plain": [names.get(one, one) for one in plain]}


PAGE = Page("shopper", "Shopper", "Shop", _routes, "operator")

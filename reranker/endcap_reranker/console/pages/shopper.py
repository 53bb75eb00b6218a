"""A shopper: what Endcap remembers, what he did, his order beside the engine's, and why; export and erasure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import orjson
from flask import Response, request, stream_with_context, url_for

from endcap.engines import SearchRequest
from endcap.errors import EndcapError, InvalidInput
from endcap.events import MAX_ID_LENGTH
from endcap.recall import Recaller
from endcap.runtime import Runtime
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes

_HISTORY, _PAGE = 40, 20


def _routes(routes: Routes) -> None:
    runtime = routes.runtime
    recaller = Recaller(runtime.engine, runtime.encoder)

    @routes.get()
    def show() -> str:
        shopper, query = request.args.get("id", "").strip(), request.args.get("q", "").strip()[:200]
        if not shopper:
            return render("console/shopper.html", shopper="", query=query)
        shopper = _checked(shopper)
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
            profile=profile,
            buys=int(profile.buys().sum()),
            interest=float(profile.weights(now).sum()),
            events=events,
            titles=_titles(runtime, [event.product for event in events]),
            compared=compared,
            excluded=shopper in runtime.flags.excluded_shoppers(),
        )

    @routes.post("/export", role="admin")
    def export() -> Response:
        shopper = _checked(request.form.get("id", ""))
        lines = (orjson.dumps(one, default=str) + b"\n" for one in runtime.erasure.export(shopper))
        response = Response(stream_with_context(lines), content_type="application/x-ndjson")
        response.headers["Content-Disposition"] = 'attachment; filename="shopper.ndjson"'
        return response

    @routes.post("/erase", role="admin")
    def erase() -> Response:
        shopper = _checked(request.form.get("id", ""))
        if request.form.get("confirm", "").strip() != shopper:
            raise InvalidInput("to erase, write the shopper's id into the field once more")
        gone = sum(runtime.erasure.erase(shopper).values())
        return back(f"Everything about {shopper} is erased: {gone} rows.", url_for("endcap_console.shopper_show"))


def _checked(shopper: str) -> str:
    """The id, as the shop's own system has it: without a signature."""
    shopper = shopper.strip()
    if not shopper or len(shopper) > MAX_ID_LENGTH or not shopper.isprintable():
        raise InvalidInput("id: not the id of a shopper")
    return shopper


def _titles(runtime: Runtime, ids: Sequence[str]) -> dict[str, str]:
    wanted = list(dict.fromkeys(one for one in ids if one))
    try:
        documents = runtime.engine.get(wanted)
    except EndcapError:
        return {}
    return {one: str(document.get("title") or one) for one, document in zip(wanted, documents) if document is not None}


def _compare(runtime: Runtime, recaller: Recaller, shopper: str, query: str) -> dict[str, Any]:
    """The two orders of one search. Nothing of it is logged: nobody was shown anything."""
    recall = recaller.recall(SearchRequest(text=query), runtime.settings.window)
    ranking = runtime.personalizer.rank(shopper, query, recall.ids, recall.scores) if recall.ids else None
    mine = [recall.ids[int(place)] for place in ranking.order[:_PAGE]] if ranking else []
    plain = list(recall.ids[:_PAGE])
    titles = _titles(runtime, [*mine, *plain])
    why = dict(zip(mine, runtime.personalizer.reasons(shopper, query, mine)))
    before = {one: place for place, one in enumerate(recall.ids)}
    return {
        "ranking": ranking,
        "total": recall.total,
        "mine": [(one, titles.get(one, one), why.get(one, []), before[one] - place) for place, one in enumerate(mine)],
        "plain": [(one, titles.get(one, one)) for one in plain],
    }


PAGE = Page("shopper", "Shopper", "Shop", _routes, "operator")

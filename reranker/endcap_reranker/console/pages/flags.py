"""Fraud: the queue of suspicions, the evidence for each, and deciding about it."""

from __future__ import annotations

import time
from typing import Any

from flask import Response, request, url_for

from endcap.events import Event
from endcap.stores.flags import KINDS, STATES, SUSPECTED, Flag
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.flags import number_of
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes

_PAGE, _EVENTS, _HOURS = 50, 60, 48


def _routes(routes: Routes) -> None:
    runtime, flags = routes.runtime, routes.runtime.flags

    @routes.get()
    def show() -> str:
        state, kind = request.args.get("state", SUSPECTED), request.args.get("kind", "")
        contains = request.args.get("contains", "").strip()[:200]
        page = max(request.args.get("page", 1, type=int), 1)
        state, kind = state if state in STATES else "", kind if kind in KINDS else ""
        return render(
            "console/flags.html",
            flags=flags.queue(state, kind, contains, _PAGE, min((page - 1) * _PAGE, 10_000_000)),
            total=flags.count(state, kind, contains),
            counts=flags.counts(),
            left_out=len(flags.excluded_shoppers()),
            state=state,
            kind=kind,
            contains=contains,
            page=page,
            size=_PAGE,
            states=STATES,
            kinds=KINDS,
        )

    @routes.get("/<number>")
    def one(number: str) -> str:
        flag = flags.get(number_of(number))
        return render("console/flag.html", flag=flag, changes=flags.history(flag.id), **_evidence(flag, _others(flag)))

    def _others(flag: Flag) -> list[Flag]:
        """Flags of what the evidence names: the farm's product, its shoppers."""
        names = [("product", flag.evidence.get("product"))] if flag.kind == "shopper" else []
        names += [("shopper", name) for name in flag.evidence.get("shoppers", [])[:20]]
        found = (flags.find(kind, str(name)) for kind, name in names if name)
        return [one for one in found if one is not None]

    def _evidence(flag: Flag, others: list[Flag]) -> dict[str, Any]:
        events = runtime.log.history(flag.subject, 1_000) if flag.kind == "shopper" else []
        table = runtime.personalizer.table
        titles: dict[str, str] = {}
        wanted = [event.product for event in events[:_EVENTS]]
        wanted += [str(flag.evidence.get("product", "")), flag.subject, *map(str, flag.evidence.get("products", []))]
        if table is not None:
            for product, row in zip(wanted, table.rows(wanted).tolist()):
                if row >= 0:
                    titles[product] = table.titles[row]
        values = {
            name: value
            for name, value in flag.evidence.items()
            if isinstance(value, (int, float, str)) and name != "product"
        }
        return {
            "events": events[:_EVENTS], "titles": titles, "values": values, "others": others, "flow": _hourly(events),
        }  # fmt: skip

    @routes.post("/<number>/decide")
    def decide(number: str) -> Response:
        flag = flags.decide(
            number_of(number),
            request.form.get("state", ""),
            caller().name,
            request.form.get("note", "").replace("\x00", "").strip()[:1_000],
        )
        return back(f"{flag.subject}: {flag.state}.", _next(flag.id))

    @routes.post("/<number>/undo")
    def undo(number: str) -> Response:
        flag = flags.undo(number_of(number), caller().name)
        return back(f"{flag.subject}: {flag.state} again.")

    def _next(number: int) -> str:
        """From a flag's own page to the next in the queue; from the queue back to it."""
        if not request.form.get("next"):
            return ""
        waiting = [flag.id for flag in flags.queue(SUSPECTED, limit=2) if flag.id != number]
        return (
            url_for("endcap_console.flags_one", number=waiting[0]) if waiting else url_for("endcap_console.flags_show")
        )


def _hourly(events: list[Event]) -> tuple[list[str], list[float]] | None:
    """Actions by hour over the last two days of a shopper's activity."""
    if len(events) < 2:
        return None
    last = int(events[0].time // 3600)
    counts = [0.0] * _HOURS
    for event in events:
        ago = last - int(event.time // 3600)
        if 0 <= ago < _HOURS:
            counts[_HOURS - 1 - ago] += 1
    labels = [time.strftime("%d %b %H:00", time.gmtime((last - _HOURS + 1 + place) * 3600)) for place in range(_HOURS)]
    return labels, counts


PAGE = Page("flags", "Fraud", "Shop", _routes, "operator")

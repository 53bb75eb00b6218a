"""New products: which there are, whom a generator takes them for, how well it does by category; the switch."""

from __future__ import annotations

from typing import Any

import numpy as np
from flask import Response, request, url_for

from endcap.augmentation import Neighbours, is_switched_on, switch
from endcap.catalog.product import PATH_SEPARATOR
from endcap.errors import ConfigurationError, EndcapError
from endcap.registry import open_registry
from endcap.sequences import KNOWS
from endcap.stores.generated import GeneratedProducts
from endcap_reranker.admin.access import caller
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes

KIND = "augmentation"
#: What may be known of a new product.
_SHOWN = ("brand", "category", "content", "picture")
#: New products on the page.
_MOST = 50


def _routes(routes: Routes) -> None:
    runtime = routes.runtime
    models, registry = runtime.settings.models_folder, open_registry(runtime.settings, runtime.database)
    store = GeneratedProducts(runtime.database)
    opened: dict[str, Neighbours] = {}

    def neighbours() -> Neighbours | None:
        """Of the generator that is in the live model's graph."""
        bundle = runtime.live_bundle
        version = str(bundle.augmentation.get("version", "")) if bundle is not None else ""
        if not version:
            return None
        if version not in opened:
            try:
                found = Neighbours(registry.folder(registry.get(KIND, version)))
            except (ConfigurationError, EndcapError):
                return None
            opened.clear()
            opened[version] = found
        return opened[version]

    def listed() -> tuple[int, list[dict[str, Any]]]:
        """How many new products there are, and the latest of them with their neighbours."""
        aligned, view = runtime.alignment, neighbours()
        if aligned is None or aligned.newcomers is None:
            return 0, []
        rows = np.flatnonzero(aligned.newcomers[:-1])
        shown = rows[-_MOST:][::-1]
        near = view.nearest(aligned, shown) if view is not None and len(shown) else [[] for _ in shown]
        table = aligned.table
        titles = dict(zip(table.ids, table.titles, strict=False))
        return len(rows), [
            {
                "id": table.ids[row],
                "title": table.titles[row],
                "brand": table.brands[table.brand[row]] if table.brand[row] >= 0 else "",
                "category": table.categories[table.category[row]].replace("\0", PATH_SEPARATOR)
                if table.category[row] >= 0
                else "",
                "knows": [name for name in _SHOWN if aligned.newcomers[row] & KNOWS[name]],
                "near": [(one, titles.get(one, one), cosine) for one, cosine in nearest],
            }
            for row, nearest in zip(shown.tolist(), near, strict=True)
        ]

    @routes.get()
    def show() -> str:
        count, products = listed()
        bundle = runtime.live_bundle
        versions = registry.versions(KIND, limit=10)
        live = bundle.augmentation if bundle is not None else {}
        own = next((one for one in versions if one.version == live.get("version")), versions[0] if versions else None)
        return render(
            "console/newcomers.html",
            allowed=runtime.settings.augmentation,
            on=is_switched_on(models),
            live=live,
            count=count,
            products=products,
            versions=versions,
            metrics=own.metrics if own else {},
            generations=store.generations(),
        )

    @routes.post("/switch")
    def turn() -> Response:
        on = request.form.get("on") == "yes"
        switch(models, on, caller().name)
        return back(
            "New products are scored by the generator again." if on else "New products are scored without a generator.",
            url_for("endcap_console.newcomers_show"),
        )

    @routes.post("/forget")
    def forget() -> Response:
        return back(f"{store.delete():,} generated rows are gone.", url_for("endcap_console.newcomers_show"))


PAGE = Page("newcomers", "New products", "Shop", _routes)

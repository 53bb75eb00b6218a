"""The catalogue as the server knows it: how many products, how fresh, what they have; one product in full."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import orjson
from flask import Response, request, url_for

from endcap.catalog.table import ProductTable
from endcap.errors import EndcapError
from endcap.jobs import load_jobs
from endcap.stores.runs import Runs
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.runs import known_job
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes

REINDEX = "reindex"
_MOST = 12


def _largest(codes: np.ndarray, names: Any) -> list[tuple[str, float]]:
    """The most frequent of codes (-1: none), with their names."""
    counted = Counter(codes[codes >= 0].tolist()).most_common(_MOST)
    return [(str(names[code]), float(count)) for code, count in counted]


def _summary(table: ProductTable) -> dict[str, Any]:
    total = len(table)
    having = {"a brand": float((table.brand >= 0).sum()), "a category": float((table.category >= 0).sum())}
    if table.vectors is not None:
        having["a vector"] = float(np.any(np.asarray(table.vectors) != 0, axis=1).sum())
    return {"total": total, "having": list(having.items()), "brands": _largest(table.brand, table.brands)}


def _routes(routes: Routes) -> None:
    runtime = routes.runtime
    settings = runtime.settings
    runs = Runs(runtime.database, settings.worker_lease_s, settings.run_attempts)
    remembered: dict[str, Any] = {}

    @routes.get()
    def show() -> str:
        table = runtime.personalizer.table
        if table is not None and remembered.get("table") is not table:
            # Counting a million products takes a moment: once for each state of the catalogue.
            remembered.update(table=table, summary=_summary(table))
        wanted = request.args.get("id", "").strip()
        found = runtime.engine.get([wanted])[0] if wanted else None
        return render(
            "console/catalogue.html",
            engine=runtime.engine.name,
            address=bool(settings.engine_url),
            count=_count(),
            summary=remembered.get("summary"),
            encoder=runtime.encoder.id if runtime.encoder else "",
            hidden=runtime.hidden_fields,
            problem=runtime.upkeep.problems.get("products", ""),
            wanted=wanted,
            document=orjson.dumps(found, default=str, option=orjson.OPT_INDENT_2).decode() if found else "",
            reindexing=REINDEX in load_jobs(),
        )

    @routes.post("/reindex")
    def reindex() -> Response:
        run_id = runs.submit(known_job(load_jobs(), REINDEX), {}, caller().name)
        return back("Asked for.", url_for("endcap_console.jobs_run", run_id=run_id))

    def _count() -> int | None:
        try:
            return runtime.engine.count()
        except EndcapError:
            return None


PAGE = Page("catalogue", "Catalogue", "Shop", _routes)

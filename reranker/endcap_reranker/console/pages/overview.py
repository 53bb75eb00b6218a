"""What goes on now: traffic, times, faults, freshness."""

from __future__ import annotations

from endcap_reranker.console.frame import render
from endcap_reranker.console.pages import Page, Routes


def _routes(routes: Routes) -> None:
    runtime = routes.runtime

    @routes.get()
    def show() -> str:
        table = runtime.personalizer.table
        return render(
            "console/overview.html",
            products=len(table) if table is not None else None,
            events=runtime.log.count(),
            scorer=runtime.personalizer.scorer.name,
        )


PAGE = Page("overview", "Overview", "Now", _routes)

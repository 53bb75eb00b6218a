"""Synonyms: the stored rules, a new one, and what a query is searched for as."""

from __future__ import annotations

from flask import Response, request

from endcap.stores.synonyms import SynonymStore
from endcap_reranker.admin.access import caller
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes


def _routes(routes: Routes) -> None:
    store = SynonymStore(routes.runtime.database)

    @routes.get()
    def show() -> str:
        query = request.args.get("q", "").strip()[:200]
        made = routes.runtime.synonyms.current.expand(query) if query else None
        file = routes.runtime.settings.synonyms_file
        return render("console/synonyms.html", rules=store.all(), query=query, made=made, file=file)

    @routes.post("")
    def add() -> Response:
        return back(f"“{store.add(request.form.get('rule', ''), caller().name).rule}” is in force.")

    @routes.post("/<int:number>/remove")
    def remove(number: int) -> Response:
        store.remove(number)
        return back(f"The synonyms {number} are gone.")


PAGE = Page("synonyms", "Synonyms", "Ranking", _routes)

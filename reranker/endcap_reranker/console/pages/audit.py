"""Who changed what, when, from where."""

from __future__ import annotations

import orjson
from flask import request

from endcap_reranker.admin.access import access
from endcap_reranker.console.frame import render
from endcap_reranker.console.pages import Page, Routes

_LIMIT = 100


def _routes(routes: Routes) -> None:
    @routes.get()
    def show() -> str:
        who, action = request.args.get("who", "").strip(), request.args.get("action", "").strip()
        before = request.args.get("before", 0, type=int)
        entries = access().audit.latest(_LIMIT, before, who, action)
        rows = [(one, orjson.dumps(one.parameters).decode() if one.parameters else "") for one in entries]
        return render("console/audit.html", rows=rows, who=who, action=action, limit=_LIMIT)


PAGE = Page("audit", "Audit log", "Server", _routes, "admin")

"""Reports on fraud and inventory: which were made, one in full, its tables filtered and sorted, its files."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timezone
from threading import Lock
from typing import Any

import orjson
from flask import Response, request

from endcap.catalog.product import PATH_SEPARATOR
from endcap.stores.reports import HTML, JSON, XLSX, Kept, Reports, UnknownReport
from endcap_reranker.admin.reports import answer_file, may_read
from endcap_reranker.console.frame import render
from endcap_reranker.console.pages import Page, Routes

_LATEST, _PAGE = 60, 100
#: Reports whose content is kept in memory: someone who sorts a table asks for it again and again.
_OPEN = 2


def _routes(routes: Routes) -> None:
    reports = Reports(routes.runtime.database, routes.runtime.settings.data_dir)
    opened: OrderedDict[str, dict[str, Any]] = OrderedDict()
    lock = Lock()

    def content(report: Kept) -> dict[str, Any]:
        with lock:
            if report.id not in opened:
                opened[report.id] = orjson.loads(reports.file(report, JSON).read_bytes())
                while len(opened) > _OPEN:
                    opened.popitem(last=False)
            opened.move_to_end(report.id)
            return opened[report.id]

    @routes.get()
    def show() -> str:
        kind = request.args.get("kind", "")
        kind = kind if kind in ("fraud", "inventory") else ""
        return render("console/reports.html", reports=reports.list(kind, limit=_LATEST), kind=kind)

    @routes.get("/<name>")
    def one(name: str) -> str:
        report = reports.get(name)
        may_read(report)
        found = content(report)
        names = [table["name"] for table in found["tables"]]
        chosen = request.args.get("table", "")
        table = found["tables"][names.index(chosen) if chosen in names else 0]
        return render(
            "console/report.html", report=report, content=found, table=table, say=_say, pairs=_pairs, **_rows(table)
        )

    @routes.get("/<name>/files/<file>")
    def file(name: str, file: str) -> Response:
        if file not in (HTML, JSON, XLSX) and not file.endswith(".csv"):
            raise UnknownReport(f"there is no file {file[:80]!r}")
        return answer_file(reports, reports.get(name), file)


def _pairs(chart: dict[str, Any]) -> list[tuple[str, float]]:
    return list(zip(chart["labels"], chart["series"][0][1]))


def _rows(table: dict[str, Any]) -> dict[str, Any]:
    """The rows of a table that the address asks for: filtered by words, sorted by a column, a page of them."""
    keys: list[str] = table["keys"]
    asked, sort = request.args.get("q", "").strip()[:200], request.args.get("sort", "")
    rows = table["rows"]
    if asked:
        texts = [place for place, column in enumerate(table["columns"]) if column["kind"] in ("text", "path")]
        texts += [keys.index("id")] if "id" in keys else []
        words = asked.casefold().split()
        rows = [row for row in rows if all(word in _text(row, texts) for word in words)]
    descending = sort.startswith("-")
    if sort.lstrip("-") in keys:
        place = keys.index(sort.lstrip("-"))
        known = [row for row in rows if row[place] is not None]
        known.sort(key=lambda row: (str(type(row[place])), row[place]), reverse=descending)
        rows = known + [row for row in rows if row[place] is None]
    page = min(max(request.args.get("page", 1, type=int), 1), 100_000)
    shown = [dict(zip(keys, row)) for row in rows[(page - 1) * _PAGE : page * _PAGE]]
    return {"rows": shown, "total": len(rows), "asked": asked, "sort": sort, "page": page, "size": _PAGE}


def _text(row: list[Any], places: list[int]) -> str:
    return " ".join(str(row[place]) for place in places).casefold()


def _say(value: Any, kind: str) -> str:
    if value is None:
        return "–"
    if kind == "path":
        return str(value).rpartition(PATH_SEPARATOR)[2]
    if kind == "text" or not isinstance(value, (int, float)):
        return str(value)
    if value == int(value) and kind == "number":
        return f"{value:,.0f}"
    if kind == "share":
        return f"{value:.1%}"
    if kind == "time":
        return f"{datetime.fromtimestamp(value, timezone.utc):%Y-%m-%d %H:%M}"
    return f"{value:,.0f}" if kind == "count" or abs(value) >= 100 else f"{value:,.2f}"


PAGE = Page("reports", "Reports", "Shop", _routes)

"""Reports that were made: listed, and given out as HTML, JSON, workbook and CSV."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response, send_file
from pydantic import Field

from endcap.runtime import Runtime
from endcap.stores.reports import HTML, JSON, XLSX, Kept, Reports, UnknownReport
from endcap.stores.tokens import RoleTooLow, allows
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.operation import Answer, Strict, Topic

#: What a browser may do with a report: show it, with its own style. No script, nothing from elsewhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


class ReportAnswer(Answer):
    """One report. Made: seconds since 1970 (UTC)."""

    id: str
    kind: str
    period: str
    title: str
    line: str
    made: float
    summary: dict[str, Any] = Field(description="Figures, tables with their numbers of rows, who was told.")


class ReportList(Answer):
    """Reports, newest first."""

    reports: list[ReportAnswer]


class ReportsQuery(Strict):
    """Which reports."""

    kind: Literal["", "fraud", "inventory"] = Field("", description="Only of this kind.")
    period: Literal["", "daily", "weekly"] = Field("", description="Only of this period.")
    limit: int = Field(50, ge=1, le=500, description="At most so many.")
    before: float = Field(0.0, ge=0, description="Only those made before this moment (seconds since 1970).")


def routes(runtime: Runtime) -> Topic:
    """The topic over a runtime."""
    about = "Reports on fraud and inventory. The jobs `report-…` make them. Files on fraud take the role operator."
    topic = Topic("reports", about)
    reports = Reports(runtime.database, runtime.settings.data_dir)

    @topic.operation("GET", "/reports", role="reader", summary="All reports.", query=ReportsQuery, answer=ReportList)
    def list_reports(query: ReportsQuery) -> ReportList:
        found = reports.list(query.kind, query.period, query.limit, query.before)
        return ReportList(reports=[ReportAnswer.model_validate(one) for one in found])

    @topic.operation(
        "GET", "/reports/<name>", role="reader", summary="One report's figures.", answer=ReportAnswer, errors=(404,)
    )
    def get_report(name: str) -> ReportAnswer:
        """`fraud` and `inventory` name the newest of their kind, here and below."""
        return ReportAnswer.model_validate(reports.get(name))

    @topic.operation(
        "GET", "/reports/<name>/json", role="reader", summary="All of a report as JSON.", media=MEDIA[".json"],
        errors=(404,),
    )  # fmt: skip
    def report_json(name: str) -> Response:
        return answer_file(reports, reports.get(name), JSON)

    @topic.operation(
        "GET", "/reports/<name>/html", role="reader", summary="A report as a page.", media="text/html", errors=(404,)
    )
    def report_html(name: str) -> Response:
        return answer_file(reports, reports.get(name), HTML)

    @topic.operation(
        "GET", "/reports/<name>/xlsx", role="reader", summary="A report as a workbook.", media=MEDIA[".xlsx"],
        errors=(404,),
    )  # fmt: skip
    def report_xlsx(name: str) -> Response:
        return answer_file(reports, reports.get(name), XLSX)

    @topic.operation(
        "GET", "/reports/<name>/csv/<table>", role="reader", summary="One table of a report as CSV.",
        media="text/csv", errors=(404,),
    )  # fmt: skip
    def report_csv(name: str, table: str) -> Response:
        return answer_file(reports, reports.get(name), f"{table}.csv")

    return topic


def may_read(report: Kept) -> None:
    """Raises RoleTooLow: what is in a report on fraud names shoppers."""
    if report.kind == "fraud" and not allows(caller().role, "operator"):
        raise RoleTooLow(caller().role, "operator")


def answer_file(reports: Reports, report: Kept, name: str) -> Response:
    """A file of a report. Raises UnknownReport, RoleTooLow."""
    may_read(report)
    path = reports.file(report, name)
    as_file = path.suffix in (".csv", ".xlsx")
    try:
        response = send_file(
            path.resolve(), MEDIA[path.suffix], as_attachment=as_file,
            download_name=f"{report.id}-{name}" if as_file else None, max_age=0,
        )  # fmt: skip
    except FileNotFoundError:  # removed between the look and the answer
        raise UnknownReport(f"report {report.id} has no file {name!r} any more") from None
    response.headers["Content-Security-Policy"] = POLICY
    return response

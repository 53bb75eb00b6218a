"""A report as one HTML file that needs nothing else: charts drawn here, no script, made to be printed too."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup

from endcap import __version__, charts
from endcap.catalog.product import PATH_SEPARATOR
from endcap_workers.reports.model import WORDS, Chart, Column, Report

#: Rows of a table that are shown; all of them are in the CSV file and the workbook.
SHOWN = 50


def render_html(report: Report) -> str:
    """The page."""
    made = datetime.fromtimestamp(report.made, ZoneInfo(report.zone))
    return str(
        _template().render(
            report=report,
            made=f"{made:%d %B %Y, %H:%M} ({report.zone})",
            drawn=[(chart, draw(chart)) for chart in report.charts],
            shown=SHOWN,
            say=lambda value, column: say(value, column, report.currency),
            right=lambda column: column.kind not in WORDS,
            version=__version__,
        )
    )


def draw(chart: Chart) -> Markup:
    """The chart as SVG."""
    if chart.kind == "bars":
        values = [0.0 if value is None else float(value) for value in chart.series[0][1]]
        return charts.bars(list(zip(chart.labels, values)), chart.title, chart.unit)
    return charts.lines(list(chart.series), list(chart.labels), chart.title, chart.unit)


def say(value: Any, column: Column, currency: str = "") -> str:
    """A value as people read it; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if column.kind == "path":
        return str(value).rpartition(PATH_SEPARATOR)[2]
    if column.kind == "text" or not isinstance(value, (int, float)):
        return str(value)
    if value == int(value) and column.kind == "number":
        return f"{value:,.0f}"
    if column.kind == "count":
        return f"{value:,.0f}"
    if column.kind == "share":
        return f"{value:.1%}"
    if column.kind == "money":
        return f"{value:,.2f} {currency}".strip()
    if column.kind == "time":
        return f"{datetime.fromtimestamp(value, timezone.utc):%Y-%m-%d %H:%M}"
    return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader

    return Environment(loader=PackageLoader("endcap_workers.reports"), autoescape=True).get_template("report.html")

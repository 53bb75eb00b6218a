"""Makes a report, keeps its files, tells others."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson

from endcap.catalog.product import Product
from endcap.errors import InvalidInput, UnknownIndex
from endcap.runtime import open_engine
from endcap.settings import Settings
from endcap.stores.database import Database
from endcap.stores.reports import HTML, JSON, KINDS, XLSX, Kept, Reports
from endcap_workers.demand.plan import Item
from endcap_workers.reports.delivery import deliver, summary
from endcap_workers.reports.fraud import fraud_report
from endcap_workers.reports.html import render_html
from endcap_workers.reports.inventory import inventory_report
from endcap_workers.reports.model import Report
from endcap_workers.reports.sheets import write_csv, write_workbook

log = logging.getLogger(__name__)

PERIODS = {"": 1.0, "daily": 1.0, "weekly": 7.0}

Progress = Callable[[float, float, str], None]


def make_report(
    kind: str, database: Database, settings: Settings, progress: Progress, period: str = "", now: float | None = None
) -> Kept:
    """Make a report of ``kind`` (fraud, inventory), keep it, and deliver it where the settings say so.

    Raises:
        InvalidInput: no such kind or period.
        EngineError, LogUnavailable: the catalogue or the log cannot be read.
    """
    now = time.time() if now is None else now
    report = build_report(kind, database, settings, lambda done, total, phase: progress(0.85 * done, total, phase),
                          period, now)  # fmt: skip
    store = Reports(database, settings.data_dir)
    name, folder = store.new_folder(kind, now)
    try:
        progress(0.86, 1.0, "writing files")
        write_files(report, folder)
        progress(0.97, 1.0, "delivering")
        told = deliver(report, name, {XLSX: folder / XLSX}, settings)
        said = {**summary(report), "delivered": told}
        kept = Kept(name, kind, period, report.title, report.line, now, said)
        store.keep(kept, settings.keep_reports)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return kept


def build_report(
    kind: str, database: Database, settings: Settings, progress: Progress, period: str = "", now: float | None = None
) -> Report:
    """The report alone, without keeping it. Raises as :func:`make_report`."""
    if kind not in KINDS or period not in PERIODS:
        raise InvalidInput(f"a report is {' or '.join(KINDS)}, {' or '.join(name for name in PERIODS if name)}")
    items, sellers = catalogue(settings)
    if kind == "inventory":
        report = inventory_report(database, settings, items, progress, now)
    else:
        titles = {item.id: item.title for item in items if item.title}
        report = fraud_report(database, settings, titles, sellers, progress, now, PERIODS[period])
    return replace(report, notes=[settings.report_note, *report.notes]) if settings.report_note else report


def write_files(report: Report, folder: Path) -> None:
    """All forms of a report, into a folder that is there."""
    content = orjson.dumps(report.to_json(), option=orjson.OPT_SERIALIZE_NUMPY)
    (folder / JSON).write_bytes(content)
    (folder / HTML).write_text(render_html(report), encoding="utf-8")
    write_workbook(report, folder / XLSX)
    for table in report.tables:
        write_csv(table, folder / f"{table.name}.csv")


def _number(product: Product, attribute: str) -> float | None:
    """A product's attribute as a number of at least 0; None where it is none."""
    value = product.attributes.get(attribute) if attribute else None
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if usable and value is not None else None


def catalogue(settings: Settings) -> tuple[list[Item], dict[str, str]]:
    """The products as the reports need them, and product -> seller where the settings name an attribute for it."""
    items: list[Item] = []
    sellers: dict[str, str] = {}
    engine = open_engine(settings)
    try:
        for batch in engine.scan():
            for product, _ in batch:
                lead = _number(product, settings.lead_time_attribute)
                items.append(
                    Item(
                        product.id, product.title, product.categories, product.price, product.stock, lead or None,
                        _number(product, settings.on_order_attribute) or 0.0,
                    )
                )  # fmt: skip
                seller = product.attributes.get(settings.fraud_seller_attribute, "")
                if settings.fraud_seller_attribute and seller:
                    sellers[product.id] = str(seller)
    except UnknownIndex:
        log.warning("there is no catalogue: the report has ids in the place of titles, and no stock")
    finally:
        engine.close()
    return items, sellers

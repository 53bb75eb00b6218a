"""Tables as CSV and as a workbook. Text that a spreadsheet would run as a formula is written as text."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from endcap_workers.reports.model import WORDS, Column, Report, Table

#: A cell that begins so is a formula, a command or a jump for one spreadsheet or another.
_STARTERS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")
_FORMATS = {"count": "#,##0", "number": "#,##0.00", "share": "0.0%", "money": "#,##0.00", "time": "yyyy-mm-dd hh:mm"}
#: What a sheet can hold, less its header.
MOST_ROWS = 1_048_575
#: What a cell can hold.
_MOST_TEXT = 32_000
#: What XML cannot hold, beside control characters: a workbook with it cannot be opened.
_NO_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
#: Where the computer's language has it so, a semicolon in a CSV file begins a cell, whatever quotes say.
_INNER = re.compile(rf"([;\t\r\n] *)(?=[{re.escape(''.join(_STARTERS).strip())}])")


def safe_text(value: Any) -> str:
    """Text for a cell: with a quote before it where it would be run (CSV injection, OWASP)."""
    text = "".join(sign for sign in str(value) if sign >= " " or sign in "\t\n\r")
    text = _NO_XML.sub("", text)[:_MOST_TEXT]
    return f"'{text}" if text.lstrip(" ").startswith(_STARTERS) else text


def cell(value: Any, column: Column) -> Any:
    """What stands in a cell: a finite number, a time, safe text, or None."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if column.kind in WORDS or not isinstance(value, (int, float)) or isinstance(value, bool):
        return safe_text(value)
    if column.kind == "time":
        return datetime.fromtimestamp(value, timezone.utc).replace(tzinfo=None)
    return value


def write_csv(table: Table, file: Path) -> None:
    """Write a table, UTF-8 with a mark that spreadsheets know it by; the product's id is the first column."""
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        columns = _with_id(table)
        writer.writerow([safe_text(column.title) for column in columns])
        for row in table.rows:
            writer.writerow([_written(cell(row.get(column.name), column)) for column in columns])


def _written(value: Any) -> Any:
    """A cell in a CSV file."""
    if value is None:
        return ""
    return _INNER.sub(r"\1'", value) if isinstance(value, str) else value


def write_workbook(report: Report, file: Path) -> None:
    """Write all tables, a sheet each, with the figures on the first."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    book = Workbook(write_only=True)
    bold = Font(bold=True)

    def line(sheet: Any, values: Iterable[Any], font: Font | None = None) -> None:
        cells = [WriteOnlyCell(sheet, value) for value in values]
        for one in cells:
            if font is not None:
                one.font = font
        sheet.append(cells)

    first = book.create_sheet("Overview")
    first.column_dimensions["A"].width, first.column_dimensions["B"].width = 30, 60
    line(first, [safe_text(report.title)], bold)
    line(first, [safe_text(report.line)])
    for tile in report.tiles:
        line(first, [safe_text(tile.title), safe_text(tile.value), safe_text(tile.line)])
    for note in report.notes:
        line(first, [safe_text(note)])
    for table in report.tables:
        sheet = book.create_sheet(_sheet_name(table.title))
        sheet.freeze_panes = "A2"
        columns = _with_id(table)
        for number, column in enumerate(columns, start=1):
            sheet.column_dimensions[get_column_letter(number)].width = 34 if column.kind in WORDS else 14
        line(sheet, [safe_text(column.title) for column in columns], bold)
        for row in table.rows[:MOST_ROWS]:
            cells = []
            for column in columns:
                one = WriteOnlyCell(sheet, cell(row.get(column.name), column))
                if column.kind in _FORMATS:
                    one.number_format = _FORMATS[column.kind]
                cells.append(one)
            sheet.append(cells)
    book.save(file)


def _with_id(table: Table) -> list[Column]:
    has_id = any("id" in row for row in table.rows[:1])
    return [Column("id", "Id"), *table.columns] if has_id else list(table.columns)


def _sheet_name(title: str) -> str:
    return "".join(sign for sign in title if sign not in "[]:*?/\\")[:31]

"""Reports that were made: a row each, their files in the data folder. The newest stay, of each kind so many."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Column, Float, Index, LargeBinary, String, Table, delete, insert, select

from endcap.errors import EndcapError
from endcap.stores.database import Database, metadata

#: Files of a report: whole as JSON, for people as HTML, as a workbook; one CSV file for each table beside them.
JSON, HTML, XLSX = "report.json", "report.html", "report.xlsx"
KINDS = ("fraud", "inventory")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")

reports = Table(
    "reports",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("period", String, nullable=False),
    Column("title", String, nullable=False),
    Column("line", String, nullable=False),
    Column("made", Float, nullable=False),
    Column("summary", LargeBinary, nullable=False),  # JSON: tiles, tables with their numbers of rows, deliveries
    Index("reports_by_kind", "kind", "made"),
)


class UnknownReport(EndcapError):
    """There is no such report, or no such part of it."""

    status = 404
    kind = "unknown_report"


@dataclass(frozen=True, slots=True)
class Kept:
    """A report that was made. ``period``: daily, weekly or empty; ``made``: seconds since 1970; ``summary``: plain
    JSON with ``tiles``, ``tables`` (name, title, rows) and ``delivered``."""

    id: str
    kind: str
    period: str
    title: str
    line: str
    made: float
    summary: Mapping[str, Any]


class Reports:
    """Thread-safe; processes share the table and the folder."""

    def __init__(self, database: Database, data_dir: Path) -> None:
        self._database = database
        self._folder = data_dir / "reports"

    def new_folder(self, kind: str, now: float | None = None) -> tuple[str, Path]:
        """An id and an empty folder, for whoever makes a report; :meth:`keep` makes it known."""
        when = datetime.fromtimestamp(time.time() if now is None else now, timezone.utc)
        name = f"{kind}-{when:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        folder = self._folder / name
        folder.mkdir(parents=True)
        return name, folder

    def keep(self, report: Kept, most: int) -> None:
        """Make a report known whose files are there; of its kind and period only the newest ``most`` stay."""
        row = {name: getattr(report, name) for name in ("id", "kind", "period", "title", "line", "made")}
        same = (reports.c.kind == report.kind) & (reports.c.period == report.period)
        with self._database.transaction() as connection:
            connection.execute(insert(reports).values(**row, summary=orjson.dumps(dict(report.summary))))
            chosen = select(reports.c.id).where(same).order_by(reports.c.made.desc(), reports.c.id.desc())
            old = [found[0] for found in connection.execute(chosen.offset(most).limit(10_000))]
            if old:
                connection.execute(delete(reports).where(reports.c.id.in_(old)))
        for name in old:
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def list(self, kind: str = "", period: str = "", limit: int = 50, before: float = 0.0) -> Sequence[Kept]:
        """Reports, newest first; ``before``: only those made earlier (seconds), 0 takes all."""
        chosen = select(reports).order_by(reports.c.made.desc(), reports.c.id.desc()).limit(limit)
        if kind:
            chosen = chosen.where(reports.c.kind == kind)
        if period:
            chosen = chosen.where(reports.c.period == period)
        if before:
            chosen = chosen.where(reports.c.made < before)
        with self._database.transaction(read_only=True) as connection:
            return [_kept(row._mapping) for row in connection.execute(chosen)]

    def get(self, name: str) -> Kept:
        """The report of this id, or the newest of a kind (``fraud``, ``inventory``). Raises UnknownReport."""
        if name in KINDS:
            found = self.list(name, limit=1)
            if not found:
                raise UnknownReport(f"no {name} report has been made yet: endcap report {name}")
            return found[0]
        with self._database.transaction(read_only=True) as connection:
            row = connection.execute(select(reports).where(reports.c.id == name)).first()
        if row is None:
            raise UnknownReport(f"there is no report {name[:80]!r}")
        return _kept(row._mapping)

    def file(self, report: Kept, name: str) -> Path:
        """One of its files: :data:`JSON`, :data:`HTML`, :data:`XLSX`, or ``TABLE.csv``. Raises UnknownReport."""
        table = name.removesuffix(".csv")
        if name not in (JSON, HTML, XLSX) and not (name.endswith(".csv") and _NAME.fullmatch(table)):
            raise UnknownReport(f"report {report.id} has no file {name[:80]!r}")
        path = self._folder / report.id / name
        if not path.is_file():
            raise UnknownReport(f"report {report.id} has no file {name[:80]!r} here")
        return path


def _kept(row: Any) -> Kept:
    return Kept(**{**row, "summary": orjson.loads(row["summary"])})

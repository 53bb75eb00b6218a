"""What a report is, before it is HTML, a spreadsheet or JSON: figures, charts and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: How a column's values read: text, a path (of which pages show the end), a whole number, a number with digits, a share
#: (0 to 1), money, a date (seconds).
COLUMN_KINDS = ("text", "path", "count", "number", "share", "money", "time")
#: Kinds that are words.
WORDS = ("text", "path")


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure in words. ``state``: "", good, warn or bad."""

    title: str
    value: str
    line: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """``kind`` "lines": ``series`` of (name, values; None is a gap) over ``labels``. "bars": one series of values named
    by ``labels``."""

    kind: str
    title: str
    labels: Sequence[str]
    series: Sequence[tuple[str, Sequence[float | None]]]
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """``name`` is the key in a row, ``title`` what people read, ``kind`` one of :data:`COLUMN_KINDS`."""

    name: str
    title: str
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """``rows``: mappings from column name to a value or None, the most important first."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    line: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """``made``: seconds since 1970; ``zone``: the shop's time zone; ``notes``: what was left out or is uncertain."""

    kind: str
    title: str
    line: str
    made: float
    zone: str
    currency: str = ""
    tiles: Sequence[Tile] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def table(self, name: str) -> Table:
        """The table of that name. Raises KeyError."""
        for one in self.tables:
            if one.name == name:
                return one
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as :meth:`from_json` reads it: the rows of a table as lists, in the order of its ``keys``."""
        content = {name: getattr(self, name) for name in self.__slots__ if name not in ("tiles", "charts", "tables")}
        tables = []
        for table in self.tables:
            named = [column.name for column in table.columns]
            keys = named + [key for key in ("id", "flag") if key not in named and any(key in r for r in table.rows[:1])]
            rows = [[row.get(key) for key in keys] for row in table.rows]
            columns = [asdict(column) for column in table.columns]
            tables.append(
                {"name": table.name, "title": table.title, "line": table.line, "columns": columns, "keys": keys,
                 "rows": rows}
            )  # fmt: skip
        charts = [asdict(chart) for chart in self.charts]
        return {**content, "tiles": [asdict(tile) for tile in self.tiles], "charts": charts, "tables": tables}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Report:
        """The report that :meth:`to_json` gave."""
        tables = [
            Table(
                one["name"], one["title"], [Column(**column) for column in one["columns"]],
                [dict(zip(one["keys"], row)) for row in one["rows"]], one["line"],
            )
            for one in content["tables"]
        ]  # fmt: skip
        charts = [
            Chart(**{**one, "series": [(name, values) for name, values in one["series"]]}) for one in content["charts"]
        ]
        tiles = [Tile(**one) for one in content["tiles"]]
        return cls(**{**content, "tiles": tiles, "charts": charts, "tables": tables})

"""A table of measured numbers: printed for people, written as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Results:
    """``rows`` maps a row's name to its metrics; ``notes`` say what a reader has to know to trust them."""

    name: str
    command: str
    seed: int
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, row: str, metrics: Mapping[str, float]) -> None:
        """Add or replace a row."""
        self.rows[row] = {name: float(value) for name, value in metrics.items()}

    def show(self) -> None:
        """Print to standard output: one table for the rows that share their metrics, then the notes."""
        console = Console(width=None if Console().is_terminal else 160, highlight=False)
        console.print(f"{self.name} ({self.command}, seed {self.seed})")
        groups: dict[tuple[str, ...], list[str]] = {}
        for row, metrics in self.rows.items():
            groups.setdefault(tuple(metrics), []).append(row)
        for columns, rows in groups.items():
            table = Table("")
            for column in columns:
                table.add_column(column, justify="right")
            for row in rows:
                table.add_row(row, *(_number(value) for value in self.rows[row].values()))
            console.print(table)
        for note in self.notes:
            console.print(note, markup=False)

    def write(self, file: Path) -> None:
        """Write ``{"name", "command", "seed", "rows": {row: {metric: number}}}``."""
        content = {"name": self.name, "command": self.command, "seed": self.seed, "rows": self.rows}
        file.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _number(value: float) -> str:
    if abs(value) < 1:
        return f"{value:.4f}"
    return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"

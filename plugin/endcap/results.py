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
        """Print the table to standard output, then the notes."""
        columns = list(dict.fromkeys(name for metrics in self.rows.values() for name in metrics))
        table = Table(title=f"{self.name} ({self.command}, seed {self.seed})", title_justify="left")
        table.add_column("")
        for column in columns:
            table.add_column(column, justify="right")
        for row, metrics in self.rows.items():
            table.add_row(row, *(_number(metrics.get(column)) for column in columns))
        console = Console(width=None if Console().is_terminal else 160, highlight=False)
        console.print(table)
        for note in self.notes:
            console.print(note, markup=False)

    def write(self, file: Path) -> None:
        """Write ``{"name", "command", "seed", "rows": {row: {metric: number}}}``."""
        content = {"name": self.name, "command": self.command, "seed": self.seed, "rows": self.rows}
        file.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) < 1:
        return f"{value:.4f}"
    return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"

"""Shows how far an indexing run is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from endcap.catalog.reading import CatalogReader
from endcap.indexing import IndexSummary

_LINE_EVERY_S = 5.0


class IndexProgress:
    """Progress by the bytes of the files, which are known where the number of rows is not. Writes to stderr.

    Reading runs ahead of writing: of the bytes read, the share counts whose products are done.
    """

    def __init__(self, reader: CatalogReader) -> None:
        self._reader = reader
        self._bar: Progress | None = None
        self._last_line = time.monotonic()
        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("indexing"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[products]:,} products, {task.fields[rate]:,.0f}/s"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=1.0, products=0, rate=0.0)

    def __enter__(self) -> IndexProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, summary: IndexSummary) -> None:
        """Show the state."""
        share = self._reader.position / max(1, self._reader.size) * summary.read / max(1, self._reader.usable)
        if self._bar:
            self._bar.update(self._task, completed=share, products=summary.read, rate=summary.rate)
        elif time.monotonic() - self._last_line > _LINE_EVERY_S:
            self._last_line = time.monotonic()
            Console(stderr=True).print(
                f"{summary.read:,} products ({100 * share:.0f} %), {summary.rate:,.0f}/s", highlight=False
            )

"""``endcap export`` and ``endcap restore``: the logs as Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import click

from endcap.settings import load_settings
from endcap.stores import archive
from endcap.stores.database import Database, open_database

_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.argument("kind", type=click.Choice(archive.KINDS))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--from", "begin", type=_DAY, help="First day (UTC); default: the earliest there is.")
@click.option("--to", "end", type=_DAY, help="Last day, included; default: the latest.")
def export(kind: archive.Kind, folder: Path, begin: datetime | None, end: datetime | None) -> None:
    """Write the events or the rankings into FOLDER, one Parquet file a day.

    Days that are over and have their file are left alone: called again, it adds what is missing.
    """
    with _database() as database, _progress(f"exporting {kind}") as progress:
        made = archive.export(
            database, kind, folder, begin.date() if begin else None, end.date() if end else None, progress=progress
        )
    kept = f", {made.kept} days had their file" if made.kept else ""
    click.echo(f"{made.rows:,} {kind} in {made.files} files{kept}")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def restore(folder: Path) -> None:
    """Read what `endcap export` wrote into FOLDER back into the database. What is there already stays."""
    with _database() as database, _progress("restoring") as progress:
        counts = archive.restore(database, folder, progress)
    for kind, one in counts.items():
        if sum(one.values()):
            click.echo(f"{one['new']:,} {kind} restored, {one['known']:,} were there already")


@contextmanager
def _database() -> Iterator[Database]:
    database = open_database(load_settings())
    try:
        yield database
    finally:
        database.close()


@contextmanager
def _progress(title: str) -> Iterator[archive.Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), TextColumn("{task.fields[day]}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, day="")

        def show(done: int, total: int, day: date) -> None:
            bar.update(task, completed=done, total=total, day=day.isoformat())

        yield show

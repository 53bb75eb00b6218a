"""``endcap jobs`` and ``endcap run``: what background work there is, and starting it by hand."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timezone
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from endcap.errors import InvalidInput
from endcap.jobs import load_jobs
from endcap.runtime import open_database
from endcap.schedule import next_time, schedule_of
from endcap.settings import load_settings
from endcap.stores.runs import DONE, ENDED, SKIPPED, Run, Runs
from endcap.stores.workers import Workers


@click.command()
@click.option("--runs", "latest", type=click.IntRange(1, 500), default=10, show_default=True, help="Latest runs.")
def jobs(latest: int) -> None:
    """Show the jobs, when each is due, the latest runs and the workers."""
    settings = load_settings()
    database = open_database(settings)
    known = load_jobs()
    runs = Runs(database, settings.worker_lease_s, settings.run_attempts)
    crontabs = schedule_of(known.values(), settings)
    table = _table("job", "queue", "schedule (UTC)", "next", "what it does")
    for job in known.values():
        crontab = crontabs.get(job.name, "")
        due = _when(next_time(crontab, time.time())) if crontab else "when asked for"
        table.add_row(job.name, job.queue, crontab, due, job.title)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(table)
    found = runs.list(limit=latest)
    if found:
        table = _table("run", "job", "by", "state", "how far", "asked for", "took", "why")
        for run in found:
            table.add_row(
                run.id, run.job, run.by, run.state, _far(run), _when(run.submitted), _took(run), run.error or run.reason
            )
        console.print(table)
    alive = Workers(database).alive()
    if not alive:
        console.print("no worker is alive: what is queued waits (endcap serve, endcap worker)")
    for worker in alive:
        at = f"at {', '.join(worker.runs)}" if worker.runs else "idle"
        console.print(f"worker {worker.name} ({worker.kind}: {', '.join(worker.queues)}): {at}")


@click.command()
@click.argument("job")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for its end, showing its progress; exit status 1 where it failed or was cancelled.",
)
def run(job: str, parameters: tuple[str, ...], wait: bool) -> None:
    """Ask for a run of JOB. VALUE is JSON, or a plain text: `endcap run train epochs=3`."""
    settings = load_settings()
    known = load_jobs()
    if job not in known:
        raise InvalidInput(f"there is no job {job!r}: there are {', '.join(known) or 'none'}")
    runs = Runs(open_database(settings), settings.worker_lease_s, settings.run_attempts)
    run_id = runs.submit(known[job], dict(map(_pair, parameters)), "cli")
    click.echo(run_id)
    if wait and _wait(runs, run_id).state not in (DONE, SKIPPED):
        sys.exit(1)


def _wait(runs: Runs, run_id: str) -> Run:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("queued", total=None)
        while (found := runs.get(run_id)).state not in ENDED:
            text = found.phase or found.state
            bars.update(bar, description=text, completed=found.done, total=found.total or None)
            time.sleep(0.5)
    if found.state == "done":
        click.echo(json.dumps(found.result, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{found.state}: {found.error or found.reason}", err=True)
    return found


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidInput(f"{text!r}: parameters are written NAME=VALUE")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")


def _far(run: Run) -> str:
    share = f" {run.done / run.total:.0%}" if run.total and run.state == "running" else ""
    return f"{run.phase}{share}".strip()


def _took(run: Run) -> str:
    if not run.started:
        return ""
    until = run.finished or (time.time() if run.state == "running" else run.started)
    return f"{until - run.started:.0f} s"

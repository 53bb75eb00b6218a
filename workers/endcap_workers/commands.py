"""The workers' subcommands of ``endcap``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from endcap.results import Results

#: Name on the command line -> module with ``run(seed) -> Results``.
EVALUATIONS = {
    "cold-products": "endcap_workers.evaluation.cold_products",
    "attack": "endcap_workers.evaluation.attack",
    "complete-journey": "endcap_workers.evaluation.complete_journey",
    "demand": "endcap_workers.evaluation.demand",
    "fraud": "endcap_workers.evaluation.fraud",
    "icecat": "endcap_workers.evaluation.icecat",
    "interest-journey": "endcap_workers.evaluation.interest_journey",
    "interest-served": "endcap_workers.evaluation.interest_served",
    "next-basket": "endcap_workers.evaluation.next_basket",
    "open-bandit": "endcap_workers.evaluation.open_bandit",
    "policy": "endcap_workers.evaluation.policy",
}


@click.command()
@click.argument("name", type=click.Choice(sorted(EVALUATIONS)))
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the rows to this file.")
def evaluate(name: str, seed: int, file: Path | None) -> None:
    """Judge the ranking on held-out, later, real behaviour, with baselines beside it."""
    try:
        results: Results = import_module(EVALUATIONS[name]).run(seed)
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'endcap[demo,train,reports]'") from error
    results.show()
    if file:
        results.write(file)


@click.command()
@click.argument("kind", type=click.Choice(["fraud", "inventory"]))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Also copy all of its files there.")
@click.option("--weekly", is_flag=True, help="The week's report instead of the day's.")
def report(kind: str, out: Path | None, weekly: bool) -> None:
    """Make a report now, keep it, and send it to whom the settings name."""
    import shutil

    from rich.progress import Progress

    from endcap.runtime import open_database
    from endcap.settings import load_settings
    from endcap.stores.reports import HTML, Reports

    try:
        from endcap_workers.reports.making import make_report
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'endcap[reports]'") from error
    settings = load_settings()
    database = open_database(settings)
    try:
        with Progress(transient=True) as bar:
            task = bar.add_task(kind, total=1.0)

            def progress(done: float, total: float, phase: str = "") -> None:
                bar.update(task, completed=done, total=total, description=phase or kind)

            kept = make_report(kind, database, settings, progress, "weekly" if weekly else "daily")
        page = Reports(database, settings.data_dir).file(kept, HTML)
    finally:
        database.close()
    click.echo(f"{kept.title}: {kept.line}")
    for tile in kept.summary["tiles"]:
        click.echo(f"  {tile['title']}: {tile['value']} {tile['line']}".rstrip())
    for note in kept.summary["notes"]:
        click.echo(f"  {note}")
    for way, result in kept.summary["delivered"].items():
        click.echo(f"  {way}: {result}")
    if out:
        shutil.copytree(page.parent, out, dirs_exist_ok=True)
    click.echo(f"kept as {kept.id}: {out / HTML if out else page}")

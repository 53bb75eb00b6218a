"""The workers' subcommands of ``endcap``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path

import click

from endcap.results import Results

#: Name on the command line -> module with ``run(seed) -> Results``; ``run`` may also take what the other options say.
EVALUATIONS = {
    "cold-products": "endcap_workers.evaluation.cold_products",
    "attack": "endcap_workers.evaluation.attack",
    "bandit-replay": "endcap_workers.evaluation.bandit_replay",
    "beauty": "endcap_workers.evaluation.beauty",
    "complete-journey": "endcap_workers.evaluation.complete_journey",
    "demand": "endcap_workers.evaluation.demand",
    "diginetica": "endcap_workers.evaluation.diginetica",
    "fraud": "endcap_workers.evaluation.fraud",
    "grocery": "endcap_workers.evaluation.grocery",
    "grocery-shop": "endcap_workers.evaluation.grocery_shop",
    "grocery-tuned": "endcap_workers.evaluation.grocery_tuned",
    "icecat": "endcap_workers.evaluation.icecat",
    "interest-ablation": "endcap_workers.evaluation.interest_ablation",
    "interest-served": "endcap_workers.evaluation.interest_served",
    "next-basket": "endcap_workers.evaluation.next_basket",
    "open-bandit": "endcap_workers.evaluation.open_bandit",
    "policy": "endcap_workers.evaluation.policy",
    "q-head": "endcap_workers.evaluation.q_head",
}


@click.command()
@click.argument("name", type=click.Choice(sorted(EVALUATIONS)))
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--device", help="Where models are trained: cpu, cuda, …; by default a GPU where there is one.")
@click.option("--seeds", type=click.IntRange(1), help="Train so many times, and print mean and spread.")
@click.option("--ablation", is_flag=True, default=None, help="Also train what the chosen model was compared with.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the rows to this file.")
def evaluate(
    name: str, seed: int, device: str | None, seeds: int | None, ablation: bool | None, file: Path | None
) -> None:
    """Judge the ranking on held-out, later, real behaviour, with baselines beside it."""
    given = {"device": device, "seeds": seeds, "ablation": ablation}
    options = {option: value for option, value in given.items() if value is not None}
    try:
        run: Callable[..., Results] = import_module(EVALUATIONS[name]).run
        foreign = sorted(set(options) - set(signature(run).parameters))
        if foreign:
            raise click.UsageError(f"{name} has no --{foreign[0]}")
        results = run(seed, **options)
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is missing: pip install 'endcap[demo,train,reports,images]'"
        ) from error
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

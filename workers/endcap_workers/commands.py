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

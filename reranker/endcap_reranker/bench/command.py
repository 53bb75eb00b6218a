"""``endcap bench NAME``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("name", type=click.Choice(["hook"]))
@click.option("--requests", default=300, show_default=True, help="Requests per row and kind.")
@click.option(
    "--elasticsearch", envvar="ENDCAP_ENGINE_URL", default="", help="URL of an Elasticsearch to stand in front of."
)
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the rows to this file.")
def bench(name: str, requests: int, elasticsearch: str, seed: int, file: Path | None) -> None:
    """Measure the running server on this machine. Compare numbers of one run only: machines are noisy."""
    from endcap_reranker.bench.hook import run

    results = run(requests=requests, elasticsearch=elasticsearch, seed=seed)
    results.show()
    if file:
        results.write(file)

"""``endcap bench NAME``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument(
    "name", type=click.Choice(["console", "events", "hook", "million", "policy", "scoring", "search", "train-memory"])
)
@click.option("--requests", default=300, show_default=True, help="Requests per row and kind.")
@click.option(
    "--elasticsearch", envvar="ENDCAP_ENGINE_URL", default="", help="URL of an Elasticsearch to stand in front of."
)
@click.option("--database", default="", help="events: SQLAlchemy URL of an empty PostgreSQL to measure, too.")
@click.option("--redis", default="", help="events: URL of a Redis to measure, too.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Model to score with; default: the live one.")
@click.option("--products", type=click.IntRange(1_000), help="search, million: products of the made-up catalogue.")
@click.option("--events", type=click.IntRange(1_000), default=10_000_000, help="train-memory: events of the log.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the rows to this file.")
def bench(
    name: str,
    requests: int,
    elasticsearch: str,
    database: str,
    redis: str,
    bundle: Path | None,
    products: int | None,
    events: int,
    seed: int,
    file: Path | None,
) -> None:
    """Measure the running server (hook), the way of an event into a ranking (events), the scorers (scoring), policy,
    rules and experiments alone (policy), the pages of the console (console), search in process (search), the embedded
    engine over a million products (million), or the memory of training on a long event log (train-memory).

    Compare numbers of one run only: machines are noisy.
    """
    if name == "scoring":
        from endcap_reranker.bench import scoring

        results = scoring.run(requests=requests, seed=seed, folder=bundle)
    elif name == "policy":
        from endcap_reranker.bench import policy

        results = policy.run(requests=requests, seed=seed)
    elif name == "console":
        from endcap_reranker.bench import console

        results = console.run(requests=requests, seed=seed)
    elif name == "search":
        from endcap_reranker.bench import search

        results = search.run(requests=requests, seed=seed, **({"products": products} if products else {}))
    elif name == "million":
        from endcap_reranker.bench import million

        results = million.run(requests=requests, seed=seed, **({"products": products} if products else {}))
    elif name == "train-memory":
        from endcap_reranker.bench import train_memory

        results = train_memory.run(seed, events, **({"products": products} if products else {}))
    elif name == "events":
        from endcap_reranker.bench import events as ingest

        results = ingest.run(requests=requests, database=database, redis=redis, seed=seed)
    else:
        from endcap_reranker.bench import hook

        results = hook.run(requests=requests, elasticsearch=elasticsearch, seed=seed)
    results.show()
    if file:
        results.write(file)

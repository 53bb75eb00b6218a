"""``endcap generated``."""

from __future__ import annotations

from contextlib import closing

import click

from endcap.settings import load_settings


@click.command()
@click.option("--delete", "version", metavar="VERSION", help="Delete the rows of a generator version, or `all`.")
def generated(version: str | None) -> None:
    """List the rows that generators made up to enrich training, by generator version; or delete them."""
    from endcap.runtime import open_database
    from endcap.stores.generated import GeneratedProducts

    with closing(open_database(load_settings())) as database:
        store = GeneratedProducts(database)
        if version:
            click.echo(f"deleted {store.delete('' if version == 'all' else version):,} generated rows")
            return
        found = store.generations()
        for one in found:
            click.echo(f"{one.generator}  {one.rows:,} rows  seed {one.seed}")
        if not found:
            click.echo("there are no generated rows")

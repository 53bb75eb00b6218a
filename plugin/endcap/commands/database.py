"""``endcap database``: its schema, and a backup of it."""

from __future__ import annotations

from pathlib import Path

import click

from endcap.errors import InvalidInput
from endcap.settings import load_settings
from endcap.stores.database import Database, open_database


@click.group()
def database() -> None:
    """The database behind the stores: its schema, and a backup."""


@database.command()
def status() -> None:
    """Say which schema the database has. A database that is not there is not made."""
    settings = load_settings()
    if not settings.database_url and not (settings.data_dir / "endcap.sqlite").exists():
        click.echo(f"there is no database in {settings.data_dir} yet")
        return
    opened = open_database(settings, upgrade=False)
    try:
        found = opened.schema()
    finally:
        opened.close()
    if found.up_to_date:
        click.echo(f"{opened.dialect}: schema {found.now}, up to date")
    else:
        click.echo(f"{opened.dialect}: schema {found.now or 'none'}; `endcap database upgrade` brings {found.newest}")


@database.command()
def upgrade() -> None:
    """Bring the schema up to date, as any start of Endcap does by itself."""
    opened = open_database(load_settings())
    try:
        click.echo(f"{opened.dialect}: schema {opened.schema().now}, up to date")
    finally:
        opened.close()


@database.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Copy the SQLite database to FILE while it is in use. For PostgreSQL use pg_dump."""
    opened = open_database(load_settings(), upgrade=False)
    try:
        opened.back_up(file)
    finally:
        opened.close()
    click.echo(f"{file}: {file.stat().st_size:,} bytes. To restore, stop Endcap and put it in place of endcap.sqlite.")


@database.command(hidden=True)
@click.argument("message")
def revision(message: str) -> None:
    """For developers: write a migration with what the stores' tables have and the newest schema has not."""
    from tempfile import TemporaryDirectory

    from endcap.stores.schema import write_migration

    with TemporaryDirectory() as folder:
        opened = Database(f"sqlite:///{folder}/endcap.sqlite")
        try:
            with opened.transaction() as connection:
                path = write_migration(connection, message)
        finally:
            opened.close()
    if "op." not in path.read_text().partition("def upgrade")[2].partition("def downgrade")[0]:
        path.unlink()
        raise InvalidInput("the tables are as the newest migration leaves them: there is nothing to write")
    click.echo(f"{path}: read it, then commit it")

"""``endcap token``: who may use the admin API and the console."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.table import Table

from endcap.settings import load_settings
from endcap.stores.tokens import ROLES, Token, Tokens


@click.group()
def token() -> None:
    """Make, list and revoke tokens of the admin API and the console."""


@token.command()
@click.option("--role", type=click.Choice(ROLES), required=True, help="What its bearer may do: read, operate, or all.")
@click.option("--name", default="", help="Whose token it is; shown in the audit log. Default: its role.")
@click.option("--days", type=click.FloatRange(0, 3_660, min_open=True), help="Days until it expires; default: never.")
def create(role: str, name: str, days: float | None) -> None:
    """Make a token and print it, once: only a digest is kept."""
    with _tokens() as store:
        text, made = store.create(name or role, role, days)
    click.echo(f"{made.role} token {made.id} ({made.name}){_until(made)}; it is shown only now:", err=True)
    click.echo(text)


@token.command("list")
def list_() -> None:
    """Show all tokens: never the tokens themselves."""
    with _tokens() as store:
        found = store.all()
    if not found:
        click.echo("No tokens yet. endcap token create --role admin")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "name", "role", "made", "last used", "state"):
        table.add_column(column)
    for one in found:
        table.add_row(one.id, one.name, one.role, _day(one.created), _day(one.last_used), _state(one))
    Console().print(table)


@token.command()
@click.argument("token_id", metavar="ID")
def revoke(token_id: str) -> None:
    """Make the token ID useless, at once and for every server."""
    with _tokens() as store:
        gone = store.revoke(token_id)
    click.echo(f"{gone.role} token {gone.id} ({gone.name}): revoked")


@contextmanager
def _tokens() -> Iterator[Tokens]:
    from endcap.runtime import open_database

    database = open_database(load_settings())
    try:
        yield Tokens(database)
    finally:
        database.close()


def _day(moment: float | None) -> str:
    return "never" if moment is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))


def _until(one: Token) -> str:
    return "" if one.expires is None else f", until {_day(one.expires)} UTC"


def _state(one: Token) -> str:
    if one.revoked is not None:
        return f"revoked {_day(one.revoked)}"
    if not one.usable(time.time()):
        return f"expired {_day(one.expires)}"
    return ("for this machine only" if one.local else "in force") + _until(one)

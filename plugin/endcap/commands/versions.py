"""``endcap models``: versions, and which one is live."""

from __future__ import annotations

import getpass
import sys
from datetime import datetime, timezone

import click
from rich.console import Console
from rich.table import Table

from endcap.registry import INTEREST, Registry, open_registry
from endcap.runtime import open_database
from endcap.settings import load_settings
from endcap.stores.versions import Version

_kind = click.option("--kind", default=INTEREST, show_default=True, help="What kind of model.")


def who() -> str:
    """Who is at the command line, for the registry's history."""
    try:
        return f"cli ({getpass.getuser()})"
    except (KeyError, OSError):  # a container's user without a name
        return "cli"


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """Show the versions of all models; promote, pin, roll back."""
    if context.invoked_subcommand is not None:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("kind", "version", "state", "made", "figures", "gate"):
        table.add_column(column, overflow="fold")
    for one in _registry().versions(limit=50):
        state = f"{one.state} (pinned)" if one.pinned else one.state
        made = datetime.fromtimestamp(one.created, timezone.utc).strftime("%Y-%m-%d %H:%M")
        table.add_row(one.kind, one.version, state, made, _figures(one), _gate(one))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


@models.command()
@click.argument("version")
@_kind
@click.option("--force", is_flag=True, help="Even where its gate has not let it pass, or another version is pinned.")
def promote(version: str, kind: str, force: bool) -> None:
    """Put VERSION into force: all servers switch within two seconds."""
    _said(_registry().promote(kind, version, who(), force))


@models.command()
@click.argument("version")
@_kind
def pin(version: str, kind: str) -> None:
    """Put VERSION into force, and let nothing replace it by itself."""
    _said(_registry().pin(kind, version, who()))


@models.command()
@_kind
def unpin(kind: str) -> None:
    """Let newer versions replace the live one again."""
    _said(_registry().unpin(kind, who()))


@models.command("roll-back")
@_kind
def roll_back(kind: str) -> None:
    """Go back to what was live before."""
    _said(_registry().roll_back(kind, who()))


@models.command()
@click.argument("version")
@_kind
def shadow(version: str, kind: str) -> None:
    """Have VERSION score real searches beside the live one, without effect."""
    _said(_registry().shadow(kind, version, who()))


@models.command()
@_kind
def history(kind: str) -> None:
    """Who made what live, and why."""
    for one in _registry().history(kind):
        when = datetime.fromtimestamp(one.time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        before = f" after {one.before}" if one.before else ""
        why = f": {one.reason}" if one.reason else ""
        click.echo(f"{when} {one.action} {one.version}{before} by {one.by or 'nobody'}{why}")


def _registry() -> Registry:
    settings = load_settings()
    return open_registry(settings, open_database(settings))


def _said(one: Version) -> None:
    click.echo(f"{one.kind} {one.version}: {one.state}{', pinned' if one.pinned else ''}")


def _figures(one: Version) -> str:
    numbers = [(name, value) for name, value in one.metrics.items() if isinstance(value, float)]
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers[:4])


def _gate(one: Version) -> str:
    if one.verdict is None:
        return "not judged"
    return ("passed: " if one.verdict["passed"] else "refused: ") + "; ".join(one.verdict["reasons"])

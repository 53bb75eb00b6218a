"""The ``endcap`` command. Its subcommands come from entry points, so that server and workers add theirs."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import click

from endcap import __version__
from endcap.errors import EndcapError


class _Commands(click.Group):
    """Loads a subcommand only when it is called: ``endcap index`` does not import the server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(entry.name for entry in entry_points(group="endcap.commands"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group="endcap.commands", name=cmd_name):
            command = entry.load()
            assert isinstance(command, click.Command)
            return command
        return None


@click.group(cls=_Commands)
@click.version_option(__version__)
def endcap() -> None:
    """Personal search order and recommendations in front of your search engine."""


def main() -> None:
    """Run the command; an error of Endcap's own becomes one line and exit status 1, not a trace."""
    try:
        endcap()
    except EndcapError as error:
        click.echo(f"endcap: {error}", err=True)
        sys.exit(1)

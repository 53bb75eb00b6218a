"""The server's commands. Each imports what it needs when it is called."""

from __future__ import annotations

import sys

import click

from endcap.settings import load_settings

#: Starts ``endcap serve`` as a process of its own, in this interpreter.
SERVE = (sys.executable, "-c", "from endcap.cli import main; main()", "serve")


@click.command()
@click.option("--host", help="Address to listen on (setting `host`).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (setting `port`); 0: any free one.")
@click.option("--workers", type=click.IntRange(1), help="Server processes (setting `server_workers`).")
@click.option("--threads", type=click.IntRange(1), help="Threads per process (setting `server_threads`).")
def serve(host: str | None, port: int | None, workers: int | None, threads: int | None) -> None:
    """Serve the hook, the API and the storefront."""
    from endcap_reranker.gunicorn_app import serve as run

    given = {"host": host, "port": port, "server_workers": workers, "server_threads": threads}
    run(load_settings(**{name: value for name, value in given.items() if value is not None}))

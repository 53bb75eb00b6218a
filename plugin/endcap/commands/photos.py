"""``endcap photos``: makes the products' pictures searchable."""

from __future__ import annotations

from contextlib import closing

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from endcap.errors import ConfigurationError
from endcap.settings import load_settings


@click.command()
@click.option("--encoder", metavar="MODEL", help="Image encoder, instead of the setting image_encoder.")
def photos(encoder: str | None) -> None:
    """Encode the pictures of all products, so that shoppers can search by photo.

    Only new and changed pictures are fetched; a run that broke off goes on where it was.
    """
    from endcap.encoders import text_encoder_at_hand
    from endcap.runtime import open_engine, open_fetcher

    settings = load_settings(**({"image_encoder": encoder} if encoder else {}))
    try:
        from endcap.images.encoder import open_image_encoder
        from endcap.images.index import FILE, PhotoSummary, index_photos
    except ImportError as error:
        raise ConfigurationError(f"{error.name} is missing: pip install 'endcap[images]'") from None
    opened = open_image_encoder(settings, text_encoder_at_hand(settings))
    if opened is None:
        raise click.UsageError("image_encoder is none: name a model with --encoder or ENDCAP_IMAGE_ENCODER")
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with closing(open_engine(settings)) as engine, Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=engine.count())

        def show(summary: PhotoSummary) -> None:
            bars.update(task, completed=summary.read)

        products = (product for batch in engine.scan(vectors=False) for product, _ in batch)
        summary = index_photos(products, opened, open_fetcher(settings), settings.data_dir / FILE, show)
    for product, reason in summary.refused[:5]:
        click.echo(f"{product}: {reason}", err=True)
    click.echo(
        f"{summary.encoded:,} pictures encoded, {summary.unchanged:,} unchanged, {summary.failed:,} could not be had; "
        f"{summary.without:,} of {summary.read:,} products have none"
    )

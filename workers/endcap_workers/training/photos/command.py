"""``endcap train-photos``: from labelled photos to the image encoder of a shop."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from endcap.errors import ConfigurationError
from endcap.settings import load_settings
from endcap_workers.training.command import Bars

NETWORKS = ("lite0", "lite1", "lite2")


@click.command("train-photos")
@click.argument("photos", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Where the network goes; default: encoders/tuned in the data folder.")  # fmt: skip
@click.option("--network", type=click.Choice(NETWORKS), default="lite2", show_default=True, help="What is tuned.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the photos; default: by their number.")
@click.option("--held-out", type=click.FloatRange(0.02, 0.5), default=0.15, show_default=True,
              help="Share of each label's photos that judge instead of training.")  # fmt: skip
@click.option("--fresh", is_flag=True, help="Do not go on with a run that was killed.")
def train_photos(
    photos: Path, out: Path | None, network: str, seed: int, epochs: int | None, held_out: float, fresh: bool
) -> None:
    """Train the network behind search by photo on labelled photos of the shop.

    PHOTOS is a folder with a folder for each label, or a list of lines "path<TAB>label". A label is the id of a product
    or the name of a category. A run that was killed goes on where it was when the same is asked for again.
    """
    settings = load_settings()
    try:
        from endcap_workers.training.photos.run import Request, Tuning
        from endcap_workers.training.photos.run import train_photos as run
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is missing: pip install 'endcap[images]'") from None
    work = settings.data_dir / "training" / "photos"
    for checkpoint in work.glob("*.checkpoint") if fresh else ():
        checkpoint.unlink(missing_ok=True)
    folder = (out or settings.data_dir / "encoders" / "tuned").expanduser().absolute()
    request = Request(photos, folder, seed, epochs or 0, held_out, Tuning(size=NETWORKS.index(network)))
    with Bars(Console(stderr=True)) as bars:
        made = run(settings, request, work, bars.progress, bars.report)
    metrics = made.description["metrics"]
    click.echo(f"held-out photos: the label of {metrics['label']:.1%} is named; nearest to them, as packaged -> tuned:")
    for name, what in (
        ("photo@1", "a photo of the same label"), ("product@1", "their product's picture"),
        ("product@5", "their product's picture, among five"),
    ):  # fmt: skip
        if name in metrics["tuned"]:
            click.echo(f"  {what}: {metrics['packaged'][name]:.1%} -> {metrics['tuned'][name]:.1%}")
    if metrics["tuned"]["photo@1"] <= min(metrics["packaged"]["photo@1"], 0.999):
        click.echo("no better than the network as packaged: more photos of each label are needed")
    click.echo(f"written: {folder}\nnow: export ENDCAP_IMAGE_ENCODER={folder} && endcap photos")

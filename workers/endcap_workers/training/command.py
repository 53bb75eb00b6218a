"""``endcap train``: from the event log to a model, with progress bars."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from endcap.errors import ConfigurationError
from endcap.settings import load_settings
from endcap_workers.training.alone import alone

MODELS = ("interest", "dnn", "lstm", "transformer")
LOSSES = ("listwise", "pointwise")


class Bars:
    """One bar a phase on a terminal, nothing elsewhere; lines are printed either way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"), TextColumn("{task.description:18}"), BarColumn(bar_width=28),
            TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def progress(self, done: float, total: float, phase: str = "") -> None:
        """As :meth:`endcap.jobs.JobContext.progress`."""
        if phase not in self._tasks:
            for task in self._tasks.values():
                self._bars.update(task, completed=1.0, total=1.0)
            self._tasks[phase] = self._bars.add_task(phase, total=total)
        self._bars.update(self._tasks[phase], completed=done, total=total)

    def report(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _enter_alone(until: ExitStack, folder: Path) -> None:
    taken = f"another `endcap train` is at work in {folder}; another --seed has its own"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        until.enter_context(alone(folder.with_name(f"{folder.name}.lock"), taken))
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error}") from None


@click.command()
@click.option("--model", type=click.Choice(MODELS), default="interest", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), default=120.0, show_default=True,
              help="How far back the training cases reach.")  # fmt: skip
@click.option("--lists", type=click.IntRange(min=100), default=60_000, show_default=True, help="At most so many train.")
@click.option("--epochs", type=click.IntRange(min=1), help="At most so many; default: the model's own.")
@click.option(
    "--parts", default="features", show_default=True, help="Of an interest model: features,sequence,attention."
)
@click.option("--loss", type=click.Choice(LOSSES), default="listwise", show_default=True,
              help="Which of a list is wanted, or of each candidate whether it is.")  # fmt: skip
@click.option(
    "--promote", is_flag=True, help="Put it into force if the gate lets it pass; exit status 1 where it does not."
)
@click.option("--publish", is_flag=True, help="Put it into force in any case.")
@click.option("--fresh", is_flag=True, help="Do not go on with a run that was killed.")
def train(
    model: str, seed: int, days: float, lists: int, epochs: int | None, parts: str, loss: str, promote: bool,
    publish: bool, fresh: bool,
) -> None:  # fmt: skip
    """Train a model of the shoppers' interest from the event log, and write a bundle into the model folder.

    A run that was killed goes on where it was when the same is asked for again. Several processes or GPUs: start it by
    torchrun (docs/training.md).
    """
    import shutil

    try:
        from endcap_workers.training.promotion import promote_bundle, register
        from endcap_workers.training.train import Request
        from endcap_workers.training.train import train as run
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is missing: pip install 'endcap[train]'") from error
    settings = load_settings()
    wanted = tuple(part.strip() for part in parts.split(","))
    request = Request(model, seed, days, lists, epochs or 0, parts=wanted, loss=loss)
    folder = settings.data_dir / "training" / f"{model}-{seed}"
    console = Console(stderr=True)
    first = os.environ.get("RANK", "0") == "0"
    with ExitStack() as until, Bars(console) as bars:
        if first:  # of several that train together
            _enter_alone(until, folder)
        if first and fresh:
            shutil.rmtree(folder, ignore_errors=True)
        made = run(settings, request, Path(folder), bars.progress, bars.report)
    if made is None:
        return
    for name, one in made.segments.items():
        console.print(
            f"  {name:16} NDCG@10 {one['ndcg@10']:.4f}  MRR {one['mrr']:.4f}  ({one['wanted']:,.0f})", highlight=False
        )
    click.echo(f"{made.folder.name}: written in {made.seconds:.0f} s")
    register(settings, made)
    if promote or publish:
        with Bars(console) as bars:
            promotion = promote_bundle(settings, made.folder, force=publish, progress=bars.progress)
        for reason in promotion.reasons:
            click.echo(f"gate: {reason}")
        if not promotion.live:
            raise SystemExit(1)
        click.echo(f"{made.folder.name}: live")

"""``endcap publish``: put a trained model into force."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from endcap import publishing
from endcap.bundles import DESCRIPTION, load_bundle
from endcap.commands.versions import who
from endcap.errors import BundleRefused
from endcap.registry import INTEREST, Registry, VersionConflict
from endcap.runtime import open_database
from endcap.settings import load_settings


@click.command()
@click.argument("bundle", required=False)
@click.option("--repository", type=click.Path(path_type=Path), help="Triton's model repository; default: the setting.")
@click.option(
    "--device",
    type=click.Choice(list(publishing.DEVICES)),
    default="gpu",
    show_default=True,
    help="What Triton runs it on; `python`: a server that has the python backend only.",
)
@click.option("--new-config", is_flag=True, help="Write config.pbtxt anew, even where there is one.")
@click.option("--keep", type=click.IntRange(min=1), default=3, show_default=True, help="Versions to keep.")
@click.option("--live/--no-live", default=True, show_default=True, help="Put it into force.")
@click.option("--force", is_flag=True, help="Even where another version is pinned, which ends the pin.")
def publish(
    bundle: str | None, repository: Path | None, device: str, new_config: bool, keep: int, live: bool, force: bool
) -> None:
    """Check BUNDLE, give it to Triton where there is one, and put it into force.

    BUNDLE is a folder, or the name of one in the model folder; without it, the newest there. Running servers switch
    within seconds. To step back, publish an older one. It goes into the registry, which notes who did it
    (`endcap models history`); no gate is asked.
    """
    settings = load_settings()
    models = settings.models_folder
    folder = publishing.adopt(_folder(bundle, models), models)
    loaded = load_bundle(folder)
    click.echo(f"{loaded.label}: checked, feature specification {loaded.spec.digest}")
    target = repository or (Path(settings.triton_repository) if settings.triton_repository else None)

    def into_triton(folder: Path) -> None:
        if target is None:
            return
        written = publishing.write_version(loaded, target, device, new_config)
        click.echo(f"{loaded.label}: in Triton's repository as {written.parent.name}, version {written.name}")
        if settings.triton_url:
            publishing.load_into_triton(loaded, settings.triton_url)
            click.echo(f"{loaded.label}: served by Triton at {settings.triton_url}")

    with closing(open_database(settings)) as database:
        registry = Registry(database, models, {INTEREST: into_triton}, keep)
        before = registry.live(INTEREST)
        if live and before is not None and before.pinned and before.version != str(loaded.version) and not force:
            raise VersionConflict(f"{INTEREST} {before.version} is pinned: unpin it first, or use --force")
        version = registry.add_candidate(
            INTEREST, str(loaded.version), folder, loaded.description.get("metrics"), loaded.provenance
        )
        if live:
            registry.promote(INTEREST, version.version, who(), force=True)
            instead = f", after {INTEREST}-{before.version}" if before and before.version != version.version else ""
            click.echo(f"{loaded.label}: live{instead}")
        else:
            registry.publish(version)
        removed = [models / one.folder for one in registry.prune(INTEREST)]
    if target is not None:
        removed += publishing.prune_versions(loaded, target, keep)
    for one in removed:
        click.echo(f"removed {one}")


def _folder(bundle: str | None, models: Path) -> Path:
    if bundle is None:
        found = [one.parent for one in models.glob(f"*/{DESCRIPTION}") if not one.parent.name.startswith(".")]
        if not found:
            raise BundleRefused(f"there is no bundle in {models}; `endcap train` makes one")
        return max(found, key=lambda one: (one / DESCRIPTION).stat().st_mtime_ns)
    for folder in (models / bundle, Path(bundle)):
        if (folder / DESCRIPTION).is_file():
            return folder
    raise BundleRefused(f"{bundle} is neither a bundle's folder nor the name of one in {models}")

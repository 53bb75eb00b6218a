"""``endcap attach`` and ``endcap detach``: stand in front of a search engine's index that Endcap did not make."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click

from endcap.attach import Source, SyncReport, synchronise
from endcap.attach.config import remove_attachment, write_attachment
from endcap.attach.field import VectorField
from endcap.attach.following import source_of
from endcap.catalog.roles import Roles
from endcap.commands.catalog import _roles as mapped_roles
from endcap.errors import ConfigurationError, InvalidInput
from endcap.foreign import ID, guess
from endcap.settings import Settings, config_file, load_settings

_LINE_EVERY_S = 5.0
#: The job that keeps the copy up to date.
_JOB, _EVERY_MINUTE = "attach-sync", "* * * * *"


@click.command()
@click.argument("url")
@click.argument("index")
@click.option("--map", "mapping", multiple=True, metavar="ROLE=FIELD", help="What a field is: --map brand=supplier.")
@click.option("--copy", "copy", metavar="NAME", help="Name of Endcap's copy; default: endcap-INDEX.")
@click.option(
    "--place",
    type=click.Choice(["auto", "engine", "embedded"]),
    default="auto",
    help="Where the copy goes: into the search engine, or into the data folder (OpenSearch: always).",
)
@click.option("--encoder", metavar="MODEL", help="Text encoder of the copy's vectors; `none`: no vectors.")
@click.option("--into-field", "field", metavar="NAME", help="Also write the vectors into this field of INDEX itself.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Documents read a second, at most; 0: no limit.")
@click.option("--yes", is_flag=True, help="Take the fields as guessed, without asking.")
def attach(
    url: str,
    index: str,
    mapping: tuple[str, ...],
    copy: str | None,
    place: str,
    encoder: str | None,
    field: str | None,
    rate: float,
    yes: bool,
) -> None:
    """Read the index INDEX at URL, guess what its fields are, and keep a copy of its products for ranking.

    The index itself is only read, unless --into-field is given. Run it again to go on where it broke off. A user name
    and password belong into ENDCAP_ENGINE_USERNAME and ENDCAP_ENGINE_PASSWORD, or an API key into
    ENDCAP_ENGINE_API_KEY.
    """
    url = _without_secrets(url)
    if "*" in index or "," in index or index.startswith(("-", "_")):
        raise InvalidInput(f"INDEX must be one index or alias, not {index!r}")
    values: dict[str, Any] = {"engine_url": url, "index": copy or f"endcap-{index}", "source_index": index}
    if values["index"] == index:
        raise InvalidInput("--copy must not be INDEX itself: that one is never written to")
    before = load_settings(engine_url=url)
    with closing(Source(before, index)) as source:
        if source.made_by_endcap():
            raise InvalidInput(f"[{index}] was made by Endcap: `endcap serve` uses it as it is")
        elasticsearch = source.is_elasticsearch()
        if place == "engine" and not elasticsearch:
            raise InvalidInput("--place engine: the server is not an Elasticsearch; use --place embedded")
        values["index_place"] = place if place != "auto" else ("engine" if elasticsearch else "embedded")
        roles, sample = _found_roles(source, {**before.field_roles, **mapped_roles(mapping)})
        fields = source.fields()
    _show(index, roles, sample, fields)
    if not yes and not click.confirm("Are these right? (Else: no, and name them with --map ROLE=FIELD)", default=True):
        sys.exit(1)
    values["field_roles"] = {role: ", ".join(names) for role, names in roles.fields.items() if role != "id"}
    values["searchable_indices"] = values["personalized_indices"] = [index]
    if set(before.schedule) <= {_JOB}:
        values["schedule"] = {_JOB: before.schedule.get(_JOB, _EVERY_MINUTE)}
    elif _JOB not in before.schedule:
        click.echo(f'note: add to your schedule: {_JOB} = "{_EVERY_MINUTE}", or the copy does not follow', err=True)
    if encoder:
        values["text_encoder"] = encoder
    if field:
        if not elasticsearch or (encoder or before.text_encoder) == "none":
            raise InvalidInput("--into-field needs an Elasticsearch and a text encoder")
        values["source_vector_field"] = field
    write_attachment(config_file(), values)
    click.echo(f"{config_file()} is written", err=True)
    settings = load_settings()
    other = [name for name in ("engine_url", "index", "source_index") if getattr(settings, name) != values[name]]
    if other:
        raise ConfigurationError(f"ENDCAP_{other[0].upper()} in the environment says otherwise: unset it")
    report = _fill(settings, rate)
    click.echo(
        f"{report.read:,} documents read, {report.deleted:,} gone, {report.total:,} products in the copy "
        f"[{settings.index}] ({settings.index_place}) after {report.seconds:.1f} s"
    )
    click.echo("`endcap serve` stands in front of it now, and keeps the copy up to date (job attach-sync).")


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def detach(yes: bool) -> None:
    """Remove the copy, what the database knows about it, and what attach wrote into the settings' file.

    The shop's own index was never touched, unless by --into-field: then the vectors are taken out of its documents.
    Events and profiles stay: they are the shoppers', not the index's.
    """
    from endcap.runtime import open_database
    from endcap.stores.attached import Ledger

    settings = load_settings()
    source = source_of(settings)
    if not yes:
        click.confirm(f"Remove Endcap's copy [{settings.index}] of {source}?", abort=True)
    if settings.source_vector_field:
        with closing(Source(settings, settings.source_index)) as reached:
            gone = VectorField(reached, settings.source_vector_field).remove()
        click.echo(f"{gone:,} vectors removed; the empty field stays in the mappings, where nothing can be removed")
    _remove_copy(settings)
    with closing(open_database(settings)) as database:
        Ledger(database, source).clear()
    written = remove_attachment(config_file())
    click.echo(f"detached from {source}")
    if not written:
        click.echo(f"{config_file()} holds nothing of attach's: take source_index out of the settings", err=True)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("URL must be such as http://127.0.0.1:9200")
    if parts.username or parts.password:
        raise InvalidInput(
            "URL must not hold a password, which would be written into a file: set ENDCAP_ENGINE_USERNAME and "
            "ENDCAP_ENGINE_PASSWORD"
        )
    return urlunsplit(parts).rstrip("/")


def _found_roles(source: Source, named: dict[str, str]) -> tuple[Roles, list[dict[str, Any]]]:
    sample = source.sample()
    if not sample:
        raise InvalidInput(f"[{source.name}] holds no document yet: nothing can be guessed from it")
    return guess(named, sample)


def _show(index: str, roles: Roles, sample: list[dict[str, Any]], fields: dict[str, str]) -> None:
    click.echo(f"{index}: {len(fields)} fields, {len(sample)} documents looked at")
    for role, names in roles.fields.items():
        if role == "id":
            continue
        how = "guessed" if role in roles.guessed else "set"
        kinds = ", ".join(fields.get(name, "in no mapping") for name in names)
        examples = [str(value) for row in sample for name in names if (value := row.get(name))][:1]
        example = f"  e.g. {examples[0][:60]}" if examples else ""
        click.echo(f"  {role:<12} {', '.join(names)} ({kinds}; {how}){example}")
    others = sorted({field for row in sample for field in row} - roles.used())
    click.echo(f"  attributes   {', '.join(others[:12]) or 'none'}{' …' if len(others) > 12 else ''}")
    if ID not in others:
        click.echo("  id           the document's own (_id)")


def _fill(settings: Settings, rate: float) -> SyncReport:
    from endcap.encoders import text_encoder_at_hand
    from endcap.runtime import open_database, open_engine

    last = time.monotonic()

    def show(report: SyncReport, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _LINE_EVERY_S or report.read >= total:
            last = time.monotonic()
            share = 100 * report.read / max(1, total)
            speed = report.read / max(report.seconds, 1e-9)
            click.echo(f"{report.read:,} of {total:,} documents ({share:.0f} %), {speed:,.0f}/s", err=True)

    with closing(open_engine(settings)) as engine, closing(open_database(settings)) as database:
        return synchronise(settings, engine, database, text_encoder_at_hand(settings), rate=rate, on_progress=show)


def _remove_copy(settings: Settings) -> None:
    if settings.index_place == "embedded":
        import shutil

        from endcap.engines.embedded.store import Store

        shutil.rmtree(Store(settings.data_dir, settings.index).folder, ignore_errors=True)
        return
    from endcap.engines.elasticsearch.removal import remove_index

    remove_index(settings)

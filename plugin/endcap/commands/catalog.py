"""``endcap index`` and ``endcap delete``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click

from endcap.catalog.checkpoint import Checkpoint
from endcap.catalog.reading import CatalogReader
from endcap.catalog.rejects import RejectsFile
from endcap.catalog.roles import flatten
from endcap.commands.progress import IndexProgress
from endcap.errors import InvalidInput
from endcap.indexing import NO_ENCODER, IndexSummary, apply_changes, delete_missing, index_products
from endcap.settings import Settings, load_settings

_MANY = 5


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--map", "mapping", multiple=True, metavar="ROLE=FIELD", help="What a field is: --map brand=supplier.")
@click.option("--show-roles", is_flag=True, help="Only show which field is taken for what.")
@click.option("--encoder", metavar="MODEL", help="Text encoder, instead of the setting text_encoder.")
@click.option("--partial", is_flag=True, help="Rows hold an id and what changes (price, stock, …): nothing is encoded.")
@click.option("--delete-missing", "missing", is_flag=True, help="Delete products that are not in the files.")
@click.option("--rebuild", is_flag=True, help="Fill a new index while the old one serves, then switch.")
@click.option("--rejects", "rejects_path", type=click.Path(path_type=Path, dir_okay=False), help="Where bad rows go.")
def index(
    files: tuple[Path, ...],
    mapping: tuple[str, ...],
    show_roles: bool,
    encoder: str | None,
    partial: bool,
    missing: bool,
    rebuild: bool,
    rejects_path: Path | None,
) -> None:
    """Index the products in FILES: JSON lines, JSON, CSV (each also .gz) or Parquet.

    Rows that cannot be used go to the rejects file and stop nothing. A run that broke off goes on where it was.
    """
    if partial and (missing or rebuild):
        raise click.UsageError("--partial goes with neither --delete-missing nor --rebuild")
    settings = load_settings(**({"text_encoder": encoder} if encoder else {}))
    rejects_path = rejects_path or settings.data_dir / "rejects.jsonl"
    if any(path.resolve() == rejects_path.resolve() for path in files):
        raise click.UsageError(f"{rejects_path} is one of the files to read: name another with --rejects")
    roles = {**settings.field_roles, **_roles(mapping)}
    if show_roles:
        _show_roles(CatalogReader(files, roles, settings.category_separator, lambda reject: None, _notice))
        return
    with RejectsFile(rejects_path) as rejects:
        reader = CatalogReader(files, roles, settings.category_separator, rejects.add, _notice)
        summary = _change(reader, settings) if partial else _index(reader, files, mapping, settings, rebuild, missing)
        _report(summary, reader, rejects)
    if not summary.read - summary.refused:
        what = reader.failures[0] if reader.failures else "no row of the files could be used"
        raise InvalidInput(f"{what} (nothing was indexed)")


@click.command()
@click.argument("ids", nargs=-1)
@click.option(
    "--file", "file", type=click.File("r", encoding="utf-8"), help="A file with one id per line; - for stdin."
)
def delete(ids: tuple[str, ...], file: Iterator[str] | None) -> None:
    """Delete products by id."""
    from endcap.runtime import open_engine

    wanted = list(dict.fromkeys([*ids, *(line.strip() for line in file or () if line.strip())]))
    if not wanted:
        raise click.UsageError("name the ids, or a --file with one per line")
    with closing(open_engine(load_settings())) as engine:
        report = engine.delete(wanted)
        engine.refresh()
    for product_id, reason in report.errors[:_MANY]:
        click.echo(f"{product_id}: {reason}", err=True)
    if len(report.errors) > _MANY:
        click.echo(f"… and {len(report.errors) - _MANY:,} more", err=True)
    click.echo(f"deleted {report.done:,} of {len(wanted):,} products")
    if not report.done:
        sys.exit(1)


def _index(
    reader: CatalogReader,
    files: tuple[Path, ...],
    mapping: tuple[str, ...],
    settings: Settings,
    rebuild: bool,
    missing: bool,
) -> IndexSummary:
    from endcap.encoders import text_encoder_at_hand
    from endcap.runtime import open_engine

    text_encoder = text_encoder_at_hand(settings)
    encoder_id = text_encoder.id if text_encoder else NO_ENCODER
    where = f"{settings.engine_url}/{settings.index}"
    roles = sorted(f"{role}={field}" for role, field in settings.field_roles.items())
    checkpoint = Checkpoint(settings.data_dir, files, [where, encoder_id, *roles, *mapping])
    trusted = 0 if rebuild else checkpoint.products()
    if trusted:
        click.echo(f"an earlier run broke off after {trusted:,} products: going on from there", err=True)
    with closing(open_engine(settings)) as engine, IndexProgress(reader) as progress:
        summary = index_products(
            reader.products(),
            engine,
            text_encoder,
            rebuild=rebuild,
            trusted=trusted,
            on_progress=progress.update,
            on_refused=reader.refused,
            on_durable=lambda done: None if rebuild else checkpoint.save(max(done, trusted)),
        )
        checkpoint.done()
        if missing and not rebuild:
            if not reader.complete or not len(reader.seen):
                click.echo("nothing was deleted: not every file could be read to its end", err=True)
            else:
                summary.deleted = delete_missing(engine, reader.seen, reader.refused)
    return summary


def _change(reader: CatalogReader, settings: Settings) -> IndexSummary:
    from endcap.runtime import open_engine

    with closing(open_engine(settings)) as engine, IndexProgress(reader) as progress:
        return apply_changes(reader.changes(), engine, on_progress=progress.update, on_refused=reader.refused)


def _roles(mapping: tuple[str, ...]) -> dict[str, str]:
    roles = {}
    for one in mapping:
        role, equals, field = one.partition("=")
        if not equals or not field.strip():
            raise click.UsageError(f"--map takes ROLE=FIELD, not {one!r}")
        roles[role.strip()] = field.strip()
    return roles


def _show_roles(reader: CatalogReader) -> None:
    for file, roles, sample in reader.roles():
        rows = [flatten(row.values) for row in sample]
        click.echo(f"{file.path} ({file.format})")
        for role, fields in roles.fields.items():
            how = "guessed" if role in roles.guessed else "set"
            examples = [str(value) for row in rows for field in fields if (value := row.get(field))][:1]
            example = f"  e.g. {examples[0][:60]}" if examples else ""
            click.echo(f"  {role:<12} {', '.join(fields)} ({how}){example}")
        others = sorted({field for row in rows for field in row} - roles.used())
        click.echo(f"  attributes   {', '.join(others[:20]) or 'none'}{' …' if len(others) > 20 else ''}")


def _notice(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _report(summary: IndexSummary, reader: CatalogReader, rejects: RejectsFile) -> None:
    for reason, count in reader.notices.most_common(_MANY):
        _notice(f"{reason}: {count:,} products")
    if len(reader.notices) > _MANY:
        _notice(f"… and {len(reader.notices) - _MANY:,} more kinds of notes")
    if reader.duplicates:
        _notice(f"{reader.duplicates:,} rows repeat an id: the last one of each counts")
    counts = {
        "indexed": summary.indexed,
        "updated": summary.updated,
        "unchanged": summary.unchanged,
        "deleted": summary.deleted,
        "rejected": rejects.count,
    }
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name in ("indexed", "rejected"))
    click.echo(f"{shown} in {summary.seconds:.1f} s ({summary.rate:,.0f} products/s)")
    if rejects.count:
        reasons = "; ".join(f"{reason} ({count:,})" for reason, count in rejects.reasons.most_common(3))
        click.echo(f"rejected rows are in {rejects.path}: {reasons}", err=True)

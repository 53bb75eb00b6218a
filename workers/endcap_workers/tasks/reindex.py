"""The job that indexes the catalogue anew: from the shop's files, or with another encoder from the index itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from endcap.jobs import Job, JobContext


class How(BaseModel):
    """How it is indexed."""

    model_config = ConfigDict(extra="forbid")

    rebuild: bool = Field(
        False, description="Fill a new index while the old one serves, then switch; needed for another text encoder."
    )
    delete_missing: bool = Field(False, description="Delete products that are not in the files (`catalogue_files`).")


def run(context: JobContext) -> Mapping[str, Any]:
    """From `catalogue_files`, where that is set; else a rebuild from what the index holds."""
    from contextlib import closing

    from endcap.catalog.reading import CatalogReader
    from endcap.catalog.rejects import RejectsFile
    from endcap.encoders import text_encoder_at_hand
    from endcap.errors import InvalidInput
    from endcap.indexing import IndexSummary, delete_missing, index_products
    from endcap.runtime import open_engine

    settings = context.settings
    how = How.model_validate(dict(context.parameters))
    files = [one for pattern in settings.catalogue_files for one in _files(pattern)]
    if settings.catalogue_files and not files:
        raise InvalidInput(f"catalogue_files: there is no file {', '.join(settings.catalogue_files)}")
    if not files and how.delete_missing:
        raise InvalidInput("delete_missing needs the shop's files: setting catalogue_files")
    if how.rebuild and how.delete_missing:
        raise InvalidInput("rebuild leaves nothing behind that could be missing: choose one of the two")
    refused: list[list[str]] = []

    def told(product_id: str, reason: str) -> None:
        if len(refused) < 20:
            refused.append([product_id, reason])

    with closing(open_engine(settings)) as engine, RejectsFile(settings.data_dir / "rejects.jsonl") as rejects:
        total = engine.count()

        def show(summary: IndexSummary) -> None:
            context.progress(summary.read, max(total, summary.read), "indexing")

        if files:
            reader = CatalogReader(files, settings.field_roles, settings.category_separator, rejects.add, print)
            summary = index_products(
                reader.products(), engine, text_encoder_at_hand(settings), rebuild=how.rebuild, on_progress=show,
                on_refused=told,
            )  # fmt: skip
            if how.delete_missing and reader.complete and len(reader.seen):
                summary.deleted = delete_missing(engine, reader.seen, told)
        else:
            products = (product for batch in engine.scan(vectors=False) for product, _ in batch)
            summary = index_products(
                products, engine, text_encoder_at_hand(settings), rebuild=True, on_progress=show, on_refused=told
            )
        return {
            "read": summary.read, "indexed": summary.indexed, "updated": summary.updated,
            "unchanged": summary.unchanged, "deleted": summary.deleted, "refused": summary.refused,
            "rejected_rows": rejects.count, "first_refused": refused, "seconds": round(summary.seconds, 1),
        }  # fmt: skip


def _files(pattern: str) -> Iterator[Any]:
    """A file, or those that a pattern such as ``/feeds/*.csv`` names, in their order."""
    from glob import glob
    from pathlib import Path

    return (Path(one) for one in sorted(glob(pattern)))


JOB = Job("reindex", "Index the catalogue anew", run, queue="heavy", takes=How, time_limit_s=12 * 3_600.0)

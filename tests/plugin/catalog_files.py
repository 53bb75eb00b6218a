"""Product files to read, and what came of reading them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from endcap.catalog.product import Product
from endcap.catalog.reading import CatalogReader
from endcap.catalog.rejects import Reject


class Reading:
    """What came of reading some files."""

    def __init__(self, *paths: Path, **roles: str) -> None:
        self.rejects: list[Reject] = []
        self.notices: list[str] = []
        self.reader = CatalogReader(paths, roles, " > ", self.rejects.append, self.notices.append)
        self.products: list[Product] = list(self.reader.products())

    @property
    def ids(self) -> list[str]:
        return [product.id for product in self.products]

    def reasons(self) -> list[tuple[int, str]]:
        return [(reject.line, reject.reason) for reject in self.rejects]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


ROWS: list[dict[str, Any]] = [
    {"id": "a", "title": "Honey, clover", "price": 4.5, "stock": 3, "category": "Grocery > Honey", "organic": True},
    {"id": "b", "title": 'Say "cheese"\nplease', "price": 7, "stock": 0, "category": "Dairy", "organic": False},
    {"id": "c", "title": "綠茶", "price": None, "stock": None, "category": None, "organic": None},
]


def as_jsonl(path: Path) -> Path:
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))


def as_json(path: Path) -> Path:
    return write(path, json.dumps(ROWS, indent=1, ensure_ascii=False))


def as_csv(path: Path) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]))
    writer.writeheader()
    writer.writerows(ROWS)
    return write(path, text.getvalue())


def as_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def zipped(path: Path) -> Path:
    return write(path.with_name(path.name + ".gz"), gzip.compress(path.read_bytes()))

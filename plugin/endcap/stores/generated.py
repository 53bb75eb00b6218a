"""Virtual products: rows that a generator made up to enrich training, apart from everything that is real.

They have a table of their own, and ids that begin with ``GENERATED_PREFIX``. Indexing and the event log refuse such
ids, so that no generated row is searched, shown, sold, counted in popularity or a report, or judged by; training asks
for them by name (:meth:`GeneratedProducts.rows`). Each row knows which generator made it, from which seed and which
real products; all of it can be deleted at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import (
    Column,
    Float,
    Index,
    LargeBinary,
    String,
    Table,
    delete,
    func,
    insert,
    select,
)

from endcap.catalog.product import GENERATED_PREFIX, is_generated
from endcap.errors import EndcapError, InvalidInput
from endcap.stores.database import NUMBER, Database, metadata

_CHUNK = 500

generated = Table(
    "generated_products",
    metadata,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("product", String, nullable=False, unique=True),
    Column("generator", String, nullable=False),
    Column("seed", NUMBER, nullable=False),
    Column("category", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
    Index("generated_products_by_generator", "generator", "id"),
)


class UnknownGeneration(EndcapError):
    """No generated rows of that generator version are there."""

    status = 404
    kind = "unknown_generation"


@dataclass(frozen=True, slots=True)
class GeneratedProduct:
    """One virtual product.

    Attributes:
        product: its id, beginning with :data:`~endcap.catalog.product.GENERATED_PREFIX`.
        category: its leaf category path, `` > `` between the levels. price: in the shop's currency; None: unknown.
        attributes: brand and whatever else it was given. parents: ids of the real products it was made from.
        sequences: plausible shoppers' histories, oldest first: ids of real products, and its own once in each.
    """

    product: str
    category: str
    price: float | None
    attributes: Mapping[str, Any]
    parents: tuple[str, ...]
    sequences: tuple[tuple[str, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Generation:
    """All rows of one generator version: how many, from which seed, since when (seconds since 1970)."""

    generator: str
    seed: int
    rows: int
    created: float


def generated_id(generator: str, number: int) -> str:
    """The id of a generator version's n-th row."""
    return f"{GENERATED_PREFIX}{generator}:{number}"


class GeneratedProducts:
    """The store. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, generator: str, seed: int, rows: Sequence[GeneratedProduct]) -> int:
        """Store a generator version's rows; replaces those it had. Returns how many there are now.

        Raises:
            InvalidInput: an id does not begin with the prefix, or comes twice, or a row has no parents.
            LogUnavailable: nothing was stored.
        """
        if not generator:
            raise InvalidInput("generated rows need the version of their generator")
        ids = [row.product for row in rows]
        for row in rows:
            if not is_generated(row.product) or not row.parents:
                raise InvalidInput(
                    f"{row.product!r:.80}: a generated row's id begins with {GENERATED_PREFIX}, and it has parents"
                )
        if len(set(ids)) != len(ids):
            raise InvalidInput("an id comes twice among the generated rows")
        now = time.time()
        values = [
            {
                "product": row.product,
                "generator": generator,
                "seed": seed,
                "category": row.category,
                "content": orjson.dumps(
                    {
                        "price": row.price,
                        "attributes": dict(row.attributes),
                        "parents": row.parents,
                        "sequences": row.sequences,
                    }
                ),
                "created": now,
            }
            for row in rows
        ]
        with self._database.transaction() as connection:
            connection.execute(delete(generated).where(generated.c.generator == generator))
            for start in range(0, len(values), _CHUNK):
                connection.execute(insert(generated), values[start : start + _CHUNK])
        return len(rows)

    def rows(self, generator: str = "") -> Iterator[GeneratedProduct]:
        """The rows of a generator version, or all, in their order; read in pieces."""
        chosen = select(generated)
        if generator:
            chosen = chosen.where(generated.c.generator == generator)
        for found in self._database.pages(chosen, _CHUNK):
            for row in found:
                content = orjson.loads(row.content)
                yield GeneratedProduct(
                    row.product, row.category, content["price"], content["attributes"], tuple(content["parents"]),
                    tuple(map(tuple, content["sequences"])),
                )  # fmt: skip

    def generations(self) -> list[Generation]:
        """What there is, newest first."""
        columns = (generated.c.generator, generated.c.seed, func.count(), func.max(generated.c.created))
        query = select(*columns).group_by(generated.c.generator, generated.c.seed).order_by(columns[3].desc())
        with self._database.transaction(read_only=True) as connection:
            return [Generation(*row) for row in connection.execute(query)]

    def delete(self, generator: str = "") -> int:
        """Delete a generator version's rows, or everything; returns how many.

        Raises:
            UnknownGeneration: that version has none.
        """
        query = delete(generated)
        if generator:
            query = query.where(generated.c.generator == generator)
        with self._database.transaction() as connection:
            count = connection.execute(query).rowcount
        if generator and not count:
            raise UnknownGeneration(f"no generated rows of {generator!r:.80}")
        return count

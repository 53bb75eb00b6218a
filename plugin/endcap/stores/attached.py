"""What has been copied of a shop's own index: each document's place in it, and how far each shard was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Column, ColumnElement, Index, String, Table, delete, func, insert, select

from endcap.stores.database import NUMBER, Database, metadata

_BATCH = 500

attached = Table(
    "attached",
    metadata,
    Column("source", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("unit", String, nullable=False),
    Column("sequence", NUMBER, nullable=False),
    Index("attached_by_sequence", "source", "unit", "sequence"),
)
attached_units = Table(
    "attached_units",
    metadata,
    Column("source", String, primary_key=True),
    Column("unit", String, primary_key=True),
    Column("sequence", NUMBER, nullable=False),  # read up to here
    Column("reading", String, nullable=False),  # how: roles and encoder; read anew where they differ
)


class Ledger:
    """The ledger of one source (``URL/INDEX``). Thread-safe."""

    def __init__(self, database: Database, source: str) -> None:
        self._database = database
        self.source = source

    def read_up_to(self, unit: str, reading: str) -> int:
        """The number that a shard was read up to in this way; -1: not at all."""
        wanted = select(attached_units.c.sequence).where(
            attached_units.c.source == self.source, attached_units.c.unit == unit, attached_units.c.reading == reading
        )
        with self._database.transaction(read_only=True) as connection:
            found = connection.execute(wanted).scalar()
        return -1 if found is None else int(found)

    def units(self) -> list[str]:
        """Shards that documents were read from."""
        wanted = select(attached.c.unit).where(attached.c.source == self.source).distinct()
        with self._database.transaction(read_only=True) as connection:
            return [str(one) for one in connection.execute(wanted).scalars()]

    def places(self, ids: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Id -> (shard, number) as of the last time it was read."""
        wanted = select(attached.c.id, attached.c.unit, attached.c.sequence)
        found = {}
        with self._database.transaction(read_only=True) as connection:
            for start in range(0, len(ids), _BATCH):
                these = attached.c.id.in_(list(ids[start : start + _BATCH]))
                for row in connection.execute(wanted.where(attached.c.source == self.source, these)):
                    found[str(row[0])] = (str(row[1]), int(row[2]))
        return found

    def record(self, unit: str, reading: str, places: Mapping[str, int], up_to: int) -> None:
        """Documents (id -> number) of a shard were read, and the shard up to ``up_to``."""
        names = list(places)
        with self._database.transaction() as connection:
            for start in range(0, len(names), _BATCH):
                some = names[start : start + _BATCH]
                connection.execute(delete(attached).where(attached.c.source == self.source, attached.c.id.in_(some)))
                rows = [{"source": self.source, "id": one, "unit": unit, "sequence": places[one]} for one in some]
                connection.execute(insert(attached), rows)
            connection.execute(
                delete(attached_units).where(attached_units.c.source == self.source, attached_units.c.unit == unit)
            )
            row = {"source": self.source, "unit": unit, "sequence": up_to, "reading": reading}
            connection.execute(insert(attached_units), [row])

    def count(self, unit: str, low: int, high: int) -> int:
        """Documents with a number in [low, high]."""
        wanted = select(func.count()).select_from(attached).where(*self._within(unit, low, high))
        with self._database.transaction(read_only=True) as connection:
            return int(connection.execute(wanted).scalar() or 0)

    def middle(self, unit: str, low: int, high: int, count: int) -> int:
        """The number in the middle of the ``count`` that lie in [low, high]."""
        wanted = select(attached.c.sequence).where(*self._within(unit, low, high)).order_by(attached.c.sequence)
        with self._database.transaction(read_only=True) as connection:
            return int(connection.execute(wanted.limit(1).offset(count // 2)).scalar_one())

    def ids(self, unit: str, low: int = -1, high: int = 2**62) -> list[str]:
        """Ids with a number in [low, high]."""
        with self._database.transaction(read_only=True) as connection:
            found = connection.execute(select(attached.c.id).where(*self._within(unit, low, high)))
            return [str(one) for one in found.scalars()]

    def remove(self, ids: Sequence[str]) -> None:
        """Forget documents."""
        with self._database.transaction() as connection:
            for start in range(0, len(ids), _BATCH):
                these = attached.c.id.in_(list(ids[start : start + _BATCH]))
                connection.execute(delete(attached).where(attached.c.source == self.source, these))

    def forget_unit(self, unit: str) -> None:
        """Forget how far a shard was read."""
        with self._database.transaction() as connection:
            connection.execute(
                delete(attached_units).where(attached_units.c.source == self.source, attached_units.c.unit == unit)
            )

    def clear(self) -> None:
        """Forget everything of this source."""
        with self._database.transaction() as connection:
            connection.execute(delete(attached).where(attached.c.source == self.source))
            connection.execute(delete(attached_units).where(attached_units.c.source == self.source))

    def _within(self, unit: str, low: int, high: int) -> tuple[ColumnElement[bool], ...]:
        return (
            attached.c.source == self.source,
            attached.c.unit == unit,
            attached.c.sequence >= low,
            attached.c.sequence <= high,
        )

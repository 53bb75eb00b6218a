"""The rankings log: what the server showed to whom, in which order, and why.

One row is one answered page: the products with their places, the scorer, the policy's arm and its propensity, and, for
a sample, the features as they were served. Clicks join it by ``query_id`` (:mod:`endcap.stores.outcomes`). A storefront
therefore need not send impressions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from endcap.stores.database import NUMBER, Database, metadata, take_turns

rankings = Table(
    "rankings",
    metadata,
    Column("sequence", NUMBER, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("time", Float, nullable=False),
    Column("shopper", String, nullable=False),
    Column("session", String, nullable=False, default=""),
    Column("query", String, nullable=False, default=""),
    Column("endpoint", String, nullable=False, default=""),
    Column("index", String, nullable=False, default=""),
    Column("start", Integer, nullable=False, default=0),
    Column("products", LargeBinary, nullable=False),  # JSON: ids in the order shown
    Column("engine_positions", LargeBinary, nullable=False),  # JSON: their places in the engine's order, from 1
    Column("candidates", Integer, nullable=False, default=0),
    Column("personalized", Boolean, nullable=False, default=False),
    Column("scorer", String, nullable=False, default=""),
    Column("degraded", String, nullable=False, default=""),
    Column("arm", String, nullable=False, default=""),
    Column("propensity", Float, nullable=False, default=1.0),
    Column("context", LargeBinary, nullable=True),  # JSON
    Column("scores", LargeBinary, nullable=True),  # float32
    Column("features", LargeBinary, nullable=True),  # float16, one row a product shown
    Column("feature_list", String, nullable=False, default=""),
    Index("rankings_by_shopper", "shopper", "time"),
    Index("rankings_by_time", "time"),
    sqlite_autoincrement=True,  # whoever follows the log must not miss a number that comes again
)

#: What the columns of logged features were called, by the digest that the rankings carry.
feature_lists = Table(
    "feature_lists",
    metadata,
    Column("digest", String, primary_key=True),
    Column("names", Text, nullable=False),  # JSON
)

#: Name of the lock that PostgreSQL's writers of rankings take in turn.
_WRITERS = 0x656E6472


@dataclass(frozen=True, slots=True)
class Served:
    """One ranking as it was shown.

    Attributes:
        id: what the storefront was told (``X-Endcap-Ranking``, ``ranking.id``), the UBI ``query_id`` of its events.
        time: seconds since 1970.
        shopper: empty for an anonymous one.
        products: ids on the page that went out, best first; the first one stands at place ``start + 1``.
        endpoint: ``hook``, ``search``, ``rerank``, or the recommendation's placement.
        engine_positions: places of ``products`` in the engine's order, from 1; 0 where unknown.
        candidates: how many were ranked.
        scorer: name and version of what scored; ``engine`` where the engine's order stood.
        arm, propensity: the policy that chose the order, and how probable that was.
        scores: float32 (k,) of ``products``; features: float16 (k, F) of ``products``, columns ``feature_names``; None
            where they were not logged.
        sequence: number in the log; 0 before it is there.
    """

    id: str
    time: float
    shopper: str
    products: tuple[str, ...]
    session: str = ""
    query: str = ""
    endpoint: str = ""
    index: str = ""
    start: int = 0
    engine_positions: tuple[int, ...] = ()
    candidates: int = 0
    personalized: bool = False
    scorer: str = ""
    degraded: str = ""
    arm: str = ""
    propensity: float = 1.0
    context: Mapping[str, Any] = field(default_factory=dict)
    scores: np.ndarray | None = field(default=None, compare=False)
    features: np.ndarray | None = field(default=None, compare=False)
    feature_names: tuple[str, ...] = ()
    sequence: int = field(default=0, compare=False)

    @property
    def positions(self) -> range:
        """Places of ``products`` in the list that the shopper saw, from 1."""
        return range(self.start + 1, self.start + 1 + len(self.products))


class Rankings:
    """The log of rankings. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known_lists: set[str] = set()

    def append(self, batch: Sequence[Served]) -> int:
        """Store rankings; one whose id is there already changes nothing. Gives the number of new ones.

        Raises:
            LogUnavailable: none was stored.
        """
        if not batch:
            return 0
        dialect = postgresql if self._database.dialect == "postgresql" else sqlite
        lists = {feature_digest(one.feature_names): one.feature_names for one in batch if one.features is not None}
        with self._database.transaction() as connection:
            take_turns(connection, _WRITERS)  # as in the event log: numbers become visible in their order
            unknown = [
                {"digest": digest, "names": orjson.dumps(names).decode()}
                for digest, names in lists.items()
                if digest not in self._known_lists
            ]
            if unknown:
                connection.execute(dialect.insert(feature_lists).on_conflict_do_nothing(), unknown)
            made = connection.execute(
                dialect.insert(rankings).on_conflict_do_nothing(index_elements=["id"]), [_row(one) for one in batch]
            )
        self._known_lists.update(lists)
        return max(made.rowcount, 0)

    def last_sequence(self) -> int:
        """Number of the newest ranking; 0 where there is none."""
        with self._database.transaction(read_only=True) as connection:
            return int(connection.execute(select(func.max(rankings.c.sequence))).scalar() or 0)

    def count(self) -> int:
        """Rankings in the log."""
        with self._database.transaction(read_only=True) as connection:
            return int(connection.execute(select(func.count()).select_from(rankings)).scalar() or 0)

    def since(self, sequence: int, limit: int = 1_000) -> list[Served]:
        """The next rankings after number ``sequence``, oldest first, at most ``limit``."""
        return self.read(select(rankings).where(rankings.c.sequence > sequence).order_by(rankings.c.sequence), limit)

    def before(self, time: float) -> int:
        """Number of the newest ranking made before a moment (seconds since 1970); 0 where there is none."""
        with self._database.transaction(read_only=True) as connection:
            chosen = select(func.max(rankings.c.sequence)).where(rankings.c.time < time)
            return int(connection.execute(chosen).scalar() or 0)

    def by_id(self, id: str) -> Served | None:
        """The ranking of this id."""
        found = self.read(select(rankings).where(rankings.c.id == id), 1)
        return found[0] if found else None

    def of_shopper(self, shopper: str, limit: int = 50) -> list[Served]:
        """A shopper's latest rankings, newest first."""
        chosen = select(rankings).where(rankings.c.shopper == shopper)
        return self.read(chosen.order_by(rankings.c.time.desc(), rankings.c.sequence.desc()), limit)

    def read(self, chosen: Any, limit: int) -> list[Served]:
        """The first ``limit`` rows of a selection of :data:`rankings`."""
        with self._database.transaction(read_only=True) as connection:
            rows = connection.execute(chosen.limit(limit)).all()
            digests = {row.feature_list for row in rows if row.feature_list}
            wanted = select(feature_lists).where(feature_lists.c.digest.in_(digests))
            names = (
                {row.digest: tuple(orjson.loads(row.names)) for row in connection.execute(wanted)} if digests else {}
            )
        return [_served(row._mapping, names) for row in rows]


@lru_cache(maxsize=64)
def feature_digest(names: tuple[str, ...]) -> str:
    """The short name of a list of features."""
    return hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()


def _row(one: Served) -> dict[str, Any]:
    scores, features = one.scores, one.features
    return {
        "id": one.id,
        "time": one.time,
        "shopper": _text(one.shopper),
        "session": _text(one.session),
        "query": _text(one.query),
        "endpoint": one.endpoint,
        "index": _text(one.index),
        "start": one.start,
        "products": orjson.dumps(one.products),
        "engine_positions": orjson.dumps(one.engine_positions),
        "candidates": one.candidates,
        "personalized": one.personalized,
        "scorer": one.scorer,
        "degraded": one.degraded,
        "arm": one.arm,
        "propensity": one.propensity,
        "context": orjson.dumps(dict(one.context)) if one.context else None,
        "scores": None if scores is None else np.asarray(scores, dtype="<f4").tobytes(),
        "features": None if features is None else np.asarray(features, dtype="<f2").tobytes(),
        "feature_list": feature_digest(one.feature_names) if features is not None else "",
    }


def _text(value: str) -> str:
    """What PostgreSQL takes: no NUL, no halves of characters. A search may hold anything."""
    return value.replace("\x00", "").encode("utf-8", "replace").decode()


def _served(row: Any, lists: Mapping[str, tuple[str, ...]]) -> Served:
    names = lists.get(row["feature_list"], ())
    products = tuple(orjson.loads(row["products"]))
    features = row["features"]
    return Served(
        **{name: row[name] for name in _PLAIN},
        products=products,
        engine_positions=tuple(orjson.loads(row["engine_positions"])),
        context=orjson.loads(row["context"]) if row["context"] else {},
        scores=np.frombuffer(row["scores"], dtype="<f4") if row["scores"] else None,
        features=np.frombuffer(features, dtype="<f2").reshape(len(products), -1) if features else None,
        feature_names=names,
    )


_PLAIN = (
    "sequence", "id", "time", "shopper", "session", "query", "endpoint", "index", "start", "candidates",
    "personalized", "scorer", "degraded", "arm", "propensity",
)  # fmt: skip

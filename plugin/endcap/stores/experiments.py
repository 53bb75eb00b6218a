"""Experiments in the database: what they are, which run, and what the last look at them said."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from sqlalchemy import Column, Float, Integer, LargeBinary, String, Table, func, insert, select, update

from endcap.errors import EndcapError
from endcap.stores.database import Database, metadata

State = Literal["draft", "running", "stopped"]
DRAFT: State = "draft"
RUNNING: State = "running"
STOPPED: State = "stopped"

experiments = Table(
    "experiments",
    metadata,
    Column("name", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("definition", LargeBinary, nullable=False),  # JSON
    Column("created", Float, nullable=False),
    Column("started", Float, nullable=False, default=0.0),
    Column("stopped", Float, nullable=False, default=0.0),
    Column("revision", Integer, nullable=False, default=1),
    Column("by", String, nullable=False, default=""),
    Column("report", LargeBinary, nullable=True),  # JSON: the last look's numbers and verdicts
)


class UnknownExperiment(EndcapError):
    """There is no experiment of that name."""

    status = 404
    kind = "unknown_experiment"


class ExperimentConflict(EndcapError):
    """It cannot be done in the state that the experiment is in, or beside those that run."""

    status = 409
    kind = "experiment_conflict"


@dataclass(frozen=True, slots=True)
class StoredExperiment:
    """An experiment as stored; times are seconds since 1970, 0: not yet. ``definition`` and ``report`` are plain
    JSON."""

    name: str
    state: State
    definition: Mapping[str, Any]
    created: float
    started: float
    stopped: float
    revision: int
    by: str
    report: Mapping[str, Any] | None = field(default=None, compare=False)


class ExperimentStore:
    """Thread-safe; many processes may share the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()

    def version(self) -> tuple[int, int]:
        """Differs after every change of a definition or a state."""
        wanted = select(func.count(), func.sum(experiments.c.revision)).select_from(experiments)
        with self._database.transaction(read_only=True) as connection:
            count, total = connection.execute(wanted).one()
        return int(count), int(total or 0)

    def all(self, state: State | Literal[""] = "") -> list[StoredExperiment]:
        """Experiments, the newest first."""
        chosen = select(experiments).order_by(experiments.c.created.desc(), experiments.c.name)
        if state:
            chosen = chosen.where(experiments.c.state == state)
        with self._database.transaction(read_only=True) as connection:
            return [_stored(row._mapping) for row in connection.execute(chosen)]

    def get(self, name: str) -> StoredExperiment:
        """Raises UnknownExperiment."""
        with self._database.transaction(read_only=True) as connection:
            row = connection.execute(select(experiments).where(experiments.c.name == name)).first()
        if row is None:
            raise UnknownExperiment(f"there is no experiment {name!r:.120}")
        return _stored(row._mapping)

    def add(self, name: str, definition: Mapping[str, Any], by: str = "") -> StoredExperiment:
        """Raises ExperimentConflict where the name was used before: old results would be mixed with new ones."""
        with self._lock, self._database.transaction() as connection:
            if connection.execute(select(experiments.c.name).where(experiments.c.name == name)).first():
                raise ExperimentConflict(f"there was an experiment {name!r:.120} already: take another name")
            connection.execute(
                insert(experiments).values(
                    name=name, state=DRAFT, definition=orjson.dumps(dict(definition)), created=time.time(),
                    started=0.0, stopped=0.0, revision=1, by=by,
                )
            )  # fmt: skip
        return self.get(name)

    def change(self, before: StoredExperiment, **values: Any) -> StoredExperiment:
        """Change definition, state or times, unless somebody else changed it since ``before``.

        Raises:
            ExperimentConflict: somebody did.
        """
        if "definition" in values:
            values["definition"] = orjson.dumps(dict(values["definition"]))
        chosen = update(experiments).where(experiments.c.name == before.name, experiments.c.revision == before.revision)
        with self._lock, self._database.transaction() as connection:
            changed = connection.execute(chosen.values(revision=before.revision + 1, **values))
        if not changed.rowcount:
            raise ExperimentConflict(f"experiment {before.name} was changed by somebody else: look again")
        return self.get(before.name)

    def report(self, name: str, report: Mapping[str, Any]) -> None:
        """Keep what the last look said."""
        with self._lock, self._database.transaction() as connection:
            connection.execute(
                update(experiments).where(experiments.c.name == name).values(report=orjson.dumps(dict(report)))
            )


def _stored(row: Any) -> StoredExperiment:
    report = orjson.loads(row["report"]) if row["report"] else None
    return StoredExperiment(
        row["name"], row["state"], orjson.loads(row["definition"]), row["created"], row["started"], row["stopped"],
        int(row["revision"]), row["by"], report,
    )  # fmt: skip

"""Events and rankings as Parquet files, one a day (UTC), and back again.

Memory stays bounded: rows are read in the order of time through an index, and written as row groups. A day that is over
and has all its rows in its file is not written again, so an export that was cut short goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
import orjson
from sqlalchemy import func, or_, select

from endcap.errors import ConfigurationError, InvalidInput
from endcap.events import Action, Event
from endcap.files import replacing
from endcap.stores.aliases import Aliases, AliasRefused
from endcap.stores.database import Database
from endcap.stores.events import EventLog, event_of, events
from endcap.stores.rankings import Rankings, Served, rankings

if TYPE_CHECKING:
    import pyarrow

_Made = TypeVar("_Made")
Kind = Literal["events", "rankings"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Rows read, and written as a row group, at once. A ranking with features is a hundred times an event.
_PAGE = {"events": 20_000, "rankings": 1_000}
#: Called with rows done, rows in all, and the day.
Progress = Callable[[int, int, date], None]


@dataclass(slots=True)
class Exported:
    """``files`` written, with their ``rows``; ``kept``: days whose file was there already, and whole."""

    files: int = 0
    rows: int = 0
    kept: int = 0


def export(
    database: Database,
    kind: Kind,
    folder: Path,
    begin: date | None = None,
    end: date | None = None,
    today: date | None = None,
    progress: Progress = lambda done, total, day: None,
) -> Exported:
    """Write ``folder/KIND-YYYY-MM-DD.parquet`` for each day from ``begin`` to ``end``, both included.

    Days without a row get no file. ``today`` and what follows is always written anew: it is not over. So is a day of
    which the log holds more rows than its file: that was written before the day's end, or events came late. One of
    which it holds fewer is left alone: retention has deleted them.

    Raises:
        ConfigurationError: pyarrow is not installed.
        LogUnavailable: the database cannot be read.
    """
    pyarrow, parquet = _pyarrow()
    table = events if kind == "events" else rankings
    with database.transaction(read_only=True) as connection:
        first, last = connection.execute(select(func.min(table.c.time), func.max(table.c.time))).one()
    made = Exported()
    if first is None:
        return made
    begin, end = max(begin or _day(first), _day(first)), min(end or _day(last), _day(last))
    today = today or datetime.now(timezone.utc).date()
    during = (table.c.time >= _start(begin), table.c.time < _start(end + timedelta(days=1)))
    with database.transaction(read_only=True) as connection:
        total = int(connection.execute(select(func.count()).where(*during)).scalar() or 0)
    folder.mkdir(parents=True, exist_ok=True)
    schema, done = _schema(pyarrow, kind), 0
    for number in range((end - begin).days + 1):
        day = begin + timedelta(days=number)
        file = folder / f"{kind}-{day.isoformat()}.parquet"
        if day < today and (held := _rows_in(parquet, file)) is not None:
            during = (table.c.time >= _start(day), table.c.time < _start(day + timedelta(days=1)))
            with database.transaction(read_only=True) as connection:
                there = int(connection.execute(select(func.count()).where(*during)).scalar() or 0)
            if there <= held:
                made.kept += 1
                done += held
                progress(done, max(done, total), day)
                continue
        pages, rows = _pages(database, kind, day), 0
        first = next(pages, None)
        if first is None:  # nothing happened that day
            continue
        with replacing(file, durable=True) as part, parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            for page in chain((first,), pages):
                writer.write_table(pyarrow.Table.from_pylist(page, schema=schema))
                rows += len(page)
                done += len(page)
                progress(done, max(done, total), day)
        made.files += 1
        made.rows += rows
    return made


def restore(
    database: Database, folder: Path, progress: Progress = lambda done, total, day: None
) -> dict[Kind, dict[str, int]]:
    """Read every file of :func:`export` in the folder back. What is there already stays as it is.

    Returns:
        By kind, how many were ``new`` and how many ``known``.

    Raises:
        ConfigurationError: pyarrow is not installed.
        InvalidInput: the folder has no such file, or a file is none.
        LogUnavailable: the database failed; call again for the rest.
    """
    _, parquet = _pyarrow()
    files = [(kind, file) for kind in KINDS for file in sorted(folder.glob(f"{kind}-*.parquet"))]
    if not files:
        raise InvalidInput(f"{folder} holds no file such as events-2026-01-31.parquet, as `endcap export` writes them")
    log = EventLog(database)
    aliases, served = Aliases(database, log), Rankings(database)
    counts = {kind: {"new": 0, "known": 0} for kind in KINDS}
    days: list[date] = []
    total, done = 0, 0
    for kind, file in files:  # all of them are looked at before the first row is stored
        rows_there = _rows_in(parquet, file)
        if rows_there is None:
            raise InvalidInput(f"{file} cannot be read: it is damaged, or no Parquet file")
        try:
            days.append(date.fromisoformat(file.stem.removeprefix(f"{kind}-")))
        except ValueError:
            raise InvalidInput(f"{file.name} is no file of `endcap export`") from None
        total += rows_there
    for (kind, file), day in zip(files, days, strict=True):
        for rows in _batches(parquet, file, _PAGE[kind]):
            if kind == "events":
                new = _restore_events(log, aliases, _made(_event, rows, file))
            else:
                new = served.append(_made(_ranking, rows, file))
            counts[kind]["new"] += new
            counts[kind]["known"] += len(rows) - new
            done += len(rows)
            progress(done, total, day)
    return counts


def _batches(parquet: Any, file: Path, size: int) -> Iterator[list[dict[str, Any]]]:
    """A file's rows in pieces; it is open only while it is read: years are more files than a process may have open."""
    try:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(size):
                yield batch.to_pylist()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file} is damaged, what stood before the damage was restored: {error}") from None


def _made(make: Callable[[dict[str, Any]], _Made], rows: Sequence[dict[str, Any]], file: Path) -> list[_Made]:
    try:
        return [make(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{file} holds what this Endcap cannot read, a newer one's?: {error!r}") from None


def _restore_events(log: EventLog, aliases: Aliases, batch: Sequence[Event]) -> int:
    new = sum(log.append([one for one in batch if one.action is not Action.LOGIN]))
    for one in batch:
        if one.action is Action.LOGIN:
            try:
                new += aliases.attach(str(one.attributes.get("anonymous_id", "")), one.shopper, one.time, one)
            except AliasRefused:  # somebody else logged in with it since
                continue
    return new


def _pages(database: Database, kind: Kind, day: date) -> Iterator[list[dict[str, Any]]]:
    table = events if kind == "events" else rankings
    served = Rankings(database)
    time, sequence, until = _start(day), 0, _start(day + timedelta(days=1))
    while True:
        # By time alone, since all of a page may have happened at once.
        later = or_(table.c.time > time, table.c.sequence > sequence)
        chosen = select(table).where(table.c.time >= time, table.c.time < until, later)
        chosen = chosen.order_by(table.c.time, table.c.sequence)
        if kind == "events":
            with database.transaction(read_only=True) as connection:
                rows = connection.execute(chosen.limit(_PAGE[kind])).all()
            page = [_event_row(event_of(row._mapping)) for row in rows]
            last = (rows[-1].time, rows[-1].sequence) if rows else (0.0, 0)
        else:
            found = served.read(chosen, _PAGE[kind])
            page = [_ranking_row(one) for one in found]
            last = (found[-1].time, found[-1].sequence) if found else (0.0, 0)
        if not page:
            return
        yield page
        time, sequence = last


def _rows_in(parquet: Any, file: Path) -> int | None:
    """Rows of a file; None where it is not there, or damaged."""
    try:
        return int(parquet.read_metadata(file).num_rows)
    except (OSError, ValueError):
        return None


def _event_row(one: Event) -> dict[str, Any]:
    return {
        "id": one.id, "time": one.time, "shopper": one.shopper, "action": one.action.name.lower(),
        "product": one.product, "session": one.session, "query_id": one.query_id, "query": one.query,
        "position": one.position, "quantity": one.quantity, "value": one.value,
        "attributes": orjson.dumps(dict(one.attributes)).decode() if one.attributes else None,
    }  # fmt: skip


def _event(row: dict[str, Any]) -> Event:
    attributes = orjson.loads(row["attributes"]) if row["attributes"] else {}
    return Event(**{**row, "action": Action[row["action"].upper()], "attributes": attributes})


_RANKING_PLAIN = (
    "id", "time", "shopper", "session", "query", "endpoint", "index", "start", "candidates", "personalized", "scorer",
    "degraded", "arm", "propensity",
)  # fmt: skip


def _ranking_row(one: Served) -> dict[str, Any]:
    return {
        **{name: getattr(one, name) for name in _RANKING_PLAIN},
        "products": list(one.products),
        "engine_positions": list(one.engine_positions),
        "context": orjson.dumps(dict(one.context)).decode() if one.context else None,
        "scores": None if one.scores is None else one.scores.tolist(),
        "features": None if one.features is None else one.features.astype(np.float32).tolist(),
        "feature_names": None if one.features is None else list(one.feature_names),
    }


def _ranking(row: dict[str, Any]) -> Served:
    scores, features = row["scores"], row["features"]
    return Served(
        **{name: row[name] for name in _RANKING_PLAIN},
        products=tuple(row["products"]),
        engine_positions=tuple(row["engine_positions"]),
        context=orjson.loads(row["context"]) if row["context"] else {},
        scores=None if scores is None else np.array(scores, dtype=np.float32),
        features=None if features is None else np.array(features, dtype=np.float16),
        feature_names=tuple(row["feature_names"] or ()),
    )


def _schema(arrow: Any, kind: Kind) -> pyarrow.Schema:
    text, number = arrow.string(), arrow.float32()
    if kind == "events":
        types = dict.fromkeys(
            ("id", "shopper", "action", "product", "session", "query_id", "query", "attributes"), text
        )
        types |= {"time": arrow.float64(), "position": arrow.int32()}
        types |= {"quantity": arrow.float64(), "value": arrow.float64()}
    else:
        types = dict.fromkeys(
            ("id", "shopper", "session", "query", "endpoint", "index", "scorer", "degraded", "arm", "context"), text
        )
        types |= {"time": arrow.float64(), "propensity": arrow.float64(), "personalized": arrow.bool_()}
        types |= {"start": arrow.int32(), "candidates": arrow.int32(), "scores": arrow.list_(number)}
        types |= {"products": arrow.list_(text), "engine_positions": arrow.list_(arrow.int32())}
        types |= {"features": arrow.list_(arrow.list_(number)), "feature_names": arrow.list_(text)}
    return arrow.schema(list(types.items()))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigurationError("Parquet needs pyarrow: pip install 'endcap[parquet]'") from error
    return pyarrow, parquet


def _day(time: float) -> date:
    return datetime.fromtimestamp(time, timezone.utc).date()


def _start(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp()

"""The tables of runs and of what the schedule has fired, and a run as it stands there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import ValidationError
from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table, Text

from endcap.errors import EndcapError, InvalidInput
from endcap.jobs import Job
from endcap.stores.database import metadata

runs = Table(
    "runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("job", String, nullable=False),
    Column("queue", String, nullable=False),
    Column("alone", Boolean, nullable=False),
    Column("parameters", Text, nullable=False, default="{}"),
    Column("by", String, nullable=False, default=""),
    Column("state", String, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("submitted", Float, nullable=False),
    Column("due", Float, nullable=False),
    Column("sent", Float, nullable=False, default=0.0),
    Column("started", Float, nullable=True),
    Column("finished", Float, nullable=True),
    Column("owner", String, nullable=False, default=""),
    Column("heartbeat", Float, nullable=False, default=0.0),
    Column("cancelling", Boolean, nullable=False, default=False),
    Column("phase", String, nullable=False, default=""),
    Column("done", Float, nullable=False, default=0.0),
    Column("total", Float, nullable=False, default=0.0),
    Column("result", Text, nullable=True),
    Column("error", Text, nullable=False, default=""),
    Column("log", Text, nullable=False, default=""),
    Index("runs_by_state", "state", "due"),
    Index("runs_by_job", "job", "submitted"),
)

#: When each scheduled job was fired last: the row that makes one of many processes fire it.
firings = Table(
    "job_firings",
    metadata,
    Column("job", String, primary_key=True),
    Column("last", Float, nullable=False),
)

#: Seconds before a failed run is tried again, doubled with every attempt, and the most.
_BACK_OFF_S, _MOST_BACK_OFF_S = 10.0, 600.0
LOG_BYTES = 16_000
RESULT_BYTES = 1_000_000


#: Where a run is. ``skipped``: there was too little to go on, as the result's ``reason`` says; nothing was changed.
State = Literal["queued", "running", "done", "skipped", "failed", "cancelled"]
QUEUED: State = "queued"
RUNNING: State = "running"
DONE: State = "done"
SKIPPED: State = "skipped"
FAILED: State = "failed"
CANCELLED: State = "cancelled"
STATES: tuple[State, ...] = (QUEUED, RUNNING, DONE, SKIPPED, FAILED, CANCELLED)
ENDED: tuple[State, ...] = (DONE, SKIPPED, FAILED, CANCELLED)


class UnknownRun(EndcapError):
    """There is no run with this id: never was, or it has left the history."""

    status = 404
    kind = "unknown_run"


class RunConflict(EndcapError):
    """The run is not in a state in which this can be done."""

    status = 409
    kind = "run_conflict"


class RunLost(EndcapError):
    """The run belongs to someone else by now: whoever is told so stops at once and writes nothing more."""

    status = 409
    kind = "run_lost"


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Times are seconds since 1970 (UTC), 0 where it has not come to that; ``done`` of ``total`` in the
    job's own unit. ``attempt`` counts from 1 once it has begun. ``due``: it is not begun before."""

    id: str
    job: str
    queue: str
    alone: bool
    parameters: Mapping[str, Any]
    by: str
    state: State
    attempt: int
    submitted: float
    due: float
    started: float
    finished: float
    owner: str
    heartbeat: float
    cancelling: bool
    phase: str
    done: float
    total: float
    result: Mapping[str, Any] | None
    error: str
    log: str

    @property
    def reason(self) -> str:
        """Why it was skipped; empty for any other."""
        return str((self.result or {}).get("reason", "")) if self.state == SKIPPED else ""


def back_off(attempt: int) -> float:
    """Seconds to wait after the attempt of this number (from 1)."""
    return float(min(_BACK_OFF_S * 2 ** max(0, attempt - 1), _MOST_BACK_OFF_S))


def checked_parameters(job: Job, parameters: Mapping[str, Any]) -> str:
    """Parameters as they are stored, with the defaults of the job's own model filled in.

    Raises:
        InvalidInput: naming what is wrong with them.
    """
    values: Mapping[str, Any] = parameters
    if job.takes is not None:
        try:
            values = job.takes.model_validate(dict(parameters)).model_dump(mode="json")
        except ValidationError as error:
            problems = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise InvalidInput(f"parameters of {job.name}: {'; '.join(problems)}") from None
    return as_json(values, f"parameters of {job.name}", 100_000)


def as_json(values: Mapping[str, Any], what: str, limit: int) -> str:
    """Plain JSON of at most ``limit`` bytes. Raises InvalidInput, which says ``what`` is none."""
    try:
        text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what}: not plain JSON: {error}") from None
    if len(text) > limit:
        raise InvalidInput(f"{what}: {len(text)} bytes of JSON; at most {limit}")
    return text


def clean(values: dict[str, Any]) -> dict[str, Any]:
    """What jobs say, without what databases do not store: PostgreSQL no NUL, neither of them half a character."""
    return {
        name: value.replace("\x00", "").encode(errors="replace").decode() if isinstance(value, str) else value
        for name, value in values.items()
    }


def run_of(row: Any) -> Run:
    """A row as a run."""
    values = {name: row._mapping[name] for name in Run.__slots__}
    values |= {
        "parameters": orjson.loads(row.parameters),
        "result": orjson.loads(row.result) if row.result else None,
        "started": row.started or 0.0,
        "finished": row.finished or 0.0,
    }
    return Run(**values)

"""What a flag is: its tables, its states, what a detector says. :mod:`endcap.stores.flags` keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from endcap.errors import EndcapError
from endcap.stores.database import NUMBER, metadata

#: What can be flagged. Only a shopper's flag leaves behaviour out; the others are for people to look at.
KINDS = ("shopper", "device", "product", "seller")
SUSPECTED, CONFIRMED, DISMISSED, LAPSED = STATES = ("suspected", "confirmed", "dismissed", "lapsed")
EXCLUDING = (SUSPECTED, CONFIRMED)


flags = Table(
    "flags",
    metadata,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("state", String, nullable=False),
    Column("score", Float, nullable=False),
    Column("source", String, nullable=False),
    Column("reasons", LargeBinary, nullable=False),
    Column("evidence", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    UniqueConstraint("kind", "subject", name="flags_subject"),
    Index("flags_by_state", "state", "kind", "score"),
)

#: Every change of a state, never altered: its newest number is the version of all that is left out.
flag_changes = Table(
    "flag_changes",
    metadata,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("flag", NUMBER, ForeignKey("flags.id"), nullable=False),
    Column("time", Float, nullable=False),
    Column("by", String, nullable=False),
    Column("before", String, nullable=False),
    Column("after", String, nullable=False),
    Column("note", String, nullable=False),
    Column("decision", Boolean, nullable=False),
    Column("undoes", NUMBER, nullable=True),
    Index("flag_changes_by_flag", "flag", "id"),
)


class UnknownFlag(EndcapError):
    """There is no flag of that number or subject."""

    status = 404
    kind = "unknown_flag"


class FlagConflict(EndcapError):
    """The flag is not in a state that allows this."""

    status = 409
    kind = "flag_conflict"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a detector found. ``score`` is from 0 to 1, a probability where the detector is calibrated; ``reasons`` are
    sentences for people; ``evidence`` is plain JSON to drill down by."""

    kind: str
    subject: str
    score: float
    reasons: Sequence[str]
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag as it stands. ``created`` and ``updated`` are in seconds since 1970."""

    id: int
    kind: str
    subject: str
    state: str
    score: float
    source: str
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]
    created: float
    updated: float


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a flag's state; ``before`` is empty for its first. ``decision``: a person's, not a detector's;
    ``undoes``: the number of the decision that it took back."""

    id: int
    time: float
    by: str
    before: str
    after: str
    note: str
    decision: bool
    undoes: int | None

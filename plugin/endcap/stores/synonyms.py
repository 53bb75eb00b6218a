"""Synonyms that the shop keeps in the database, shared by all servers; a file of them may stand beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Float, String, Table, select

from endcap.errors import EndcapError, InvalidInput
from endcap.stores.database import NUMBER, metadata
from endcap.stores.numbered import NumberedStore
from endcap.synonyms import MOST_RULES, parse_rule

synonyms = Table(
    "synonyms",
    metadata,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("rule", String, nullable=False),  # as in a file of Solr's: "tv, television" or "telly => tv"
    Column("created", Float, nullable=False),
    Column("by", String, nullable=False, default=""),
    sqlite_autoincrement=True,  # a number of a rule that was removed is never given again
)


class UnknownSynonym(EndcapError):
    """There is no synonym rule of that number."""

    status = 404
    kind = "unknown_synonym"


@dataclass(frozen=True, slots=True)
class StoredSynonym:
    """A rule as stored; ``created`` is in seconds since 1970."""

    id: int
    rule: str
    created: float
    by: str


class SynonymStore(NumberedStore[StoredSynonym]):
    """See :class:`~endcap.stores.numbered.NumberedStore`."""

    table = synonyms
    noun = "synonym rule"
    unknown = UnknownSynonym
    most = MOST_RULES

    def add(self, rule: str, by: str = "") -> StoredSynonym:
        """Store a rule; in force on every server about a second later.

        Raises:
            InvalidInput: it is none, it is there already, or there are too many.
        """
        return self._add({"rule": parse_rule(rule).written}, by)

    def _check(self, connection: Connection, values: Mapping[str, Any]) -> None:
        same = connection.execute(select(synonyms.c.id).where(synonyms.c.rule == values["rule"])).scalar()
        if same is not None:
            raise InvalidInput(f"rule {same} says the same: {values['rule']}")

    def _read(self, row: Mapping[Any, Any]) -> StoredSynonym:
        return StoredSynonym(int(row["id"]), row["rule"], row["created"], row["by"])

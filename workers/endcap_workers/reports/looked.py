"""When fraud was last looked for, and at how much: without that, a report with nothing flagged says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from endcap.profiles import DAY_S
from endcap.stores.database import Database
from endcap.stores.runs import DONE, Runs
from endcap_workers.reports.model import Tile
from endcap_workers.tasks.fraud import JOB

#: It is looked for every night: what is older has been missed.
_STALE_S = 2 * DAY_S
_HOW = f"endcap run {JOB.name} --wait, or “{JOB.title}” on the console's page Jobs"


@dataclass(frozen=True, slots=True)
class Looked:
    """The latest look at all behaviour that came to its end, as of a report's ``now`` (seconds since 1970).

    ``when``: its end, in seconds since 1970; 0 where none is known. ``suspected``: kind (shopper, device, …) -> how
    many it suspected.
    """

    now: float
    when: float = 0.0
    actions: int = 0
    shoppers: int = 0
    suspected: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def last(cls, database: Database, now: float) -> Looked:
        """From the runs of the job. Raises LogUnavailable."""
        for run in Runs(database).list(job=JOB.name, state=DONE, limit=1):
            told = run.result or {}
            seen = int(told.get("actions", 0)), int(told.get("shoppers", 0))
            return cls(now, run.finished or run.started or run.submitted, *seen, told.get("suspected") or {})
        return cls(now)

    @property
    def stale(self) -> bool:
        """Whether it was too long ago to speak of now, or never."""
        return self.now - self.when > _STALE_S

    def line(self, zone: ZoneInfo) -> str:
        """For the top of the report."""
        if not self.when:
            return "nobody has looked for fraud yet"
        found = " and ".join(_so_many(count, kind) for kind, count in self.suspected.items())
        when = datetime.fromtimestamp(self.when, zone)
        said = f"{found} suspected" if found else "nothing found"
        return f"fraud was last looked for on {when:%d %B %Y, %H:%M}: looked at {self._seen}, {said}"

    def tile(self, zone: ZoneInfo) -> Tile:
        """The first figure."""
        if not self.when:
            return Tile("Last look for fraud", "never", f"the job {JOB.name} does it", "bad")
        when = datetime.fromtimestamp(self.when, zone)
        return Tile("Last look for fraud", f"{when:%d %b}", f"{when:%H:%M}, {self._seen}", "warn" if self.stale else "")

    def notes(self, since: int) -> list[str]:
        """What is to be done, where something is. ``since``: actions that have come after the look."""
        if not self.when:
            return [f"Nobody has looked for fraud here yet: that nothing is flagged would mean nothing. Look: {_HOW}."]
        if not self.stale:
            return []
        ago, come = _so_many(round((self.now - self.when) / DAY_S), "day"), _so_many(since, "action")
        return [f"The last look for fraud was {ago} ago; {come} came since. Look anew: {_HOW}."]

    def nothing(self, kind: str) -> str:
        """What stands over an empty table; empty where the look did find some."""
        if not self.when:
            return "Nobody has looked for fraud yet."
        return "" if self.suspected.get(kind) else f"Looked at {_so_many(self.shoppers, 'shopper')}, nothing found."

    @property
    def _seen(self) -> str:
        return f"{_so_many(self.actions, 'action')} of {_so_many(self.shoppers, 'shopper')}"


def _so_many(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"

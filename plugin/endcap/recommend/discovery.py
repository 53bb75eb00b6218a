"""Keeps what recommendations and suggestions are made of: follows the event log and rearranges the products.

``turn`` is called again and again by a background thread; requests only read the snapshots that it leaves.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from endcap.compounds import Compounds
from endcap.personalizer import Personalizer
from endcap.popularity import Popularity
from endcap.recommend.behaviour import Behaviour
from endcap.recommend.shelves import Shelves
from endcap.stores.events import EventLog, kept
from endcap.suggest import QueryCounts, Suggester

log = logging.getLogger(__name__)

FILE = "behaviour.npz"
#: Seconds between two turns.
INTERVAL_S = 0.5
#: Batches of the log read in one turn, so that a process can stop while it catches up.
_BATCHES = 5
#: Seconds after which the snapshots are made anew where events have come in. Making them takes a second of one core,
#: which searches feel: what is popular or bought together does not change by the minute.
FRESH_S = 120.0
#: Refreshing and merging take at most this share of the time.
_MOST_WORK = 0.05
#: New events after which a snapshot is worth its writing, and seconds between two.
_SNAPSHOT_EVENTS = 50_000
_SNAPSHOT_S = 300.0


class Discovery:
    """``shelves`` and ``suggester`` are immutable snapshots, None until the products are loaded."""

    def __init__(
        self,
        events: EventLog,
        popularity: Popularity,
        personalizer: Personalizer,
        folder: Path | None = None,
        clock: Callable[[], float] = time.time,
        excluded: Callable[[], frozenset[str]] = frozenset,
        owners: Callable[[Collection[str]], Mapping[str, str]] = lambda ids: {},
        erasures: Callable[[], int] = lambda: 0,
        split_compounds: bool = False,
    ) -> None:
        """``folder``: where a snapshot of the behaviour is kept; None: nowhere. ``excluded``: whose behaviour counts
        for nothing now. What is known is learned anew from the whole log, beside the old, when that changes.
        ``owners``: of anonymous ids, whose they turned out to be; asked as events are read. ``erasures``: changes when
        a shopper was erased; then, too, everything is learned anew, since it is kept by a key made of his id.
        ``split_compounds``: learn ``compounds`` from the titles."""
        self.behaviour = Behaviour()
        self.queries = QueryCounts()
        self.shelves: Shelves | None = None
        self.suggester: Suggester | None = None
        self.compounds = Compounds()
        self._split_compounds = split_compounds
        self.caught_up = False
        self._log = events
        self._lock = threading.RLock()
        self._popularity = popularity
        self._personalizer = personalizer
        self._file = folder / FILE if folder is not None else None
        self._clock = clock
        self._excluded = excluded
        self._owners, self._erasures = owners, erasures
        self._anew: tuple[Behaviour, QueryCounts] | None = None
        self._anew_since = self._anew_from = 0.0
        self._started = False
        self._rest_until = 0.0
        self._shown = 0
        self._saved = (0, time.monotonic())

    @classmethod
    def of(cls, shelves: Shelves) -> Discovery:
        """One that follows nothing: for judging a recommender on what was known at one moment."""
        still = cls.__new__(cls)
        still.shelves, still.suggester, still.caught_up = shelves, None, True
        return still

    def turn(self) -> float:
        """Go on catching up with the log, and with the products. Gives the seconds until the next turn is worth while.

        Raises:
            LogUnavailable: the log cannot be read now.
        """
        with self._lock:
            self._restore()
            late = not self.caught_up
            if self._read_on(self.behaviour, self.queries):
                self.caught_up = True
            renewed = self._renew()
            self._refresh((late and self.caught_up) or renewed)
            self._snapshot()
        return INTERVAL_S

    def _read_on(self, behaviour: Behaviour, queries: QueryCounts) -> bool:
        """Take in some batches of the log; True when there are no more."""
        for _ in range(_BATCHES):
            found = self._log.lines_since(behaviour.sequence)
            if not len(found.columns):
                return True
            last = int(found.columns.sequence[-1])
            rows = kept(found.columns.shoppers, behaviour.left_out)
            one, chosen = found.columns.at(rows), rows.tolist()
            sessions = [found.sessions[row] for row in chosen]
            owners = self._owners(set(one.shoppers))
            shoppers = [owners.get(shopper, shopper) for shopper in one.shoppers] if owners else one.shoppers
            behaviour.add(one.keys, one.times, one.actions, shoppers, sessions, last)
            queries.add([found.queries[row] for row in chosen], one.times, one.actions, shoppers)
        return False

    def _renew(self) -> bool:
        """Learn anew where other shoppers are left out than were, or one was erased; True when that is done. What is
        bounded cannot be subtracted from: a pair that was given up for another would be missed."""
        if self._anew is None:
            if not self.caught_up or time.monotonic() < self._anew_from:
                return False
            excluded, erased = self._excluded(), self._erasures()
            if (excluded, erased) == (self.behaviour.left_out, self.behaviour.erased):
                return False
            self._anew_since = time.monotonic()
            self._anew = (Behaviour(), QueryCounts())
            self._anew[0].left_out, self._anew[0].erased = excluded, erased
        if not self._read_on(*self._anew):
            return False
        self.behaviour, self.queries = self._anew
        # The snapshot on disk still has what was left out now: it is replaced at once.
        self._anew, self._saved = None, (-_SNAPSHOT_EVENTS, -math.inf)
        self._anew_from = time.monotonic() + (time.monotonic() - self._anew_since) / _MOST_WORK
        log.info("behaviour learned anew without %d flagged shoppers and what was erased", len(self.behaviour.left_out))
        return True

    def refresh(self) -> None:
        """Make the snapshots anew from what is known now; for those who cannot wait for the next turn."""
        with self._lock:
            table = self._personalizer.table
            if table is None:
                return
            now = self._clock()
            self.behaviour.merge()
            if self._split_compounds and (self.shelves is None or self.shelves.table is not table):
                self.compounds = Compounds(table.titles)
            shelves = Shelves(table, self._popularity, self.behaviour, now)
            old = self.suggester
            self.suggester = Suggester.over(shelves, self.queries.best(now), old)
            self.shelves = shelves
            self._shown = self.behaviour.sequence

    def _refresh(self, now: bool) -> None:
        shelves, started = self.shelves, time.monotonic()
        if self._personalizer.table is None:
            return
        changed = shelves is None or shelves.table is not self._personalizer.table
        moved = self.behaviour.sequence != self._shown
        stale = shelves is not None and moved and self._clock() - shelves.made > FRESH_S
        if changed or now or (stale and started > self._rest_until):
            self.refresh()
            self._rest_until = started + (time.monotonic() - started) / _MOST_WORK

    def _restore(self) -> None:
        if self._started:
            return
        if self._file is not None:
            queries = self.behaviour.restore(self._file, self._log.last_sequence())
            if queries is not None:
                self.queries.restore(queries)
                self._saved = (self.behaviour.sequence, time.monotonic())
                log.info("behaviour restored up to event %d", self.behaviour.sequence)
        if not self.behaviour.sequence:
            self.behaviour.left_out, self.behaviour.erased = self._excluded(), self._erasures()
        self._started = True

    def _snapshot(self) -> None:
        sequence, at = self._saved
        if self._file is None or self.behaviour.sequence - sequence < _SNAPSHOT_EVENTS:
            return
        if time.monotonic() - at < _SNAPSHOT_S and sequence:
            return
        try:
            self.behaviour.save(self._file, self.queries.to_bytes())
        except OSError as error:
            log.warning("the behaviour snapshot could not be written: %s", error)
        self._saved = (self.behaviour.sequence, time.monotonic())

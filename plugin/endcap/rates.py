"""A light check of events as they come in: who sends more of them than a person can. It flags, and refuses nothing."""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence

from endcap.events import Event
from endcap.stores.flags import Flags, Suspicion

log = logging.getLogger(__name__)

#: Seconds between two writes of new flags.
INTERVAL_S = 2.0
_MINUTE_S = 60.0
#: Only what is dated now tells a rate: a history that is sent later was done in its own time.
_FRESH_S = 600.0
_ROWS, _BITS = 4, 16
#: Suspicions that wait to be written; more in two seconds are found by the nightly job.
_WAITING = 10_000


class RateWatch:
    """Counts events per shopper and minute in a count-min sketch (Cormode and Muthukrishnan, 2005): a megabyte,
    whatever ids are made up. Counts may be too high by some 1/65,536 of a minute's events, never too low.

    Each server process watches what it takes in. Thread-safe.
    """

    def __init__(self, flags: Flags, per_minute: int, clock: Callable[[], float] = time.time) -> None:
        """``per_minute``: 0 watches nobody."""
        self._flags, self._most, self._clock = flags, per_minute, clock
        self._lock = threading.Lock()
        self._minute = -1
        self._cells = array("L")
        self._waiting: dict[str, int] = {}

    def seen(self, events: Sequence[Event]) -> None:
        """Count events that were just stored. Takes microseconds; never raises."""
        if not self._most:
            return
        now = self._clock()
        counts = Counter(event.shopper for event in events if now - event.time < _FRESH_S)
        with self._lock:
            minute = int(now // _MINUTE_S)
            if minute != self._minute:
                self._minute, self._cells = minute, array("L", bytes(_ROWS * 8 << _BITS))
            for shopper, count in counts.items():
                places = _places(shopper)
                # Conservative update: only the smallest cells grow.
                total = min(self._cells[place] for place in places) + count
                for place in places:
                    self._cells[place] = max(self._cells[place], total)
                if total > self._most and len(self._waiting) < _WAITING:
                    self._waiting[shopper] = max(total, self._waiting.get(shopper, 0))

    def turn(self) -> float:
        """Flag those found since the last turn.

        Raises:
            LogUnavailable: they are kept for the next turn.
        """
        with self._lock:
            waiting = dict(self._waiting)
        if waiting:
            found = [
                Suspicion(
                    "shopper",
                    shopper,
                    1.0 - 0.1 * self._most / count,
                    [f"{count:,} events within a minute; more than {self._most:,} are no person's"],
                    {"events in a minute": count},
                )
                for shopper, count in waiting.items()
            ]
            new = self._flags.suspect(found, "ingest")
            if new:
                log.warning("%d shoppers flagged for their rate of events", new)
            with self._lock:
                for shopper in waiting:
                    self._waiting.pop(shopper, None)
        return INTERVAL_S


def _places(shopper: str) -> list[int]:
    number = hash(shopper)  # keyed anew by every process: nobody can choose ids that collide
    mask = (1 << _BITS) - 1
    return [(row << _BITS) + ((number >> (_BITS * row)) & mask) for row in range(_ROWS)]

"""Which stretch of the log trains, which validates, which judges: by time, so that nothing teaches what came before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from endcap.errors import TooLittle
from endcap.events import Action
from endcap.profiles import DAY_S
from endcap.stores.events import EventLog
from endcap_workers.training.cases import TEST, TRAIN, VALID

#: Fewer wanted products than this teach nothing.
FEWEST_EVENTS = 50
#: So many purchases are enough to learn from them alone; else carts and clicks count, too.
ENOUGH_PURCHASES = 2_000
#: Share of the time that trains.
_TRAINS = 0.8
_ALL_WANTED = (Action.CLICK, Action.CART, Action.PURCHASE)


@dataclass(frozen=True, slots=True)
class Plan:
    """Moments in seconds since 1970: cases begin at ``start``; from ``valid`` on they validate, from ``test`` on they
    judge; the log ends before ``end``. ``renewals``: when the affinity is learned anew. ``wanted``: the actions that
    say what a shopper wanted. ``expected``: how many of them lie between ``start`` and ``end``, roughly."""

    start: float
    valid: float
    test: float
    end: float
    renewals: tuple[float, ...]
    wanted: tuple[int, ...]
    expected: int

    def part(self, moment: float) -> int:
        """Which part a moment belongs to; -1 before the first case."""
        if moment < self.start:
            return -1
        return TRAIN if moment < self.valid else VALID if moment < self.test else TEST

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(self).items()}

    def window(self) -> dict[str, Any]:
        """For people and for a bundle: dates, and which actions counted as wanted."""
        dates = {name: _date(getattr(self, name)) for name in ("start", "valid", "test", "end")}
        return {**dates, "wanted": [Action(one).name.lower() for one in self.wanted]}


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="seconds")


def make_plan(log: EventLog, days: float = 120.0, blocks: int = 3, seen: float = 0.0) -> Plan:
    """The cases of the latest ``days``: four fifths train, a tenth validates, the last tenth judges.

    What lies before the first case is read, too: it makes the profiles. A log that is shorter keeps its first quarter
    for that.

    Args:
        blocks: how often the affinity is learned anew while training cases are made.
        seen: what is gone on from was trained until then: nothing before it validates or judges, however many days.

    Raises:
        TooLittle: there is too little to learn from.
        LogUnavailable: the log cannot be read.
    """
    purchases, first, last = log.extent([Action.PURCHASE])
    wanted: Sequence[Action] = (Action.PURCHASE,)
    if purchases < ENOUGH_PURCHASES:
        wanted = _ALL_WANTED
        purchases, first, last = log.extent(wanted)
    if purchases < FEWEST_EVENTS:
        raise TooLittle(
            f"the log holds {purchases} clicks, carts and purchases; {FEWEST_EVENTS} are the least to train on. Send "
            "events to /v1/events, or replay past ones"
        )
    end = last + 1.0
    span = end - first
    if span < 60.0:
        raise TooLittle("all events lie within one minute: there is no earlier and later to learn from")
    start = max(end - days * DAY_S, first + 0.25 * span, end - (end - seen) / (1.0 - _TRAINS))
    length = end - start
    if length <= 0.0:
        raise TooLittle("the log holds nothing later than what the model was trained on that is to be gone on from")
    valid, test = start + _TRAINS * length, start + 0.9 * length
    renewals = (*(start + number * (valid - start) / blocks for number in range(blocks)), valid, test)
    return Plan(start, valid, test, end, renewals, tuple(map(int, wanted)), max(1, int(purchases * length / span)))

"""What a policy may look at when it chooses how to rank: a few facts of a search, each in a handful of steps.

Few steps on purpose: what is learnt about one of them has to come from thousands of rankings, and the table that
serves them has to fit into a sheet of JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from endcap.errors import InvalidInput
from endcap.features import INDEX, RankingInputs

#: Field of a context -> its values, in the order of their columns.
STEPS: Mapping[str, tuple[str, ...]] = {
    "query": ("browse", "word", "phrase", "sentence", "code"),  # nothing typed; 1, 2, 3 and more words; a number in it
    "history": ("none", "few", "some", "many", "most"),  # products remembered: 0, < 5, < 20, < 100, more
    "known": ("none", "few", "many"),  # candidates that the shopper knows: 0, < 5 %, more
    "depth": ("start", "early", "deep"),  # his actions in the last half an hour: 0, < 5, more
    "hour": ("night", "morning", "afternoon", "evening"),  # 0-6, 6-12, 12-18, 18-24 h UTC
    "device": ("unknown", "phone", "tablet", "desktop"),
}
#: The columns of :meth:`Context.vector`: a constant, then one for each step.
COLUMNS = ("constant", *(f"{name}={step}" for name, steps in STEPS.items() for step in steps))
_COLUMN = {name: number for number, name in enumerate(COLUMNS)}
_SESSION_S = 1_800.0
_PHONE = re.compile(r"mobile|iphone|ipod|phone", re.IGNORECASE)
_TABLET = re.compile(r"ipad|tablet|kindle|silk", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Visit:
    """What the request says about the shopper's situation.

    ``device``: a step of ``STEPS["device"]``, empty: unknown. ``segment``: the shop's own name for a group of shoppers.
    ``session``: the storefront's session id. ``internal``: staff and tests, whose behaviour teaches nothing.
    """

    device: str = ""
    segment: str = ""
    session: str = ""
    internal: bool = False


NO_VISIT = Visit()


@dataclass(frozen=True, slots=True)
class Context:
    """The state that a policy sees; every field is one of its :data:`STEPS`."""

    query: str = "browse"
    history: str = "none"
    known: str = "none"
    depth: str = "start"
    hour: str = "night"
    device: str = "unknown"

    def columns(self) -> list[int]:
        """Indices of the columns that are 1 in :meth:`vector`."""
        return [
            0,
            _COLUMN[f"query={self.query}"],
            _COLUMN[f"history={self.history}"],
            _COLUMN[f"known={self.known}"],
            _COLUMN[f"depth={self.depth}"],
            _COLUMN[f"hour={self.hour}"],
            _COLUMN[f"device={self.device}"],
        ]

    def vector(self) -> np.ndarray:
        """float64 (len(COLUMNS),), zeros and ones."""
        row = np.zeros(len(COLUMNS))
        row[self.columns()] = 1.0
        return row

    def as_json(self) -> dict[str, str]:
        """What the rankings log stores."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Context:
        """Back from :meth:`as_json`; keys that are no field are ignored.

        Raises:
            InvalidInput: a field is missing or has a value that is no step.
        """
        for name, steps in STEPS.items():
            if stored.get(name) not in steps:
                raise InvalidInput(f"context: {name} must be one of {', '.join(steps)}, not {stored.get(name)!r}")
        return cls(**{name: stored[name] for name in STEPS})


def vectors(contexts: Sequence[Context]) -> np.ndarray:
    """:meth:`Context.vector` of each; float64 (n, len(COLUMNS))."""
    rows = np.zeros((len(contexts), len(COLUMNS)))
    for number, one in enumerate(contexts):
        rows[number, one.columns()] = 1.0
    return rows


def context_of(inputs: RankingInputs, visit: Visit = NO_VISIT) -> Context:
    """The context of one search, from what its ranking reads anyway."""
    profile = inputs.profile
    share = float(inputs.features[:, INDEX["own_any"]].mean()) if len(inputs.features) else 0.0
    recent = profile.recent["time"]
    depth = int((recent.astype(np.float64) > inputs.now - _SESSION_S).sum()) if len(recent) else 0
    remembered = len(profile.counters)
    return Context(
        query=query_kind(inputs.query),
        history=STEPS["history"][sum(remembered >= least for least in (1, 5, 20, 100))],
        known=STEPS["known"][(share > 0) + (share >= 0.05)],
        depth=STEPS["depth"][(depth > 0) + (depth >= 5)],
        hour=STEPS["hour"][datetime.fromtimestamp(inputs.now, timezone.utc).hour // 6],
        device=visit.device if visit.device in STEPS["device"] else "unknown",
    )


def query_kind(query: str) -> str:
    """The step of a typed query."""
    words = query.split()
    if not words:
        return "browse"
    if any(any(letter.isdigit() for letter in word) for word in words):
        return "code"
    return ("word", "phrase", "sentence")[min(len(words), 3) - 1]


def device_of(user_agent: str) -> str:
    """The device that a ``User-Agent`` tells of. Coarse, and meant to be: it is no fingerprint."""
    if not user_agent:
        return "unknown"
    if _TABLET.search(user_agent):
        return "tablet"
    if _PHONE.search(user_agent):
        return "phone"
    return "desktop" if "Mozilla" in user_agent else "unknown"

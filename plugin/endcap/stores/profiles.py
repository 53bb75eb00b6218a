"""Where profiles are kept: in process, restored from the event log when first asked for."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from typing import Protocol

from endcap.profiles import Profile
from endcap.stores.events import Columns, EventLog


class ProfileStore(Protocol):
    """Gives the profile of a shopper as it is now. Thread-safe."""

    def get(self, shopper: str) -> Profile:
        """The shopper's profile, empty for a new one. Treat it as read-only."""

    def touched(self, shoppers: set[str]) -> None:
        """New events of these shoppers are in the log: the next :meth:`get` must know of them."""


class LogProfiles:
    """Profiles in memory, least recently used first out, rebuilt from the log.

    The log is the truth: a profile holds the events up to its ``sequence`` and catches up with what came later when it
    is next asked for, so every event counts exactly once, whichever process took it in.
    """

    def __init__(self, log: EventLog, places: int, recent: int, half_life_days: float, memory_mb: float) -> None:
        self._log = log
        self._shape = (places, recent, half_life_days)
        # Arrays, bookkeeping of Python and derived sums come to about four times the arrays themselves.
        self._most = max(16, int(memory_mb * 1e6 / (4 * (places * 7 + recent * 9))))
        self._lock = threading.Lock()
        self._profiles: OrderedDict[str, Profile] = OrderedDict()
        self._stale: set[str] = set()
        self._loading: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._profiles)

    def get(self, shopper: str) -> Profile:
        """Raises LogUnavailable where the log cannot be read."""
        with self._lock:
            profile = self._profiles.get(shopper)
            stale = shopper in self._stale
            if profile is not None:
                self._profiles.move_to_end(shopper)
                if not stale:
                    return profile
            # An event that arrives while the log is being read marks the shopper stale again.
            self._stale.discard(shopper)
            self._loading[shopper] += 1
        fresh = None
        try:
            fresh = self._caught_up(shopper, profile)
        finally:
            with self._lock:
                self._loaded(shopper, fresh)
        return fresh

    def _loaded(self, shopper: str, fresh: Profile | None) -> None:
        self._loading[shopper] -= 1
        if not self._loading[shopper]:
            del self._loading[shopper]
        if fresh is None:
            # A shopper who is not kept is read from the log the next time anyway.
            if shopper in self._profiles or shopper in self._loading:
                self._stale.add(shopper)
            return
        current = self._profiles.get(shopper)
        if current is None or current.sequence <= fresh.sequence:
            self._profiles[shopper] = fresh
        self._profiles.move_to_end(shopper)
        while len(self._profiles) > self._most:
            gone, _ = self._profiles.popitem(last=False)
            self._stale.discard(gone)

    def touched(self, shoppers: set[str]) -> None:
        """See :class:`ProfileStore`."""
        with self._lock:
            self._stale.update(shoppers & (self._profiles.keys() | self._loading.keys()))

    def _caught_up(self, shopper: str, old: Profile | None) -> Profile:
        """A new object: readers of the old one keep a consistent profile."""
        events: Columns = self._log.of_shopper(shopper, after=old.sequence if old else 0)
        profile = Profile(*self._shape) if old is None else old.copy()
        if len(events):
            profile.add(events.keys, events.times, events.actions)
            profile.sequence = int(events.sequence[-1])
        return profile

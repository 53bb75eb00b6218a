"""Where profiles are kept: in process, restored from the event log when first asked for."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from typing import Protocol

from endcap.profiles import COUNTER, RECENT, Profile
from endcap.stores.aliases import Aliases
from endcap.stores.events import EventLog


class ProfileReader(Protocol):
    """Gives the profile of a shopper as it is now. Thread-safe."""

    def get(self, shopper: str) -> Profile:
        """The shopper's profile, empty for a new one. Treat it as read-only.

        Raises:
            LogUnavailable: it has to be read from the log, and that cannot be.
        """


class ProfileStore(ProfileReader, Protocol):
    """Keeps the profiles of all shoppers.

    The log is the truth: a profile holds the events up to its ``sequence``, those of the ids that were joined to the
    shopper among them, and catches up with what came later when it is next asked for. So every event counts exactly
    once, whichever process took it in.
    """

    def touched(self, latest: Mapping[str, int]) -> None:
        """New events of these shoppers are in the log, up to these numbers: the next :meth:`get` must know of them.
        A number may be too high. Never raises."""

    def forgotten(self, shoppers: Collection[str]) -> None:
        """What is kept of these shoppers no longer follows from the log (a login, an erasure): the next :meth:`get`
        must read all of it anew. Never raises."""

    def kept(self) -> list[str]:
        """The shoppers whose profiles this process keeps."""

    def turn(self) -> float:
        """Called every second or so by the upkeep; an error out of it becomes a visible problem."""

    def close(self) -> None:
        """Give back connections."""


class Restorer:
    """Makes profiles from the log. Thread-safe."""

    def __init__(self, log: EventLog, aliases: Aliases, places: int, recent: int, half_life_days: float) -> None:
        self.shape = (places, recent, half_life_days)
        self.log = log
        self.aliases = aliases

    @property
    def nbytes(self) -> int:
        """Bytes of the largest profile."""
        return self.shape[0] * COUNTER.itemsize + self.shape[1] * RECENT.itemsize

    def caught_up(self, shopper: str, old: Profile | None) -> tuple[Profile, list[str]]:
        """A new object, since readers of the old one keep a consistent profile; and the ids joined to the shopper.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        also = self.aliases.of(shopper)
        events = self.log.of_shopper(shopper, after=old.sequence if old else 0, also=also)
        profile = Profile(*self.shape) if old is None else old.copy()
        if len(events):
            profile.add(events.keys, events.times, events.actions)
            profile.sequence = int(events.sequence[-1])
        return profile, also


class LogProfiles:
    """Profiles in memory, least recently used first out, rebuilt from the log; see :class:`ProfileStore`."""

    def __init__(self, restorer: Restorer, memory_mb: float) -> None:
        self._restorer = restorer
        # Arrays, bookkeeping of Python and derived sums come to about four times the arrays themselves.
        self.most = max(16, int(memory_mb * 1e6 / (4 * restorer.nbytes)))
        self._lock = threading.Lock()
        self._profiles: OrderedDict[str, Profile] = OrderedDict()
        self._stale: set[str] = set()
        self._loading: Counter[str] = Counter()
        self._void: set[str] = set()  # forgotten while being loaded: what is loaded must not be kept
        self._joined: dict[str, list[str]] = {}  # of profiles that are kept: the ids that count for them
        self._owner: dict[str, str] = {}  # the inverse

    def __len__(self) -> int:
        return len(self._profiles)

    def get(self, shopper: str) -> Profile:
        """See :class:`ProfileStore`."""
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
        fresh: Profile | None = None
        joined: list[str] = []
        try:
            fresh, joined = self._restorer.caught_up(shopper, profile)
        finally:
            with self._lock:
                self._loaded(shopper, fresh, joined)
        return fresh

    def _loaded(self, shopper: str, fresh: Profile | None, joined: list[str]) -> None:
        void = shopper in self._void
        self._loading[shopper] -= 1
        if not self._loading[shopper]:
            del self._loading[shopper]
            self._void.discard(shopper)
        if fresh is None:
            # A shopper who is not kept is read from the log the next time anyway.
            if shopper in self._profiles or shopper in self._loading:
                self._stale.add(shopper)
            return
        if void:
            return
        current = self._profiles.get(shopper)
        if current is None or current.sequence <= fresh.sequence:
            self._profiles[shopper] = fresh
            if joined:
                self._joined[shopper] = joined
                self._owner.update(dict.fromkeys(joined, shopper))
        self._profiles.move_to_end(shopper)
        while len(self._profiles) > self.most:
            self._drop(next(iter(self._profiles)))

    def _drop(self, shopper: str) -> None:
        self._profiles.pop(shopper, None)
        self._stale.discard(shopper)
        for alias in self._joined.pop(shopper, ()):
            self._owner.pop(alias, None)

    def touched(self, latest: Mapping[str, int]) -> None:
        """See :class:`ProfileStore`."""
        with self._lock:
            shoppers = set(latest)
            if self._owner:
                shoppers.update(self._owner[one] for one in latest if one in self._owner)
            self._stale.update(shoppers & (self._profiles.keys() | self._loading.keys()))

    def forgotten(self, shoppers: Collection[str]) -> None:
        """See :class:`ProfileStore`."""
        with self._lock:
            for shopper in shoppers:
                self._drop(shopper)
                if shopper in self._loading:
                    self._void.add(shopper)

    def kept(self) -> list[str]:
        """See :class:`ProfileStore`."""
        with self._lock:
            return list(self._profiles)

    def turn(self) -> float:
        """Nothing to do."""
        return 0.0

    def close(self) -> None:
        """Nothing to give back."""

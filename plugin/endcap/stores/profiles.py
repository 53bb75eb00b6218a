"""Where profiles are kept: in process, restored from the event log when first asked for.

As bytes a profile is a tenth of what it is with all that readers derive from it. So very many are kept as bytes, and
those of the shoppers who search just now are kept at hand beside that; together they take the memory that was given.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from typing import Protocol

from sqlalchemy import func, select

from endcap.profile_bytes import sequence_of
from endcap.profiles import Profile
from endcap.stores.aliases import Aliases
from endcap.stores.erasures import digest, digests_after, newest
from endcap.stores.events import EventLog, events

#: Bytes that Python takes to keep one profile's bytes: its name, the objects, their places in tables.
_BESIDES = 350
#: Bytes of a profile at hand, with what is derived from it: of any, and of each product in it.
_AT_HAND, _AT_HAND_PRODUCT = 6_000, 80


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

    def erased(self, digests: Collection[str]) -> None:
        """As :meth:`forgotten`, for those of whom only :func:`endcap.stores.erasures.digest` is known. Never raises."""

    def kept(self) -> list[str]:
        """The shoppers whose profiles this process keeps."""

    def turn(self) -> float:
        """Called every second or so by the upkeep; an error out of it becomes a visible problem."""

    def close(self) -> None:
        """Give back connections."""


class Restorer:
    """Makes profiles from the log. Thread-safe."""

    def __init__(self, log: EventLog, aliases: Aliases, most_bytes: int, recent: int, half_life_days: float) -> None:
        self.shape = (most_bytes, recent, half_life_days)
        self.log = log
        self.aliases = aliases

    def caught_up(self, shopper: str, old: Profile | None) -> tuple[Profile, list[str]]:
        """A new object, since readers of the old one keep a consistent profile; and the ids joined to the shopper.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        also = self.aliases.of(shopper)
        new = self.log.of_shopper(shopper, after=old.sequence if old else 0, also=also)
        profile = Profile(*self.shape) if old is None else old.copy()
        if len(new):
            profile.add(new.keys, new.times, new.actions)
            profile.sequence = int(new.sequence[-1])
        return profile, also

    def reach(self) -> tuple[int, int]:
        """Numbers of the newest event and of the newest erasure: what is read from now on holds no less.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        with self.log.database.transaction(read_only=True) as connection:
            return int(connection.execute(select(func.max(events.c.sequence))).scalar() or 0), newest(connection)

    def erased_since(self, shopper: str, number: int) -> bool:
        """Whether the shopper was erased, or parted from an id, after the erasure of this number.

        Raises:
            LogUnavailable: the database cannot be read.
        """
        with self.log.database.transaction(read_only=True) as connection:
            return digest(shopper) in digests_after(connection, number)


class AtHand:
    """Profiles as readers want them, with what was derived from them, beside the bytes that each was made of. Bounded
    in bytes, the least recently used go first. Not thread-safe."""

    def __init__(self, most_bytes: float) -> None:
        self._most = most_bytes
        self._held = 0
        self._profiles: OrderedDict[str, tuple[bytes, Profile, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._profiles)

    def get(self, shopper: str, data: bytes) -> Profile | None:
        """The profile that was made of these bytes; None where it is not at hand."""
        found = self._profiles.get(shopper)
        if found is None or found[0] != data:
            return None
        self._profiles.move_to_end(shopper)
        return found[1]

    def put(self, shopper: str, data: bytes, profile: Profile) -> None:
        """Take up a shopper's latest profile."""
        self.drop(shopper)
        size = _AT_HAND + _AT_HAND_PRODUCT * len(profile.counters)
        self._profiles[shopper] = data, profile, size
        self._held += size
        while self._held > self._most and len(self._profiles) > 1:
            self.drop(next(iter(self._profiles)))

    def drop(self, shopper: str) -> None:
        """Forget a shopper's."""
        found = self._profiles.pop(shopper, None)
        if found is not None:
            self._held -= found[2]


class LogProfiles:
    """Profiles in memory, least recently used first out, rebuilt from the log; see :class:`ProfileStore`."""

    def __init__(self, restorer: Restorer, memory_mb: float) -> None:
        self._restorer = restorer
        #: Bytes for profiles at hand; as many are for those that are kept as bytes.
        self.share = memory_mb * 1e6 / 2
        self._lock = threading.Lock()
        self._profiles: OrderedDict[str, bytes] = OrderedDict()
        self._held = 0
        self._at_hand = AtHand(self.share)
        self._stale: set[str] = set()
        self._loading: Counter[str] = Counter()
        self._void: set[str] = set()  # forgotten while being loaded: what is loaded must not be kept
        self._joined: dict[str, list[str]] = {}  # of profiles that are kept: the ids that count for them
        self._owner: dict[str, str] = {}  # the inverse

    def __len__(self) -> int:
        return len(self._profiles)

    def get(self, shopper: str) -> Profile:
        """See :class:`ProfileStore`."""
        profile: Profile | None = None
        with self._lock:
            data = self._profiles.get(shopper)
            if data is not None:
                self._profiles.move_to_end(shopper)
                profile = self._at_hand.get(shopper, data)
                if shopper not in self._stale:
                    return self._unpacked(shopper, data) if profile is None else profile
            # An event that arrives while the log is being read marks the shopper stale again.
            self._stale.discard(shopper)
            self._loading[shopper] += 1
        fresh: Profile | None = None
        packed = b""
        joined: list[str] = []
        try:
            if data is not None and profile is None:
                profile = Profile.from_bytes(data, *self._restorer.shape)
            fresh, joined = self._restorer.caught_up(shopper, profile)
            packed = fresh.to_bytes()
        finally:
            with self._lock:
                self._loaded(shopper, fresh, packed, joined)
        return fresh

    def _loaded(self, shopper: str, fresh: Profile | None, packed: bytes, joined: list[str]) -> None:
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
            if shopper not in self._profiles:
                self._stale.discard(shopper)
            return
        current = self._profiles.get(shopper)
        if current is None or sequence_of(current) <= fresh.sequence:
            self._keep(shopper, packed, fresh)
            if joined:
                self._joined[shopper] = joined
                self._owner.update(dict.fromkeys(joined, shopper))
        self._profiles.move_to_end(shopper)
        while self._held > self.share and len(self._profiles) > 1:
            self._drop(next(iter(self._profiles)))

    def _unpacked(self, shopper: str, data: bytes) -> Profile:
        profile = Profile.from_bytes(data, *self._restorer.shape)
        self._at_hand.put(shopper, data, profile)
        return profile

    def _keep(self, shopper: str, data: bytes, profile: Profile) -> None:
        old = self._profiles.get(shopper)
        self._held += len(data) - len(old) if old is not None else len(data) + _BESIDES
        self._profiles[shopper] = data
        self._at_hand.put(shopper, data, profile)

    def _drop(self, shopper: str) -> None:
        data = self._profiles.pop(shopper, None)
        if data is not None:
            self._held -= len(data) + _BESIDES
        self._at_hand.drop(shopper)
        if shopper not in self._loading:  # else what is being read may lack the event that made it stale
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

    def erased(self, digests: Collection[str]) -> None:
        """See :class:`ProfileStore`."""
        with self._lock:
            here = {*self._profiles, *self._loading}
        self.forgotten([one for one in here if digest(one) in digests])

    def kept(self) -> list[str]:
        """See :class:`ProfileStore`."""
        with self._lock:
            return list(self._profiles)

    def turn(self) -> float:
        """Nothing to do."""
        return 0.0

    def close(self) -> None:
        """Nothing to give back."""

"""A shopper's profile: a bounded memory of what he did, in two small arrays.

``counters`` remembers products, ``recent`` the latest actions in order. Both have a fixed number of places, so a
profile never exceeds ``places * 7 + recent * 9`` bytes (defaults: 3,985), whoever the shopper is. Small places matter:
on Complete Journey, remembering 160 products of 20 bytes instead of 505 of 7 costs .02 of NDCG@10.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from endcap.events import Action

DAY_S = 86_400.0

#: What one product's counter holds: the low half of its key; days between the last action on it and the profile's
#: latest (11 bits) with purchases less returns (5 bits); and the decayed weight as of that last action, on a log scale.
COUNTER = np.dtype([("key", "<u4"), ("seen", "<u2"), ("decayed", "u1")])
RECENT = np.dtype([("key", "<u4"), ("time", "<u4"), ("action", "u1")])
#: Before the arrays' bytes: sequence, day that ages count from, counters, recent actions.
_HEADER = struct.Struct("<qiHH")

_BUYS_BITS = 5
_MOST_BUYS = (1 << _BUYS_BITS) - 1
_OLDEST_DAYS = (1 << (16 - _BUYS_BITS)) - 1
_LEAST_WEIGHT, _STEPS_PER_DOUBLING = 0.01, 16.0

#: How much an action says about interest in the product, relative to a purchase.
WEIGHTS = np.zeros(256)
WEIGHTS[[Action.VIEW, Action.CLICK, Action.CART, Action.UNCART, Action.PURCHASE, Action.RETURN]] = (
    0.1, 0.15, 0.4, -0.3, 1.0, -1.0,
)  # fmt: skip
_BUYS = np.zeros(256, dtype=np.int64)
_BUYS[[Action.PURCHASE, Action.RETURN]] = 1, -1

#: A product bought once is given up in favour of one bought three times that was last seen this many days earlier.
_FORGET_DAYS = 180.0


class Profile:
    """What is known about one shopper.

    ``counters`` (COUNTER, sorted by key) and ``recent`` (RECENT, oldest first) are read by features; ``sequence`` is
    the number, in the event log, of the last event that is in it.
    """

    __slots__ = ("_latest", "_places", "_recent_places", "cache", "counters", "half_life_days", "recent", "sequence")

    def __init__(self, places: int = 505, recent: int = 50, half_life_days: float = 30.0) -> None:
        self._places = places
        self._recent_places = recent
        self._latest = 0  # day (since 1970) that ages in ``seen`` count from
        self.half_life_days = half_life_days
        self.counters = np.empty(0, dtype=COUNTER)
        self.recent = np.empty(0, dtype=RECENT)
        self.sequence = 0
        self.cache: dict[str, object] = {}  # what readers derive from the arrays; emptied with every change

    @property
    def nbytes(self) -> int:
        """Bytes of the two arrays."""
        return self.counters.nbytes + self.recent.nbytes

    def __bool__(self) -> bool:
        return len(self.counters) > 0

    def copy(self) -> Profile:
        """An independent profile with the same content."""
        twin = Profile(self._places, self._recent_places, self.half_life_days)
        twin._latest, twin.sequence = self._latest, self.sequence
        twin.counters, twin.recent = self.counters, self.recent  # arrays are replaced, never changed in place
        return twin

    def to_bytes(self) -> bytes:
        """All that it holds; :meth:`from_bytes` gives the profile back."""
        header = _HEADER.pack(self.sequence, self._latest, len(self.counters), len(self.recent))
        return header + self.counters.tobytes() + self.recent.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, places: int = 505, recent: int = 50, half_life_days: float = 30.0) -> Profile:
        """Raises ValueError for what is not a profile of these places."""
        if len(data) < _HEADER.size:
            raise ValueError(f"{len(data)} bytes are no profile")
        sequence, latest, counters, actions = _HEADER.unpack_from(data)
        begin = _HEADER.size + counters * COUNTER.itemsize
        if counters > places or actions > recent or len(data) != begin + actions * RECENT.itemsize:
            raise ValueError(f"{len(data)} bytes are no profile of {counters} products and {actions} actions")
        profile = cls(places, recent, half_life_days)
        profile.sequence, profile._latest = sequence, latest
        profile.counters = np.frombuffer(data, COUNTER, counters, _HEADER.size)
        profile.recent = np.frombuffer(data, RECENT, actions, begin)
        return profile

    def add(self, keys: np.ndarray, times: np.ndarray, actions: np.ndarray) -> None:
        """Take in a batch of actions, in any order of time.

        Args:
            keys: uint64 (m,) product keys. times: float64 (m,) seconds since 1970. actions: uint8 (m,).

        Counters do not depend on the order in which events arrive (weights within the 2 % of their scale), as long
        as none saturated or had to be given up.
        """
        wanted = WEIGHTS[actions] != 0
        if not wanted.any():
            return
        keys, times, actions = short_keys(keys[wanted]), times[wanted], actions[wanted]
        self._count(keys, times, actions)
        self._remember(keys, times, actions)
        self.cache = {}

    def buys(self) -> np.ndarray:
        """Purchases less returns of each counter's product; float32, at most 31."""
        return (self.counters["seen"] & _MOST_BUYS).astype(np.float32)

    def age_days(self, now: float) -> np.ndarray:
        """Days since the last action on each counter's product, to the day; float32, at least 0."""
        ages = (self.counters["seen"] >> _BUYS_BITS).astype(np.float32)
        return np.maximum(ages + np.float32(now / DAY_S - self._latest), 0.0)

    def weights(self, now: float) -> np.ndarray:
        """Each counter's sum of action weights, every one halved per half-life since it happened; float32."""
        return _weights(self.counters["decayed"]) * np.exp2(-self.age_days(now) / np.float32(self.half_life_days))

    def _count(self, keys: np.ndarray, times: np.ndarray, actions: np.ndarray) -> None:
        old = self.counters
        days = times / DAY_S
        unique, slot = np.unique(np.concatenate([old["key"], keys]), return_inverse=True)
        old_slot, new_slot = slot[: len(old)], slot[len(old) :]
        last = np.zeros(len(unique))
        last[old_slot] = self._latest - (old["seen"] >> _BUYS_BITS).astype(float)
        before = last[old_slot]
        np.maximum.at(last, new_slot, np.floor(days))
        buys = np.zeros(len(unique), dtype=np.int64)
        buys[old_slot] = old["seen"] & _MOST_BUYS
        np.add.at(buys, new_slot, _BUYS[actions])
        weight = np.zeros(len(unique))
        weight[old_slot] = _weights(old["decayed"]) * np.exp2((before - last[old_slot]) / self.half_life_days)
        np.add.at(weight, new_slot, WEIGHTS[actions] * np.exp2((np.floor(days) - last[new_slot]) / self.half_life_days))

        self._latest = int(last.max())
        ages = np.minimum(self._latest - last, _OLDEST_DAYS).astype(np.int64)
        merged = np.empty(len(unique), dtype=COUNTER)
        merged["key"] = unique
        merged["seen"] = (ages << _BUYS_BITS) | np.clip(buys, 0, _MOST_BUYS)
        merged["decayed"] = _scale(weight)
        if len(merged) > self._places:
            worth = np.log2(1.0 + np.maximum(buys, 0) + np.minimum(weight, 1.0) / 16.0) - ages / _FORGET_DAYS
            keep = np.argpartition(-worth, self._places - 1)[: self._places]
            merged = merged[np.sort(keep)]
        self.counters = merged

    def _remember(self, keys: np.ndarray, times: np.ndarray, actions: np.ndarray) -> None:
        tail = np.empty(len(keys), dtype=RECENT)
        tail["key"], tail["time"], tail["action"] = keys, times, actions
        joined = np.concatenate([self.recent, tail])
        self.recent = joined[np.argsort(joined["time"], kind="stable")][-self._recent_places :].copy()


def _scale(weight: np.ndarray) -> np.ndarray:
    steps = 1.0 + _STEPS_PER_DOUBLING * np.log2(np.maximum(weight, _LEAST_WEIGHT) / _LEAST_WEIGHT)
    return np.where(weight < _LEAST_WEIGHT, 0, np.clip(np.rint(steps), 1, 255)).astype(np.uint8)


_WEIGHT_OF_STEP = (_LEAST_WEIGHT * np.exp2((np.arange(256) - 1) / _STEPS_PER_DOUBLING)).astype(np.float32)
_WEIGHT_OF_STEP[0] = 0.0


def _weights(steps: np.ndarray) -> np.ndarray:
    return _WEIGHT_OF_STEP[steps]


def short_keys(keys: np.ndarray) -> np.ndarray:
    """The low 32 bits of product keys, as profiles store them; uint32. Among a million products 1 in 4,000 shares its
    short key with another: it then counts for both, which no ranking notices."""
    return keys.astype(np.uint32)


def build_profiles(
    shoppers: Sequence[object] | np.ndarray,
    keys: np.ndarray,
    times: np.ndarray,
    actions: np.ndarray,
    places: int = 505,
    recent: int = 50,
    half_life_days: float = 30.0,
) -> dict[object, Profile]:
    """Profiles of many shoppers from columns of one log, all of length m."""
    names, inverse = np.unique(np.asarray(shoppers), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    bounds = np.r_[0, np.cumsum(np.bincount(inverse, minlength=len(names)))]
    profiles: dict[object, Profile] = {}
    for number, name in enumerate(names.tolist()):
        rows = order[bounds[number] : bounds[number + 1]]
        profile = Profile(places, recent, half_life_days)
        profile.add(keys[rows], times[rows], actions[rows])
        profiles[name] = profile
    return profiles

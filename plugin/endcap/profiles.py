"""A shopper's profile: a bounded memory of what he did, in two arrays.

``counters`` remembers products, ``recent`` the latest actions in order. As bytes (:mod:`endcap.profile_bytes`), which
is how profiles are stored and kept, one never exceeds :data:`MOST_BYTES`, whoever the shopper is: what is worth least
is given up until it fits. That leaves some 900 products to a household that shops for groceries. Small places matter:
on Complete Journey, remembering 160 products instead of 505 costs .02 of NDCG@10.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from endcap.events import Action
from endcap.profile_bytes import AGE_BITS, BUYS_BITS, COUNTER, RECENT, pack, profile_keys, unpack

DAY_S = 86_400.0

#: Bytes of the largest profile, as it is stored and kept.
MOST_BYTES = 4_000
#: Products beyond so many are given up before bytes are counted: none takes less than a byte.
_MOST_PRODUCTS = 50_000
#: A recent action takes at most 11 bytes: so many of them that they fill a third.
_RECENT_SHARE = 33

_MOST_BUYS = (1 << BUYS_BITS) - 1
_OLDEST_DAYS = (1 << AGE_BITS) - 1
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

    __slots__ = (
        "_latest",
        "_most_bytes",
        "_recent_places",
        "cache",
        "counters",
        "half_life_days",
        "recent",
        "sequence",
    )

    def __init__(self, most_bytes: int = MOST_BYTES, recent: int = 50, half_life_days: float = 30.0) -> None:
        self._most_bytes = most_bytes
        self._recent_places = min(recent, most_bytes // _RECENT_SHARE)
        self._latest = 0  # day (since 1970) that ages in ``seen`` count from
        self.half_life_days = half_life_days
        self.counters = np.empty(0, dtype=COUNTER)
        self.recent = np.empty(0, dtype=RECENT)
        self.sequence = 0
        self.cache: dict[str, object] = {}  # what readers derive from the arrays; emptied with every change

    @property
    def nbytes(self) -> int:
        """Bytes that it takes where it is stored or kept."""
        return len(self.to_bytes())

    def __bool__(self) -> bool:
        return len(self.counters) > 0

    def copy(self) -> Profile:
        """An independent profile with the same content."""
        twin = Profile(self._most_bytes, self._recent_places, self.half_life_days)
        twin._latest, twin.sequence = self._latest, self.sequence
        twin.counters, twin.recent = self.counters, self.recent  # arrays are replaced, never changed in place
        return twin

    def to_bytes(self) -> bytes:
        """All that it holds; :meth:`from_bytes` gives the profile back."""
        return pack(self.sequence, self._latest, self.counters, self.recent)

    @classmethod
    def from_bytes(
        cls, data: bytes, most_bytes: int = MOST_BYTES, recent: int = 50, half_life_days: float = 30.0
    ) -> Profile:
        """Raises ValueError for what is not a profile of this size."""
        if len(data) > most_bytes:
            raise ValueError(f"{len(data)} bytes are no profile of at most {most_bytes}")
        profile = cls(most_bytes, recent, half_life_days)
        profile.sequence, profile._latest, profile.counters, profile.recent = unpack(data)
        if len(profile.recent) > profile._recent_places:
            raise ValueError(f"{len(profile.recent)} actions are more than a profile holds")
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
        keys, times, actions = profile_keys(keys[wanted]), times[wanted], actions[wanted]
        self._count(keys, times, actions)
        self._remember(keys, times, actions)
        self._fit()
        self.cache = {}

    def buys(self) -> np.ndarray:
        """Purchases less returns of each counter's product; float32, at most 31."""
        return (self.counters["seen"] & _MOST_BUYS).astype(np.float32)

    def age_days(self, now: float) -> np.ndarray:
        """Days since the last action on each counter's product, to the day; float32, at least 0."""
        ages = (self.counters["seen"] >> BUYS_BITS).astype(np.float32)
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
        last[old_slot] = self._latest - (old["seen"] >> BUYS_BITS).astype(float)
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
        merged["seen"] = (ages << BUYS_BITS) | np.clip(buys, 0, _MOST_BUYS)
        merged["decayed"] = _scale(weight)
        self.counters = merged

    def _remember(self, keys: np.ndarray, times: np.ndarray, actions: np.ndarray) -> None:
        tail = np.empty(len(keys), dtype=RECENT)
        tail["key"], tail["time"], tail["action"] = keys, times, actions
        joined = np.concatenate([self.recent, tail])
        self.recent = joined[np.argsort(joined["time"], kind="stable")][-self._recent_places :].copy()

    def _fit(self) -> None:
        """Give up the products that are worth least, until the bytes suffice."""
        if len(self.counters) > _MOST_PRODUCTS:
            self._keep(_MOST_PRODUCTS)
        if self.counters.nbytes + self.recent.nbytes <= self._most_bytes // 2:
            return  # no need to look: packed, it is hardly larger
        while (over := len(self.to_bytes()) - self._most_bytes) > 0 and len(self.counters):
            each = (self._most_bytes + over) / len(self.counters)
            self._keep(len(self.counters) - max(1, int(over / each)))

    def _keep(self, count: int) -> None:
        """The ``count`` products that are worth most."""
        counters = self.counters
        weight = np.minimum(_weights(counters["decayed"]), 1.0)
        worth = np.log2(1.0 + self.buys() + weight / 16.0) - (counters["seen"] >> BUYS_BITS) / _FORGET_DAYS
        self.counters = counters[np.sort(np.argsort(-worth, kind="stable")[:count])]


def _scale(weight: np.ndarray) -> np.ndarray:
    steps = 1.0 + _STEPS_PER_DOUBLING * np.log2(np.maximum(weight, _LEAST_WEIGHT) / _LEAST_WEIGHT)
    return np.where(weight < _LEAST_WEIGHT, 0, np.clip(np.rint(steps), 1, 255)).astype(np.uint8)


_WEIGHT_OF_STEP = (_LEAST_WEIGHT * np.exp2((np.arange(256) - 1) / _STEPS_PER_DOUBLING)).astype(np.float32)
_WEIGHT_OF_STEP[0] = 0.0


def _weights(steps: np.ndarray) -> np.ndarray:
    return _WEIGHT_OF_STEP[steps]


def short_keys(keys: np.ndarray) -> np.ndarray:
    """The low 32 bits of product keys; uint32. Among a million products 1 in 4,000 shares its short key with another:
    it then counts for both, which no ranking notices."""
    return keys.astype(np.uint32)


def build_profiles(
    shoppers: Sequence[object] | np.ndarray,
    keys: np.ndarray,
    times: np.ndarray,
    actions: np.ndarray,
    most_bytes: int = MOST_BYTES,
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
        profile = Profile(most_bytes, recent, half_life_days)
        profile.add(keys[rows], times[rows], actions[rows])
        profiles[name] = profile
    return profiles

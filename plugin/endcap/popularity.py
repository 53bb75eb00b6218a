"""How much each product is bought and looked at, by everyone: in all, lately, and this week.

Decayed sums are kept as S = Σ w·2^((t - t0) / h), so that they do not depend on the order of events and a read at any
time is S·2^((t0 - now) / h). In float64 that holds for some 1,000 half-lives after ``t0``, 19 years at one week; before
they have passed, ``t0`` moves on.
"""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson

from endcap.catalog.table import lookup
from endcap.events import Action
from endcap.files import replacing
from endcap.profiles import DAY_S

if TYPE_CHECKING:
    from endcap.stores.events import EventLog

#: What an action counts; impressions and searches do not.
_WEIGHTS = np.zeros(256)
_WEIGHTS[[Action.VIEW, Action.CLICK, Action.CART, Action.PURCHASE, Action.RETURN]] = 0.02, 0.05, 0.2, 1.0, -1.0

_T0 = 1_420_070_400.0  # 2015-01-01: where ``t0`` begins; exact for older events too
#: Half-lives after ``t0`` at which it moves on, and so many of them are left behind it then.
_MOST_HALF_LIVES, _KEPT_HALF_LIVES = 900.0, 500.0
_LARGEST = 1e38
_WEEK_DAYS = 7.0


class Popularity:
    """Counts per product key. Writers take a lock; readers never wait."""

    def __init__(self, half_life_days: float = 30.0, most: int = 1_000_000) -> None:
        """``most``: products counted. Beyond, those that weigh least are forgotten: mostly ids that were made up."""
        self._half_lives = np.array([half_life_days, _WEEK_DAYS]) * DAY_S
        self._most = most
        self._lock = threading.Lock()
        self._sums = np.zeros((0, 3))  # total, recent, week
        self._slot: dict[int, int] = {}
        self._t0 = np.full(2, _T0)  # of the two decayed sums; replaced, never changed in place
        # What readers use, replaced as one: sorted keys, their slots, the sums by slot, and what these count from.
        self._view = (np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64), self._sums, self._t0)
        self.sequence = 0
        #: Shoppers whose events are not counted; see :meth:`leave_out`.
        self.left_out: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._slot)

    def add(self, keys: np.ndarray, times: np.ndarray, actions: np.ndarray, sequence: int = 0) -> None:
        """Count a batch of actions: uint64, float64 (seconds since 1970) and uint8, all (m,)."""
        with self._lock:
            if len(times):
                self._move_on(float(times.max()))
            self._take(*self._summed(keys, times, actions))
            self.sequence = max(self.sequence, sequence)

    def leave_out(self, shoppers: frozenset[str], log: EventLog) -> None:
        """From now on these shoppers' events are not counted, those counted before included; those of shoppers who
        were left out until now are counted again. Costs as much as the log holds of the shoppers that differ.

        Raises:
            LogUnavailable: nothing has changed.
        """
        delta = Popularity()
        delta._half_lives, delta._most, delta._t0 = self._half_lives, self._most, self._t0
        until = self.sequence
        for changed, sign in ((shoppers - self.left_out, -1.0), (self.left_out - shoppers, 1.0)):
            for shopper in changed:
                for part in log.every(shopper, until):
                    unique, sums = self._summed(part.keys, part.times, part.actions)
                    delta._take(unique, sign * sums)
        keys, order, sums, _ = delta._view
        with self._lock:
            self._take(keys, sums[order])
            self.left_out = shoppers

    def _summed(self, keys: np.ndarray, times: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The keys, each once, and their three sums, float64 (n, 3)."""
        weights = _WEIGHTS[actions]
        wanted = weights != 0
        keys, times, weights = keys[wanted], times[wanted], weights[wanted]
        unique, inverse = np.unique(keys, return_inverse=True)
        columns = [weights, *(weights * np.exp2((times - t0) / h) for t0, h in zip(self._t0, self._half_lives))]
        return unique, np.stack([np.bincount(inverse, column, len(unique)) for column in columns], axis=1)

    def _move_on(self, latest: float) -> None:
        """Count from a later ``t0`` where the sums of ``latest`` (seconds since 1970) would grow too large."""
        late = latest - self._t0 > _MOST_HALF_LIVES * self._half_lives
        if late.any():
            t0 = np.where(late, latest - _KEPT_HALF_LIVES * self._half_lives, self._t0)
            sums = self._sums.copy()  # readers may be at the others
            sums[:, 1:] *= np.exp2((self._t0 - t0) / self._half_lives)
            self._sums, self._t0 = sums, t0
            self._view = (*self._view[:2], sums, t0)

    def _take(self, unique: np.ndarray, sums: np.ndarray) -> None:
        slots = np.empty(len(unique), dtype=np.int64)
        before = len(self._slot)
        for number, key in enumerate(unique.tolist()):
            slots[number] = self._slot.setdefault(key, len(self._slot))
        if len(self._slot) > len(self._sums):
            grown = np.zeros((max(1024, len(self._slot) * 3 // 2), 3))
            grown[: len(self._sums)] = self._sums
            self._sums = grown
        self._sums[slots] += sums
        if len(self._slot) != before:
            known = np.fromiter(self._slot, dtype=np.uint64, count=len(self._slot))
            if len(known) > self._most:
                known = self._forget(known)
            order = np.argsort(known)
            self._view = (known[order], order, self._sums, self._t0)

    def _forget(self, known: np.ndarray) -> np.ndarray:
        """Keep the heavier half; gives its keys, in the order of their new slots."""
        kept = np.sort(np.argsort(-self._sums[: len(known), 0], kind="stable")[: self._most // 2])
        self._slot = {key: slot for slot, key in enumerate(known[kept].tolist())}
        self._sums = self._sums[kept]
        return known[kept]

    def read(self, keys: np.ndarray, now: float) -> np.ndarray:
        """Total, recent and weekly weight of each product; float32 (n, 3), 0 where nothing is known."""
        sorted_keys, order, sums, t0 = self._view
        slots = lookup(sorted_keys, order, keys)
        found = sums[np.maximum(slots, 0)] if len(sums) else np.zeros((len(keys), 3))
        found = found * (slots >= 0)[:, None]
        with np.errstate(over="ignore"):  # asked long before the latest event: a clock that went back
            found[:, 1:] *= np.exp2(np.minimum((t0 - now) / self._half_lives, 1_000.0))
        return np.clip(found, 0.0, _LARGEST).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write a snapshot; a reader sees the old file or the new one, never half of it."""
        with self._lock:
            keys = np.fromiter(self._slot, dtype=np.uint64, count=len(self._slot))
            sums = self._sums[: len(keys)].copy()
            t0, sequence, left_out = self._t0, self.sequence, orjson.dumps(sorted(self.left_out))
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(
                file, keys=keys, sums=sums, t0=t0, sequence=sequence, half_lives=self._half_lives,
                left_out=np.frombuffer(left_out, dtype=np.uint8),
            )  # fmt: skip

    def restore(self, path: Path, newest: int) -> bool:
        """Take up a snapshot. False, changing nothing, where there is none, it is damaged, has other half-lives, or
        counts events beyond number ``newest``: those of another log."""
        try:
            with np.load(path, allow_pickle=False) as saved:
                keys, sums, t0, sequence = saved["keys"], saved["sums"], saved["t0"], int(saved["sequence"])
                left_out = frozenset(orjson.loads(saved["left_out"].tobytes()))
                if (
                    sequence > newest
                    or not np.array_equal(saved["half_lives"], self._half_lives)
                    or sums.shape != (len(keys), 3)
                    or t0.shape != (2,)
                ):
                    return False
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return False
        with self._lock:
            self._slot = {key: slot for slot, key in enumerate(keys.tolist())}
            self._sums, self._t0, self.sequence, self.left_out = sums, t0, sequence, left_out
            order = np.argsort(keys)
            self._view = (keys[order], order, sums, t0)
        return True

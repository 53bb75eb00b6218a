"""What shoppers did together and again, learned from the event log in order: co-purchases and repurchases.

Everything is bounded, whatever the log holds: pairs, repeats, open baskets, products counted of one basket.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import orjson

from endcap.catalog.product import product_keys
from endcap.events import Action
from endcap.files import replacing
from endcap.profiles import short_keys
from endcap.recommend.counts import PairCounts, Repeats, pair

#: Purchases without a session belong to one basket if no more than this lies between them.
BASKET_GAP_S = 2 * 3600.0
#: Products of one basket that are counted together: a wholesaler's thousand lines are no taste.
BASKET_MOST = 60
MOST_PAIRS = 3_000_000
MOST_REPEATS = 1_000_000
#: Latest purchases kept, so that a basket can go on in the next batch.
_TAIL = 20_000
#: Pairs that wait at most before they are merged.
_PENDING = 400_000


def shopper_keys(shoppers: list[str]) -> np.ndarray:
    """uint64 key of each shopper; each name is hashed once."""
    unique = {name: number for number, name in enumerate(dict.fromkeys(shoppers))}
    keys = product_keys(list(unique))
    return keys[np.fromiter((unique[name] for name in shoppers), dtype=np.int64, count=len(shoppers))]


def shopper_key(shopper: str) -> int:
    """The low 32 bits of a shopper's key."""
    return int(product_keys([shopper])[0]) & 0xFFFFFFFF


class Behaviour:
    """Co-purchases and repurchases. One writer; readers take ``pairs`` and ``repeats`` as they are."""

    def __init__(self, most_pairs: int = MOST_PAIRS, most_repeats: int = MOST_REPEATS) -> None:
        self.pairs = PairCounts(most_pairs)
        self.repeats = Repeats.none()
        self.sequence = 0
        #: Shoppers whose events were not taken in: whoever adds leaves them out.
        self.left_out: frozenset[str] = frozenset()
        #: The erasures that had happened when it began to learn, see :meth:`endcap.stores.erasure.Erasure.version`.
        self.erased = 0
        self._most_repeats = most_repeats
        self._waiting: list[np.ndarray] = []
        self._purchases: list[tuple[np.ndarray, np.ndarray]] = []
        self._tail = _Lines.none()

    @property
    def pending(self) -> int:
        """Pairs and purchases that are not merged yet."""
        return sum(map(len, self._waiting)) + sum(len(keys) for keys, _ in self._purchases)

    def add(
        self,
        keys: np.ndarray,
        times: np.ndarray,
        actions: np.ndarray,
        shoppers: list[str],
        sessions: list[str],
        sequence: int = 0,
    ) -> None:
        """Take in a batch of the log: uint64 product keys, float64 seconds, uint8 actions, names; all (m,)."""
        self.sequence = max(self.sequence, sequence)
        bought = np.flatnonzero((actions == Action.PURCHASE) & (keys != 0))
        if not len(bought):
            return
        who = shopper_keys([shoppers[row] for row in bought.tolist()])
        where = shopper_keys([sessions[row] for row in bought.tolist()])
        timed = np.array([not sessions[row] for row in bought.tolist()])
        products, moments = short_keys(keys[bought]), times[bought]
        self._purchases.append((pair(short_keys(who), products), moments))
        # A session's number may be reused by another shopper: the basket is both.
        baskets = np.where(timed, who, who * np.uint64(0x9E3779B97F4A7C15) ^ where)
        self._together(_Lines(baskets, products, moments, timed))
        if self.pending > _PENDING:
            self.merge()

    def merge(self) -> None:
        """Make what was added visible to readers."""
        if self._waiting:
            waiting, self._waiting = np.concatenate(self._waiting), []
            self.pairs.add(waiting)
        if self._purchases:
            keys, moments = (np.concatenate(parts) for parts in zip(*self._purchases))
            self._purchases = []
            self.repeats = self.repeats.add(keys, moments, self._most_repeats)

    def together(self, product: int) -> tuple[np.ndarray, np.ndarray]:
        """What was bought in the same baskets as a product (uint32 key): keys (uint32) and strength (float32, the
        cosine of the two products' baskets, damped where there were few)."""
        others, counts = self.pairs.of(product)
        own = counts[others == product].sum()
        if not own:
            return others[:0], counts[:0]
        rest = others != product
        others, counts = others[rest], counts[rest]
        theirs = np.maximum(self.pairs.read(pair(others, others)), counts)
        return others, (counts / (np.sqrt(own * theirs) + 5.0)).astype(np.float32)

    def _together(self, lines: _Lines) -> None:
        """Queue the pairs of products in one basket: both directions, and each product with itself."""
        joined, fresh = lines, np.ones(len(lines.basket), dtype=bool)
        before = np.flatnonzero(np.isin(self._tail.basket, lines.basket))
        if len(before):
            joined = self._tail.at(before).followed_by(lines)
            fresh = np.r_[np.zeros(len(before), dtype=bool), fresh]
        order = np.lexsort((joined.time, joined.basket))
        joined, fresh = joined.at(order), fresh[order]
        apart = joined.timed[1:] & (np.diff(joined.time) > BASKET_GAP_S)
        group = np.cumsum(np.r_[True, (joined.basket[1:] != joined.basket[:-1]) | apart])
        # A product once a basket, and known from before if any of its lines was.
        order = np.lexsort((fresh, joined.product, group))
        group, product, fresh = group[order], joined.product[order], fresh[order]
        once = np.r_[True, (group[1:] != group[:-1]) | (product[1:] != product[:-1])]
        group, product, fresh = group[once], product[once], fresh[once]
        starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
        sizes = np.diff(np.r_[starts, len(group)])
        few = np.repeat(sizes <= BASKET_MOST, sizes) | (np.arange(len(group)) - np.repeat(starts, sizes) < BASKET_MOST)
        group, product, fresh = group[few], product[few], fresh[few]
        starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
        sizes = np.diff(np.r_[starts, len(group)])
        size, start = np.repeat(sizes, sizes), np.repeat(starts, sizes)
        left = np.repeat(np.arange(len(group)), size)
        right = np.arange(len(left)) - np.repeat(np.cumsum(size) - size, size) + np.repeat(start, size)
        new = fresh[left] | fresh[right]
        self._waiting.append(pair(product[left[new]], product[right[new]]))
        self._tail = self._tail.followed_by(lines).at(slice(-_TAIL, None))

    def save(self, path: Path, beside: bytes = b"") -> None:
        """Write a snapshot, with something ``beside`` it; a reader sees the old file or the new one."""
        self.merge()
        keys, counts = self.pairs.state
        one = self.repeats
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(
                file, keys=keys, counts=counts, repeats=one.keys, first=one.first, last=one.last, times=one.times,
                sequence=self.sequence, basket=self._tail.basket, product=self._tail.product, time=self._tail.time,
                timed=self._tail.timed, beside=np.frombuffer(beside, dtype=np.uint8),
                left_out=np.frombuffer(orjson.dumps(sorted(self.left_out)), dtype=np.uint8),
                erased=self.erased,
            )  # fmt: skip

    def restore(self, path: Path, newest: int) -> bytes | None:
        """Take up a snapshot and give what was saved beside it. None, changing nothing, where there is none, it is
        damaged or of another log."""
        try:
            with np.load(path, allow_pickle=False) as saved:
                sequence = int(saved["sequence"])
                state = (saved["keys"], saved["counts"])
                repeats = Repeats(saved["repeats"], saved["first"], saved["last"], saved["times"])
                tail = _Lines(saved["basket"], saved["product"], saved["time"], saved["timed"])
                beside = saved["beside"].tobytes()
                left_out = frozenset(orjson.loads(saved["left_out"].tobytes()))
                erased = int(saved["erased"]) if "erased" in saved.files else 0
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if sequence > newest or len(state[0]) != len(state[1]):
            return None
        self.pairs.state, self.repeats, self._tail, self.sequence = state, repeats, tail, sequence
        self.left_out, self.erased = left_out, erased
        return beside


class _Lines:
    """Purchases as columns: basket uint64, product uint32, time float64, whether only time tells the basket."""

    __slots__ = ("basket", "product", "time", "timed")

    def __init__(self, basket: np.ndarray, product: np.ndarray, time: np.ndarray, timed: np.ndarray) -> None:
        self.basket, self.product, self.time, self.timed = basket, product, time, timed

    @classmethod
    def none(cls) -> _Lines:
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty(0), np.empty(0, bool))

    def at(self, rows: np.ndarray | slice) -> _Lines:
        return _Lines(self.basket[rows], self.product[rows], self.time[rows], self.timed[rows])

    def followed_by(self, other: _Lines) -> _Lines:
        return _Lines(
            np.concatenate([self.basket, other.basket]),
            np.concatenate([self.product, other.product]),
            np.concatenate([self.time, other.time]),
            np.concatenate([self.timed, other.timed]),
        )

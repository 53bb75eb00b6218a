"""A profile's bytes: the two arrays of :class:`~endcap.profiles.Profile`, packed by the bit.

What is stored and kept of a shopper is bounded in bytes, so what a product costs decides how many are remembered.
Some 32 bits do where the array in memory takes 56:

* keys are 28 bits of a hash in rising order, written as Elias (1974) and Fano (1971) do: the low bits of each as they
  are, the high ones as the gaps between ones in a bit string; 20 bits each where there are 900. The shorter the key,
  the more strangers pass for known products: 100 candidates meet one of 900 in 0.03 % of searches;
* the last action's day is an index into the days on which something happened, which are few;
* purchases and weight of most products are one of a few pairs (bought once; seen once): the commonest pairs of this
  shopper have a short number, any other pair is written out in 13 bits;
* a recent action names its product by its place among the counters.

All of it is done by whole arrays: a full profile takes some 50 µs to read and 100 to write.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

#: What one product's counter holds: its key; days between the last action on it and the profile's latest (11 bits)
#: with purchases less returns (5 bits); and the decayed weight as of that last action, on a log scale.
COUNTER = np.dtype([("key", "<u4"), ("seen", "<u2"), ("decayed", "u1")])
RECENT = np.dtype([("key", "<u4"), ("time", "<u4"), ("action", "u1")])

#: Keys are the high 28 of 32 bits; the others are 0.
KEY_BITS: Final = 28
_BELOW: Final = 32 - KEY_BITS
_KEY_MASK = np.uint32(((1 << KEY_BITS) - 1) << _BELOW)
BUYS_BITS: Final = 5
AGE_BITS: Final = 16 - BUYS_BITS
_WEIGHT_BITS: Final = 8
_PAIR_BITS: Final = BUYS_BITS + _WEIGHT_BITS
_ACTION_BITS: Final = 4
_MOST_KIND_BITS: Final = 4

#: Changes with what the bytes mean.
VERSION: Final = 2
#: Version, sequence, day that ages count from; counters, days, recent actions, of which the product is no counter;
#: time of the oldest, bits of a time after it, bits of a pair's number.
_HEADER = struct.Struct("<BqiHHHHIBB")
#: Bits are read through windows of eight bytes, the last of which would reach over the end.
_PADDING = bytes(8)


def profile_keys(keys: np.ndarray) -> np.ndarray:
    """The high 28 bits of short keys, the other four 0, as profiles store them; uint32. Among a million products 1 in
    270 shares its key with another."""
    return keys.astype(np.uint32) & _KEY_MASK


def pack(sequence: int, latest: int, counters: np.ndarray, recent: np.ndarray) -> bytes:
    """The bytes of a profile: COUNTER (n,) sorted by key, RECENT (r,) oldest first."""
    keys = (counters["key"] >> _BELOW).astype(np.int64)
    ages = (counters["seen"] >> BUYS_BITS).astype(np.int64)
    days = np.unique(ages)
    pairs = ((counters["seen"].astype(np.int64) & ((1 << BUYS_BITS) - 1)) << _WEIGHT_BITS) | counters["decayed"]
    common, kind_bits = _commonest(pairs)
    kinds = np.full(1 << _PAIR_BITS, len(common), dtype=np.int64)
    kinds[common] = np.arange(len(common))
    kind = kinds[pairs]
    low, day_bits = _low_bits(len(keys), KEY_BITS), _width(len(days))
    records = (keys & ((1 << low) - 1)) | (np.searchsorted(days, ages) << low) | (kind << (low + day_bits))

    place = np.searchsorted(counters["key"], recent["key"])
    here = np.minimum(place, max(len(counters) - 1, 0))
    known = counters["key"][here] == recent["key"] if len(counters) else np.zeros(len(recent), dtype=bool)
    oldest = int(recent["time"].min()) if len(recent) else 0
    since = recent["time"].astype(np.int64) - oldest
    time_bits = int(since.max()).bit_length() if len(recent) else 0
    slot_bits = _width(len(counters) + 1)
    slots = np.where(known, here, len(counters))
    actions = slots | (recent["action"].astype(np.int64) << slot_bits) | (since << (slot_bits + _ACTION_BITS))
    others = recent["key"][~known]
    return b"".join(
        (
            _HEADER.pack(
                VERSION, sequence, latest, len(keys), len(days), len(recent), len(others), oldest, time_bits, kind_bits
            ),
            common.astype("<u2").tobytes(),
            _gaps(days, AGE_BITS),
            _write(days & ((1 << _low_bits(len(days), AGE_BITS)) - 1), _low_bits(len(days), AGE_BITS)),
            _gaps(keys, KEY_BITS),
            _write(records, low + day_bits + kind_bits),
            _write(pairs[kind == len(common)], _PAIR_BITS),
            _write(actions, slot_bits + _ACTION_BITS + time_bits),
            others.astype("<u4").tobytes(),
        )
    )


def sequence_of(data: bytes) -> int:
    """The sequence alone, of bytes that :func:`pack` gave."""
    return int(_HEADER.unpack_from(data)[1])


def unpack(data: bytes) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Sequence, latest day, counters and recent actions, as :func:`pack` was given them.

    Raises:
        ValueError: they are not the bytes of a profile, or those of another version's.
    """
    if len(data) < _HEADER.size or data[0] != VERSION:
        raise ValueError(f"{len(data)} bytes are no profile of this version")
    _, sequence, latest, n, n_days, n_recent, n_others, oldest, time_bits, kind_bits = _HEADER.unpack_from(data)
    if time_bits > 32 or kind_bits > _MOST_KIND_BITS or n_days > n or n_others > n_recent:
        raise ValueError(f"{len(data)} bytes are no profile")
    reader = _Reader(data, _HEADER.size)
    named = (1 << kind_bits) - 1
    pair_of = np.zeros(named + 1, dtype=np.int64)
    pair_of[:named] = reader.take("<u2", named)
    days = reader.rising(n_days, AGE_BITS)
    days |= reader.bits(n_days, _low_bits(n_days, AGE_BITS))
    keys = reader.rising(n, KEY_BITS)
    low, day_bits = _low_bits(n, KEY_BITS), _width(n_days)
    records = reader.bits(n, low + day_bits + kind_bits)
    keys |= records & ((1 << low) - 1)
    records >>= low
    day = records & ((1 << day_bits) - 1)
    kind = records >> day_bits
    pairs = pair_of[kind]
    rare = kind == named
    pairs[rare] = reader.bits(int(np.count_nonzero(rare)), _PAIR_BITS)
    slot_bits = _width(n + 1)
    actions = reader.bits(n_recent, slot_bits + _ACTION_BITS + time_bits)
    slots = actions & ((1 << slot_bits) - 1)
    others = reader.take("<u4", n_others)
    strange = slots == n
    if not reader.ended or np.count_nonzero(strange) != n_others:
        raise ValueError(f"{len(data)} bytes are no profile of {n} products and {n_recent} actions")
    if (n and int(day.max()) >= n_days) or (n_recent and int(slots.max()) > n):
        raise ValueError("a profile's bytes contradict themselves")

    counters = np.empty(n, dtype=COUNTER)
    names = np.zeros(n + 1, dtype=np.uint32)
    names[:n] = keys << _BELOW
    counters["key"] = names[:n]
    counters["seen"] = (days[day] << BUYS_BITS) | (pairs >> _WEIGHT_BITS)
    counters["decayed"] = pairs & ((1 << _WEIGHT_BITS) - 1)
    recent = np.empty(n_recent, dtype=RECENT)
    recent_keys = names[slots]
    recent_keys[strange] = others
    recent["key"] = recent_keys
    actions >>= slot_bits
    recent["action"] = actions & ((1 << _ACTION_BITS) - 1)
    recent["time"] = oldest + (actions >> _ACTION_BITS)
    return sequence, latest, counters, recent


class _Reader:
    """Takes one part of the bytes after the other."""

    def __init__(self, data: bytes, begin: int) -> None:
        self._data, self._at, self._end = data + _PADDING, begin, len(data)

    @property
    def ended(self) -> bool:
        return self._at == self._end

    def _step(self, size: int) -> int:
        begin, self._at = self._at, self._at + size
        if self._at > self._end:
            raise ValueError(f"{self._end} bytes are no whole profile")
        return begin

    def take(self, kind: str, count: int) -> np.ndarray:
        kind_ = np.dtype(kind)
        return np.frombuffer(self._data, kind_, count, self._step(count * kind_.itemsize))

    def bits(self, count: int, width: int) -> np.ndarray:
        """``count`` numbers of ``width`` (at most 56) bits; int64."""
        size = (count * width + 7) // 8
        begin = self._step(size)
        if not size:
            return np.zeros(count, dtype=np.int64)
        windows: np.ndarray = np.ndarray((size + 1,), "<i8", self._data, begin, (1,))
        first = np.arange(0, count * width, width)
        return (windows.take(first >> 3) >> (first & 7)) & ((1 << width) - 1)

    def rising(self, count: int, bits: int) -> np.ndarray:
        """The high parts of rising numbers, in their place; int64."""
        low = _low_bits(count, bits)
        if not count:
            return np.zeros(0, dtype=np.int64)
        size = (count + (1 << (bits - low)) + 7) // 8
        raw = np.frombuffer(self._data, np.uint8, size, self._step(size))
        ones = np.unpackbits(raw, bitorder="little").view(bool).nonzero()[0]
        if len(ones) != count:
            raise ValueError("a profile's bytes contradict themselves")
        return (ones - np.arange(count)) << low


def _low_bits(count: int, bits: int) -> int:
    """How many bits of ``count`` rising numbers of so many ``bits`` are written as they are."""
    return max(0, bits - count.bit_length())


def _width(count: int) -> int:
    """Bits that tell so many things apart."""
    return max(count - 1, 0).bit_length()


def _gaps(rising: np.ndarray, bits: int) -> bytes:
    if not len(rising):
        return b""
    low = _low_bits(len(rising), bits)
    string = np.zeros(len(rising) + (1 << (bits - low)), dtype=np.uint8)
    string[(rising >> low) + np.arange(len(rising))] = 1
    return np.packbits(string, bitorder="little").tobytes()


def _write(numbers: np.ndarray, width: int) -> bytes:
    each = np.unpackbits(numbers.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    return np.packbits(each[:, :width].ravel(), bitorder="little").tobytes()


def _commonest(pairs: np.ndarray) -> tuple[np.ndarray, int]:
    """The pairs that get a short number, and its bits: as many as save most."""
    counts = np.bincount(pairs, minlength=1)
    ranked = np.argsort(-counts, kind="stable")[: (1 << _MOST_KIND_BITS) - 1]
    covered = np.r_[0, np.cumsum(counts[ranked])]
    best, fewest = 0, _PAIR_BITS * len(pairs)
    for bits in range(1, _MOST_KIND_BITS + 1):
        named = min((1 << bits) - 1, len(ranked))
        cost = bits * len(pairs) + 16 * ((1 << bits) - 1) + _PAIR_BITS * (len(pairs) - int(covered[named]))
        if named == (1 << bits) - 1 and cost < fewest:
            best, fewest = bits, cost
    return ranked[: (1 << best) - 1], best

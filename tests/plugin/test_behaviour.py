"""What is learned from the log of who bought what with what, and when again, against counting by hand."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest

from endcap.catalog.product import product_keys
from endcap.events import Action
from endcap.profiles import DAY_S, short_keys
from endcap.recommend.behaviour import BASKET_GAP_S, BASKET_MOST, Behaviour
from endcap.recommend.counts import PairCounts, Repeats, pair
from endcap.recommend.generators import due
from tests.plugin.recommend_support import NOW, Log


def counted(behaviour: Behaviour, names: list[str]) -> dict[tuple[str, str], float]:
    name = dict(zip(short_keys(product_keys(names)).tolist(), names))
    keys, counts = behaviour.pairs.state
    return {(name[int(key) >> 32], name[int(key) & 0xFFFFFFFF]): float(count) for key, count in zip(keys, counts)}


@pytest.mark.parametrize("seed", range(5))
def test_baskets_are_counted_the_same_in_one_batch_and_in_many(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = [f"p{number}" for number in range(12)]
    lines, expected = [], Counter[tuple[str, str]]()
    for number in range(40):
        shopper, session = f"s{random.integers(4)}", f"b{number}" if number % 2 else ""
        start = NOW + number * 10 * BASKET_GAP_S
        basket = [names[one] for one in random.integers(0, 12, random.integers(1, 8))]
        lines += [(shopper, session, one, start + 60.0 * place) for place, one in enumerate(basket)]
        expected.update((one, one) for one in set(basket))
        expected.update(permutations(sorted(set(basket)), 2))
    log = Log(lines)
    assert counted(log.learned(), names) == expected
    cuts = sorted(random.integers(1, len(lines), 15).tolist())
    assert counted(log.learned(cuts), names) == expected


def test_a_session_of_one_shopper_is_not_anothers() -> None:
    behaviour = Log([("ann", "1", "a", NOW), ("bob", "1", "b", NOW)]).learned()
    assert counted(behaviour, ["a", "b"]) == {("a", "a"): 1, ("b", "b"): 1}


def test_a_huge_basket_counts_up_to_a_bound() -> None:
    names = [f"p{number}" for number in range(500)]
    behaviour = Log([("ann", "1", one, NOW) for one in names]).learned()
    assert len(behaviour.pairs) == BASKET_MOST**2


def test_only_purchases_count() -> None:
    behaviour = Behaviour()
    keys = product_keys(["a", "b"])
    behaviour.add(keys, np.full(2, NOW), np.full(2, Action.CLICK, np.uint8), ["ann"] * 2, ["1"] * 2, 2)
    behaviour.merge()
    assert len(behaviour.pairs) == len(behaviour.repeats) == 0
    assert behaviour.sequence == 2


def test_pairs_are_bounded_and_the_frequent_ones_stay() -> None:
    random = np.random.default_rng(0)
    counts, frequent = PairCounts(1_000), pair(np.arange(50), np.arange(50))
    for _ in range(20):
        counts.add(np.concatenate([frequent, frequent, random.integers(0, 2**63, 500).astype(np.uint64)]))
        assert len(counts) <= 1_000
    assert (counts.read(frequent) == 40).all()
    assert (np.diff(counts.state[0].astype(object)) > 0).all()


def test_together_prefers_what_goes_together_over_what_goes_with_everything() -> None:
    lines = []
    for number in range(60):
        basket = ["bag"] + (["pasta", "sauce"] if number < 20 else [f"x{number}"])
        lines += [("s", str(number), one, NOW) for one in basket]
    behaviour = Log(lines).learned()
    pasta, sauce, bag = short_keys(product_keys(["pasta", "sauce", "bag"])).tolist()
    keys, strength = behaviour.together(pasta)
    found = dict(zip(keys.tolist(), strength.tolist()))
    assert set(found) == {sauce, bag}
    assert found[sauce] > 1.5 * found[bag]
    assert len(behaviour.together(12345)[0]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_repeats_are_counted_as_by_hand(seed: int) -> None:
    random = np.random.default_rng(seed)
    repeats, seen = Repeats.none(), defaultdict(list)
    moments = np.sort(random.uniform(NOW, NOW + 100 * DAY_S, 300))
    keys = random.integers(0, 20, 300).astype(np.uint64)
    for start in range(0, 300, 70):
        repeats = repeats.add(keys[start : start + 70], moments[start : start + 70], 1_000)
    for key, moment in zip(keys.tolist(), moments.tolist()):
        seen[key].append(moment)
    assert repeats.keys.tolist() == sorted(seen)
    for place, key in enumerate(repeats.keys.tolist()):
        times = seen[key]
        apart = 1 + sum(later - earlier > 12 * 3600 for earlier, later in pairwise(times))
        assert repeats.times[place] == pytest.approx(apart, abs=1)  # whole seconds are kept
        assert (repeats.first[place], repeats.last[place]) == (int(times[0]), int(times[-1]))


def test_repeats_are_bounded_and_the_latest_stay() -> None:
    repeats = Repeats.none()
    for step in range(10):
        keys = np.arange(step * 100, step * 100 + 100).astype(np.uint64)
        repeats = repeats.add(keys, np.full(100, NOW + step * DAY_S), 350)
        assert len(repeats) <= 350
        assert set(keys.tolist()) <= set(repeats.keys.tolist())


def test_cycles_are_the_mean_gap() -> None:
    keys = pair(np.array([1, 1, 1, 2, 2, 3]), np.array([7, 7, 7, 7, 7, 8]))
    moments = NOW + DAY_S * np.array([0, 10, 20, 0, 40, 5])
    products, days, gaps = Repeats.none().add(keys, moments, 100).cycles()
    assert products.tolist() == [7]
    assert gaps.tolist() == [3]
    assert days[0] == pytest.approx((10 * 10 * 40) ** (1 / 3), rel=1e-3)


def test_what_is_due_is_wanted_most() -> None:
    def wanted(times: int, first: float, last: float) -> float:
        moments = [np.array([NOW - days * DAY_S]).astype(np.uint32) for days in (first, last)]
        when = Repeats(np.zeros(1, np.uint64), *moments, np.array([times], np.uint16))
        return float(due(np.array([20.0]), when, NOW)[0])

    assert wanted(6, 120, 20) > wanted(2, 40, 20), "bought more often"
    assert wanted(6, 120, 20) > wanted(6, 420, 320), "long given up"
    assert wanted(1, 400, 400) > 0
    assert np.isfinite(wanted(1, 0, 0))


def test_a_snapshot_is_taken_up_and_a_basket_goes_on(tmp_path: Path) -> None:
    log = Log([("ann", "1", one, NOW + place) for place, one in enumerate("abcd")])
    whole = log.learned()
    half = Behaviour()
    log.into(half, 0, 2)
    half.save(tmp_path / "b.npz", b"beside")
    later = Behaviour()
    assert later.restore(tmp_path / "b.npz", newest=2) == b"beside"
    assert later.sequence == 2
    log.into(later, 2, 4)
    later.merge()
    assert counted(later, list("abcd")) == counted(whole, list("abcd"))
    assert later.repeats.times.tolist() == whole.repeats.times.tolist()
    fresh = Behaviour()
    assert fresh.restore(tmp_path / "b.npz", newest=1) is None, "of another log"
    (tmp_path / "b.npz").write_bytes(b"damaged")
    assert fresh.restore(tmp_path / "b.npz", newest=9) is None
    assert fresh.restore(tmp_path / "none.npz", newest=9) is None
    assert fresh.sequence == 0

"""Profiles: bounded, order-independent, exact about what they promise."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.catalog.product import product_keys
from endcap.events import Action
from endcap.profile_bytes import COUNTER, RECENT, profile_keys
from endcap.profiles import DAY_S, MOST_BYTES, Profile, build_profiles

NOW = 1_750_000_000.0


def add(profile: Profile, *events: tuple[str, float, Action]) -> Profile:
    ids, times, actions = zip(*events)
    profile.add(product_keys(list(ids)), np.array(times, dtype=float), np.array(actions, dtype=np.uint8))
    return profile


def counter(profile: Profile, product: str) -> int:
    return int(np.flatnonzero(profile.counters["key"] == profile_keys(product_keys([product]))[0])[0])


def test_purchases_count_and_returns_take_back() -> None:
    profile = add(Profile(), *[("milk", NOW - day * DAY_S, Action.PURCHASE) for day in (1, 8, 15)])
    add(profile, ("milk", NOW, Action.RETURN), ("tea", NOW, Action.CLICK))
    assert profile.buys()[counter(profile, "milk")] == 2
    assert profile.buys()[counter(profile, "tea")] == 0
    assert profile.weights(NOW)[counter(profile, "tea")] == pytest.approx(0.15, rel=0.03)


def test_a_weight_halves_in_a_half_life() -> None:
    profile = add(Profile(half_life_days=10), ("milk", NOW, Action.PURCHASE))
    assert profile.weights(NOW + 10 * DAY_S)[0] / profile.weights(NOW)[0] == pytest.approx(0.5, abs=0.01)


def test_impressions_and_searches_leave_no_trace() -> None:
    profile = add(Profile(), ("milk", NOW, Action.IMPRESSION), ("", NOW, Action.SEARCH))
    assert not profile
    assert not len(profile.recent)
    assert profile.nbytes < 40


def test_a_million_events_stay_within_the_promised_bytes() -> None:
    rng = np.random.default_rng(0)
    profile = Profile()
    for _ in range(10):
        keys = rng.integers(1, 2**63, 100_000, dtype=np.uint64)
        profile.add(keys, NOW + rng.random(100_000), np.full(100_000, Action.CLICK, dtype=np.uint8))
    assert 3_900 < profile.nbytes <= MOST_BYTES
    assert len(profile.counters) > 900
    assert len(profile.recent) == 50
    assert (np.diff(profile.counters["key"].astype(np.int64)) > 0).all()


def test_regular_purchases_outlive_a_flood_of_clicks() -> None:
    profile = add(Profile(most_bytes=500), *[("milk", NOW - day * DAY_S, Action.PURCHASE) for day in range(5)])
    add(profile, *[(f"bait{number}", NOW, Action.CLICK) for number in range(500)])
    assert profile.buys()[counter(profile, "milk")] == 5


def shopper(seed: int, products: int, days: int, actions: list[Action], size: int = 5_000) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    keys = rng.integers(1, 2**63, products, dtype=np.uint64)[rng.integers(0, products, size)]
    times = NOW - DAY_S * rng.integers(0, days, size) - rng.integers(0, 3_600, size)
    return keys, times.astype(float), rng.choice(np.array(actions, dtype=np.uint8), size)


@pytest.mark.parametrize("days", [1, 100, 4_000])
@pytest.mark.parametrize("products", [1, 300, 3_000])
@pytest.mark.parametrize("kinds", [[Action.CLICK], [Action.PURCHASE], list(Action)])
@pytest.mark.parametrize("recent", [1, 50, 1_000])
def test_whoever_the_shopper_is_the_bytes_suffice_and_give_him_back(
    days: int, products: int, kinds: list[Action], recent: int
) -> None:
    for most in (500, MOST_BYTES):
        profile = Profile(most, recent)
        keys, times, actions = shopper(days + products, products, days, kinds)
        profile.add(keys[:4_000], times[:4_000], actions[:4_000])
        profile.add(keys[4_000:], times[4_000:], actions[4_000:])
        profile.sequence = 2**40
        data = profile.to_bytes()
        assert len(data) == profile.nbytes <= most
        again = Profile.from_bytes(data, most, recent)
        assert again.sequence == 2**40
        np.testing.assert_array_equal(again.counters, profile.counters)
        np.testing.assert_array_equal(again.recent, profile.recent)
        assert (again.counters.dtype, again.recent.dtype) == (COUNTER, RECENT)
        assert again.age_days(NOW).tolist() == profile.age_days(NOW).tolist()
        for one in (profile, again):
            one.add(keys[:7], times[:7] + DAY_S, actions[:7])
        assert again.to_bytes() == profile.to_bytes()


def test_a_household_of_many_habits_keeps_far_more_than_500_products() -> None:
    rng = np.random.default_rng(1)
    often = np.arange(300).repeat(rng.integers(2, 12, 300))
    bought = np.concatenate([often, np.arange(300, 2_000)])
    days = rng.choice(300, 110, replace=False)[rng.integers(0, 110, len(bought))]
    profile = Profile()
    keys = product_keys([str(one) for one in bought.tolist()])
    profile.add(keys, NOW - days * DAY_S, np.full(len(keys), Action.PURCHASE, dtype=np.uint8))
    assert len(profile.counters) > 850
    assert (profile.buys() > 1).sum() > 290, "what was bought once goes first"


def test_bytes_that_are_no_profile_are_refused() -> None:
    profile = Profile()
    profile.add(*shopper(0, 300, 100, list(Action)))
    data = profile.to_bytes()
    old = struct.pack("<qiHH", 2, 17_000, 1, 1) + bytes(7 + 9)  # as they were once
    for junk in (b"", b"x", bytes(27), old, data[:-1], data + b"\0", data[:200], data + bytes(4_000)):
        with pytest.raises(ValueError, match="profile"):
            Profile.from_bytes(junk)
    with pytest.raises(ValueError, match="actions"):
        Profile.from_bytes(data, recent=10)
    rng = np.random.default_rng(0)
    for _ in range(300):  # whatever is read, it ends in a profile or in that error
        broken = np.frombuffer(data, dtype=np.uint8).copy()
        broken[rng.integers(0, len(broken), 3)] = rng.integers(0, 256, 3)
        with contextlib.suppress(ValueError):
            Profile.from_bytes(broken.tobytes())


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.floats(NOW - 300 * DAY_S, NOW),
        st.sampled_from([Action.VIEW, Action.CLICK, Action.CART, Action.PURCHASE]),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=100, deadline=None)
@given(EVENTS, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(events: list, random: object) -> None:
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    once, singly = add(Profile(), *events), Profile()
    for event in shuffled:
        add(singly, event)
    assert (once.counters["key"] == singly.counters["key"]).all()
    assert (once.buys() == singly.buys()).all()
    assert (once.age_days(NOW) == singly.age_days(NOW)).all()
    # Every addition rounds to the log scale (2 %); weights below its least step are dropped.
    np.testing.assert_allclose(once.weights(NOW), singly.weights(NOW), rtol=0.5, atol=0.02)
    assert sorted(once.recent["time"]) == sorted(singly.recent["time"])


def test_copies_are_independent() -> None:
    first = add(Profile(), ("milk", NOW, Action.PURCHASE))
    second = add(first.copy(), ("tea", NOW, Action.PURCHASE))
    assert (len(first.counters), len(second.counters)) == (1, 2)


def test_columns_of_a_log_become_the_same_profiles_as_single_events() -> None:
    shoppers = ["ann", "bob", "ann"]
    keys = product_keys(["milk", "milk", "tea"])
    times = np.array([NOW, NOW, NOW - DAY_S])
    actions = np.full(3, Action.PURCHASE, dtype=np.uint8)
    built = build_profiles(shoppers, keys, times, actions)
    single = add(Profile(), ("milk", NOW, Action.PURCHASE), ("tea", NOW - DAY_S, Action.PURCHASE))
    assert (built["ann"].counters == single.counters).all()
    assert len(built["bob"].counters) == 1

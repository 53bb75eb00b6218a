"""Profiles: bounded, order-independent, exact about what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.catalog.product import product_keys
from endcap.events import Action
from endcap.profiles import DAY_S, Profile, build_profiles, short_keys

NOW = 1_750_000_000.0


def add(profile: Profile, *events: tuple[str, float, Action]) -> Profile:
    ids, times, actions = zip(*events)
    profile.add(product_keys(list(ids)), np.array(times, dtype=float), np.array(actions, dtype=np.uint8))
    return profile


def counter(profile: Profile, product: str) -> int:
    return int(np.flatnonzero(profile.counters["key"] == short_keys(product_keys([product]))[0])[0])


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
    assert profile.nbytes == 0


def test_a_million_events_stay_within_the_promised_bytes() -> None:
    rng = np.random.default_rng(0)
    profile = Profile()
    for _ in range(10):
        keys = rng.integers(1, 2**63, 100_000, dtype=np.uint64)
        profile.add(keys, NOW + rng.random(100_000), np.full(100_000, Action.CLICK, dtype=np.uint8))
    assert profile.nbytes <= 4_000
    assert len(profile.recent) == 50
    assert (np.diff(profile.counters["key"].astype(np.int64)) > 0).all()


def test_regular_purchases_outlive_a_flood_of_clicks() -> None:
    profile = add(Profile(places=20), *[("milk", NOW - day * DAY_S, Action.PURCHASE) for day in range(5)])
    add(profile, *[(f"bait{number}", NOW, Action.CLICK) for number in range(500)])
    assert profile.buys()[counter(profile, "milk")] == 5


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

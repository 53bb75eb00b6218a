from __future__ import annotations

import numpy as np
import pytest

from endcap_workers.training.behaviour import Lists, Log, Past, Products, list_features

SHOPPERS, PRODUCTS, TYPES = 30, 60, 4
NOW = 200.0


def products() -> Products:
    draw = np.random.default_rng(5)
    kind = np.arange(PRODUCTS) % TYPES
    return Products(
        type=kind,
        category=kind // 2,
        maker=draw.integers(0, 6, PRODUCTS),
        label=draw.integers(0, 2, PRODUCTS),
        size=draw.integers(0, 3, PRODUCTS),
    )


def log(lines: int = 3_000, seed: int = 0, until: float = 260.0) -> Log:
    draw = np.random.default_rng(seed)
    visit = draw.integers(0, 700, lines)
    shopper_of, store_of, time_of = draw.integers(0, SHOPPERS, 700), draw.integers(0, 3, 700), draw.random(700) * until
    return Log(
        shopper=shopper_of[visit],
        product=(draw.random(lines) ** 2 * PRODUCTS).astype(np.int64),
        store=store_of[visit],
        visit=visit,
        time=time_of[visit],
        price=draw.random(lines) * 5,
        reduced=draw.random(lines) < 0.4,
    )


def lists_for(past: Past) -> Lists:
    sold = np.unique(past.log.product)
    candidates = {kind: sold[past.products.type[sold] == kind] for kind in range(TYPES)}
    cases = past.log.where(np.arange(len(past.age)) % 7 == 0)
    return Lists.of_cases(cases.shopper, cases.product, candidates, past.products.type)


def columns(past: Past, lists: Lists, groups: tuple[str, ...] = ("own", "taste", "crowd")) -> dict[str, np.ndarray]:
    made = list_features(past, lists, groups)
    return dict(zip(made.names, made.matrix().T.astype(float), strict=True))


def test_nothing_after_the_moment_reaches_a_feature() -> None:
    whole = log()
    truncated = whole.where(whole.time < NOW)
    past = Past(whole, products(), NOW, SHOPPERS)
    lists = lists_for(past)

    seen = list_features(past, lists)
    blind = list_features(Past(truncated, products(), NOW, SHOPPERS), lists)

    assert len(truncated.time) < len(whole.time)
    assert seen.names == blind.names
    assert np.array_equal(seen.matrix(), blind.matrix())


def test_the_labels_reach_no_feature() -> None:
    past = Past(log(), products(), NOW, SHOPPERS)
    lists = lists_for(past)
    other = Lists(lists.shopper, lists.type, lists.starts, lists.product, lists.wanted[::-1].copy())

    assert np.array_equal(list_features(past, lists).matrix(), list_features(past, other).matrix())


def test_the_order_of_the_log_does_not_matter() -> None:
    whole = log()
    shuffled = whole.where(np.random.default_rng(1).permutation(len(whole.time)))
    past = Past(whole, products(), NOW, SHOPPERS)
    lists = lists_for(past)
    first, second = columns(past, lists), columns(Past(shuffled, products(), NOW, SHOPPERS), lists)

    for name, values in first.items():
        if not name.startswith("price"):  # of two equal lines in a visit the first one counts, and its price
            assert values == pytest.approx(second[name], abs=0.02), name


def test_own_columns_are_what_a_loop_finds() -> None:
    past = Past(log(), products(), NOW, SHOPPERS)
    lists = lists_for(past)
    found = columns(past, lists, ("own",))
    group = lists.group
    one = past.log
    for row in range(0, len(lists.product), 11):
        shopper, product = lists.shopper[group[row]], lists.product[row]
        kind = past.products.type[product]
        mine = one.shopper == shopper
        ages = np.sort(past.age[mine & (one.product == product)])
        same = mine & (past.products.type[one.product] == kind)
        trips = sorted(set(zip(past.age[same].tolist(), one.visit[same].tolist(), strict=True)))
        visits = sorted(set(zip(past.age[mine].tolist(), one.visit[mine].tolist(), strict=True)))
        latest = set(one.product[one.visit == trips[0][1]].tolist()) if trips else set()

        assert found["own_any"][row] == (len(ages) > 0)
        assert found["own_count"][row] == pytest.approx(np.log1p(len(ages)), abs=2e-3)
        assert found["own_trip_0"][row] == (product in latest)
        assert found["list_count"][row] == pytest.approx(
            np.log1p((past.products.type[one.product[mine]] == kind).sum()), abs=4e-3
        )
        if len(ages):
            assert found["own_recency"][row] == pytest.approx(1 / (1 + ages[0] / 7), abs=2e-3)
            assert found["own_visits_since"][row] == pytest.approx(
                np.log1p(sum(age < ages[0] - 1e-9 for age, _ in visits)), abs=4e-3
            )
        if len(ages) > 1:
            interval = (ages[-1] - ages[0]) / (len(ages) - 1)
            assert found["own_due"][row] == pytest.approx(np.log((ages[0] + 3) / (interval + 3)), abs=4e-3)
            assert found["own_age_2"][row] == pytest.approx(np.log1p(ages[1]), abs=4e-3)


def test_who_likes_a_maker_is_told_so() -> None:
    one, shelf = log(), products()
    fan = one.shopper == 3
    bought = one.product.copy()
    bought[fan] = np.random.default_rng(0).choice(np.flatnonzero(shelf.maker == 2), fan.sum())
    past = Past(Log(one.shopper, bought, one.store, one.visit, one.time, one.price, one.reduced), shelf, NOW, SHOPPERS)
    lists = lists_for(past)
    found = columns(past, lists, ("taste",))["taste_maker"]
    mine = lists.shopper[lists.group] == 3
    made = shelf.maker[lists.product] == 2

    assert found[mine & made].min() > 0.5
    assert found[mine & ~made].max() < 0.0


def test_trend_and_store_follow_the_sales() -> None:
    one, shelf = log(), products()
    late = (one.time > NOW - 14) & (one.time < NOW)
    bought, store = one.product.copy(), one.store.copy()
    bought[late] = 8
    bought[~late & (bought == 8)] = 12
    store[bought == 4] = 1
    past = Past(Log(one.shopper, bought, store, one.visit, one.time, one.price, one.reduced), shelf, NOW, SHOPPERS)
    lists = lists_for(past)
    found = columns(past, lists, ("crowd",))

    assert found["pop_trend"][lists.product == 8].min() > found["pop_trend"][lists.product == 12].max()
    assert found["pop_7"][lists.product == 8].min() == found["pop_7"].max()


def test_values_are_finite_and_small_enough_for_half_precision() -> None:
    past = Past(log(), products(), NOW, SHOPPERS)
    matrix = list_features(past, lists_for(past)).matrix()

    assert matrix.dtype == np.float16
    assert np.isfinite(matrix).all()


def test_a_log_of_one_line_gives_a_sane_answer() -> None:
    tiny = log().where(np.arange(3_000) == 0)
    past = Past(tiny, products(), NOW + 100, SHOPPERS)
    candidates = {int(products().type[tiny.product[0]]): tiny.product}
    lists = Lists.of_cases(tiny.shopper, tiny.product, candidates, products().type)

    found = columns(past, lists, ("own", "taste"))

    assert found["own_any"].tolist() == [1.0]


def test_cases_of_one_shopper_and_type_become_one_list() -> None:
    kinds = np.array([0, 0, 0, 1, 1])
    lists = Lists.of_cases(
        np.array([7, 7, 7, 2]), np.array([1, 1, 2, 4]), {0: np.array([2, 0, 1]), 1: np.array([3, 4])}, kinds
    )

    assert lists.shopper.tolist() == [2, 7]
    assert lists.type.tolist() == [1, 0]
    assert lists.product.tolist() == [3, 4, 2, 0, 1]
    assert lists.wanted.tolist() == [0, 1, 1, 0, 2]
    assert lists.group.tolist() == [0, 0, 1, 1, 1]

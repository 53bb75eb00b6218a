"""Features: what they mean, and that they are finite whatever comes in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.catalog import Product, ProductTable
from endcap.catalog.product import product_keys
from endcap.events import Action
from endcap.features import AFFINITY, FEATURES, INDEX, ranking_inputs
from endcap.popularity import Popularity
from endcap.profiles import DAY_S, Profile

NOW = 1_750_000_000.0
PRODUCTS = [
    Product("m1", "Milk 1 l", brand="Alm", categories=("Food", "Milk"), price=1.0, attributes={"size": "1 l"}),
    Product("m2", "Milk 2 l", brand="Alm", categories=("Food", "Milk"), price=2.0, attributes={"size": "2 l"}),
    Product("m3", "Oat milk", brand="Oaty", categories=("Food", "Milk"), price=3.0, attributes={"size": "1 l"}),
    Product("t1", "Tea", brand="Alm", categories=("Food", "Tea"), price=4.0),
    Product("bare"),
]
VECTORS = np.eye(5, 8, dtype=np.float32)


@pytest.fixture
def table() -> ProductTable:
    return ProductTable(PRODUCTS, VECTORS)


def profile_of(*events: tuple[str, float, Action]) -> Profile:
    profile = Profile()
    if events:
        ids, ages, actions = zip(*events)
        profile.add(product_keys(list(ids)), NOW - DAY_S * np.array(ages), np.array(actions, dtype=np.uint8))
    return profile


def features(
    table: ProductTable,
    profile: Profile,
    ids: list[str],
    scores: list[float] | None = None,
    popular: Popularity | None = None,
) -> dict[str, np.ndarray]:
    engine = np.zeros(len(ids), dtype=np.float32) if scores is None else np.array(scores, dtype=np.float32)
    made = ranking_inputs(profile, "milk", ids, engine, table, popular or Popularity(), NOW)
    assert made.features.shape == (len(ids), len(FEATURES))
    assert np.isfinite(made.features).all()
    return {name: made.features[:, column] for name, column in INDEX.items()}


def test_own_purchases_and_their_age(table: ProductTable) -> None:
    got = features(
        table, profile_of(*[("m1", 1.0, Action.PURCHASE)] * 3, ("m2", 200.0, Action.PURCHASE)), ["m1", "m2", "m3"]
    )
    assert np.expm1(got["own_buys"]).round().tolist() == [3, 1, 0]
    assert got["own_recency"][0] > got["own_recency"][1] > got["own_recency"][2] == 0
    assert got["own_share"][0] > got["own_share"][1] > 0


def test_a_liked_brand_lifts_the_products_not_known_yet(table: ProductTable) -> None:
    got = features(table, profile_of(("m1", 1.0, Action.PURCHASE)), ["m1", "m2", "m3"])
    assert got["brand_share"][1] > 0
    assert got["brand_share"][2] == 0
    assert got["brand_share"][0] == pytest.approx(0, abs=1e-6), "a product is no evidence for itself"
    assert got["attribute_share"][2] > 0 == got["attribute_share"][1], "one litre is what was bought"


def test_prices_near_the_usual_ones_are_nearer(table: ProductTable) -> None:
    got = features(table, profile_of(("m3", 1.0, Action.PURCHASE)), ["m1", "m2", "m3"])
    assert got["price_gap"][0] < got["price_gap"][1] < got["price_gap"][2] == pytest.approx(0, abs=1e-5)


def test_similarity_is_the_cosine_to_the_mean(table: ProductTable) -> None:
    got = features(table, profile_of(("t1", 1.0, Action.PURCHASE)), ["t1", "m1"])
    assert got["similarity"] == pytest.approx([1.0, 0.0], abs=1e-3)


def test_the_engine_speaks_through_ratios_and_shared_places(table: ProductTable) -> None:
    got = features(table, Profile(), ["m1", "m2", "m3"], [8.0, 4.0, 4.0])
    assert got["engine_score"] == pytest.approx([0.0, np.log(0.5), np.log(0.5)])
    assert got["engine_rank"][1] == got["engine_rank"][2] < got["engine_rank"][0]


def test_sales_count_for_products_the_table_does_not_know(table: ProductTable) -> None:
    popular = Popularity()
    popular.add(product_keys(["new"]), np.array([NOW]), np.array([Action.PURCHASE], dtype=np.uint8))
    got = features(table, profile_of(("m1", 1.0, Action.PURCHASE)), ["new", "bare"], popular=popular)
    assert got["recent"][0] > 0 == got["recent"][1]
    assert got["brand_weight"].tolist() == [0, 0]


def test_bought_products_that_are_gone_do_no_harm(table: ProductTable) -> None:
    got = features(table, profile_of(("gone", 1.0, Action.PURCHASE), ("m1", 2.0, Action.PURCHASE)), ["m1", "gone"])
    assert got["own_buys"] == pytest.approx([np.log(2.0)] * 2)


IDS = st.lists(st.sampled_from(["m1", "m2", "m3", "t1", "bare", "x", "ü", ""]), min_size=0, max_size=8)
ACTIONS = st.sampled_from(list(Action))


@settings(max_examples=150, deadline=None)
@given(
    IDS,
    st.lists(
        st.tuples(st.sampled_from(["m1", "m2", "t1", "bare", "gone"]), st.floats(-1, 4_000), ACTIONS), max_size=12
    ),
    st.sampled_from([0.0, 1.0, -5.0, float("nan"), float("inf"), 1e30]),
)
def test_always_finite(ids: list[str], events: list[tuple[str, float, Action]], score: float) -> None:
    features(ProductTable(PRODUCTS, VECTORS), profile_of(*events), ids, [score] * len(ids))


@settings(max_examples=50, deadline=None)
@given(st.permutations(["m1", "m2", "m3", "t1", "bare"]))
def test_a_candidate_is_described_alike_wherever_it_stands(order: list[str]) -> None:
    table, profile = ProductTable(PRODUCTS, VECTORS), profile_of(("m1", 3.0, Action.PURCHASE), ("t1", 9.0, Action.CART))
    straight = ranking_inputs(profile, "", [p.id for p in PRODUCTS], np.ones(5, np.float32), table, Popularity(), NOW)
    mixed = ranking_inputs(profile, "", order, np.ones(5, np.float32), table, Popularity(), NOW)
    rows = [[p.id for p in PRODUCTS].index(one) for one in order]
    np.testing.assert_allclose(mixed.features, straight.features[rows], rtol=1e-5)


def test_later_trips_to_the_shelf_count_days_not_products(table: ProductTable) -> None:
    shopper = profile_of(
        ("m1", 30.0, Action.PURCHASE), ("m2", 10.0, Action.PURCHASE), ("m3", 10.0, Action.PURCHASE),
        ("t1", 2.0, Action.PURCHASE),
    )  # fmt: skip
    got = features(table, shopper, ["m1", "m2", "m3", "t1"])
    assert np.expm1(got["own_trips"]).round().tolist() == [1, 0, 0, 0]
    assert np.expm1(got["shelf_distinct"]).round().tolist() == [3, 3, 3, 1]
    assert got["own_age"][3] < got["own_age"][1] < got["own_age"][0]
    assert np.expm1(got["shopper_buys"]).round().tolist() == [4] * 4


def test_a_lift_is_relative_to_what_everybody_buys(table: ProductTable) -> None:
    popular = Popularity()
    popular.add(product_keys(["m3"] * 50), np.full(50, NOW), np.full(50, Action.PURCHASE, dtype=np.uint8))
    shopper = profile_of(("m1", 1.0, Action.PURCHASE), ("m3", 1.0, Action.PURCHASE))
    got = features(table, shopper, ["m1", "m2", "m3"], popular=popular)
    assert got["brand_lift"][1] > 0, "hardly anybody buys this brand, he does"
    assert got["brand_lift"][1] > got["brand_lift"][2]
    alone = features(table, shopper, ["m1", "m2", "m3"])
    assert alone["brand_lift"][1] < got["brand_lift"][1]


def test_parts_of_the_sales_and_their_move(table: ProductTable) -> None:
    popular = Popularity()
    ids, ages = ["m1"] * 30 + ["m2"] * 30, [1.0] * 30 + [200.0] * 30
    popular.add(product_keys(ids), NOW - DAY_S * np.array(ages), np.full(60, Action.PURCHASE, dtype=np.uint8))
    got = features(table, Profile(), ["m1", "m2", "m3"], popular=popular)
    assert got["total_part"][0] == pytest.approx(got["total_part"][1])
    assert got["recent_part"][0] > got["recent_part"][1] > got["recent_part"][2] - 1e-3
    assert got["week_trend"][0] > got["week_trend"][1] - 1e-6
    assert (got["candidates"] == np.float32(np.log(4.0))).all()


def test_the_columns_of_an_affinity_are_empty_without_one(table: ProductTable) -> None:
    got = features(table, profile_of(("m1", 1.0, Action.PURCHASE)), ["m1", "m2"])
    assert not any(got[name].any() for name in AFFINITY)

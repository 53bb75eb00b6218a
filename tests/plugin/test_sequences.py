"""What an interest model reads about a search."""

from __future__ import annotations

import numpy as np
import pytest

from endcap.catalog import Product, ProductTable
from endcap.catalog.product import product_keys
from endcap.errors import ScorerUnavailable
from endcap.events import Action
from endcap.features import FEATURES
from endcap.profiles import DAY_S, Profile
from endcap.sequences import CODES, INPUTS, PADDING, UNKNOWN, Alignment, InputSpec, Vocabulary, model_inputs
from endcap_workers.models import INPUTS as MODEL_INPUTS
from endcap_workers.models import PADDING as MODEL_PADDING
from endcap_workers.models import UNKNOWN as MODEL_UNKNOWN
from tests.serving import DIMS, ENCODER, NOW, SPEC, TABLE, VOCABULARY, make_profile, search, searches

ALIGNED = Alignment(TABLE, VOCABULARY, SPEC)


def profile_of(*actions: tuple[str, float, Action], recent: int = 50) -> Profile:
    """(product, days ago, action)."""
    made = Profile(recent=recent)
    made.add(
        product_keys([one for one, _, _ in actions]),
        np.array([NOW - days * DAY_S for _, days, _ in actions]),
        np.array([kind for _, _, kind in actions], dtype=np.uint8),
    )
    return made


def number(product: str) -> int:
    return VOCABULARY.products.index(product) + 2


def test_the_models_and_the_server_mean_the_same_tensors() -> None:
    assert tuple(INPUTS) == MODEL_INPUTS
    assert (PADDING, UNKNOWN) == (MODEL_PADDING, MODEL_UNKNOWN)


def test_shapes_types_and_bounds_hold_for_any_search() -> None:
    sizes = VOCABULARY.sizes(CODES)
    for one in searches(100):
        for places in (0, SPEC.places):
            made = model_inputs(one, ALIGNED, places)
            n, length = len(one.rows), made["history_products"].shape[1]
            assert list(made) == list(SPEC.inputs)
            assert 1 <= length <= SPEC.places
            assert length == SPEC.places or not places
            for name, tensor in made.items():
                first = length if name.startswith("history") else n
                assert tensor.shape == (1, first, *SPEC.shape(name)[1:])
                assert tensor.dtype == INPUTS[name]
                assert np.isfinite(tensor).all()
            for side in ("history", "candidate"):
                products = made[f"{side}_products"]
                assert products.min() >= 0
                assert products.max() < VOCABULARY.numbers
                assert (made[f"{side}_codes"] < np.array(sizes)).all()
            assert (made["history_ages"] >= 0).all()
            padding = made["history_products"][0] == PADDING
            assert not made["history_actions"][0, padding].any()
            assert (np.diff(padding.astype(int)) >= 0).all(), "padding comes behind"
            assert (made["candidate_products"] >= UNKNOWN).all()


def test_a_history_is_the_latest_actions_oldest_first() -> None:
    shopper = profile_of(("p3", 2.0, Action.PURCHASE), ("p7", 30.0, Action.VIEW), ("p1", 1.0, Action.CART))
    made = model_inputs(search(shopper, ["p1"]), ALIGNED)
    assert made["history_products"].tolist() == [[number("p7"), number("p3"), number("p1")]]
    assert made["history_actions"].tolist() == [[Action.VIEW, Action.PURCHASE, Action.CART]]
    assert made["history_ages"][0] == pytest.approx([30.0, 2.0, 1.0], abs=1e-3)


def test_what_is_older_than_the_places_is_cut() -> None:
    shopper = profile_of(*[(f"p{n}", float(100 - n), Action.VIEW) for n in range(100)])
    made = model_inputs(search(shopper, ["p1"]), ALIGNED)
    assert made["history_products"][0].tolist() == [number(f"p{n}") for n in range(70, 100)]
    assert model_inputs(search(shopper, ["p1"]), ALIGNED, 4)["history_ages"].shape == (1, 4)


def test_products_known_only_by_their_counters_come_before_the_single_actions() -> None:
    shopper = profile_of(
        ("p9", 40.0, Action.PURCHASE),
        ("p8", 50.0, Action.VIEW),
        ("p3", 2.0, Action.PURCHASE),
        ("p1", 1.0, Action.VIEW),
        recent=2,
    )
    made = model_inputs(search(shopper, ["p1"]), ALIGNED)
    assert made["history_products"].tolist() == [[number(one) for one in ("p8", "p9", "p3", "p1")]]
    assert made["history_actions"].tolist() == [[Action.VIEW, Action.PURCHASE, Action.PURCHASE, Action.VIEW]]
    assert made["history_ages"][0] == pytest.approx([50.0, 40.0, 2.0, 1.0], abs=1.01)


def test_a_new_action_is_in_the_next_history() -> None:
    shopper = profile_of(("p3", 2.0, Action.PURCHASE))
    model_inputs(search(shopper, ["p1"]), ALIGNED)
    shopper.add(product_keys(["p5"]), np.array([NOW]), np.array([Action.VIEW], dtype=np.uint8))
    assert model_inputs(search(shopper, ["p1"]), ALIGNED)["history_products"].tolist() == [[number("p3"), number("p5")]]


def test_the_ages_are_those_of_the_moment_of_ranking() -> None:
    shopper = profile_of(("p3", 2.0, Action.PURCHASE))
    inputs = search(shopper, ["p1"])
    model_inputs(inputs, ALIGNED)
    inputs.now += 3 * DAY_S
    assert model_inputs(inputs, ALIGNED)["history_ages"][0] == pytest.approx([5.0], abs=1e-3)


def test_a_product_that_left_the_shop_keeps_its_number_and_a_stranger_has_none() -> None:
    shopper = profile_of(("gone", 2.0, Action.PURCHASE), ("never seen", 1.0, Action.VIEW))
    made = model_inputs(search(shopper, ["p1", "p250", "not in the shop"]), ALIGNED)
    assert made["history_products"].tolist() == [[number("gone"), UNKNOWN]]
    assert not made["history_codes"].any()
    assert not made["history_content"].any()
    assert made["candidate_products"].tolist() == [[number("p1"), UNKNOWN, UNKNOWN]]
    assert made["candidate_codes"][0, 1].all(), "a new product still has brand, category and price"
    assert made["candidate_content"][0, 1].any()
    assert not made["candidate_codes"][0, 2].any()


def test_codes_mean_the_same_in_another_catalogue() -> None:
    """Tables number their values in order of appearance: the vocabulary does not depend on that."""
    names = ["p4", "p3", "p40"]
    of = {one.id: one for one in _products(TABLE)}
    other = ProductTable([of[one] for one in names])
    spec = InputSpec(places=5, codes=("brand", "category", "parent"))
    theirs, ours = Alignment(other, VOCABULARY, spec), Alignment(TABLE, VOCABULARY, spec)
    rows = TABLE.rows(names)
    assert theirs.codes[:3].tolist() == ours.codes[rows].tolist()
    assert theirs.numbers[:3].tolist() == ours.numbers[rows].tolist()


def test_equal_values_have_equal_codes_and_missing_ones_none() -> None:
    codes = dict(zip(CODES, ALIGNED.codes.T))
    rows = TABLE.rows(["p1", "p41", "p2", "p11", "p13", "p7"])
    brand, category, parent, price = (codes[name][rows].tolist() for name in CODES)
    assert brand[0] == brand[1] != brand[2]
    assert brand[3] == 0
    assert category[4] == parent[4] == 0
    assert price[5] == 0
    assert all(price[:3])


def test_price_bands_rise_with_the_price_within_the_category() -> None:
    table = ProductTable([Product(f"a{n}", price=float(1 + n), categories=("Tea",)) for n in range(100)])
    spec = InputSpec(places=5, codes=("price_band",))
    vocabulary = Vocabulary.of(table, [], ("price_band",), price_bands=10)
    bands = Alignment(table, vocabulary, spec).codes[:-1, 0]
    assert (np.diff(bands) >= 0).all()
    assert np.bincount(bands)[1:].tolist() == pytest.approx([10] * 10, abs=1)
    assert vocabulary.sizes(("price_band",)) == (11,)


def test_a_catalogue_of_nothing_works() -> None:
    table = ProductTable([])
    vocabulary = Vocabulary.of(table, [])
    made = model_inputs(
        search(make_profile(np.random.default_rng(0), 5), ["a"], table), Alignment(table, vocabulary, SPEC)
    )
    assert made["candidate_products"].tolist() == [[UNKNOWN]]
    assert vocabulary.sizes(CODES) == (1, 1, 1, 2)


def test_only_frequent_values_have_codes() -> None:
    table = ProductTable([Product(f"a{n}", brand="big" if n % 3 else f"small {n}") for n in range(9)])
    vocabulary = Vocabulary.of(table, [], ("brand",), most_values=1)
    assert vocabulary.codes == {"brand": ["big"]}
    assert Alignment(table, vocabulary, InputSpec(codes=("brand",))).codes[:, 0].tolist() == [0, 1, 1] * 3 + [0]


def test_vectors_of_another_width_are_refused() -> None:
    table = ProductTable([Product("a")], np.zeros((1, DIMS + 1), dtype=np.float16))
    with pytest.raises(ScorerUnavailable, match="of 8 numbers, the index holds 9"):
        Alignment(table, VOCABULARY, SPEC)


def test_a_table_without_vectors_gives_zeros() -> None:
    table = ProductTable([Product("a")])
    made = model_inputs(search(Profile(), ["a"], table), Alignment(table, VOCABULARY, SPEC))
    assert made["candidate_content"].tolist() == [[[0.0] * DIMS]]


def test_only_the_tensors_that_the_graph_takes_are_made() -> None:
    spec = InputSpec(inputs=("candidate_features",), codes=(), content=0)
    made = model_inputs(searches(1)[0], Alignment(TABLE, VOCABULARY, spec))
    assert list(made) == ["candidate_features"]
    assert made["candidate_features"].shape[2] == len(FEATURES)


def test_specification_and_vocabulary_survive_json() -> None:
    assert InputSpec.from_json(SPEC.to_json()) == SPEC
    assert InputSpec.from_json(SPEC.to_json()).digest == SPEC.digest
    assert Vocabulary.from_json(VOCABULARY.to_json()) == VOCABULARY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": FEATURES[:-1]}, f"{FEATURES[-1]} missing there"),
        ({"features": (*FEATURES, "mood")}, "mood unknown here"),
        ({"features": FEATURES[::-1]}, "another order"),
        ({"codes": ("brand", "colour")}, "codes: colour"),
        ({"codes": ("brand", "brand")}, "a name twice"),
        ({"inputs": ()}, "reads nothing"),
        ({"places": 0}, "places: 0"),
        ({"content": 4, "encoder": ""}, "the encoder that made the vectors"),
    ],
)
def test_a_specification_that_no_server_could_serve_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputSpec.from_json({**SPEC.to_json(), **change})


def test_any_change_of_the_specification_changes_its_digest() -> None:
    others = [
        InputSpec(places=31, content=DIMS, encoder=ENCODER),
        InputSpec(places=30, content=DIMS + 1, encoder=ENCODER),
        InputSpec(places=30, content=DIMS, encoder="another"),
        InputSpec(places=30, content=DIMS, encoder=ENCODER, codes=CODES[::-1]),
        InputSpec(places=30, content=DIMS, encoder=ENCODER, inputs=tuple(INPUTS)[:-1]),
        InputSpec(places=30, content=DIMS, encoder=ENCODER, features=()),
    ]
    assert len({SPEC.digest, *(one.digest for one in others)}) == 7


def _products(table: ProductTable) -> list[Product]:
    from tests.serving import products

    return products(len(table))

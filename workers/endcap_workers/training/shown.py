"""The features of a page that was shown: as they were served, where they were logged; else made once more."""

from __future__ import annotations

import numpy as np

from endcap.catalog.table import ProductTable
from endcap.features import AFFINITY, FEATURES, INDEX, ranking_inputs
from endcap.features.affinity import AlignedAffinity
from endcap.popularity import Popularity
from endcap.profiles import Profile
from endcap.stores.rankings import Served
from endcap_workers.training.lists import Lists

_OWN_AFFINITY = INDEX[AFFINITY[0]]


def shown_features(
    served: Served,
    profile: Profile,
    lists: Lists,
    table: ProductTable,
    popularity: Popularity,
    affinity: AlignedAffinity | None,
    logged: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 (k, F) and rows int64 (k,) of what a page showed.

    Some features compare a product with all candidates of its search, not with the page alone: these are what the
    engine finds for the same words now. Where it finds nothing, they are the page.

    Args:
        profile, popularity: as of ``served.time``.
        affinity: always fills its columns: those that were served belong to the model that was live then.
        logged: False takes nothing from the log, for comparison.
    """
    found = lists.of_query(served.query)
    order = _engine_order(served)
    if found is not None:
        known = set(found.ids)
        missing = [one for one in order if one not in known]
        ids, scores = [*found.ids, *missing], np.r_[found.scores, np.full(len(missing), found.scores.min())]
    else:
        ids, scores = order, np.zeros(len(order), dtype=np.float32)
    inputs = ranking_inputs(profile, served.query, ids, scores.astype(np.float32), table, popularity, served.time)
    if affinity is not None:
        affinity.fill(inputs)
    place = {one: number for number, one in enumerate(ids)}
    at = np.array([place[one] for one in served.products])
    features, rows = inputs.features[at], inputs.rows[at]
    if found is None:
        features[:, INDEX["engine_rank"]] = _rank(served)
    if logged and served.features is not None and tuple(served.feature_names) == FEATURES:
        whole = np.isfinite(served.features).all(axis=1)
        features[whole, :_OWN_AFFINITY] = served.features[whole, :_OWN_AFFINITY]
    return features, rows


def _engine_order(served: Served) -> list[str]:
    """The page's products as the engine had them; those without a place in its order last."""
    places = _places(served)
    return [served.products[number] for number in np.argsort(places, kind="stable").tolist()]


def _places(served: Served) -> np.ndarray:
    places = np.array(served.engine_positions or served.positions, dtype=np.float64)
    return np.where(places > 0, places, np.inf)


def _rank(served: Served) -> np.ndarray:
    result: np.ndarray = 1.0 / np.log2(1.0 + _places(served))
    return result

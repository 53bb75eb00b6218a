"""Fits the weights of the baseline scorer: a multinomial logit (McFadden 1974) over the candidates of each case.

``python -m endcap_workers.training.baseline`` fits on Complete Journey's purchases of October and November, each with
features as of the first of its month, and rewrites the weights that ship with the package. December is never read.
The weights that ship were fitted before profiles were packed: the same command gives each within .1 of them now.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np

import endcap.scoring
from endcap.features import INDEX
from endcap.scoring.baseline import WEIGHTS_FILE

#: The features that are fitted: plain ones, which need no model beside them. The others weigh nothing; those of an
#: affinity the baseline could not even be given, since that comes with a trained model.
FITTED = (
    "own_buys", "own_decayed", "own_recency", "own_any", "own_share", "brand_share", "brand_weight", "category_weight",
    "attribute_share", "price_gap", "total", "recent", "week", "recent_share", "trend", "stranger_recent",
)  # fmt: skip
#: Set by judgement, since the log has no search engine and no vectors to learn them from. A hit with half of the best
#: engine score starts 1.4 log-odds behind: less than a product bought again and again makes up. Among products that
#: all match in full, differences of the score are noise of their texts' lengths: they cost .001 of November's NDCG@10.
PRIORS: Mapping[str, float] = {"engine_score": 2.0, "engine_rank": 0.0, "similarity": 1.0}


def fit_logit(
    features: np.ndarray, targets: np.ndarray, starts: np.ndarray, ridge: float = 1e-4
) -> tuple[np.ndarray, float]:
    """Weights that maximise the likelihood of the chosen candidates.

    Args:
        features: float (m, f), the candidates of all cases one after another.
        targets: int (c,), row of each case's chosen candidate. starts: int (c,), first row of each case.
        ridge: penalty on the squared weights of standardised features.

    Returns:
        (weights (f,), mean negative log-likelihood). Constant features get weight 0.
    """
    from scipy.optimize import minimize

    scale = features.std(axis=0)
    varied = scale > 1e-6
    standard = features[:, varied] / scale[varied]
    sizes = np.diff(np.r_[starts, len(features)])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = standard @ weights
        top = np.maximum.reduceat(scores, starts)
        odds = np.exp(scores - np.repeat(top, sizes))
        total = np.add.reduceat(odds, starts)
        gradient = (odds / np.repeat(total, sizes)) @ standard - standard[targets].sum(axis=0)
        likelihood = (scores[targets] - top - np.log(total)).mean()
        return -likelihood + ridge * float(weights @ weights), gradient / len(starts) + 2 * ridge * weights

    found = minimize(loss, np.zeros(int(varied.sum())), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    weights = np.zeros(features.shape[1])
    weights[varied] = found.x / scale[varied]
    return weights, float(found.fun)


def fit_complete_journey(report: Callable[[str], None] = print) -> dict[str, float]:
    """Weights by feature name, fitted on two months and checked on the second with the first's weights."""
    from endcap_workers.evaluation import complete_journey as journey

    parts, columns = [], [INDEX[name] for name in FITTED]
    months = [np.datetime64(day) for day in ("2017-10-01", "2017-11-01", "2017-12-01")]
    for number, (cut, until) in enumerate(pairwise(months)):
        cases = journey.load(seed=number + 1, cut=cut, until=until)
        world = journey.World(cases)
        matrices, targets = [], []
        for household, target, name in zip(cases.test.household_id, cases.test.product_id, cases.test.product_type):
            candidates = cases.candidates[name]
            matrices.append(world.inputs(household, name, candidates).features[:, columns])
            targets.append(int(np.flatnonzero(candidates == target)[0]))
        starts = np.r_[0, np.cumsum([len(matrix) for matrix in matrices])[:-1]]
        parts.append((np.concatenate(matrices).astype(float), starts + np.array(targets), starts))
        report(f"{cut}: {len(targets)} cases")
    (first, _), (later, rows, starts) = fit_logit(*parts[0]), parts[1]
    top = np.log(np.add.reduceat(np.exp(later @ first), starts))
    report(f"mean log-likelihood of November under October's weights: {((later @ first)[rows] - top).mean():.4f}")
    shift = len(parts[0][0])
    weights, _ = fit_logit(
        np.concatenate([part[0] for part in parts]),
        np.r_[parts[0][1], rows + shift],
        np.r_[parts[0][2], starts + shift],
    )
    return {name: round(float(weight), 4) for name, weight in zip(FITTED, weights, strict=True)} | dict(PRIORS)


def main() -> None:
    """Fit and rewrite the shipped weights."""
    weights = fit_complete_journey()
    target = Path(str(files(endcap.scoring).joinpath(WEIGHTS_FILE)))
    provenance = "Complete Journey, purchases of October and November 2017, features as of the first of each month"
    target.write_text(
        json.dumps({"fitted_on": provenance, "priors": dict(PRIORS), "weights": weights}, indent=2) + "\n"
    )
    print(json.dumps(weights, indent=2))


if __name__ == "__main__":
    main()

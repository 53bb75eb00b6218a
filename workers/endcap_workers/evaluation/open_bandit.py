"""Off-policy estimators on the Open Bandit Dataset, by the protocol whose results are published.

Data: 10,000 impressions each of a uniformly random policy and of Bernoulli Thompson sampling (BTS), which ran side by
side in ZOZOTOWN's fashion shop (campaign "all": 80 items, 3 positions). Task: tell BTS's click rate from the random
policy's log. Protocol of the Open Bandit Pipeline (Saito et al. 2021, zr-obp examples/obd): 30 bootstrap samples of the
log; a logistic regression of clicks on the shopper's and the item's features for each position, 3-fold cross-fitted;
BTS's choice probabilities by a million draws from its first Beta distributions; the truth is the click rate that BTS
had; the relative estimation error is |estimate - truth| / truth.
"""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from endcap.errors import InvalidInput
from endcap.ope import (
    LoggedChoices,
    direct_method,
    doubly_robust,
    dr_shrunk,
    effective_sample_size,
    ips,
    judge,
    self_normalised_dr,
    snips,
    switch_dr,
    tuned,
)
from endcap.results import Results
from endcap_workers.evaluation.shared_data import shared_file

CAMPAIGN = "all"
RUNS = 30
DRAWS = 1_000_000
POSITIONS = 3
#: Inverse strength of the regression's penalty, from the settings beside zr-obp's examples/synthetic.
INVERSE_PENALTY = 100.0
_FOLDS = 3
_SEED = 12345  # the published one; ours is added to it
_PRIORS = Path(__file__).with_name("open_bandit_priors.json")

#: Mean and standard deviation of the relative error in zr-obp's examples/obd/README.md, for exactly these files.
PUBLISHED = {
    "DM": (0.156876, 0.109898),
    "IPS": (0.311082, 0.311170),
    "SNIPS": (0.311795, 0.334736),
    "DR": (0.292464, 0.315485),
    "self-normalised DR": (0.302407, 0.328434),
    "Switch-DR": (0.258410, 0.160598),
    "DR-os": (0.159520, 0.109660),
}


@dataclass(slots=True)
class BanditLog:
    """One policy's log in order of time. ``item``, ``position`` (from 0), ``click``: (n,); ``propensity``: (n,);
    ``shopper``: dummy-coded features (n, d); ``items``: features of each item (80, 4)."""

    item: np.ndarray
    position: np.ndarray
    click: np.ndarray
    propensity: np.ndarray
    shopper: np.ndarray
    items: np.ndarray

    def __len__(self) -> int:
        return len(self.click)

    def take(self, rows: np.ndarray) -> BanditLog:
        """Some of its rows, perhaps several times."""
        return BanditLog(
            self.item[rows],
            self.position[rows],
            self.click[rows],
            self.propensity[rows],
            self.shopper[rows],
            self.items,
        )


def load(policy: str, campaign: str = CAMPAIGN) -> BanditLog:
    """The log of ``random`` or ``bts``.

    Raises:
        ConfigurationError: the data is not there.
        InvalidInput: the files are not what they should be.
    """
    rows = _read(shared_file("open-bandit-obd", policy, campaign, f"{campaign}.csv.gz"))
    context = _read(shared_file("open-bandit-obd", policy, campaign, "item_context.csv.gz"))
    try:
        rows.sort(key=lambda row: row["timestamp"])
        shopper = [_dummies([row[f"user_feature_{number}"] for row in rows]) for number in range(4)]
        items = [_codes([row[f"item_feature_{number}"] for row in context]) for number in (1, 2, 3)]
        items.append(np.array([float(row["item_feature_0"]) for row in context]))
        return BanditLog(
            np.array([int(row["item_id"]) for row in rows]),
            np.array([int(row["position"]) for row in rows]) - 1,
            np.array([float(row["click"]) for row in rows]),
            np.array([float(row["propensity_score"]) for row in rows]),
            np.concatenate(shopper, axis=1),
            np.stack(items, axis=1),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"the files of {policy}/{campaign} are not the Open Bandit Dataset's: {error!r}") from error


def thompson_choices(draws: int = DRAWS, seed: int = _SEED) -> np.ndarray:
    """Probability that BTS puts an item at a position, (items, positions), by simulation.

    Each draw samples every item's click rate from its Beta distribution and ranks the items by it.
    """
    priors = json.loads(_PRIORS.read_text())
    alpha, beta = np.array(priors["alpha"], dtype=float), np.array(priors["beta"], dtype=float)
    # The legacy generator, as the published figures come from its stream.
    random = np.random.RandomState(seed)
    counts = np.zeros((len(alpha), POSITIONS))
    left = draws
    while left:
        size = min(left, 20_000)
        rates = random.beta(alpha, beta, (size, len(alpha)))
        first = np.argpartition(-rates, POSITIONS, axis=1)[:, :POSITIONS]
        order = np.argsort(-np.take_along_axis(rates, first, axis=1), axis=1)
        ranked = np.take_along_axis(first, order, axis=1)
        for place in range(POSITIONS):
            counts[:, place] += np.bincount(ranked[:, place], minlength=len(alpha))
        left -= size
    return counts / draws


def predictions(log: BanditLog, seed: int = _SEED) -> np.ndarray:
    """Each item's click rate in each impression at its position, (n, items), by models that did not see the row.

    Raises:
        ModuleNotFoundError: the ``train`` extra is not installed.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold

    rates = np.zeros((len(log), len(log.items)))
    width = log.shopper.shape[1]
    for train, test in KFold(_FOLDS, shuffle=True, random_state=seed).split(log.shopper):
        for place in range(POSITIONS):
            rows, wanted = train[log.position[train] == place], test[log.position[test] == place]
            clicks = log.click[rows]
            if clicks.min() == clicks.max():
                rates[wanted] = clicks.mean()  # a fold without a click has nothing to learn from
                continue
            # Newton reaches the optimum in a few steps; the pipeline's L-BFGS takes thousands and may stop short.
            model = LogisticRegression(C=INVERSE_PENALTY, max_iter=10_000, solver="newton-cholesky")
            model.fit(np.concatenate([log.shopper[rows], log.items[log.item[rows]]], axis=1), clicks)
            slope = model.coef_[0]
            logits = (log.shopper[wanted] @ slope[:width])[:, None] + log.items @ slope[width:] + model.intercept_
            rates[wanted] = 1 / (1 + np.exp(-logits))
    return rates


def seen_by(log: BanditLog, choices: np.ndarray, predicted: np.ndarray | None) -> LoggedChoices:
    """The log with the evaluated policy's probabilities. ``choices``: (items, positions)."""
    return LoggedChoices.from_distribution(log.click, log.item, log.propensity, choices.T[log.position], predicted)


def estimates(choices: LoggedChoices) -> dict[str, float]:
    """Every estimator's click rate; Switch-DR's threshold and DR-os's shrinkage chosen from the data by SLOPE."""
    return {
        "DM": direct_method(choices).value,
        "IPS": ips(choices).value,
        "SNIPS": snips(choices).value,
        "DR": doubly_robust(choices).value,
        "self-normalised DR": self_normalised_dr(choices).value,
        "Switch-DR": tuned(switch_dr, choices)[1].value,
        "DR-os": tuned(dr_shrunk, choices)[1].value,
    }


def relative_errors(log: BanditLog, choices: np.ndarray, truth: float, runs: int, seed: int) -> dict[str, np.ndarray]:
    """|estimate - truth| / truth of each estimator in each bootstrap sample, (runs,)."""
    errors: dict[str, list[float]] = {name: [] for name in PUBLISHED}
    for run in range(runs):
        random = np.random.RandomState(seed * runs + run)  # with seed 0 the published samples
        sample = log.take(random.choice(len(log), len(log)))
        found = estimates(seen_by(sample, choices, predictions(sample, _SEED + seed)))
        for name, value in found.items():
            errors[name].append(abs(value - truth) / truth)
    return {name: np.array(values) for name, values in errors.items()}


def run(seed: int = 0, runs: int = RUNS, draws: int = DRAWS) -> Results:
    """The table of the protocol; seed 0 draws the published bootstrap samples, another seed others."""
    log, target = load("random"), load("bts")
    truth = float(target.click.mean())
    choices = thompson_choices(draws, _SEED + seed)
    results = Results("open-bandit: relative error of estimated click rates", "endcap evaluate open-bandit", seed)
    for name, errors in relative_errors(log, choices, truth, runs, seed).items():
        mean, deviation = PUBLISHED[name]
        results.add(
            name,
            {
                "mean": errors.mean(),
                "std": errors.std(ddof=1) if runs > 1 else 0.0,
                "published mean": mean,
                "published std": deviation,
            },
        )
    whole = seen_by(log, choices, predictions(log, _SEED + seed))
    clicks = int(target.click.sum())
    results.notes += [
        f"Truth: {clicks} clicks in {len(target):,} impressions of BTS = {truth:.4f}, itself uncertain by "
        f"{1 / clicks**0.5:.0%} (one standard error): errors below that are as good as this data can show.",
        f"The random log has {int(log.click.sum())} clicks; as BTS sees it, {len(log):,} impressions are worth "
        f"{effective_sample_size(whole.weights):,.0f} (largest weight {whole.weights.max():.1f}).",
        "Seed 0 draws the published samples: IPS and SNIPS, which need no model, agree to every digit; the means of "
        "the others are within .001, with the regression fitted by another solver.",
        "Deviations come from resampling one log: they show noise, not bias.",
        "BTS's probabilities are those of its first day; it went on learning, which no estimator is told.",
        f"Promotion gate, BTS against the random policy's {log.click.mean():.4f}: "
        + judge(whole, float(log.click.mean()), seed=seed).reason,
    ]
    return results


def _read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _codes(values: list[str]) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1].astype(float)


def _dummies(values: list[str]) -> np.ndarray:
    """One column for each value but the first in order."""
    names, index = np.unique(values, return_inverse=True)
    return np.eye(len(names))[index][:, 1:]

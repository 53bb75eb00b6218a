"""Inspected sales reports (Torgo's "Data Mining with R"): which of them turned out to be fraud?

Data: 401,146 reports of a company's salespeople (salesperson, product, quantity, value), of which 15,732 were
inspected: 1,270 fraud. Five stratified folds over the inspected reports, shuffled with the seed. Features come from all
reports and from no label; whatever uses labels sees those of the other four folds only. The label-free detector is
fitted on all reports, without labels, and judged on the same inspected ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold

from endcap.results import Results
from endcap_workers.evaluation.shared_data import shared_file
from endcap_workers.fraud import Features, LabelFreeDetector, SupervisedDetector
from endcap_workers.fraud.sales import PRICE, SALES_NEIGHBOURS, sales_features

FOLDS = 5
LABELS = {"fraud": 1, "ok": 0, "unkn": -1}


def load() -> tuple[Features, np.ndarray]:
    """All reports in the file's order, and their labels (1 fraud, 0 genuine, -1 not inspected).

    Raises:
        ConfigurationError: the data is not there.
    """
    import pandas as pd

    frame = pd.read_parquet(shared_file("dmwr-sales-fraud", "sales.parquet"))
    quantity = frame["Quant"].astype("float64").to_numpy()
    features = sales_features(frame["Prod"], frame["ID"], quantity, frame["Val"].to_numpy())
    return features, frame["Insp"].map(LABELS).to_numpy(dtype=np.int64)


def figures(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """``labels`` of 0 and 1, both (rows,). Inspected first is what scores highest; ties keep the order of the rows."""
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    tenth = np.argsort(-scores, kind="stable")[: len(labels) // 10]
    return {
        "AP": float(average_precision_score(labels, scores)),
        "AUC": float(roc_auc_score(labels, scores)),
        "recall at 1% FPR": float(true[false <= 0.01].max()),
        "precision at 10%": float(labels[tenth].mean()),
        "recall at 10%": float(labels[tenth].sum() / labels.sum()),
    }


def across_folds(
    features: Features, labels: np.ndarray, seed: int, fit: Callable[[Features, np.ndarray], Callable]
) -> np.ndarray:
    """Scores of every row by a model that has not seen its label. ``fit(rows, labels)`` -> rows -> scores."""
    scores = np.zeros(len(labels))
    for known, judged in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels):
        scores[judged] = fit(features.rows(known), labels[known])(features.rows(judged))
    return scores


def simple(seed: int) -> Callable[[Features, np.ndarray], Callable]:
    """The baseline: quantity, value, unit price and its ratio to the product's median, gradient boosting."""

    def columns(features: Features) -> np.ndarray:
        wanted = ("quantity", "value", PRICE, f"product: {PRICE} deviation")
        return features.values[:, [features.names.index(name) for name in wanted]]

    def fit(features: Features, labels: np.ndarray) -> Callable:
        model = HistGradientBoostingClassifier(random_state=seed).fit(columns(features), labels)
        return lambda rows: model.predict_proba(columns(rows))[:, 1]

    return fit


def run(seed: int = 0) -> Results:
    """The label-free detector, the baseline, and the supervised detector without and with neighbours' labels."""
    started = time.monotonic()
    features, labels = load()
    inspected = labels >= 0
    known, truth = features.rows(inspected), labels[inspected]
    results = Results("fraud", "endcap evaluate fraud", seed)
    label_free = LabelFreeDetector(seed).fit(features)
    results.add("label-free: ECOD + isolation forest", figures(truth, label_free.score(known)))
    results.add("4 features, gradient boosting", figures(truth, across_folds(known, truth, seed, simple(seed))))
    calibrated = np.zeros(0)
    for title, neighbours in (("supervised, own features", ()), ("supervised, and neighbours", SALES_NEIGHBOURS)):

        def fit(rows: Features, known_labels: np.ndarray, neighbours: tuple = neighbours) -> Callable:
            return SupervisedDetector(neighbours, seed).fit(rows, known_labels).score

        calibrated = across_folds(known, truth, seed, fit)
        results.add(title, figures(truth, calibrated))
    error = calibration_error(truth, calibrated)
    minutes = (time.monotonic() - started) / 60
    results.notes.append(
        f"{len(truth):,} inspected reports, {truth.sum():,} fraud, {FOLDS} folds; {len(features.names)} features; "
        f"expected calibration error of the last row {error:.4f}; {minutes:.1f} minutes."
    )
    return results


def calibration_error(labels: np.ndarray, scores: np.ndarray, bins: int = 10) -> float:
    """Mean distance of probability and share of fraud over bins of equal width, weighted by their rows."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    gap = np.abs(np.bincount(place, labels, bins) - np.bincount(place, scores, bins))
    return float(gap.sum() / count.sum())

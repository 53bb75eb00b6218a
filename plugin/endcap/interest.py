"""How probable it is that a shopper wants a product: the multinomial logit with an outside option.

Of the candidates c with scores s_c, and the choice to want none of them with score o,

    UserInterest(u, c) = exp(b·s_c) / (exp(o) + Σ_j exp(b·s_j)),        Recommendation(u) = argmax_c UserInterest(u, c).

With b = 1 and o = 0 this is the plain formula exp(s_c) / (1 + Σ_j exp(s_j)). The probabilities of the candidates and of
"none" add up to one. ``b`` and ``o`` are what :meth:`Calibration.fit` learns from choices, so that a stated .2 happens
once in five.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def match(products: np.ndarray, shopper: np.ndarray) -> np.ndarray:
    """Score = x_c·x_u of each product for one shopper: float (n, d) and (d,) -> (n,)."""
    return np.asarray(products) @ np.asarray(shopper)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Turns scores into probabilities. ``slope`` (b) multiplies them; ``outside`` (o) is the score of none."""

    slope: float = 1.0
    outside: float = 0.0

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Interest in each candidate; float64, the shape of ``scores`` (the candidates run along the last axis).

        A score of ``-inf`` marks a place without a candidate and gets 0. Any finite scores are safe: nothing overflows.

        Raises:
            ValueError: a score is NaN or ``+inf``.
        """
        utility = np.asarray(scores, dtype=np.float64)
        if np.isnan(utility).any() or np.isposinf(utility).any():
            raise ValueError("scores must be finite (or -inf where there is no candidate)")
        # 0 · -inf is NaN: a slope of zero must not bring absent candidates to life.
        utility = np.where(np.isneginf(utility), -np.inf, self.slope * np.where(np.isneginf(utility), 0.0, utility))
        top = np.maximum(utility.max(axis=-1, keepdims=True, initial=-np.inf), self.outside)
        weights = np.exp(utility - top)
        return weights / (np.exp(self.outside - top) + weights.sum(axis=-1, keepdims=True))

    @classmethod
    def fit(cls, scores: Sequence[np.ndarray], chosen: Sequence[int], prior: float = 1.0) -> Calibration:
        """The most likely calibration, given what shoppers chose.

        Args:
            scores: one float array (n_i,) a shown list; lists may differ in length.
            chosen: index of the product chosen from each list, -1 where none was.
            prior: strength (in observations) of the pull towards slope 1 and outside 0; keeps the answer finite where
                every list, or no list, ended in a choice.

        The log-likelihood is concave, so a damped Newton iteration finds its maximum.

        Raises:
            ValueError: the lengths differ, an index lies outside its list, or a score is not finite.
        """
        if len(scores) != len(chosen):
            raise ValueError(f"{len(scores)} lists but {len(chosen)} choices")
        width = max((len(row) for row in scores), default=0)
        table = np.zeros((len(scores), width + 1))
        present = np.zeros((len(scores), width + 1), dtype=bool)
        present[:, 0] = True  # column 0 is the outside option
        for number, (row, choice) in enumerate(zip(scores, chosen, strict=True)):
            if not -1 <= choice < len(row):
                raise ValueError(f"choice {choice} is not in list {number} of {len(row)}")
            table[number, 1 : len(row) + 1] = row
            present[number, 1 : len(row) + 1] = True
        if not np.isfinite(table).all():
            raise ValueError("scores must be finite")
        picks = np.asarray(chosen, dtype=np.int64) + 1
        # A common scale keeps Newton's steps sane for scores of any size; it is undone at the end.
        scale = float(np.abs(table).max(initial=0.0)) or 1.0
        table /= scale
        pull = prior / np.array([scale**2, 1.0])
        weights = np.array([scale, 0.0])

        def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
            utility = np.where(present, table * weights[0], -np.inf)
            utility[:, 0] = weights[1]
            top = utility.max(axis=1, keepdims=True)
            shares = np.exp(utility - top)
            total = shares.sum(axis=1, keepdims=True)
            likelihood = (utility[np.arange(len(picks)), picks] - top[:, 0] - np.log(total[:, 0])).sum()
            penalty = 0.5 * (pull * (weights - np.array([scale, 0.0])) ** 2).sum()
            return float(penalty - likelihood), shares / total

        value, shares = objective(weights)
        for _ in range(100):
            mean = (shares * table).sum(axis=1)
            none = shares[:, 0]
            gradient = np.array([(mean - table[np.arange(len(picks)), picks]).sum(), (none - (picks == 0)).sum()])
            gradient += pull * (weights - np.array([scale, 0.0]))
            cross = -(none * mean).sum()
            hessian = np.array(
                [[((shares * table**2).sum(axis=1) - mean**2).sum(), cross], [cross, (none - none**2).sum()]]
            ) + np.diag(pull)
            step = np.linalg.solve(hessian, gradient)
            size = 1.0
            while size > 1e-8:
                candidate, candidate_shares = objective(weights - size * step)
                if candidate <= value - 1e-4 * size * float(gradient @ step):
                    break
                size /= 2
            else:
                break
            weights = weights - size * step
            value, shares = candidate, candidate_shares
        # A model whose scores point the wrong way is no reason to turn its order round.
        return cls(slope=max(float(weights[0] / scale), 0.0), outside=float(weights[1]))


def recommendation(probabilities: np.ndarray) -> int:
    """Index of the product to recommend; of equals, the first.

    Raises:
        ValueError: there is no candidate.
    """
    if not np.size(probabilities):
        raise ValueError("no candidate to recommend from")
    return int(np.argmax(probabilities))

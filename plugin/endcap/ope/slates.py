"""Off-policy estimators for rankings, whose weights differ by what a shopper's reaction is taken to depend on.

A ranking is scored by the discounted sum of its positions' rewards. With w_k the weight of position k alone:

==============  ====================================  ============================================================
slate_ips       w_1 … w_K for every position          no assumption; hopeless beyond a few positions
cascade_ips     w_1 … w_k for position k              a position depends on what is above it: McInerney et al. 2020
independent_ips w_k for position k                    a position depends on its own product: Li et al. 2018
==============  ====================================  ============================================================

Fewer factors mean less variance and, where the assumption fails, bias. ``normalised`` divides each position by the
sum of its weights, as McInerney et al. do: hardly any bias for much less variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from endcap.errors import InvalidInput
from endcap.ope.estimators import Terms, clipped
from endcap.ope.log import as_floats, check_probabilities, check_propensities


@dataclass(frozen=True, slots=True)
class LoggedRankings:
    """Rankings of K positions, float64 arrays of shape (n, K). Build it with :meth:`of`.

    ``reward``: what each position earned. ``propensity``, ``target``: probability with which the logging and the
    evaluated policy put the shown product there: given the products above it for :func:`slate_ips` and
    :func:`cascade_ips`, marginally for :func:`independent_ips`. Positions beyond the end of a short ranking have
    reward 0 and both probabilities 1.
    """

    reward: np.ndarray
    propensity: np.ndarray
    target: np.ndarray

    def __post_init__(self) -> None:
        shape = self.reward.shape
        if len(shape) != 2 or not self.reward.size:
            raise InvalidInput(f"reward must be (rankings, positions), not {shape}")
        if not np.isfinite(self.reward).all():
            raise InvalidInput("reward has missing, NaN or infinite values")
        check_propensities(self.propensity, shape)
        check_probabilities(self.target, "target", shape)

    def __len__(self) -> int:
        return len(self.reward)

    @classmethod
    def of(cls, reward: object, propensity: object, target: object) -> LoggedRankings:
        """From anything array-like.

        Raises:
            InvalidInput: shapes differ, a number is missing, a propensity is not in (0, 1] or a target not in [0, 1].
        """
        return cls(as_floats(reward, "reward"), as_floats(propensity, "propensity"), as_floats(target, "target"))


def slate_ips(
    log: LoggedRankings, discount: np.ndarray | None = None, clip: float = np.inf, normalised: bool = False
) -> Terms:
    """IPS with the weight of the whole ranking. ``discount``: worth of each position (K,), by default 1."""
    weights = np.repeat(np.prod(log.target / log.propensity, axis=1, keepdims=True), log.reward.shape[1], axis=1)
    return _terms(log, weights, discount, clip, normalised)


def cascade_ips(
    log: LoggedRankings, discount: np.ndarray | None = None, clip: float = np.inf, normalised: bool = False
) -> Terms:
    """Reward-interaction IPS: the weight of a position covers it and everything above."""
    return _terms(log, np.cumprod(log.target / log.propensity, axis=1), discount, clip, normalised)


def independent_ips(
    log: LoggedRankings, discount: np.ndarray | None = None, clip: float = np.inf, normalised: bool = False
) -> Terms:
    """IPS of each position for itself, from marginal probabilities."""
    return _terms(log, log.target / log.propensity, discount, clip, normalised)


def _terms(
    log: LoggedRankings, weights: np.ndarray, discount: np.ndarray | None, clip: float, normalised: bool
) -> Terms:
    worth = np.ones(log.reward.shape[1]) if discount is None else as_floats(discount, "discount")
    if worth.shape != log.reward.shape[1:] or not np.isfinite(worth).all():
        raise InvalidInput(f"discount must be one number per position {log.reward.shape[1:]}, not {worth.shape}")
    weights = clipped(weights, clip)
    return Terms(weights * log.reward * worth, weights if normalised else np.ones_like(weights))

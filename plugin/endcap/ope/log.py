"""What off-policy evaluation reads: decisions that one policy made and logged, seen by another policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from endcap.errors import InvalidInput

#: How far probabilities may be from summing to 1.
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class LoggedChoices:
    """One action per decision, float64 arrays of shape (n,). Build it with :meth:`of` or :meth:`from_distribution`.

    ``reward``: what was observed. ``propensity``: probability with which the logging policy chose the logged action.
    ``target``: probability with which the evaluated policy chooses the same action in the same context.
    ``predicted``: reward that a model expects of the logged action; ``expected``: of the evaluated policy, i.e. the
    model's rewards of all actions weighted by its probabilities. Both are None where there is no model.
    """

    reward: np.ndarray
    propensity: np.ndarray
    target: np.ndarray
    predicted: np.ndarray | None = None
    expected: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.reward.shape
        if len(shape) != 1 or not shape[0]:
            raise InvalidInput(f"reward must be one number per decision, at least one; its shape is {shape}")
        _check(self.reward, "reward", shape)
        check_propensities(self.propensity, shape)
        check_probabilities(self.target, "target", shape)
        if (self.predicted is None) != (self.expected is None):
            raise InvalidInput("predicted and expected belong together: give both or neither")
        for name, part in (("predicted", self.predicted), ("expected", self.expected)):
            if part is not None:
                _check(part, name, shape)

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def weights(self) -> np.ndarray:
        """Importance weights target / propensity (n,)."""
        return self.target / self.propensity

    @classmethod
    def of(
        cls,
        reward: object,
        propensity: object,
        target: object,
        predicted: object | None = None,
        expected: object | None = None,
    ) -> LoggedChoices:
        """From anything array-like.

        Raises:
            InvalidInput: shapes differ, a number is missing, NaN or infinite, a propensity is not in (0, 1] or a
                target not in [0, 1].
        """
        return cls(
            as_floats(reward, "reward"),
            as_floats(propensity, "propensity"),
            as_floats(target, "target"),
            None if predicted is None else as_floats(predicted, "predicted"),
            None if expected is None else as_floats(expected, "expected"),
        )

    @classmethod
    def from_distribution(
        cls,
        reward: object,
        action: object,
        propensity: object,
        distribution: object,
        predicted: object | None = None,
    ) -> LoggedChoices:
        """From the evaluated policy's whole distribution.

        Args:
            reward, propensity: (n,).
            action: index of the logged action, integers (n,).
            distribution: probability of each action, (n, actions), or (actions,) for a policy without context.
            predicted: a model's reward of each action, (n, actions); without it only weighting estimators work.

        Raises:
            InvalidInput: as :meth:`of`; also when a row of ``distribution`` does not sum to 1 or an action is
                not among its columns.
        """
        index = as_floats(action, "action")
        if index.ndim != 1 or not (np.isfinite(index).all() and (index == np.floor(index)).all()):
            raise InvalidInput("action must be one whole number per decision: the index of the logged action")
        chosen = index.astype(np.int64)
        odds = check_distribution(distribution, len(chosen))
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= odds.shape[1]):
            raise InvalidInput(f"action must be an index from 0 to {odds.shape[1] - 1}")
        rows = np.arange(len(chosen))
        if predicted is None:
            return cls.of(reward, propensity, odds[rows, chosen])
        model = as_floats(predicted, "predicted")
        if model.shape != odds.shape:
            raise InvalidInput(f"predicted must be one reward per decision and action {odds.shape}, not {model.shape}")
        return cls.of(reward, propensity, odds[rows, chosen], model[rows, chosen], (model * odds).sum(axis=1))


def as_floats(values: object, name: str) -> np.ndarray:
    """A float64 array; None inside becomes NaN, which the checks refuse.

    Raises:
        InvalidInput: not numbers, or rows of different lengths.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name} must be numbers in a regular array: {error}") from error


def check_propensities(propensity: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse what cannot be divided by: whoever logs without propensities cannot evaluate off-policy.

    Raises:
        InvalidInput: shapes differ, or a propensity is missing or not in (0, 1].
    """
    _check(propensity, "propensity", shape)
    bad = (propensity <= 0) | (propensity > 1)
    if bad.any():
        first = np.argwhere(bad)[0].tolist()
        raise InvalidInput(
            f"{int(bad.sum())} of {propensity.size} propensities are not in (0, 1], the first at {first}: "
            "log the probability with which the shown action was chosen"
        )


def check_probabilities(values: np.ndarray, name: str, shape: tuple[int, ...]) -> None:
    """Refuse what is no probability.

    Raises:
        InvalidInput: shapes differ, or a value is missing or not in [0, 1].
    """
    _check(values, name, shape)
    if ((values < 0) | (values > 1 + TOLERANCE)).any():
        raise InvalidInput(f"{name} must be probabilities in [0, 1]")


def check_distribution(distribution: object, rows: int) -> np.ndarray:
    """A distribution over actions, one row a decision; a single row serves them all.

    Raises:
        InvalidInput: wrong shape, or a row that is no distribution.
    """
    odds = as_floats(distribution, "distribution")
    if odds.ndim == 1:
        odds = np.broadcast_to(odds, (rows, len(odds)))
    if odds.ndim != 2 or len(odds) != rows or not odds.shape[1]:
        raise InvalidInput(f"distribution must be ({rows}, actions) or (actions,), not {odds.shape}")
    check_probabilities(odds, "distribution", odds.shape)
    off = np.abs(odds.sum(axis=1) - 1)
    if (off > TOLERANCE).any():
        row = int(off.argmax())
        raise InvalidInput(f"distribution must sum to 1 in each row; row {row} sums to {odds[row].sum():.6g}")
    return odds


def _check(values: np.ndarray, name: str, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise InvalidInput(f"{name} must have the shape {shape} of reward, not {values.shape}")
    if not np.isfinite(values).all():
        raise InvalidInput(f"{name} has {int((~np.isfinite(values)).sum())} missing, NaN or infinite values")

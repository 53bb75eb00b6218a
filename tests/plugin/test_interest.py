from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from endcap.interest import Calibration, match, recommendation


def test_the_worked_example() -> None:
    probabilities = Calibration().probability(np.array([2.0, 3.0, 1.0]))

    assert probabilities == pytest.approx([0.237, 0.644, 0.087], abs=5e-4)
    assert recommendation(probabilities) == 1


def test_score_is_the_dot_product() -> None:
    assert match(np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([3.0, 0.5])).tolist() == [4.0, -0.5]


@given(arrays(np.float64, (3, 5), elements=st.floats(-1e6, 1e6)), st.floats(0.0, 10.0), st.floats(-50, 50))
def test_probabilities_are_probabilities_and_keep_the_order(scores: np.ndarray, slope: float, outside: float) -> None:
    probabilities = Calibration(slope, outside).probability(scores)

    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (probabilities.sum(axis=-1) <= 1 + 1e-9).all()
    for row, answer in zip(scores, probabilities, strict=True):
        assert (np.diff(answer[np.argsort(row)]) >= -1e-12).all()


def test_absent_candidates_get_nothing_and_change_nothing() -> None:
    padded = Calibration(slope=0.0).probability(np.array([1.0, 2.0, -np.inf]))

    assert padded.tolist() == pytest.approx([1 / 3, 1 / 3, 0.0])
    assert Calibration().probability(np.full(2, -np.inf)).tolist() == [0.0, 0.0]
    assert Calibration().probability(np.empty(0)).shape == (0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_unusable_scores_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Calibration().probability(np.array([1.0, bad]))
    with pytest.raises(ValueError, match="finite"):
        Calibration.fit([np.array([1.0, bad])], [0])


def test_equal_interest_recommends_the_first_and_nothing_is_refused() -> None:
    assert recommendation(np.array([0.1, 0.4, 0.4])) == 1
    with pytest.raises(ValueError, match="no candidate"):
        recommendation(np.empty(0))


@pytest.mark.parametrize(("slope", "outside"), [(0.5, 1.0), (1.0, -1.0), (3.0, 2.0), (0.01, 0.0)])
def test_fit_recovers_the_choices_it_was_shown(slope: float, outside: float) -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=rng.integers(1, 12)) / slope for _ in range(6_000)]
    chosen = []
    for row in scores:
        probabilities = Calibration(slope, outside).probability(row)
        chosen.append(int(rng.choice(len(row) + 1, p=np.r_[probabilities, 1 - probabilities.sum()])))
    chosen = [choice if choice < len(row) else -1 for choice, row in zip(chosen, scores, strict=True)]

    fitted = Calibration.fit(scores, chosen)

    assert fitted.slope == pytest.approx(slope, rel=0.1)
    assert fitted.outside == pytest.approx(outside, abs=0.15)
    # Calibrated: what is said to happen happens as often.
    said = np.concatenate([fitted.probability(row) for row in scores])
    happened = np.concatenate([np.arange(len(row)) == choice for row, choice in zip(scores, chosen, strict=True)])
    for low, high in [(0.0, 0.05), (0.05, 0.2), (0.2, 0.6)]:
        inside = (said >= low) & (said < high)
        assert happened[inside].mean() == pytest.approx(said[inside].mean(), abs=0.02)


@pytest.mark.parametrize("choice", [0, -1])
def test_fit_stays_finite_where_every_list_ended_alike(choice: int) -> None:
    fitted = Calibration.fit([np.array([2.0, 1.0])] * 50, [choice] * 50)

    assert np.isfinite([fitted.slope, fitted.outside]).all()
    assert (fitted.outside > 0) == (choice == -1)


def test_fit_never_turns_the_order_round() -> None:
    assert Calibration.fit([np.array([5.0, -5.0])] * 500, [1] * 500).slope == 0.0


def test_fit_without_evidence_is_the_plain_formula() -> None:
    assert Calibration.fit([], []) == Calibration()


@pytest.mark.parametrize(("scores", "chosen"), [([np.ones(2)], []), ([np.ones(2)], [2]), ([np.ones(2)], [-2])])
def test_fit_refuses_choices_that_do_not_fit(scores: list[np.ndarray], chosen: list[int]) -> None:
    with pytest.raises(ValueError, match="choice"):
        Calibration.fit(scores, chosen)

"""The logit that the baseline's weights come from finds the weights that made the choices."""

import json
from importlib.resources import files

import numpy as np
import pytest

import endcap.scoring
from endcap.features import AFFINITY
from endcap.scoring.baseline import WEIGHTS_FILE
from endcap_workers.training.baseline import FITTED, PRIORS, fit_logit


def test_the_weights_that_ship_are_those_that_the_command_fits() -> None:
    shipped = json.loads(files(endcap.scoring).joinpath(WEIGHTS_FILE).read_text())
    assert set(shipped["weights"]) == {*FITTED, *PRIORS}
    assert shipped["priors"] == PRIORS
    assert not set(FITTED) & set(AFFINITY), "the baseline has no model that would fill these in"


def test_it_recovers_the_weights_behind_choices() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([1.5, -0.7, 0.0])
    features = rng.normal(size=(4_000 * 10, 3))
    noise = rng.gumbel(size=len(features))
    targets = (features @ truth + noise).reshape(4_000, 10).argmax(axis=1) + np.arange(4_000) * 10
    weights, loss = fit_logit(features, targets, np.arange(4_000) * 10, ridge=0.0)
    assert weights == pytest.approx(truth, abs=0.08)
    assert loss < np.log(10)


def test_a_constant_feature_gets_no_weight_and_does_no_harm() -> None:
    rng = np.random.default_rng(1)
    features = np.c_[rng.normal(size=600), np.full(600, 3.0)]
    weights, _ = fit_logit(features, np.arange(100) * 6, np.arange(100) * 6)
    assert weights[1] == 0.0
    assert np.isfinite(weights).all()


def test_cases_of_different_sizes() -> None:
    features = np.array([[1.0], [0.0], [1.0], [0.0], [0.0], [0.0]])
    weights, _ = fit_logit(features, np.array([0, 2]), np.array([0, 2]), ridge=0.01)
    assert weights[0] > 0.5

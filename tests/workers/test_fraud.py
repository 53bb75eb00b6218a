"""Detectors: what both promise, and what each adds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from endcap_workers.evaluation import fraud as evaluation
from endcap_workers.evaluation import shared_data
from endcap_workers.fraud import Detector, Features, LabelFreeDetector, SupervisedDetector
from endcap_workers.fraud.label_free import Ecod
from endcap_workers.fraud.neighbours import NeighbourLabels, Neighbours
from endcap_workers.fraud.sales import PRICE, SALES_NEIGHBOURS, sales_features

NAMES = ("rate", "breadth", "noise", "often missing")


def shop(rows: int = 1_200, seed: int = 3) -> tuple[Features, np.ndarray]:
    """A tenth of the rows are bots: fast and broad."""
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < 0.1).astype(int)
    values = random.normal(size=(rows, len(NAMES)))
    values[:, :2] += labels[:, None] * random.uniform(1, 3, (rows, 2))
    values[random.random(rows) < 0.3, 3] = np.nan
    groups = {"device": random.integers(0, 60, rows)}
    return Features(values, NAMES, {"rate": "events a minute"}, groups), labels


DETECTORS = {
    "label-free": lambda: LabelFreeDetector(trees=50),
    "supervised": lambda: SupervisedDetector(rounds=40, models=1),
    "supervised with neighbours": lambda: SupervisedDetector((Neighbours("device", "rate"),), rounds=40, models=1),
}


@pytest.fixture(params=DETECTORS, scope="module")
def fitted(request: pytest.FixtureRequest) -> Detector:
    features, labels = shop()
    return DETECTORS[request.param]().fit(features, labels)


class TestEveryDetector:
    def test_keeps_to_the_protocol_and_finds_fraud(self, fitted: Detector) -> None:
        features, labels = shop(seed=4)
        scores = fitted.score(features)

        assert isinstance(fitted, Detector)
        assert scores.shape == (len(features),)
        assert ((scores >= 0) & (scores <= 1)).all()
        assert roc_auc_score(labels, scores) > 0.8

    def test_judges_every_row_by_itself(self, fitted: Detector) -> None:
        features, _ = shop(rows=30, seed=5)
        alone = np.array([fitted.score(features.rows([row]))[0] for row in range(len(features))])

        np.testing.assert_allclose(alone, fitted.score(features), rtol=1e-12)

    def test_gives_reasons_that_are_the_rows_own(self, fitted: Detector) -> None:
        features, _ = shop(seed=6)
        worst = features.rows(np.argsort(-fitted.score(features))[:20])
        reasons = fitted.reasons(worst, most=2)

        assert len(reasons) == 20
        assert all(len(found) <= 2 for found in reasons)
        told = [reason for found in reasons for reason in found]
        assert {"rate", "breadth"} & {reason.feature for reason in told}
        for row, found in enumerate(reasons):
            assert [reason.weight for reason in found] == sorted((reason.weight for reason in found), reverse=True)
            for reason in found:
                assert reason.weight > 0
                if reason.feature in NAMES:
                    expected = worst.values[row, NAMES.index(reason.feature)]
                    np.testing.assert_equal(reason.value, expected)
        assert any(reason.text.startswith("events a minute: ") for reason in told)

    def test_bears_rows_of_nothing_but_gaps_infinities_and_no_rows(self, fitted: Detector) -> None:
        groups = {"device": np.array([10**6, 1])}
        odd = Features(np.array([[np.nan] * 4, [np.inf, -np.inf, 1e300, 0]]), NAMES, groups=groups)

        assert np.isfinite(fitted.score(odd)).all()
        assert len(fitted.reasons(odd)) == 2
        assert len(fitted.score(odd.rows([]))) == 0
        assert fitted.reasons(odd.rows([])) == []

    def test_refuses_other_features(self, fitted: Detector) -> None:
        with pytest.raises(ValueError, match="fitted on rate"):
            fitted.score(Features(np.zeros((1, 1)), ("rate",)))

    @pytest.mark.parametrize("name", DETECTORS)
    def test_refuses_to_judge_before_it_learned(self, name: str) -> None:
        with pytest.raises(ValueError, match="not fitted"):
            DETECTORS[name]().score(shop(rows=3)[0])

    @pytest.mark.parametrize("name", DETECTORS)
    def test_is_the_same_twice(self, name: str) -> None:
        features, labels = shop(rows=300)
        first, second = (DETECTORS[name]().fit(features, labels).score(features) for _ in range(2))

        np.testing.assert_array_equal(first, second)


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 features are named"):
        Features(np.zeros((3, 1)), ("a", "b"))
    with pytest.raises(ValueError, match="group 'device' has 2 rows"):
        Features(np.zeros((3, 1)), ("a",), groups={"device": np.zeros(2)})


def test_too_few_labels_are_refused_and_unknown_ones_do_not_count() -> None:
    features, labels = shop(rows=200)
    labels[:195] = -1
    with pytest.raises(ValueError, match="use the label-free detector"):
        SupervisedDetector().fit(features, labels)
    with pytest.raises(ValueError, match="at least 2"):
        LabelFreeDetector().fit(features.rows([0]))


def test_rows_without_a_label_change_nothing() -> None:
    features, labels = shop(rows=600)
    hidden = labels.copy()
    hidden[300:] = -1
    settings_ = {"rounds": 30, "models": 1}

    with_hidden = SupervisedDetector(**settings_).fit(features, hidden).score(features)
    without = SupervisedDetector(**settings_).fit(features.rows(slice(300)), labels[:300]).score(features)

    np.testing.assert_array_equal(with_hidden, without)


def test_probabilities_are_calibrated() -> None:
    features, labels = shop(rows=4_000)
    other, truth = shop(rows=4_000, seed=8)
    scores = SupervisedDetector(rounds=60, models=1).fit(features, labels).score(other)

    assert evaluation.calibration_error(truth, scores) < 0.03
    assert scores.mean() == pytest.approx(truth.mean(), abs=0.02)
    assert scores.min() > 0
    assert scores.max() < 1


@given(st.lists(st.floats(-50, 50, allow_nan=False), min_size=3, max_size=40))
@settings(deadline=None)
def test_ecod_tail_probabilities_are_those_of_the_data(values: list[float]) -> None:
    column = np.array(values)[:, None]
    left, right, skewed = Ecod().fit(column).tails(column)

    for row, value in enumerate(values):
        assert np.exp(-left[row, 0]) == pytest.approx(np.mean(column <= value))
        assert np.exp(-right[row, 0]) == pytest.approx(np.mean(column >= value))
    assert (np.isclose(skewed, left) | np.isclose(skewed, right)).all()


def test_neighbours_never_see_their_own_label() -> None:
    features = Features(
        np.array([[1.0], [1.1], [5.0], [np.nan], [7.0]]), ("price",), groups={"seller": np.array([1, 1, 1, 1, 2])}
    )
    neighbours = Neighbours("seller", "price")
    labels = np.array([1, 0, 1, 0, 1])
    one = NeighbourLabels(neighbours).fit(features, labels).others(features)
    flipped = labels.copy()
    flipped[0] = 0
    other = NeighbourLabels(neighbours).fit(features, flipped).others(features)

    # Beyond the overall rate, which the prior uses, row 0 is described by rows 1 to 3, whatever its own label is.
    np.testing.assert_allclose(one[0, 3:], other[0, 3:])
    assert one[0, 3] == pytest.approx(4.0)  # the fraud at 5.0
    assert one[0, 4] == pytest.approx(0.1)  # the genuine row at 1.1
    assert one[1, 3] == pytest.approx(0.1)
    assert np.isnan(other[1, 3]) or other[1, 3] == pytest.approx(3.9)
    assert one[4, 1] == 0
    assert one[4, 0] == pytest.approx(labels.mean())
    with pytest.raises(ValueError, match="no group 'buyer'"):
        NeighbourLabels(Neighbours("buyer")).fit(features, labels)


def test_sales_features_bear_bad_reports() -> None:
    found = sales_features(
        ["p", "p", "p", None, "q"], ["a", "b", "a", "c", "c"], [10, 0, -4, None, "x"], [100, 50, -40, 9, np.inf]
    )
    place = {name: index for index, name in enumerate(found.names)}

    assert found.values[:, place["not positive"]].tolist() == [0, 1, 1, 0, 0]
    assert found.values[:, place["quantity missing"]].tolist() == [0, 0, 0, 1, 1]
    assert found.values[0, place[PRICE]] == pytest.approx(np.log(10))
    assert np.isnan(found.values[1:, place[PRICE]]).all()
    assert len(sales_features([], [], [], [])) == 0
    with pytest.raises(ValueError, match="differ in length"):
        sales_features(["p"], [], [], [])


def test_a_price_far_from_the_products_others_stands_out() -> None:
    random = np.random.default_rng(0)
    quantity = random.integers(50, 60, 400)
    value = quantity * np.repeat([2.0, 90.0], 200) * random.uniform(0.95, 1.05, 400)
    value[7] *= 30
    features = sales_features(np.repeat(["p", "q"], 200), random.integers(0, 9, 400), quantity, value)
    detector = LabelFreeDetector(trees=50).fit(features)

    assert np.argmax(detector.score(features)) == 7
    assert any("unit price against the product's median" in one.text for one in detector.reasons(features.rows([7]))[0])


@pytest.fixture
def reports(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Features, np.ndarray]:
    monkeypatch.setenv(shared_data.VARIABLE, str(shared_dir / "data"))
    return evaluation.load()


def test_real_reports_beat_the_published_baseline_without_its_labels(
    reports: tuple[Features, np.ndarray],
) -> None:
    features, labels = reports
    assert [int((labels == one).sum()) for one in (-1, 0, 1)] == [385_414, 14_462, 1_270]
    known, truth = features.rows(labels >= 0), labels[labels >= 0]
    random = np.random.default_rng(0)
    half = random.random(len(truth)) < 0.5

    detector = SupervisedDetector(SALES_NEIGHBOURS, rounds=120, models=1).fit(known.rows(half), truth[half])
    scores = detector.score(known.rows(~half))

    # Half of the labels, fewer trees: still above what four features reach with four fifths of them.
    assert average_precision_score(truth[~half], scores) > 0.902
    assert all(detector.reasons(known.rows(~half).rows(np.argsort(-scores)[:5])))


def test_figures_of_a_perfect_and_a_reversed_order() -> None:
    labels = np.array([1] * 10 + [0] * 190)
    best = evaluation.figures(labels, labels.astype(float))
    worst = evaluation.figures(labels, 1.0 - labels)

    assert best == {
        "AP": 1,
        "AUC": 1,
        "recall at 1% FPR": 1,
        "precision at 10%": 0.5,
        "recall at 10%": 1,
    }
    assert worst["AUC"] == 0
    assert worst["recall at 1% FPR"] == 0

from __future__ import annotations

import numpy as np
import pytest
import torch

from endcap_workers.models.features import LIMIT, FeatureScale
from endcap_workers.training.cases import LIST
from endcap_workers.training.learning import _drawn


def test_features_come_to_a_common_scale_and_faults_count_as_average() -> None:
    scale = FeatureScale(3)
    scale.fit(torch.tensor([[1.0, 100.0, 7.0], [3.0, 300.0, 7.0]]))

    answer = scale(torch.tensor([[1.0, 300.0, 7.0], [float("nan"), 1e9, 7.0]]))

    assert answer.tolist() == [[-1.0, 1.0, 0.0], [0.0, LIMIT, 0.0]]


def test_knots_lie_at_the_quantiles_of_what_is_not_the_commonest_value() -> None:
    counts = torch.cat([torch.zeros(900), torch.arange(1.0, 100.0)]).unsqueeze(1)
    scale = FeatureScale(1, knots=3)
    scale.fit(counts)

    at = scale.knots[0] * scale.deviation + scale.mean
    assert at.tolist() == pytest.approx([25.5, 50.0, 74.5])
    plain, *above = scale(torch.tensor([[50.0]]))[0].tolist()
    assert above == pytest.approx([max(plain - knot, 0.0) for knot in scale.knots[0].tolist()])
    assert scale.width == 4


def test_features_are_compared_with_those_of_the_other_candidates() -> None:
    scale = FeatureScale(1, among=True)
    nothing = float("nan")
    lists = torch.tensor([[[1.0], [3.0], [5.0], [nothing]], [[2.0], [2.0], [nothing], [nothing]]])

    answer = scale(lists)[..., 1]

    assert answer[0, :3].tolist() == pytest.approx([-1.213, 0.0, 1.213], abs=1e-3)
    assert answer[1, :2].tolist() == [0.0, 0.0], "what all share tells nobody apart"


def test_a_column_that_never_varies_does_no_harm() -> None:
    scale = FeatureScale(1, knots=2)
    scale.fit(torch.full((10, 1), 5.0))

    assert torch.isfinite(scale(torch.tensor([[5.0], [6.0]]))).all()


def test_what_judges_later_has_no_say_in_the_scale() -> None:
    lists = np.zeros(3, dtype=LIST)
    lists["start"], lists["size"] = [10, 0, 50], [3, 2, 4]
    rows = _drawn(lists, np.random.default_rng(0))
    found, counts = np.unique(rows, return_counts=True)
    assert found.tolist() == [0, 1, 10, 11, 12, 50, 51, 52, 53]
    assert counts.max() < 1.1 * counts.min(), "each row is as probable as another"

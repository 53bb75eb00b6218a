from __future__ import annotations

import pytest
import torch

from endcap_workers.models.features import LIMIT, FeatureScale


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


def test_a_column_that_never_varies_does_no_harm() -> None:
    scale = FeatureScale(1, knots=2)
    scale.fit(torch.full((10, 1), 5.0))

    assert torch.isfinite(scale(torch.tensor([[5.0], [6.0]]))).all()

"""Metrics against ir-measures and the definitions."""

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.metrics import expected_rank, graded_ndcg_at, hit_at, ndcg_at, reciprocal_rank


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=15), st.integers(1, 12))
def test_graded_ndcg_is_that_of_ir_measures(gains: list[int], k: int) -> None:
    documents = [f"d{number:02}" for number in range(len(gains))]
    qrels = [ir_measures.Qrel("q", name, gain) for name, gain in zip(documents, gains, strict=True)]
    run = [ir_measures.ScoredDoc("q", name, float(-number)) for number, name in enumerate(documents)]
    expected = ir_measures.calc_aggregate([ir_measures.nDCG @ k], qrels, run)[ir_measures.nDCG @ k]
    assert graded_ndcg_at(np.array(gains), np.array(gains), k) == pytest.approx(expected, abs=1e-6)


def test_one_relevant_product() -> None:
    assert ndcg_at(np.array([0, 1, 9, 10])) == pytest.approx([1.0, 1 / np.log2(3), 1 / np.log2(11), 0.0])
    assert reciprocal_rank(np.array([0, 3])).tolist() == [1.0, 0.25]
    assert hit_at(np.array([9, 10]), 10).tolist() == [1.0, 0.0]


def test_ties_share_the_mean_place() -> None:
    assert expected_rank(np.array([1.0, 1.0, 1.0]), 0) == 1.0
    assert expected_rank(np.array([2.0, 1.0, 1.0]), 2) == 1.5

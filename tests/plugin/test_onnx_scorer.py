"""Scoring in process, and the order of fallback around it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from endcap.bundles import load_bundle
from endcap.catalog import Product, ProductTable
from endcap.errors import ScorerUnavailable
from endcap.features import RankingInputs
from endcap.scoring.aligned import Aligned
from endcap.scoring.base import Scorer
from endcap.scoring.baseline import BaselineScorer
from endcap.scoring.fallback import FallbackScorer
from endcap.sequences import Alignment, model_inputs
from endcap_workers.models import Interest
from tests.serving import DIMS, SPEC, TABLE, VOCABULARY, in_process, make_table, search, searches, torch_scores


def test_it_scores_as_the_torch_model_does(interest_bundle: Path, interest_model: Interest) -> None:
    scorer, aligned = in_process(interest_bundle), Alignment(TABLE, VOCABULARY, SPEC)
    for one in searches(250, seed=11):
        tensors = model_inputs(one, aligned)
        expected = torch_scores(interest_model, tensors)
        assert scorer.score(one) == pytest.approx(expected, abs=1e-4)


def test_padding_the_history_changes_nothing(interest_bundle: Path) -> None:
    bundle, aligned = load_bundle(interest_bundle), Alignment(TABLE, VOCABULARY, SPEC)
    for one in searches(30, seed=12):
        short, padded = (
            bundle.session.run(["scores"], model_inputs(one, aligned, places))[0] for places in (0, SPEC.places)
        )
        assert padded == pytest.approx(short, abs=1e-5)


def test_a_table_is_lined_up_once_and_the_last_two_are_kept(interest_bundle: Path) -> None:
    aligned = Aligned(load_bundle(interest_bundle))
    tables = [make_table(20) for _ in range(3)]
    made = [aligned.of(table) for table in tables]
    assert aligned.of(tables[2]) is made[2]
    assert aligned.of(tables[1]) is made[1]
    assert aligned.of(tables[0]) is not made[0]


class Failing:
    """A step that raises what it is told to, or gives it."""

    def __init__(self, name: str, outcome: Exception | np.ndarray) -> None:
        self.name = name
        self.outcome: Exception | np.ndarray | None = outcome

    def score(self, inputs: RankingInputs) -> np.ndarray:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return np.ones(len(inputs.rows), np.float32) if self.outcome is None else self.outcome


@pytest.mark.parametrize(
    ("outcome", "note"),
    [
        (ScorerUnavailable("down"), "gpu:scorer_unavailable"),
        (RuntimeError("a bug"), "gpu:internal_error"),
        (np.full(3, np.nan, np.float32), "gpu:not_sane"),
        (np.zeros(2, np.float32), "gpu:not_sane"),
    ],
)
def test_a_step_that_cannot_answer_is_passed_over_and_named(outcome: Exception | np.ndarray, note: str) -> None:
    one = search(searches(1)[0].profile, ["p1", "p2", "p3"])
    first = Failing("gpu:interest-1", outcome)
    scorer = FallbackScorer(first, BaselineScorer())
    scored = scorer.answer(one)
    assert (scored.scorer, scored.fallback) == ("baseline", note)
    assert np.array_equal(scored.scores, BaselineScorer().score(one))
    first.outcome = None
    assert scorer.answer(one).scorer == "gpu:interest-1", "every search begins with the best again"


def test_where_no_step_answers_the_last_reason_is_raised() -> None:
    steps = [Failing("a:1", ScorerUnavailable("first")), Failing("b:1", ScorerUnavailable("second"))]
    with pytest.raises(ScorerUnavailable, match="second"):
        FallbackScorer(*steps).score(searches(1)[0])


def test_an_order_of_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FallbackScorer()


def test_what_changes_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    one = search(searches(1)[0].profile, ["p1"])
    first = Failing("gpu:interest-1", ScorerUnavailable("down"))
    scorer = FallbackScorer(first, BaselineScorer())
    with caplog.at_level(logging.INFO, "endcap"):
        for _ in range(5):
            scorer.answer(one)
        first.outcome = None
        for _ in range(5):
            scorer.answer(one)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "scorer gpu:interest-1 cannot answer, the next one does (scorer_unavailable: down)",
        "scorer gpu:interest-1 answers again (it was: scorer_unavailable)",
    ]


def test_vectors_of_another_width_fall_back_to_the_baseline(interest_bundle: Path) -> None:
    table = ProductTable([Product("a"), Product("b")], np.ones((2, DIMS + 1), dtype=np.float16))
    steps: list[Scorer] = [in_process(interest_bundle), BaselineScorer()]
    scored = FallbackScorer(*steps).answer(search(searches(1)[0].profile, ["a", "b"], table))
    assert (scored.scorer, scored.fallback) == ("baseline", "onnx:scorer_unavailable")

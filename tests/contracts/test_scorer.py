"""One suite that every scorer passes: what the personalizer relies on, whichever is in force."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from endcap import publishing
from endcap.bundles import load_bundle
from endcap.catalog import ProductTable
from endcap.profiles import Profile
from endcap.scoring import Scorer
from endcap.scoring.base import answer
from endcap.scoring.baseline import BaselineScorer
from endcap.scoring.fallback import FallbackScorer
from endcap.scoring.triton import TritonScorer
from tests.services.triton import Triton
from tests.serving import ENCODER, TABLE, in_process, make_profile, make_table, search, searches


def _onnx(request: pytest.FixtureRequest) -> Scorer:
    folder: Path = request.getfixturevalue("interest_bundle")
    return in_process(folder)


def _triton(request: pytest.FixtureRequest) -> Scorer:
    server: Triton = request.getfixturevalue("triton")
    bundle = load_bundle(request.getfixturevalue("interest_bundle"), ENCODER)
    publishing.write_version(bundle, server.repository, "python")
    publishing.load_into_triton(bundle, server.url)
    made = TritonScorer(server.url, bundle, timeout_s=30.0)
    made.check()
    request.addfinalizer(made.close)
    return made


def _fallback(request: pytest.FixtureRequest) -> Scorer:
    return FallbackScorer(_onnx(request), BaselineScorer())


SCORERS: list[object] = [
    pytest.param(lambda request: BaselineScorer(), id="baseline"),
    pytest.param(_onnx, id="onnx"),
    pytest.param(_fallback, id="fallback"),
    pytest.param(_triton, id="triton", marks=pytest.mark.triton),
]


@pytest.fixture(scope="module", params=SCORERS)
def scorer(request: pytest.FixtureRequest) -> Scorer:
    make: Callable[[pytest.FixtureRequest], Scorer] = request.param
    return make(request)


def test_one_finite_score_a_candidate(scorer: Scorer) -> None:
    for one in searches(60, seed=1):
        scores = scorer.score(one)
        assert scores.shape == (len(one.rows),)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()


def test_it_has_an_opinion(scorer: Scorer) -> None:
    one = search(make_profile(np.random.default_rng(3), 60), TABLE.ids[:50])
    assert scorer.score(one).std() > 1e-3


def test_the_same_search_scores_the_same(scorer: Scorer) -> None:
    one = searches(1, seed=2)[0]
    assert np.array_equal(scorer.score(one), scorer.score(one))


def test_nothing_to_score(scorer: Scorer) -> None:
    assert scorer.score(search(Profile(), [])).shape == (0,)


def test_a_stranger_and_unknown_products(scorer: Scorer) -> None:
    scores = scorer.score(search(Profile(), ["nobody knows", "p1", "nor this"]))
    assert np.isfinite(scores).all()


def test_the_largest_window(scorer: Scorer) -> None:
    shopper = make_profile(np.random.default_rng(4), 120)
    ids = (TABLE.ids * 4)[:1_000]
    assert np.isfinite(scorer.score(search(shopper, ids))).all()


def test_scores_do_not_depend_on_how_many_candidates_there_are(scorer: Scorer) -> None:
    """Padding, batching and the size of the window must not show. Features that compare candidates with each other
    are taken from the larger search."""
    whole = search(make_profile(np.random.default_rng(5), 40), TABLE.ids[:80])
    part = search(whole.profile, TABLE.ids[:33])
    part.features = whole.features[:33]
    assert scorer.score(part) == pytest.approx(scorer.score(whole)[:33], abs=1e-5)


def test_many_threads_get_what_one_gets(scorer: Scorer) -> None:
    cases = searches(40, seed=6)
    alone = [scorer.score(one) for one in cases]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(scorer.score, cases * 3))
    for place, scores in enumerate(together):
        assert scores == pytest.approx(alone[place % len(cases)], abs=1e-5)


def test_another_table_of_the_same_products_scores_the_same(scorer: Scorer) -> None:
    """A reload of the products numbers everything anew."""
    shopper = make_profile(np.random.default_rng(7), 40)
    order = np.random.default_rng(8).permutation(len(TABLE))
    again = make_table()
    before = scorer.score(search(shopper, TABLE.ids[:60]))
    shopper.cache.clear()
    from tests.serving import products

    listed = products()
    assert again.vectors is not None
    shuffled = ProductTable([listed[place] for place in order.tolist()], again.vectors[order])
    assert scorer.score(search(shopper, TABLE.ids[:60], shuffled)) == pytest.approx(before, abs=1e-4)


def test_it_says_who_answered(scorer: Scorer) -> None:
    scored = answer(scorer, searches(1)[0])
    assert scored.fallback == ""
    assert scored.scorer.partition(":")[0] in {"baseline", "onnx", "triton"}

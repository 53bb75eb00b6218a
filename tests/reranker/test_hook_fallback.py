"""Which scorer answered is seen from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from endcap.personalizer import Ranking
from endcap.policy import Visit
from tests.reranker.hook_support import ByHash, Shop

RED: dict[str, Any] = {"query": {"match": {"title": "red"}}, "size": 6}


class ByTheSecond(ByHash):
    """The first scorer in line could not answer."""

    def rank(
        self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray, visit: Visit | None = None
    ) -> Ranking:
        ranking = super().rank(shopper, query, ids, engine_scores)
        return replace(ranking, scorer="onnx:interest-1", fallback="triton:circuit_open")


def test_a_fallback_to_another_scorer_shows_in_the_headers(shop_engine: str) -> None:
    answer = Shop(shop_engine, ByTheSecond()).post(RED)
    assert answer.headers["X-Endcap-Fallback"] == "triton:circuit_open"
    assert answer.headers["X-Endcap-Personalized"] == "1"
    assert "X-Endcap-Degraded" not in answer.headers
    assert "X-Endcap-Fallback" not in Shop(shop_engine).post(RED).headers

"""What rules ask of the hook, over real Elasticsearch: hidden hits, labels beside the hit, searches of nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from endcap.personalizer import Ranking
from endcap.policy import Visit
from tests.reranker.hook_support import SHOPPER, Shop, Unruled

HIDDEN = 3
RED: dict[str, Any] = {"query": {"match": {"title": "red shoe running"}}}


class Ruled(Unruled):
    """Hides the three best, sells the first place to the last candidate; in force for anonymous shoppers, too."""

    rules_in_force = True

    def __init__(self) -> None:
        self.visits: list[Visit | None] = []

    def rank(
        self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray, visit: Visit | None = None
    ) -> Ranking:
        self.visits.append(visit)
        last = len(ids) - 1
        order = np.r_[last, np.arange(HIDDEN, last)]
        return Ranking(
            "r", order, False, notes={last: ["Sponsored"]}, labels={last: ["sponsored"]}, hidden=HIDDEN
        )  # fmt: skip


@pytest.fixture(params=["never", "always"])
def shop(shop_engine: str, request: pytest.FixtureRequest) -> Shop:
    return Shop(shop_engine, Ruled(), two_phase=request.param)


def page(shop: Shop, start: int, size: int, **headers: str) -> list[dict[str, Any]]:
    answer = shop.post({**RED, "from": start, "size": size}, shopper="", headers=headers or SHOPPER)
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.get_json()["hits"]["hits"]
    return hits


def test_pages_neither_repeat_nor_lose_what_is_not_hidden(shop: Shop, shop_engine: str) -> None:
    plain = (
        Shop(shop_engine).post({**RED, "size": 80}, headers={"X-Endcap-Personalize": "off"}).get_json()["hits"]["hits"]
    )
    ids = [hit["_id"] for hit in plain]
    for size in (20, 50, 7):
        shown = [hit["_id"] for start in range(0, 80, size) for hit in page(shop, start, min(size, 80 - start))]
        assert len(shown) == len(set(shown)), "a hit on two pages"
        assert set(shown) == set(ids[HIDDEN:])
        assert shown[0] == ids[49]
    scores = [hit["_score"] for hit in page(shop, 0, 80)]
    assert scores == sorted(scores, reverse=True)


def test_labels_stand_beside_the_hit(shop: Shop) -> None:
    answer = shop.post({**RED, "size": 3}, headers=SHOPPER)
    assert answer.headers["X-Endcap-Sponsored"] == "1"
    assert all("fields" not in hit for hit in answer.get_json()["hits"]["hits"])
    asked = {**RED, "size": 3, "ext": {"endcap": {"labels": True}}}
    answer = shop.post(asked, headers=SHOPPER)
    hits = answer.get_json()["hits"]["hits"]
    assert hits[0]["fields"] == {"endcap.labels": ["sponsored"], "endcap.notes": ["Sponsored"]}
    assert "fields" not in hits[1]
    second = shop.post({**RED, "from": 3, "size": 3}, headers=SHOPPER)
    assert "X-Endcap-Sponsored" not in second.headers


def test_rules_hold_for_nobody_too_but_not_where_the_engines_order_is_asked_for(shop: Shop) -> None:
    nobody = page(shop, 0, 5, **{"User-Agent": "Mozilla/5.0 (iPhone) Mobile", "X-Endcap-Segment": "vip"})
    assert [hit["_id"] for hit in nobody] == [hit["_id"] for hit in page(shop, 0, 5)]
    assert page(shop, 0, 5, **{"X-Endcap-Personalize": "off"})[0]["_id"] != nobody[0]["_id"]
    visits = shop.parts.personalizer.visits  # type: ignore[attr-defined]
    assert visits[0] == Visit("phone", "vip", "", False)

"""In the demo's shop, on real purchases: products added live stand in the order of whose maker a household buys."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from endcap.runtime import Runtime
from endcap.stores.tokens import Tokens
from endcap_reranker.app import create_app
from tests.reranker.demo_support import open_shop, set_up_shop, small_journey


def rivals(runtime: Runtime) -> tuple[int, int, int]:
    """A shelf, and the two makers with most products there: of the shelf where the second one has most."""
    table = runtime.personalizer.table
    assert table is not None
    shelves = {}
    for shelf in np.unique(table.category[:-1][table.category[:-1] >= 0]).tolist():
        here = (table.category[:-1] == shelf) & (table.brand[:-1] >= 0)
        shelves[shelf] = Counter(table.brand[:-1][here].tolist()).most_common(2)
    shelf, (first, second) = max(
        ((shelf, makers) for shelf, makers in shelves.items() if len(makers) == 2), key=lambda one: one[1][1][1]
    )
    return shelf, first[0], second[0]


def purchases_of(runtime: Runtime, household: str, shelf: int, makers: tuple[int, int]) -> list[float]:
    """How much a household bought of each maker on the shelf."""
    table = runtime.personalizer.table
    assert table is not None
    profile = runtime.profiles.get(household)
    rows = table.rows_of_profile_keys(profile.counters["key"])
    here = (rows >= 0) & (table.category[rows] == shelf)
    return [float(profile.buys()[here & (table.brand[rows] == maker)].sum()) for maker in makers]


def test_products_added_live_rank_for_the_right_households(tmp_path: Path) -> None:
    with open_shop(set_up_shop(tmp_path, text_encoder="none", product_refresh_s=600.0)) as runtime:
        client = create_app(runtime).test_client()
        shelf, *makers = rivals(runtime)
        table = runtime.personalizer.table
        assert table is not None
        text, _ = Tokens(runtime.database).create("shopkeeper", "operator")
        new = [
            {"id": f"live-{maker}", "title": "new novelty", "brand": table.brands[maker],
             "categories": table.categories[shelf].split("\0"), "price": 2.5}
            for maker in makers
        ]  # fmt: skip
        headers = {"Authorization": f"Bearer {text}"}
        answer = client.post("/admin/v1/products", headers=headers, json={"products": new})
        assert answer.get_json()["indexed"] == 2, answer.text

        right = judged = 0
        for household in sorted({str(one) for one in small_journey().purchases.household}):
            mine = purchases_of(runtime, household, shelf, (makers[0], makers[1]))
            if abs(mine[0] - mine[1]) < 3:
                continue
            found = client.get(
                "/v1/search", query_string={"q": "novelty"}, headers={"X-Endcap-Shopper": household}
            ).get_json()
            judged += 1
            right += found["hits"][0]["id"] == f"live-{makers[int(mine[1] > mine[0])]}"

    assert judged >= 10
    assert right > 0.8 * judged, f"{right} of {judged}"

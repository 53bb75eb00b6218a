"""Which neighbours join, what a part number is, and that fusion is what its paper says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endcap.catalog.product import Product
from endcap.engines import Candidates, SearchRequest
from endcap.engines.embedded import EmbeddedEngine
from endcap.fusion import (
    FUSION_K,
    KEYWORD_WEIGHT,
    SAME_OVERLAP,
    SHARE,
    SHARE_WEAK,
    WEAK_OVERLAP,
    fuse,
    is_code,
    newcomers,
    room_for,
)
from endcap.recall import Recaller
from tests.plugin.test_recall import Directions, unit


@pytest.mark.parametrize(
    "text", ["006R90321", "hp dv7-1211ea", "brother tn-2110 toner", "4003994155486", "H510I/GTX", "MX-2300N drum"]
)
def test_part_numbers(text: str) -> None:
    assert is_code(text)


WORDS = [
    "",
    "laptop",
    "windows 10",
    "state-of-the-art",
    "food for my puppy",
    "7 up",
    "iphone 11",
    "rtx 2060",
    "ps4 pro",
]
QUANTITIES = ["usb stick 128gb", "500ml milk", "2.5kg flour", "1080p", "2024", "牛奶 1000ml"]


@pytest.mark.parametrize("text", [*WORDS, *QUANTITIES])
def test_words_and_quantities_are_no_part_numbers(text: str) -> None:
    assert not is_code(text)


@given(window=st.integers(1, 500), total=st.integers(0, 2_000), overlap=st.floats(0, 1))
def test_room_never_takes_a_keyword_match_out_that_has_a_place(window: int, total: int, overlap: float) -> None:
    room = room_for(window, total, overlap)
    assert 0 <= room <= window
    if total < window:
        assert room + total == window
    else:
        assert room <= max(SHARE, SHARE_WEAK) * window


def test_the_more_both_sides_agree_the_less_room() -> None:
    rooms = [room_for(100, 1_000, overlap) for overlap in (0.0, WEAK_OVERLAP, 0.2, 0.4, SAME_OVERLAP, 1.0)]
    assert rooms == sorted(rooms, reverse=True)
    assert rooms[0] == 50
    assert rooms[1] > rooms[3] > 0
    assert rooms[-2:] == [0, 0]


ids = st.lists(st.sampled_from([f"p{n}" for n in range(30)]), unique=True, max_size=30)


@given(keyword=ids, near=ids, weight=st.floats(0, 2))
def test_fusion_is_reciprocal_rank_fusion(keyword: list[str], near: list[str], weight: float) -> None:
    neighbours = Candidates(near, np.linspace(1, 0.5, len(near), dtype=np.float32))
    added = newcomers(keyword, neighbours, 5)
    fused, scores = fuse(keyword, neighbours, added, weight)
    assert len(fused) == len(set(fused)) == len(keyword) + len(added)
    assert set(fused) == {*keyword, *added}
    assert np.all(np.diff(scores) <= 0)
    for one, score in zip(fused, scores, strict=True):
        expected = 0.0
        if one in keyword:
            expected += KEYWORD_WEIGHT / (FUSION_K + keyword.index(one) + 1)
        if one in near:
            expected += weight / (FUSION_K + near.index(one) + 1)
        assert score == pytest.approx(expected, rel=1e-5)


@given(keyword=ids, near=ids)
def test_without_weight_the_keyword_order_stands(keyword: list[str], near: list[str]) -> None:
    neighbours = Candidates(near, np.full(len(near), 0.9, dtype=np.float32))
    assert fuse(keyword, neighbours, [], 0.0)[0] == keyword


def test_a_part_number_that_is_found_stands_alone(tmp_path: Path) -> None:
    encoder, engine = Directions(), EmbeddedEngine(tmp_path, "products")
    engine.ensure(encoder.dims, encoder.id)
    near = unit(1, 0, 0, 0)
    products = [Product("drum", "Imaging drum TN-2110"), Product("toner", "Toner"), Product("ink", "Ink")]
    engine.upsert((product, near, "") for product in products)
    engine.refresh()
    encoder.known = dict.fromkeys(("tn-2110", "drum", "ab-9999"), near)
    recaller = Recaller(engine, encoder)
    assert recaller.recall(SearchRequest("tn-2110"), 10).ids == ["drum"]
    assert recaller.recall(SearchRequest("drum"), 10).total == 3
    assert recaller.recall(SearchRequest("ab-9999"), 10).total == 3, "one that is unknown finds what is near, at least"
    engine.close()

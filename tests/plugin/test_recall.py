"""Fusion of words and meaning: nothing lost, nothing twice, whatever the two sides say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from endcap.catalog.product import Product
from endcap.engines import Candidates, SearchRequest
from endcap.engines.embedded import EmbeddedEngine
from endcap.fusion import FLOOR_ENOUGH, FLOOR_FEW, fuse, newcomers
from endcap.recall import Recaller

DIMS = 4


def near_of(*found: tuple[str, float]) -> Candidates:
    return Candidates([one for one, _ in found], np.array([score for _, score in found], dtype=np.float32))


class Directions:
    """An encoder whose vectors can be chosen: each known text has one, others point nowhere near."""

    id, dims = "directions", DIMS

    def __init__(self) -> None:
        self.known: dict[str, np.ndarray] = {}

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray:
        return np.stack([self.encode_query(text) for text in texts])

    def encode_query(self, text: str) -> np.ndarray:
        if text == "broken":
            raise RuntimeError("the encoder is out of order")
        return self.known.get(text, np.array([0, 0, 0, 1], dtype=np.float32))


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


#: 30 products with the word "gift" (direction x), 10 puppy products without it (direction y).
PRODUCTS = [
    *((Product(f"g{n:02}", f"gift number {n}", price=float(n)), unit(1, 0.02 * n, 0, 0)) for n in range(30)),
    *((Product(f"p{n:02}", f"puppy thing {n}", price=float(n)), unit(0.02 * n, 1, 0, 0)) for n in range(10)),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    made = EmbeddedEngine(tmp_path_factory.mktemp("recall"), "products")
    made.ensure(DIMS, Directions.id)
    made.upsert((product, vector, "") for product, vector in PRODUCTS)
    made.refresh()
    yield made
    made.close()


@pytest.fixture(scope="module")
def encoder() -> Directions:
    return Directions()


@pytest.fixture(scope="module")
def recaller(engine: EmbeddedEngine, encoder: Directions) -> Recaller:
    return Recaller(engine, encoder)


def everything(recaller: Recaller, request: SearchRequest, window: int, step: int) -> tuple[list[str], int]:
    """All pages one after another, and the total."""
    recall = recaller.recall(request, window)
    shown = list(recall.ids)
    assert len(shown) <= window
    assert np.all(np.diff(recall.scores) <= 0)
    place = window
    while len(recall.ids) == window and (page := recaller.beyond(recall, place, step)):
        shown.extend(page)
        place += len(page)
    return shown, recall.total


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.sampled_from(["gift", "puppy", "gift puppy", "thing", "nothing of the kind", ""]),
    meant=st.sampled_from([unit(1, 0, 0, 0), unit(0, 1, 0, 0), unit(1, 1, 0, 0), unit(0, 0, 1, 0)]),
    window=st.integers(1, 45),
    step=st.integers(1, 7),
)
def test_pages_partition_the_result(
    recaller: Recaller, encoder: Directions, text: str, meant: np.ndarray, window: int, step: int
) -> None:
    encoder.known = {text: meant}
    shown, total = everything(recaller, SearchRequest(text), window, step)
    assert len(shown) == len(set(shown)) == total


def test_what_only_meaning_finds_fills_the_room_that_is_left(recaller: Recaller, encoder: Directions) -> None:
    encoder.known = {"puppy": unit(1, 1, 0, 0)}
    recall = recaller.recall(SearchRequest("puppy"), 20)
    assert {one for one in recall.ids if one.startswith("p")} == {f"p{n:02}" for n in range(10)}, "no match displaced"
    assert len(recall.ids) == 20
    assert recall.total == 20


def test_a_full_window_about_the_same_thing_takes_nobody_in(recaller: Recaller, encoder: Directions) -> None:
    encoder.known = {"gift": unit(1, 0, 0, 0)}
    recall = recaller.recall(SearchRequest("gift"), 20)
    assert recall.total == 30
    assert all(one.startswith("g") for one in recall.ids)
    assert not recall.added


def test_a_full_window_about_something_else_gives_half_to_meaning(recaller: Recaller, encoder: Directions) -> None:
    encoder.known = {"gift": unit(0, 1, 0, 0)}
    recall = recaller.recall(SearchRequest("gift"), 10)
    assert sum(one.startswith("p") for one in recall.ids) == 5
    assert recall.ids[0].startswith("p")
    assert recall.total == 35


def test_nonsense_finds_nothing(recaller: Recaller, encoder: Directions) -> None:
    encoder.known = {}
    recall = recaller.recall(SearchRequest("zzzz"), 20)
    assert recall.ids == []
    assert recall.total == 0


def test_a_wanted_order_is_not_touched_by_vectors(recaller: Recaller, encoder: Directions) -> None:
    encoder.known = {"gift": unit(0, 1, 0, 0)}
    recall = recaller.recall(SearchRequest("gift", sort="price:desc"), 10)
    assert recall.ids == [f"g{n:02}" for n in range(29, 19, -1)]


def test_a_broken_encoder_leaves_the_words_and_rests(engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Directions()
    recaller = Recaller(engine, encoder)
    recall = recaller.recall(SearchRequest("broken gift"), 10)
    assert recall.degraded == ""
    assert recaller.recall(SearchRequest("broken"), 10).degraded == "no_vectors"
    assert recaller.recall(SearchRequest("gift"), 10).degraded == "no_vectors", "asked again too soon"
    assert recaller.recall(SearchRequest("gift"), 10).ids
    monkeypatch.setattr("endcap.recall.RETRY_S", 0.0)
    fresh = Recaller(engine, encoder)
    assert fresh.recall(SearchRequest("broken"), 10).degraded == "no_vectors"
    assert fresh.recall(SearchRequest("gift"), 10).degraded == ""


def test_an_index_without_vectors_is_searched_by_words(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path, "products")
    engine.ensure(None, "none")
    engine.upsert([(Product("a", "gift"), None, "")])
    engine.refresh()
    assert Recaller(engine, Directions()).recall(SearchRequest("gift"), 10).ids == ["a"]
    engine.close()


def test_behind_the_window_only(recaller: Recaller) -> None:
    recall = recaller.recall(SearchRequest("gift"), 10)
    with pytest.raises(ValueError, match="within the window"):
        recaller.beyond(recall, 9, 5)
    assert recaller.beyond(recall, 1_000, 5) == []


class TestFusion:
    def test_both_sides_together_win(self) -> None:
        ids, scores = fuse(["a", "b", "c"], near_of(("c", 0.9), ("d", 0.8)), ["d"], 0.6)
        assert ids[0] == "c"
        assert set(ids) == {"a", "b", "c", "d"}
        assert scores.dtype == np.float32

    def test_without_neighbours_the_keyword_order_stands(self) -> None:
        assert fuse(["a", "b", "c"], near_of(), [], 0.6)[0] == ["a", "b", "c"]

    def test_newcomers_must_be_near(self) -> None:
        near = near_of(("a", 0.9), ("b", FLOOR_ENOUGH + 0.2), ("c", FLOOR_FEW))
        assert newcomers(["a"], near, 10) == ["b"], "c is far below the best"
        assert newcomers([], near_of(("c", FLOOR_FEW), ("d", FLOOR_FEW - 0.01)), 10) == ["c"]
        assert newcomers([str(n) for n in range(10)], near_of(("c", FLOOR_FEW)), 10) == [], "the words found enough"
        assert newcomers([], near, 0) == []
        assert newcomers([], near, 1) == ["a"]

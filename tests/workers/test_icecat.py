"""The judging of search quality, its cache of embeddings, and (with the data set) its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from endcap.catalog.product import Product
from endcap.encoders.base import Progress, unit
from endcap.engines import Candidates
from endcap.metrics import graded_ndcg_at
from endcap_workers.evaluation import icecat, shared_data
from endcap_workers.evaluation.embedding_cache import embeddings


class Counting:
    """An encoder whose vectors depend on the text alone, and that remembers what it was asked."""

    dims = 4

    def __init__(self, name: str) -> None:
        self.id = name
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        self.asked.extend(texts)
        return unit(np.array([[len(text), text.count("a") + 1, text.count("b"), 1.0] for text in texts]))

    def encode_query(self, text: str) -> np.ndarray:
        return self.encode([text])[0]


def test_embeddings_are_kept_by_encoder_and_text(tmp_path: Path) -> None:
    first = Counting("first")
    vectors = embeddings(first, ["ab", "b", "ab"], tmp_path)
    assert sorted(first.asked) == ["ab", "b"]
    again = Counting("first")
    assert np.array_equal(embeddings(again, ["b", "ab", "aaa"], tmp_path)[:2], vectors[[1, 0]])
    assert again.asked == ["aaa"], "only what is new is encoded"
    other = Counting("second")
    embeddings(other, ["ab"], tmp_path)
    assert other.asked == ["ab"], "another encoder's vectors are no use"
    assert np.allclose(vectors, first.encode(["ab", "b", "ab"]), atol=1e-3)
    assert embeddings(first, [], tmp_path).shape == (0, 4)


def test_unrated_products_count_as_irrelevant() -> None:
    ratings = {"a": 3, "b": 0, "c": 1}
    perfect = icecat.figures_of(["a", "c", "b"], ratings)
    assert perfect == (1.0, 1.0)
    ndcg, recall = icecat.figures_of(["unrated", "a"], ratings)
    expected = graded_ndcg_at(np.array([0.0, 7.0]), np.array([7.0, 0.0, 1.0]), 10)
    assert ndcg == pytest.approx(expected)
    assert recall == 0.5
    assert icecat.figures_of([], ratings) == (0.0, 0.0)


def test_choosing_on_the_same_queries_flatters_and_cross_validation_does_not() -> None:
    noise = np.random.default_rng(1).random((50, 60))
    mean, spread = icecat.cross_validated(noise, 0)
    assert noise.mean(axis=1).max() > 0.55, "the best of 50 equally bad settings looks good"
    assert abs(mean - 0.5) < 0.05
    assert spread > 0
    better = np.vstack([np.full((1, 60), 0.9), noise * 0.5])
    assert icecat.cross_validated(better, 0)[0] == pytest.approx(0.9)


def test_plain_fusion_takes_everything_of_both_lists() -> None:
    near = Candidates(["c", "d"], np.array([0.1, 0.05], dtype=np.float32))
    assert icecat.plain_fusion(["a", "c"], near) == ["c", "a", "d"]


def test_plain_bm25_prefers_rare_words_and_short_texts() -> None:
    products = [Product("a", "red lamp"), Product("b", "red lamp with a very long name"), Product("c", "red chair")]
    rank = icecat.PlainBm25(products)
    assert rank("lamp") == ["a", "b"]
    assert rank("red chair")[0] == "c"
    assert rank("unknown") == []


@pytest.mark.shared
def test_the_baseline_is_the_data_sets_own(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shared_data.VARIABLE, str(shared_dir / "data"))
    products, ratings = icecat.load_products(), icecat.load_ratings()
    assert len(products) == 19_406
    assert len(ratings) == 116
    figures = icecat.judged(ratings, icecat.PlainBm25(products)).mean(axis=0)
    assert figures[0] == pytest.approx(0.7033, abs=5e-4)
    parts = icecat.part_numbers(products, 0)
    assert parts == icecat.part_numbers(products, 0)
    assert len(parts) == icecat.PARTS

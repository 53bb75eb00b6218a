"""The made-up catalogue of `endcap bench search` and `million`, and their rows over a few of its products."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from endcap.engines.embedded import EmbeddedEngine
from endcap.results import Results
from endcap_reranker.bench import catalogue, search


class Letters:
    """A quick encoder: texts with the same letters are near."""

    id, dims = "letters", 16

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray:
        return np.stack([self.encode_query(text) for text in texts])

    def encode_query(self, text: str) -> np.ndarray:
        counts = np.bincount([ord(one) % self.dims for one in text] or [0], minlength=self.dims).astype(np.float32)
        return counts / np.linalg.norm(counts)


def test_the_catalogue_is_the_same_for_a_seed_and_looks_like_a_shops() -> None:
    made = list(catalogue.products(3_000, 1))
    assert made == list(catalogue.products(3_000, 1))
    assert made != list(catalogue.products(3_000, 2))
    assert len({one.id for one in made}) == 3_000
    sold = sorted((sum(one.brand == name for one in made) for name in {one.brand for one in made}), reverse=True)
    assert sold[0] > 100 * np.median(sold), "few brands have most products"
    asked = catalogue.queries(200, 1)
    words = {word for one in made for word in one.title.split()}
    known = np.mean([all(word in words for word in query.split()) for query in asked])
    assert 0.6 < known < 1.0, "some are misspelt"


def test_vectors_lie_near_each_other_as_products_alike_do() -> None:
    made = catalogue.Vectors(Letters(), 1).next(500)
    assert made.shape == (500, 16)
    assert np.allclose(np.linalg.norm(made, axis=1), 1.0, atol=1e-5)


def test_every_row_of_the_engine_is_measured(tmp_path: Path) -> None:
    encoder = Letters()
    engine = EmbeddedEngine(tmp_path, "shop")
    engine.ensure(encoder.dims, encoder.id)
    shop = list(catalogue.products(200, 1))
    engine.upsert(zip(shop, encoder.encode([one.text() for one in shop]), [""] * len(shop), strict=True))
    engine.refresh()
    results = Results("search", "test", 1)
    search.search_rows(results, engine, encoder, catalogue.queries(10, 1))
    search.note_load(results)
    assert list(results.rows) == ["embedded engine, keywords", "embedded engine, vectors", "embedded engine, hybrid"]
    assert all(0 < row["p50 ms"] <= row["p95 ms"] <= row["p99 ms"] for row in results.rows.values())
    assert "load average" in results.notes[-1]
    engine.close()

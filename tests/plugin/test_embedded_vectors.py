"""The embedded engine above the size up to which it compares every vector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from endcap.catalog.product import Product
from endcap.engines import Filter
from endcap.engines.embedded import EmbeddedEngine
from tests.plugin.embedded_child import DIMS, vector_of


def again(folder: Path) -> EmbeddedEngine:
    return EmbeddedEngine(folder, "products", lock_timeout_s=0.1)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedEngine]:
    """An index above the size up to which everything is compared (lowered here), so that a graph is used."""
    monkeypatch.setattr("endcap.engines.embedded.vectors.EXACT_ROWS", 1000)
    monkeypatch.setattr("endcap.engines.embedded.nearest._EXACT_FILTERED", 100)
    monkeypatch.setattr("endcap.engines.embedded.nearest._MAX_MISSING", 50)
    made = EmbeddedEngine(tmp_path, "products")
    made.ensure(DIMS, "encoder")
    made.upsert(
        [(Product(f"p{n}", brand="odd" if n % 2 else "even", price=1.0), vector_of(n), "") for n in range(3000)]
    )
    made.refresh()
    yield made
    made.close()


def recall(engine: EmbeddedEngine, seeds: range, k: int = 20, keep: int = 1) -> float:
    """How many of the true k nearest among every ``keep``-th product are found."""
    filters = [Filter("brand", ("even",))] if keep == 2 else []
    matrix = np.stack([vector_of(n) for n in range(0, 3000, keep)])
    found = 0
    for seed in seeds:
        asked = vector_of(seed)
        true = {f"p{n * keep}" for n in np.argsort(-(matrix @ asked))[:k]}
        answer = engine.nearest(asked, k, filters)
        assert len(set(answer.ids)) == k
        assert np.all(np.diff(answer.scores) <= 0)
        found += len(true & set(answer.ids))
    return found / (k * len(seeds))


def graphs(folder: Path) -> list[str]:
    return sorted(one.name for one in (folder / "engine" / "products").glob("g*/graph-*"))


def test_a_graph_finds_the_nearest_of_many(tmp_path: Path, large: EmbeddedEngine) -> None:
    assert graphs(tmp_path) == ["graph-1.usearch"]
    assert recall(large, range(5000, 5030)) > 0.97
    assert recall(large, range(5000, 5030), keep=2) > 0.97
    assert recall(again(tmp_path), range(5000, 5010)) > 0.97


def test_a_graph_outlives_changed_prices_and_knows_what_went_and_came(tmp_path: Path, large: EmbeddedEngine) -> None:
    large.update([(f"p{n}", {"price": 2.0}) for n in range(3000)])
    large.delete(["p5"])
    twin = vector_of(6)
    large.upsert([(Product("twin"), twin, ""), (Product("fresh"), vector_of(9001), "")])
    large.refresh()
    assert graphs(tmp_path) == ["graph-1.usearch"]
    assert recall(large, range(5000, 5010)) > 0.95
    assert "p5" not in large.nearest(vector_of(5), 50).ids
    assert set(large.nearest(twin, 2).ids) == {"p6", "twin"}
    assert large.nearest(vector_of(9001), 1).ids == ["fresh"]
    large.upsert([(Product(f"more{n}"), vector_of(9100 + n), "") for n in range(400)])
    large.refresh()
    assert graphs(tmp_path) == ["graph-2.usearch"]
    assert large.nearest(vector_of(9100), 1).ids == ["more0"]
    assert large.nearest(vector_of(9001), 1).ids == ["fresh"]
    with large.rebuild(DIMS, "encoder") as new:
        new.upsert((Product(f"p{n}"), vector_of(n), "") for n in range(3000))
    assert graphs(tmp_path) == ["graph-1.usearch"]
    assert recall(large, range(5000, 5010)) > 0.97


@pytest.mark.parametrize("harm", ["removed", "cut", "nonsense", "of another kind"])
def test_without_its_graph_an_index_answers_all_the_same(tmp_path: Path, large: EmbeddedEngine, harm: str) -> None:
    (file,) = (tmp_path / "engine" / "products").glob("g*/graph-*")
    if harm == "removed":
        file.unlink()
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif harm == "nonsense":
        (file.parent / "graph.json").write_text("{")
    else:  # as versions wrote it whose graphs held float16
        description = json.loads((file.parent / "graph.json").read_text())
        del description["kind"]
        (file.parent / "graph.json").write_text(json.dumps(description))
    opened = again(tmp_path)
    assert recall(opened, range(5000, 5010)) == 1.0
    opened.upsert([(Product("more"), vector_of(9100), "")])
    opened.refresh()
    assert recall(opened, range(5000, 5010)) > 0.97

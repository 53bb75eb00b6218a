"""The cold-products protocol on a world small enough to know what must come out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from endcap_workers.augmentation import Content, Generator, GeneratorDiverged, NearestGenerator, RidgeGenerator
from endcap_workers.augmentation.health import health
from endcap_workers.augmentation.ranking import Cases, figures, ranks
from endcap_workers.augmentation.virtual import THIN, enriched, sequences_of, virtual_products
from endcap_workers.evaluation import cold_products
from endcap_workers.evaluation.cold_intervals import half_width, over_products
from endcap_workers.evaluation.cold_world import Split, World, build, retrained
from endcap_workers.models import ModelSpec
from endcap_workers.training.loop import Schedule

KINDS, PRODUCTS = 6, 242


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Everybody keeps to one kind; a kind is a code. Kind 6 is thin."""
    draw = np.random.default_rng(1)
    kind = np.r_[0, 0, np.arange(PRODUCTS - 2) % (KINDS - 1) + 1]
    kind[-6:] = KINDS
    codes = np.stack([np.zeros_like(kind), kind, np.minimum(kind, 1)], axis=1)
    content = Content(codes, np.zeros((PRODUCTS, 0), np.float32), (1, KINDS + 1, 2))
    sequences = [draw.permutation(np.flatnonzero(kind == number % KINDS + 1))[:12] for number in range(240)]
    monkey = pytest.MonkeyPatch()
    monkey.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    try:
        spec = ModelSpec(products=0, width=16, dropout=0.1, scale=10.0)
        schedule = Schedule(epochs=40, patience=0, rate=1e-2, warmup=5)
        return build(sequences, content, 0, "test", schedule, spec, 64, lambda line: None)
    finally:
        monkey.undo()


def test_a_fifth_of_the_products_is_hidden_and_nothing_of_them_is_learned(world: World) -> None:
    split = world.split
    everything = np.concatenate([split.warm, split.valid, split.test])

    assert sorted(everything.tolist()) == list(range(2, PRODUCTS))
    assert len(split.test) == 48
    assert not np.isin(np.concatenate(world.train), [*split.valid, *split.test]).any()
    assert not world.counts[split.test].any()
    assert len(np.unique(world.vectors[split.test], axis=0)) == 1  # unknown, all alike
    assert Split.draw(PRODUCTS, 1).test.tolist() != split.test.tolist()


def test_cases_are_of_hidden_products_with_something_known_before(world: World) -> None:
    assert np.isin(world.cold.targets, world.split.test).all()
    assert np.isin(world.valid.targets, world.split.valid).all()
    assert np.isin(world.warm.targets, world.split.warm).all()
    assert (np.abs(world.cold.states).sum(axis=1) > 0).all()
    assert not (world.cold.seen == world.cold.targets[:, None]).any()


def test_every_row_comes_out_and_generators_find_the_kind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Diverging(RidgeGenerator):
        def fit(self, *args: object, **more: object) -> Generator:
            raise GeneratorDiverged("on purpose")

    said: list[str] = []
    makers = {"content k-NN": NearestGenerator, "ridge": RidgeGenerator, "MLP": Diverging}
    monkeypatch.setattr(cold_products, "MAKERS", makers)
    judged = cold_products.judge(world, 0, said.append)

    rows = {name: row.figures for name, row in judged.rows.items()}
    nothing, ridge = rows[cold_products.NOTHING], rows["ridge"]
    assert ridge["cold ndcg@20"] > 2 * nothing["cold ndcg@20"]
    assert ridge["warm ndcg@20"] == nothing["warm ndcg@20"]  # an embedding of its own harms nobody else
    assert ridge["overall ndcg@20"] > nothing["overall ndcg@20"]
    assert judged.chosen in ("ridge", "content k-NN")
    assert rows[cold_products.CHOSEN] == rows[judged.chosen]
    assert "MLP" not in rows
    assert any("MLP is kept out: on purpose" in line for line in said)
    assert judged.checks["ridge"]["spread"] > 0.3
    for kind, cases in judged.rows["ridge"].cases.items():
        assert cases.mean() == pytest.approx(ridge[f"{kind} ndcg@20"])
        assert len(judged.products[kind]) == len(cases)


def test_the_command_prints_rows_differences_and_health(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Data:
        @staticmethod
        def world(seed: int, report: object, reads_content: bool) -> World:
            return world

        @staticmethod
        def search(place: World, vectors: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
            return np.arange(3.0), np.array([2, 2, 3])

    monkeypatch.setattr(cold_products, "DATA", (("Tiny", Data, True),))
    monkeypatch.setattr(cold_products, "GAN", "ridge")
    monkeypatch.setattr(cold_products, "MAKERS", {"content k-NN": NearestGenerator, "MLP": RidgeGenerator})
    results = cold_products.run(0, seeds=2)

    assert results.command == "endcap evaluate cold-products --seeds 2"
    assert results.rows["Tiny: MLP"]["cold ndcg@20"] > results.rows["Tiny: no augmentation"]["cold ndcg@20"]
    assert results.rows["Tiny: MLP"]["search ndcg@10"] == pytest.approx((1 + 1 / np.log2(3) + 0.5) / 3)
    assert 0 < results.rows["Tiny, health: MLP"]["coverage"] <= 1
    notes = " ".join(results.notes)
    assert "validation chose, seed by seed: " in notes
    assert "chosen by validation minus no augmentation: cold +" in notes
    assert "± 0.0000" in notes  # twice the same world
    assert "minutes, " in notes


def test_virtual_products_fill_thin_kinds_and_never_stay(world: World) -> None:
    warm = world.learned()
    generator = RidgeGenerator().fit(warm)
    virtual = virtual_products(warm, generator, category=1, seed=0)

    thin = int((warm.content.codes[:, 1] == KINDS).sum())
    assert len(virtual) == THIN - thin
    assert (virtual.content.codes[:, 1] == KINDS).all()
    assert (warm.content.codes[virtual.parents.ravel(), 1] == KINDS).all()
    assert len(enriched(warm, virtual).content) == len(warm.content) + len(virtual)
    for sequence in sequences_of(virtual, world.origins, world.train, PRODUCTS):
        assert (sequence >= PRODUCTS).sum() == 1

    after = retrained(world, virtual, Schedule(epochs=1, warmup=2), 64, lambda line: None)
    assert len(after.vectors) == PRODUCTS
    assert after.model.encode.product.num_embeddings == PRODUCTS
    assert not np.isin(np.concatenate([after.cold.targets, after.warm.targets]), np.arange(PRODUCTS, 9_999)).any()


def test_ranks_by_hand() -> None:
    vectors = np.array([[0, 0], [0, 0], [1, 0], [2, 0], [3, 0], [3, 0]], dtype=np.float32)
    cases = Cases(np.array([[1, 0]] * 3, np.float32), np.array([2, 4, 3]), np.array([[0, 3], [0, 0], [5, 0]]))

    assert ranks(cases, vectors, np.array([2, 3, 4, 5])).tolist() == [2.0, 0.5, 1.0]
    assert ranks(cases, vectors, np.array([2, 3, 4])).tolist() == [1.0, 0.0, 1.0]
    biased = ranks(cases, vectors, np.array([2, 3, 4, 5]), np.array([0, 0, 9, 0, 0, 0]))
    assert biased.tolist() == [0.0, 1.5, 2.0]
    assert figures(np.array([0.0, 30.0])) == {"recall": 0.5, "ndcg": 0.5}


def test_health_tells_collapse_and_copies_apart() -> None:
    draw = np.random.default_rng(0)
    real = draw.normal(size=(300, 8))
    good = health(draw.normal(size=(200, 8)), real)
    collapsed = health(np.ones((200, 8)) + draw.normal(size=(200, 8)) * 1e-3, real)
    copied = health(real[:200].copy(), real)

    assert good["coverage"] > 0.7 > 0.1 > collapsed["coverage"]
    assert good["spread"] == pytest.approx(1.0, abs=0.2)
    assert collapsed["spread"] < 0.01
    assert copied["copies"] == 1.0
    assert good["copies"] < 0.1


def test_intervals_are_students() -> None:
    assert half_width([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(1.963, abs=1e-3)
    assert math.isnan(half_width([1.0]))


def test_an_interval_over_products_draws_products_not_cases() -> None:
    draw = np.random.default_rng(0)
    products = np.arange(4_000) % 40
    of_product = draw.normal(0.1, 1.0, 40)[products]

    low, high = over_products([of_product], [products])
    alone = over_products([of_product], [np.arange(4_000)])

    assert low < of_product.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * of_product.std() / 40**0.5, rel=0.2)
    assert alone[1] - alone[0] < (high - low) / 5


def test_beauty_reads_brand_and_path(shared_dir: Path) -> None:
    from endcap_workers.evaluation import cold_beauty

    sequences, content = cold_beauty.load()

    assert len(sequences) == 22_363
    assert len(content) == 12_103
    assert (content.codes[2:, 1] > 0).mean() > 0.99
    assert 0.3 < (content.codes[2:, 0] > 0).mean() < 0.8

"""Products into a real engine: what is encoded, what is not, and what survives."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from endcap.catalog.checkpoint import Checkpoint
from endcap.catalog.keys import KeySet
from endcap.catalog.product import Product, product_key
from endcap.encoders.base import Progress, cached_query, unit
from endcap.engines.embedded.engine import EmbeddedEngine
from endcap.errors import EncoderMismatch, InvalidInput
from endcap.indexing import apply_changes, delete_missing, difference, index_products, merge


class HashingEncoder:
    """A text encoder without a model: words hashed to axes. Counts what it encodes."""

    def __init__(self, dims: int = 32) -> None:
        self.id = f"hashing-{dims}"
        self.dims = dims
        self.encoded: list[str] = []
        self.encode_query = cached_query(lambda text: self._vectors([text])[0])

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        self.encoded += texts
        return self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dims), dtype=np.float32)
        for n, text in enumerate(texts):
            for word in text.lower().split():
                vectors[n, product_key(word) % self.dims] += 1.0
        return unit(vectors)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(tmp_path / "data", "products")
    yield engine
    engine.close()


@pytest.fixture
def encoder() -> HashingEncoder:
    return HashingEncoder()


def catalogue(size: int = 700) -> list[Product]:
    return [
        Product(
            f"p{n}",
            title=f"thing {n}",
            brand=f"brand {n % 7}",
            categories=("Home", f"room {n % 5}"),
            price=float(n),
            stock=float(n % 3),
            attributes={"size": n % 4, "colour": "red"},
        )
        for n in range(size)
    ]


def documents(engine: EmbeddedEngine) -> dict[str, Product]:
    return {product.id: product for batch in engine.scan(vectors=False) for product, _ in batch}


def test_everything_is_encoded_once_and_stored(engine: EmbeddedEngine, encoder: HashingEncoder) -> None:
    products = catalogue()
    summary = index_products(iter(products), engine, encoder, batch_size=64)
    assert (summary.read, summary.indexed, summary.updated, summary.unchanged) == (700, 700, 0, 0)
    assert sorted(encoder.encoded) == sorted(product.text() for product in products)
    assert documents(engine) == {product.id: product for product in products}
    vectors = {product.id: vector for batch in engine.scan() for product, vector in batch}
    for product in products[::50]:
        np.testing.assert_allclose(vectors[product.id], encoder.encode([product.text()])[0], atol=1e-3)


def test_a_second_run_encodes_and_changes_nothing(engine: EmbeddedEngine, encoder: HashingEncoder) -> None:
    index_products(catalogue(), engine, encoder)
    encoder.encoded.clear()
    version = engine.version()
    summary = index_products(catalogue(), engine, encoder)
    assert (summary.indexed, summary.updated, summary.unchanged) == (0, 0, 700)
    assert not encoder.encoded
    assert engine.version() == version


def test_changed_prices_and_attributes_are_written_without_encoding(
    engine: EmbeddedEngine, encoder: HashingEncoder
) -> None:
    products = catalogue()
    index_products(products, engine, encoder)
    encoder.encoded.clear()
    changed = list(products)
    changed[3] = replace(products[3], price=99.0, attributes={"size": 5, "material": "oak"})
    changed[4] = replace(products[4], price=None, stock=None, attributes={})
    changed[5] = replace(products[5], description="", categories=("Garden", "room 0"))  # the same leaf, the same text
    summary = index_products(changed, engine, encoder)
    assert (summary.indexed, summary.updated, summary.unchanged) == (0, 3, 697)
    assert not encoder.encoded
    assert documents(engine) == {product.id: product for product in changed}
    vectors = {product.id: vector for batch in engine.scan() for product, vector in batch}
    assert all(vector is not None for vector in vectors.values())


def test_changed_text_alone_is_encoded(engine: EmbeddedEngine, encoder: HashingEncoder) -> None:
    products = catalogue()
    index_products(products, engine, encoder)
    encoder.encoded.clear()
    products[8] = replace(products[8], title="another thing")
    summary = index_products(products, engine, encoder)
    assert (summary.indexed, summary.updated, summary.unchanged) == (1, 0, 699)
    assert encoder.encoded == [products[8].text()]


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_of_a_repeated_id_the_last_row_wins(engine: EmbeddedEngine, encoder: HashingEncoder, batch_size: int) -> None:
    def rows(last: str) -> list[Product]:
        other = "second" if last == "first" else "first"
        return [Product("a", title=other), Product("b", title="x"), Product("c", title="y"), Product("a", title=last)]

    for last in ("second", "second", "first"):  # the second run finds "second" stored, and must not skip it
        index_products(rows(last), engine, encoder, batch_size=batch_size)
        assert documents(engine)["a"].title == last
        assert engine.count() == 3


def test_another_encoder_needs_a_rebuild(engine: EmbeddedEngine, encoder: HashingEncoder) -> None:
    index_products(catalogue(50), engine, encoder)
    wider = HashingEncoder(48)
    with pytest.raises(EncoderMismatch, match="--rebuild"):
        index_products(catalogue(50), engine, wider)
    summary = index_products(catalogue(40), engine, wider, rebuild=True)
    assert summary.indexed == 40
    assert engine.count() == 40
    assert engine.nearest(wider.encode_query("thing 7 brand 0"), 1).ids


def test_without_an_encoder_there_are_no_vectors(engine: EmbeddedEngine) -> None:
    assert index_products(catalogue(50), engine, None).indexed == 50
    assert index_products(catalogue(50), engine, None).unchanged == 50
    assert all(vector is None for batch in engine.scan() for _, vector in batch)


def test_a_rebuild_that_fails_leaves_the_old_index(engine: EmbeddedEngine, encoder: HashingEncoder) -> None:
    index_products(catalogue(50), engine, encoder)

    def broken() -> Iterator[Product]:
        yield from catalogue(600)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        index_products(broken(), engine, encoder, rebuild=True, batch_size=32)
    assert engine.count() == 50
    with pytest.raises(InvalidInput, match="stays as it was"):
        index_products([], engine, encoder, rebuild=True)
    assert engine.count() == 50
    assert index_products(catalogue(60), engine, encoder).read == 60


def test_errors_of_the_source_and_the_encoder_come_through_and_end_the_threads(
    engine: EmbeddedEngine, encoder: HashingEncoder
) -> None:
    def broken() -> Iterator[Product]:
        yield from catalogue(300)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        index_products(broken(), engine, encoder, batch_size=32)

    class Failing(HashingEncoder):
        def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
            raise MemoryError("too many texts")

    with pytest.raises(MemoryError):
        index_products(catalogue(5_000), engine, Failing(), batch_size=16)
    assert not [thread for thread in threading.enumerate() if thread.name == "endcap-indexing"]


def test_reading_stays_a_bounded_way_ahead_of_writing(engine: EmbeddedEngine, encoder: HashingEncoder) -> None:
    produced = 0
    ahead: list[int] = []

    def source() -> Iterator[Product]:
        nonlocal produced
        for product in catalogue(2_000):
            produced += 1
            yield product

    index_products(source(), engine, encoder, batch_size=20, on_progress=lambda now: ahead.append(produced - now.read))
    assert max(ahead) <= 12 * 20


def test_what_was_durable_survives_and_is_reported(engine: EmbeddedEngine, encoder: HashingEncoder) -> None:
    durable: list[tuple[int, int]] = []
    index_products(
        catalogue(200),
        engine,
        encoder,
        batch_size=50,
        durable_every_s=0.0,
        on_durable=lambda done: durable.append((done, engine.count())),
    )
    assert durable == [(50, 50), (100, 100), (150, 150), (200, 200), (200, 200)]


def test_trusted_products_are_still_encoded_if_the_engine_lost_them(
    engine: EmbeddedEngine, encoder: HashingEncoder
) -> None:
    products = catalogue(300)
    index_products(products[:100], engine, encoder)
    encoder.encoded.clear()
    summary = index_products(products, engine, encoder, trusted=200, batch_size=50)
    assert summary.indexed == 200
    assert sorted(encoder.encoded) == sorted(product.text() for product in products[100:])
    assert engine.count() == 300


def test_refused_products_are_reported_and_the_rest_goes_in(engine: EmbeddedEngine, encoder: HashingEncoder) -> None:
    refused: list[tuple[str, str]] = []
    bad = Product("bad", title="x", attributes={"n": object()})
    summary = index_products(
        [*catalogue(10), bad], engine, encoder, on_refused=lambda one, why: refused.append((one, why))
    )
    assert (summary.indexed, summary.refused) == (10, 1)
    assert [product_id for product_id, _ in refused] == ["bad"]
    assert engine.count() == 10


def test_changes_apply_without_an_encoder(engine: EmbeddedEngine, encoder: HashingEncoder) -> None:
    index_products(catalogue(10), engine, encoder)
    refused: list[str] = []
    changes = [
        ("p1", {"price": 5.0, "attributes": {"size": 9}}),
        ("p1", {"stock": 2.0, "attributes": {"colour": None}}),
        ("p2", {"price": None}),
        ("gone", {"price": 1.0}),
    ]
    summary = apply_changes(changes, engine, on_refused=lambda one, why: refused.append(one))
    assert (summary.read, summary.updated, summary.refused) == (4, 2, 1)
    assert refused == ["gone"]
    after = documents(engine)
    assert after["p1"] == replace(catalogue(10)[1], price=5.0, stock=2.0, attributes={"size": 9})
    assert after["p2"].price is None
    # The text is as it was: a full run encodes nothing.
    encoder.encoded.clear()
    index_products(catalogue(10), engine, encoder)
    assert not encoder.encoded


def test_what_is_missing_is_deleted(engine: EmbeddedEngine, encoder: HashingEncoder) -> None:
    index_products(catalogue(10), engine, encoder)
    keep = KeySet()
    for n in range(7):
        keep.add(product_key(f"p{n}"))
    assert delete_missing(engine, keep) == 3
    assert sorted(documents(engine)) == [f"p{n}" for n in range(7)]
    assert delete_missing(engine, keep) == 0


def test_a_difference_merged_into_the_old_document_is_the_new_one() -> None:
    old = replace(catalogue(1)[0], attributes={"a": 1, "b": 2}).to_document()
    new = Product("p0", title="thing 0", brand="brand 0", price=3.0, attributes={"b": 3, "c": 4}).to_document()
    merged = merge(old, difference(old, new))
    merged["attributes"] = {name: value for name, value in merged["attributes"].items() if value is not None}
    assert {key: value for key, value in merged.items() if value is not None} == new
    assert difference(new, new) == {}


def test_a_checkpoint_holds_for_the_same_files_and_options_alone(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text("id\n1\n")
    one = Checkpoint(tmp_path, [file], ["a"])
    assert one.products() == 0
    one.save(250)
    assert Checkpoint(tmp_path, [file], ["a"]).products() == 250
    assert Checkpoint(tmp_path, [file], ["b"]).products() == 0
    next((tmp_path / "indexing").glob("*.json")).write_text("damaged")
    assert one.products() == 0
    one.save(300)
    file.write_text("id\n1\n2\n")
    assert Checkpoint(tmp_path, [file], ["a"]).products() == 0
    one.done()
    one.done()
    assert one.products() == 0

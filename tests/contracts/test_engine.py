"""What every engine promises: changing products, reading them back, rebuilding."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from endcap.catalog.product import INTERNAL_FIELDS, Product
from endcap.engines import Engine, Filter, SearchRequest
from endcap.engines.base import IndexReport
from endcap.errors import EncoderMismatch, EndcapError, IndexBusy
from tests.contracts.catalogue import BY_ID, DIMS, ENCODER, PRODUCTS, VECTORS, items, vector_of
from tests.contracts.conftest import OpenEngine


def ids_of(engine: Engine, text: str = "", **wanted: object) -> list[str]:
    return [hit.id for hit in engine.search(SearchRequest(text, size=100, **wanted)).hits]  # type: ignore[arg-type]


@pytest.fixture
def shop(engine: Engine) -> Engine:
    engine.ensure(DIMS, ENCODER)
    report = engine.upsert(items())
    assert (report.done, report.errors) == (len(PRODUCTS), [])
    engine.refresh()
    return engine


def test_an_engine_is_an_engine(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.name


def test_without_an_index_there_is_nothing_to_count_and_searching_says_404(engine: Engine) -> None:
    assert engine.count() == 0
    with pytest.raises(EndcapError) as caught:
        engine.search(SearchRequest("honey"))
    assert caught.value.status == 404
    with pytest.raises(EndcapError) as caught:
        engine.upsert(items())
    assert caught.value.status == 404


def test_ensure_twice_keeps_what_is_there_and_refuses_another_encoder(shop: Engine) -> None:
    shop.ensure(DIMS, ENCODER)
    shop.ensure(None, "")
    assert shop.count() == len(PRODUCTS)
    for dims, encoder in [(DIMS, "another"), (DIMS + 1, ENCODER)]:
        with pytest.raises(EncoderMismatch, match="rebuild"):
            shop.ensure(dims, encoder)


def test_documents_come_back_as_they_were_stored_in_the_order_asked(shop: Engine) -> None:
    assert shop.get(["t3", "nope", "h1", "z1", "h1"]) == [
        BY_ID["t3"].to_document(),
        None,
        BY_ID["h1"].to_document(),
        {"id": "z1"},
        BY_ID["h1"].to_document(),
    ]
    assert shop.digests(["h2", "nope", "h1"]) == ["digest-h2", None, "digest-h1"]
    assert shop.get([]) == [] == shop.digests([])


def test_an_upsert_replaces_the_whole_product_and_the_last_of_a_batch_wins(shop: Engine) -> None:
    first, last = Product("h1", "Older Title"), Product("h1", "Manuka", brand="Kiwi")
    report = shop.upsert([(first, vector_of(1), "one"), (last, None, "two")])
    assert (report.done, report.errors) == (2, [])
    shop.refresh()
    assert shop.count() == len(PRODUCTS)
    assert shop.get(["h1"]) == [last.to_document()]
    assert shop.digests(["h1"]) == ["two"]
    assert "h1" not in shop.nearest(VECTORS["h1"], 100).ids
    assert ids_of(shop, "wildflower") == []


def test_bad_items_are_reported_one_by_one_and_the_rest_goes_in(shop: Engine) -> None:
    good = Product("good", "Good")
    crooked = np.full(DIMS, math.nan, dtype=np.float32)
    report = shop.upsert(
        [
            (Product("dims"), vector_of(1, DIMS + 1), ""),
            (Product("nan"), crooked, ""),
            (Product("price", price=math.inf), None, ""),
            (Product("large", stock=1e39), None, ""),
            (Product(""), None, ""),
            (Product("l" * 513), None, ""),
            (Product("half", title="a\ud800"), None, ""),
            (good, vector_of(1), ""),
        ]
    )
    assert report.done == 1
    assert [product_id for product_id, _ in report.errors] == ["dims", "nan", "price", "large", "", "l" * 513, "half"]
    assert all(reason for _, reason in report.errors)
    shop.refresh()
    assert shop.count() == len(PRODUCTS) + 1
    assert shop.get(["good"]) == [good.to_document()]


def test_an_update_changes_what_it_names_and_keeps_the_rest(shop: Engine) -> None:
    report = shop.update(
        [
            ("t3", {"price": 4.0, "stock": None, "attributes": {"organic": None, "size": 40}}),
            ("nope", {"price": 1.0}),
            ("h1", {"price": math.nan}),
            ("b3", {"category": ["Grocery", "Grocery > Butter"]}),
        ]
    )
    assert report.done == 2
    assert [product_id for product_id, _ in report.errors] == ["nope", "h1"]
    shop.refresh()
    expected = replace(
        BY_ID["t3"], price=4.0, stock=None, attributes={"color": "Red", "tags": ["gift", "winter"], "size": 40}
    )
    assert shop.get(["t3"]) == [expected.to_document()]
    assert shop.digests(["t3"]) == ["digest-t3"]
    assert shop.nearest(VECTORS["t3"], 1).ids == ["t3"]
    assert ids_of(shop, filters=(Filter("category", ("Grocery > Butter",)),)) == ["b3"]
    assert "b3" not in ids_of(shop, filters=(Filter("category", ("Grocery > Dairy",)),))
    assert shop.get(["h1"]) == [BY_ID["h1"].to_document()]


def test_updates_before_the_refresh_build_on_each_other(shop: Engine) -> None:
    shop.upsert([(Product("new", "New Lamp", price=1.0), vector_of(77), "d")])
    shop.update([("new", {"price": 2.0})])
    shop.update([("new", {"stock": 3.0})])
    shop.refresh()
    assert shop.get(["new"]) == [Product("new", "New Lamp", price=2.0, stock=3.0).to_document()]
    assert shop.digests(["new"]) == ["d"]
    assert shop.nearest(vector_of(77), 1).ids == ["new"]


def test_what_is_deleted_is_gone_everywhere_and_unknown_ids_are_errors(shop: Engine) -> None:
    report = shop.delete(["h1", "nope"])
    assert report.done == 1
    assert [product_id for product_id, _ in report.errors] == ["nope"]
    shop.refresh()
    assert shop.count() == len(PRODUCTS) - 1
    assert shop.get(["h1"]) == [None] == shop.digests(["h1"])
    assert "h1" not in ids_of(shop)
    assert "h1" not in shop.nearest(VECTORS["h1"], 100).ids
    assert "h1" not in [product.id for batch in shop.scan() for product, _ in batch]


def test_a_scan_gives_every_product_once_with_its_vector(shop: Engine) -> None:
    found = {product.id: (product, vector) for batch in shop.scan() for product, vector in batch}
    assert {key: product for key, (product, _) in found.items()} == BY_ID
    for key, (_, vector) in found.items():
        if key in VECTORS:
            assert vector is not None
            assert vector.dtype == np.float32
            np.testing.assert_allclose(vector, VECTORS[key], atol=1e-3)
        else:
            assert vector is None
    bare = [vector for batch in shop.scan(vectors=False) for _, vector in batch]
    assert len(bare) == len(PRODUCTS)
    assert all(vector is None for vector in bare)


def test_changes_since_a_version_are_what_was_written_since(shop: Engine) -> None:
    before = shop.version()
    assert shop.changes(before, 10) == []
    shop.upsert([(Product("new", "New Lamp"), vector_of(77), "d")])
    shop.update([("h1", {"price": 1.25})])
    shop.refresh()

    found = {product.id: (product, vector) for product, vector in shop.changes(before, 10) or ()}

    assert set(found) == {"new", "h1"}
    assert found["h1"][0] == replace(BY_ID["h1"], price=1.25)
    np.testing.assert_allclose(found["new"][1], vector_of(77), atol=1e-3)
    np.testing.assert_allclose(found["h1"][1], VECTORS["h1"], atol=1e-3)
    assert shop.changes(before, 1) is None
    assert shop.changes(shop.version(), 10) == []
    assert shop.changes("", 10) is None
    with shop.rebuild(DIMS, ENCODER) as new:
        new.upsert(items())
    assert shop.changes(before, 10_000) is None


def test_the_version_changes_with_every_visible_change_and_only_then(shop: Engine) -> None:
    seen = [shop.version()]
    shop.search(SearchRequest("honey"))
    shop.refresh()
    assert shop.version() == seen[0]
    for change in (
        lambda: shop.upsert([(Product("new"), None, "")]),
        lambda: shop.update([("new", {"price": 1.0})]),
        lambda: shop.delete(["new"]),
    ):
        change()
        shop.refresh()
        # The same products again may bear the same version: a cache of them is right again.
        assert shop.version() != seen[-1]
        seen.append(shop.version())
    with shop.rebuild(DIMS, ENCODER) as new:
        new.upsert(items())
    assert shop.version() not in seen


def test_a_second_engine_on_the_same_index_sees_what_was_refreshed(
    open_engine: OpenEngine, index_name: str, shop: Engine
) -> None:
    other = open_engine(index_name)
    try:
        assert other.get(["h1"]) == [BY_ID["h1"].to_document()]
        before = other.version()
        shop.update([("h1", {"price": 1.25})])
        shop.refresh()
        assert other.version() != before
        assert other.get(["h1"]) == [replace(BY_ID["h1"], price=1.25).to_document()]
        assert ids_of(other, filters=(Filter("price", gte=1.0, lte=1.5),)) == ["h1"]
    finally:
        other.close()


def test_a_rebuild_replaces_everything_in_one_step(shop: Engine) -> None:
    only = Product("only", "Only One")
    with shop.rebuild(4, "new-encoder") as new:
        report = new.upsert([(only, vector_of(5, 4), "d"), (Product("bad"), vector_of(5), "")])
        assert report.done == 1
        assert [product_id for product_id, _ in report.errors] == ["bad"]
        assert shop.count() == len(PRODUCTS)
        assert "h1" in ids_of(shop, "honey")
    assert shop.count() == 1
    assert ids_of(shop) == ["only"]
    assert shop.nearest(vector_of(5, 4), 3).ids == ["only"]
    shop.ensure(4, "new-encoder")
    with pytest.raises(EncoderMismatch):
        shop.ensure(DIMS, ENCODER)
    shop.upsert([(Product("more"), None, "")])
    shop.refresh()
    assert shop.count() == 2


def test_nothing_is_written_while_the_index_is_rebuilt_since_it_would_be_lost(
    shop: Engine, open_engine: OpenEngine, index_name: str
) -> None:
    other = open_engine(index_name)
    changes: tuple[Callable[[Engine], IndexReport], ...] = (
        lambda engine: engine.upsert([(Product("meanwhile"), None, "")]),
        lambda engine: engine.update([("h1", {"price": 1.25})]),
        lambda engine: engine.delete(["h1"]),
    )
    try:
        with shop.rebuild(DIMS, ENCODER) as new:
            new.upsert(items())
            # Others wait for the embedded engine's lock for a while first: tests/plugin/test_embedded_engine.py.
            for engine in (shop, other) if shop.name == "elasticsearch" else (shop,):
                for change in changes:
                    with pytest.raises(IndexBusy) as told:
                        change(engine)
                    assert (told.value.status, told.value.headers) == (409, {"Retry-After": "10"})
            assert shop.count() == len(PRODUCTS)
        assert other.upsert([(Product("afterwards"), None, "")]).done == 1
        other.refresh()
        assert shop.get(["meanwhile", "afterwards"]) == [None, {"id": "afterwards"}]
        assert shop.get(["h1"]) == [BY_ID["h1"].to_document()]
    finally:
        other.close()


def test_a_rebuild_that_fails_leaves_the_old_index_serving(shop: Engine) -> None:
    before = shop.version()
    with pytest.raises(RuntimeError, match="on the way"):  # noqa: PT012
        with shop.rebuild(4, "new-encoder") as new:
            new.upsert([(Product("only"), None, "")])
            raise RuntimeError("something broke on the way")
    assert shop.version() == before
    assert shop.count() == len(PRODUCTS)
    shop.ensure(DIMS, ENCODER)
    shop.upsert([(Product("more"), None, "")])
    shop.refresh()
    assert shop.count() == len(PRODUCTS) + 1


def test_a_rebuild_makes_the_index_where_there_was_none(engine: Engine) -> None:
    with engine.rebuild(None, "") as new:
        new.upsert([(Product("one", "One"), None, "")])
    assert ids_of(engine, "one") == ["one"]
    found = engine.nearest(vector_of(1), 3)
    assert found.ids == []
    assert found.scores.shape == (0,)


@pytest.mark.parametrize(
    "product_id", ["a/b c", '"q"', "é😀", "line\nbreak", "AND", "..", "_id", "手机", "%2F?x=1#y", "i" * 512]
)
def test_ids_may_be_any_text(shop: Engine, product_id: str) -> None:
    product = Product(product_id, "Curious Id")
    assert shop.upsert([(product, vector_of(99), "d")]).errors == []
    shop.refresh()
    assert shop.get([product_id]) == [product.to_document()]
    assert ids_of(shop, "curious") == [product_id]
    assert ids_of(shop, filters=(Filter("id", (product_id,)),)) == [product_id]
    assert shop.nearest(vector_of(99), 1).ids == [product_id]
    assert shop.update([(product_id, {"price": 1.0})]).done == 1
    assert shop.delete([product_id]).done == 1
    shop.refresh()
    assert shop.get([product_id]) == [None]


def test_searches_go_on_while_products_change(shop: Engine) -> None:
    """Each answer is one state: with or without a change, never broken."""
    stop, errors, answers = threading.Event(), [], []

    def read() -> None:
        try:
            while not stop.is_set():
                response = shop.search(SearchRequest("honey", size=50))
                answers.append(({hit.id for hit in response.hits}, {hit.document["id"] for hit in response.hits}))  # type: ignore[index]
                assert len(shop.nearest(VECTORS["h4"], 3).ids) == 3
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for one in readers:
        one.start()
    for round_ in range(8):
        shop.upsert([(Product(f"n{round_}", f"Honey Jar {round_}"), vector_of(round_), "")])
        shop.refresh()
    with shop.rebuild(DIMS, ENCODER) as new:
        new.upsert(items())
    stop.set()
    for one in readers:
        one.join()
    assert errors == []
    assert answers
    assert all(hits == documents and {"h1", "h4"} <= hits for hits, documents in answers)


def test_no_field_of_endcaps_own_is_shown_by_get(engine: Engine) -> None:
    engine.ensure(None, "none")
    engine.upsert([(Product("a", "Tea"), None, "digest")])
    engine.refresh()
    assert set(engine.get(["a"])[0] or {}) & {*INTERNAL_FIELDS, *engine.hidden_fields()} == set()

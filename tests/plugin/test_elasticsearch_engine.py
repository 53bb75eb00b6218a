"""What is particular to products in Elasticsearch; what every engine must do is in ``tests/contracts``."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pytest

from endcap.catalog.product import Product
from endcap.engines.base import Filter, SearchRequest
from endcap.errors import (
    InvalidInput,
)
from tests.plugin.elasticsearch_support import (
    Make,
    ids,
    index,
    make,
    no_drain,
    pass_on,
    plain,
    unit,
)
from tests.services.raw_http import RawServer, answer

__all__ = ["index", "make", "no_drain"]


def test_one_bad_item_is_reported_and_the_rest_goes_in(make: Make) -> None:
    engine = make()
    engine.ensure(3, "e")
    good = [(Product(f"p{n:04}", title=f"Product {n}", price=float(n)), unit(1, n, 2), f"d{n}") for n in range(1200)]
    bad: list[tuple[Any, Any, str]] = [
        (Product(""), None, ""),
        (Product("ü" * 300), None, ""),
        (Product("half \ud800"), None, ""),
        (Product("half title", title="\udfff"), None, ""),
        (Product("no number", price="cheap"), None, ""),  # type: ignore[arg-type]
        (Product("not finite", stock=float("nan")), None, ""),
        (Product("zero"), np.zeros(3, np.float32), ""),
        (Product("long"), unit(1, 2, 3, 4), ""),
        (Product("infinite"), np.array([1, np.inf, 0], np.float32), ""),
    ]
    mixed = [*good[:100], *bad, *good[100:]]
    report = engine.upsert(iter(mixed))
    engine.refresh()
    assert report.done == engine.count() == 1200
    assert [one for one, _ in report.errors] == [one.id for one, _, _ in bad]
    assert all(reason for _, reason in report.errors)


def test_what_only_the_server_refuses_is_reported_by_item(make: Make, elasticsearch: str, index: str) -> None:
    engine = make()
    engine.ensure(3, "e")
    # Another process rebuilds with other vectors; this one still believes in three numbers.
    with make().rebuild(2, "e2"):
        pass
    report = engine.upsert([(Product("1"), unit(1, 2, 3), ""), (Product("2"), None, "")])
    assert report.done == 1
    ((refused, reason),) = report.errors
    assert refused == "1"
    assert "dimensions" in reason


def test_vectors_that_another_process_brings_are_used_before_long(make: Make) -> None:
    serving = make(product_refresh_s=0.001)
    serving.ensure(None, "")
    assert serving.nearest(unit(1, 2), 1).ids == []
    with make().rebuild(2, "e") as rebuild:
        rebuild.upsert([(Product("1"), unit(1, 2), "")])
    assert serving.nearest(unit(1, 2), 1).ids == ["1"]


def test_updates_and_removals_of_what_is_not_there_are_reported(make: Make) -> None:
    engine = make()
    engine.ensure(2, "e")
    product = Product("1", title="Tea", price=2.0, stock=3, attributes={"leaf": "green", "grams": 100})
    engine.upsert([(product, unit(1, 1), "digest")])
    report = engine.update(
        [
            ("1", {"price": 1.5, "stock": None, "attributes": {"leaf": None, "organic": True}}),
            ("2", {"price": 1.0}),
            ("1", {"colour": "red"}),
            ("1", {"id": "3"}),
        ]
    )
    assert report.done == 1
    assert [one for one, _ in report.errors] == ["2", "1", "1"]
    engine.refresh()
    attributes = {"grams": 100, "organic": True}
    assert engine.get(["1"]) == [{"id": "1", "title": "Tea", "price": 1.5, "attributes": attributes}]
    assert engine.digests(["1"]) == ["digest"]
    assert engine.nearest(unit(1, 1), 1).ids == ["1"]
    assert ids(engine, "", filters=(Filter("attributes.leaf", ("green",)),)) == []
    report = engine.delete(["1", "2"])
    assert (report.done, [one for one, _ in report.errors]) == (1, ["2"])


def test_a_bulk_request_that_is_put_off_is_sent_again(make: Make, elasticsearch: str) -> None:
    make().ensure(None, "")
    put_off = 0

    def overloaded(request: bytes, connection: socket.socket) -> bool:
        # Stands before the real engine and refuses the first two bulk requests, as an engine with full queues does.
        nonlocal put_off
        path = request.split(b" ", 2)[1]
        if path.endswith(b"_bulk") or b"_bulk?" in path:
            put_off += 1
            if put_off <= 2:
                connection.sendall(answer(b'{"error":{"type":"es_rejected_execution_exception"},"status":429}',
                                          "429 Too Many Requests", content_type="application/json"))  # fmt: skip
                return True
        return pass_on(request, connection, elasticsearch)

    with RawServer(overloaded) as server:
        engine = make(engine_url=server.url)
        assert engine.upsert(plain(Product("1"), Product("2"))).done == 2
        engine.refresh()
        assert engine.count() == 2
    assert put_off == 3


def test_attributes_of_any_name_and_type_live_together(make: Make) -> None:
    engine = make()
    engine.ensure(None, "")
    names = ["size", "size.eu", "size.eu.men", "", " ", "100%", "%2E", "a*b", "Größe", "_id", "number", "size.number"]
    first = Product("1", attributes={name: f"v{place}" for place, name in enumerate(names)})
    second = Product("2", attributes={"size": 44, "size.eu": 9.5, "tags": ["a", "b"], "new": True, "Größe": 7})
    report = engine.upsert(plain(first, second))
    assert (report.done, report.errors) == (2, [])
    engine.refresh()
    found = engine.get(["1", "2"])
    assert [one["attributes"] for one in found if one] == [first.attributes, second.attributes]
    for place, name in enumerate(names[:3] + names[5:]):
        value = f"v{names.index(name)}"
        assert ids(engine, "", filters=(Filter(f"attributes.{name}", (value,)),)) == ["1"], (place, name)
    for condition in (
        Filter("attributes.size", (44,)),
        Filter("attributes.size", (44.0,)),
        Filter("attributes.size.eu", gte=9, lte=10),
        Filter("attributes.tags", ("b",)),
        Filter("attributes.new", (True,)),
    ):
        assert ids(engine, "", filters=(condition,)) == ["2"], condition
    facet = engine.search(SearchRequest(facets={"attributes.size.eu": 5})).facets
    assert facet == {"attributes.size.eu": [("9.5", 1), ("v1", 1)]}


def test_the_version_changes_with_every_visible_change_and_never_else(make: Make) -> None:
    engine = make()
    engine.ensure(None, "")
    seen = [engine.version()]

    def changed() -> bool:
        engine.refresh()
        seen.append(engine.version())
        assert engine.version() == seen[-1] == make().version()
        return seen[-1] != seen[-2]

    engine.upsert(plain(Product("1"), Product("2")))
    assert changed()
    engine.search(SearchRequest("a"))
    assert not changed()
    engine.update([("1", {"price": 1.0})])
    assert changed()
    engine.delete(["1"])
    assert changed()
    engine.upsert(plain(Product("1")))
    assert changed()
    engine.delete(["2", "1"])
    assert changed()
    engine.upsert(plain(Product("1"), Product("2")))
    assert changed()
    with engine.rebuild(None, "") as rebuild:
        rebuild.upsert(plain(Product("1"), Product("2")))
    assert changed()
    assert len(set(seen)) == len(seen) - 2  # one step changed nothing, and empty is empty again


def test_paging_beyond_what_the_engine_gives_is_refused_clearly(make: Make) -> None:
    engine = make()
    engine.ensure(None, "")
    assert engine.search(SearchRequest(offset=9_990, size=10)).hits == []
    with pytest.raises(InvalidInput, match="10000"):
        engine.search(SearchRequest(offset=9_991, size=10))


def test_a_scan_sees_one_state_and_closes_what_it_opened(make: Make, elasticsearch: str) -> None:
    engine = make()
    engine.ensure(2, "e")
    engine.upsert([(Product(f"{n}"), unit(1, n) if n % 2 else None, "") for n in range(1100)])
    engine.refresh()
    batches = engine.scan()
    found = next(batches)
    engine.delete(f"{n}" for n in range(1100))
    engine.refresh()
    for batch in batches:
        found += batch
    assert sorted(int(product.id) for product, _ in found) == list(range(1100))
    for product, vector in found:
        number = int(product.id)
        assert (vector is not None) == bool(number % 2)
        if vector is not None:
            assert vector.dtype == np.float32
            np.testing.assert_allclose(vector, unit(1, number), atol=1e-6)
    with RawServer(lambda request, connection: pass_on(request, connection, elasticsearch)) as server:
        left_early = make(engine_url=server.url).scan()
        assert next(left_early, None) is None
        engine.upsert(plain(Product("1")))
        engine.refresh()
        left_early = make(engine_url=server.url).scan()
        assert next(left_early)
        left_early.close()
        lines = [one.split(b" ", 2)[:2] for one in server.requests]
    opened = [one for one in lines if one[0] == b"POST" and b"_pit" in one[1]]
    closed = [one for one in lines if one == [b"DELETE", b"/_pit"]]
    assert len(opened) == len(closed) == 2


def test_a_filter_that_nothing_passes_does_not_loosen_the_words(make: Make) -> None:
    engine = make()
    engine.ensure(None, "")
    engine.upsert(plain(Product("1", title="red honey", brand="A"), Product("2", title="honey jar", brand="B")))
    engine.refresh()
    assert ids(engine, "red honey", filters=(Filter("brand", ("B",)),)) == []
    assert ids(engine, "red hony", filters=(Filter("brand", ("B",)),)) == []
    assert ids(engine, "green honey", filters=(Filter("brand", ("B",)),)) == ["2"]


def test_a_correction_lands_where_the_mistake_was(make: Make) -> None:
    engine = make()
    engine.ensure(None, "")
    engine.upsert(plain(Product("1", title="wild honey 𠮷 jar", brand="Fallowby")))
    engine.refresh()
    assert engine.search(SearchRequest("qqqqqqqq Wild hony")).suggestion == ""  # no spelling finds more
    # The first letter takes two units of UTF-16, in which the engine counts.
    assert engine.search(SearchRequest("𠮷 Wild hony Fallowbi")).suggestion == "𠮷 Wild honey fallowby"
    assert ids(engine, "𠮷 🍯 wild hony falowby") == ["1"]
    assert ids(engine, "wild hony", fuzzy=False) == ["1"]  # by the other word
    assert ids(engine, "hony", fuzzy=False) == []


def test_chinese_is_found_by_neighbouring_characters(make: Make) -> None:
    engine = make()
    engine.ensure(None, "")
    engine.upsert(
        plain(
            Product("case", title="苹果手机壳", brand="华为"),
            Product("phone", title="智能手机", brand="华为"),
            Product("mixed up", title="机械手表"),
        )
    )
    engine.refresh()
    assert sorted(ids(engine, "手机")) == ["case", "phone"]
    assert ids(engine, "手机壳") == ["case"]
    assert sorted(ids(engine, "华为 手机")) == ["case", "phone"]
    assert ids(engine, "表") == ["mixed up"]


def test_a_very_long_query_is_cut_not_refused(make: Make) -> None:
    engine = make()
    engine.ensure(None, "")
    engine.upsert(plain(Product("1", title="honey")))
    engine.refresh()
    for text in ("honey " * 5000, "x" * 100_000, "蜂" * 10_000, "honey \ud800", "\x00", 'honey AND ("', "*:*"):
        engine.search(SearchRequest(text, highlight=True))
    assert ids(engine, "honey " * 5000) == ["1"]


def test_nearest_gives_exact_cosines_among_what_passes_the_filter(make: Make) -> None:
    engine = make()
    engine.ensure(16, "e")
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(400, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    engine.upsert((Product(f"{n}", brand="odd" if n % 2 else "even"), vectors[n], "") for n in range(400))
    engine.refresh()
    asked = unit(*rng.normal(size=16))
    cosines = vectors @ asked
    odd = sorted(range(1, 400, 2), key=lambda n: -cosines[n])[:10]
    found = engine.nearest(asked * 3, 10, (Filter("brand", ("odd",)),))
    assert len(set(found.ids) & {str(n) for n in odd}) >= 9
    np.testing.assert_allclose(found.scores, [cosines[int(one)] for one in found.ids], atol=1e-5)
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.dtype == np.float32
    with pytest.raises(InvalidInput, match="10000"):
        engine.nearest(asked, 10_001)

"""What is particular to products in Elasticsearch; what every engine must do is in ``tests/contracts``."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from endcap.catalog.product import Product
from endcap.engines.base import Engine, Filter, SearchRequest
from endcap.engines.elasticsearch import ElasticsearchEngine, indices
from endcap.errors import (
    ConfigurationError,
    EncoderMismatch,
    EngineError,
    EngineUnavailable,
    InvalidInput,
    UnknownIndex,
)
from endcap.settings import Settings
from pydantic import SecretStr

from tests.services import patient
from tests.services.elasticsearch import Secured
from tests.services.process import free_port
from tests.services.raw_http import RawServer, answer, header

Make = Callable[..., ElasticsearchEngine]


@pytest.fixture(autouse=True)
def _no_drain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "leaves_no_gap" not in request.node.name:
        monkeypatch.setattr(indices, "DRAIN_S", 0.0)


@pytest.fixture
def index(elasticsearch: str) -> Iterator[str]:
    """A name of its own; everything that begins with it is removed afterwards."""
    name = f"products-{uuid.uuid4().hex[:8]}"
    yield name
    for found in json.loads(patient.request("GET", f"{elasticsearch}/{name}*").data):
        patient.request("DELETE", f"{elasticsearch}/{found}")


@pytest.fixture
def make(elasticsearch: str, index: str) -> Iterator[Make]:
    made: list[ElasticsearchEngine] = []

    def build(**settings: Any) -> ElasticsearchEngine:
        made.append(ElasticsearchEngine(Settings(**{"engine_url": elasticsearch, "index": index, **settings})))
        return made[-1]

    yield build
    for one in made:
        one.close()


def call(method: str, url: str, body: Any = None) -> Any:
    found = patient.request(method, url, json=body) if body is not None else patient.request(method, url)
    assert found.status < 300, found.data
    return found.json() if found.data else None


def concrete(elasticsearch: str, index: str) -> list[str]:
    return sorted(json.loads(patient.request("GET", f"{elasticsearch}/{index}*").data))


def unit(*numbers: float) -> np.ndarray:
    vector = np.array(numbers, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def plain(*products: Product) -> list[tuple[Product, None, str]]:
    return [(one, None, "") for one in products]


def ids(engine: Engine, text: str, **more: Any) -> list[str]:
    return [hit.id for hit in engine.search(SearchRequest(text, **more)).hits]


def pass_on(request: bytes, connection: socket.socket, url: str) -> bool:
    """Forward a raw request to the real engine."""
    line, _, body = request.partition(b"\r\n\r\n")
    method, path = line.split(b" ", 2)[:2]
    kind = {name: header(request, name) or "" for name in ("content-type", "accept") if header(request, name)}
    real = patient.request(method.decode(), url + path.decode(), body=body, headers=kind)
    sent = {"x_elastic_product": "Elasticsearch", "content_type": real.headers["content-type"]}
    connection.sendall(answer(real.data, f"{real.status} {real.reason}", **sent))
    return True


# --- the index behind the alias -------------------------------------------------------------------------------------


def test_it_is_an_engine(make: Make) -> None:
    assert isinstance(make(), Engine)


def test_the_alias_leads_to_an_index_that_tells_what_it_holds(make: Make, elasticsearch: str, index: str) -> None:
    make().ensure(3, "encoder-1")
    (name,) = concrete(elasticsearch, index)
    assert name != index
    found = call("GET", f"{elasticsearch}/{name}")[name]
    assert list(found["aliases"]) == [index]
    meta = found["mappings"]["_meta"]["endcap"]
    assert (meta["encoder"], meta["dims"], meta["filling"]) == ("encoder-1", 3, False)


def test_processes_that_start_at_once_make_one_index(make: Make, elasticsearch: str, index: str) -> None:
    engines = [make() for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda engine: engine.ensure(3, "e"), engines))
    assert len(concrete(elasticsearch, index)) == 1
    engines[0].upsert(plain(Product("1")))
    engines[1].refresh()
    assert [engine.count() for engine in engines] == [1] * 6


def test_the_switch_leaves_no_gap(make: Make, elasticsearch: str, index: str) -> None:
    engine = make()
    engine.ensure(None, "")
    engine.upsert(plain(Product("old", title="honey")))
    engine.refresh()
    seen: list[tuple[str, ...]] = []
    problems: list[Exception] = []
    stop = threading.Event()

    def search_on_and_on() -> None:
        searcher = make()
        while not stop.is_set():
            try:
                seen.append(tuple(ids(searcher, "honey")))
            except Exception as error:
                problems.append(error)

    threads = [threading.Thread(target=search_on_and_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for generation in range(3):
            with engine.rebuild(None, "") as rebuild:
                before = len(seen)
                rebuild.upsert(plain(Product(f"new-{generation}", title="honey")))
                while len(seen) < before + 5 and not problems:
                    stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == []
    # Always whole: one generation or another, never none, never two.
    assert set(seen) >= {("old",), ("new-0",), ("new-1",)}
    assert set(seen) <= {("old",), ("new-0",), ("new-1",), ("new-2",)}
    assert len(concrete(elasticsearch, index)) == 1
    assert ids(engine, "honey") == ["new-2"]


def test_a_rebuild_that_fails_leaves_everything_as_it_was(make: Make, elasticsearch: str, index: str) -> None:
    engine = make()
    engine.ensure(3, "e1")
    engine.upsert(plain(Product("kept")))
    engine.refresh()
    before = concrete(elasticsearch, index), engine.version()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        with engine.rebuild(5, "e2") as rebuild:
            assert rebuild.upsert([(Product("lost"), unit(1, 0, 0, 0, 0), "")]).done == 1
            raise ZeroDivisionError
    assert (concrete(elasticsearch, index), engine.version()) == before
    assert engine.get(["kept", "lost"]) == [{"id": "kept"}, None]
    with pytest.raises(EngineError, match="over"):
        rebuild.upsert(plain(Product("late")))


def test_a_rebuild_changes_encoder_and_analyzer(make: Make, index: str) -> None:
    engine = make()
    engine.ensure(3, "e1")
    with engine.rebuild(2, "e2") as rebuild:
        assert rebuild.upsert([(Product("1", title="Kind of Blue"), unit(1, 1), "")]).done == 1
    engine.ensure(2, "e2")
    assert engine.nearest(unit(1, 1), 5).ids == ["1"]
    with pytest.raises(EncoderMismatch, match="e2"):
        make().ensure(3, "e1")
    make().ensure(None, "")  # keyword search works on any
    with make(analyzer="simple").rebuild(None, "") as rebuild:
        rebuild.upsert(plain(Product("1", title="Route66")))
    assert ids(engine, "route") == ["1"]  # `simple` splits at digits, `standard` does not


def test_an_analyzer_that_the_server_lacks_is_named(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="analyzer: the server does not know 'klingon'"):
        make(analyzer="klingon").ensure(None, "")


def test_what_a_dead_rebuild_left_is_swept_and_nothing_else(
    make: Make, elasticsearch: str, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    engine.ensure(None, "")
    call("PUT", f"{elasticsearch}/{index}-archive", {})  # someone's own, with a name like ours
    dead = engine.rebuild(None, "")
    dead.__enter__()
    with engine.rebuild(None, ""):
        pass
    assert len(concrete(elasticsearch, index)) == 3  # not old enough: it may still be at work
    monkeypatch.setattr(indices, "ABANDONED_S", -60.0)
    with engine.rebuild(None, ""):
        pass
    left = concrete(elasticsearch, index)
    assert len(left) == 2
    assert f"{index}-archive" in left
    with pytest.raises(EngineError, match="was removed while"):
        dead.__exit__(None, None, None)
    assert concrete(elasticsearch, index) == left


# --- what is not Endcap's ---------------------------------------------------------------------------------------------


def every_write(engine: ElasticsearchEngine) -> list[Callable[[], Any]]:
    return [
        lambda: engine.ensure(None, ""),
        lambda: engine.upsert(plain(Product("1"))),
        lambda: engine.update([("1", {"price": 1.0})]),
        lambda: engine.delete(["1"]),
        lambda: engine.rebuild(None, "").__enter__(),
    ]


@pytest.mark.parametrize("kind", ["index", "alias", "index of another alias"])
def test_what_others_made_is_never_touched(make: Make, elasticsearch: str, index: str, kind: str) -> None:
    theirs = index if kind == "index" else f"{index}-theirs"
    if kind == "index of another alias":
        other = make(index=theirs)
        other.ensure(None, "")
        theirs = next(name for name in concrete(elasticsearch, theirs))
    else:
        call("PUT", f"{elasticsearch}/{theirs}", {})
    if kind != "index":
        call("POST", f"{elasticsearch}/_aliases", {"actions": [{"add": {"index": theirs, "alias": index}}]})
    call("PUT", f"{elasticsearch}/{theirs}/_doc/1?refresh=true", {"title": "theirs"})
    before = call("GET", f"{elasticsearch}/{theirs}")
    for write in every_write(make()):
        with pytest.raises(ConfigurationError, match="will not be touched"):
            write()
    assert call("GET", f"{elasticsearch}/{theirs}") == before
    assert call("GET", f"{elasticsearch}/{theirs}/_doc/1")["_version"] == 1
    assert call("GET", f"{elasticsearch}/{theirs}/_count")["count"] == 1


def test_an_alias_of_several_indices_is_refused(make: Make, elasticsearch: str, index: str) -> None:
    for name in (f"{index}-a", f"{index}-b"):
        call("PUT", f"{elasticsearch}/{name}", {"aliases": {index: {}}})
    for write in every_write(make()):
        with pytest.raises(ConfigurationError, match="2 indices"):
            write()


def test_without_an_index_nothing_is_made_by_accident(make: Make, elasticsearch: str, index: str) -> None:
    engine = make()
    assert (engine.count(), engine.version()) == (0, "")
    attempts: list[Callable[[], Any]] = [
        *every_write(engine)[1:4],
        engine.refresh,
        lambda: engine.search(SearchRequest("a")),
        lambda: engine.get(["1"]),
        lambda: engine.digests(["1"]),
        lambda: list(engine.scan()),
        lambda: engine.nearest(unit(1, 0), 1),
    ]
    for attempt in attempts:
        with pytest.raises(UnknownIndex, match="endcap index"):
            attempt()
    assert concrete(elasticsearch, index) == []


def test_an_index_that_vanishes_is_not_made_anew_by_writing(make: Make, elasticsearch: str, index: str) -> None:
    engine = make()
    engine.ensure(None, "")
    call("DELETE", f"{elasticsearch}/{concrete(elasticsearch, index)[0]}")
    with pytest.raises(UnknownIndex):
        engine.upsert(plain(Product("1")))
    assert concrete(elasticsearch, index) == []


# --- writing in bulk --------------------------------------------------------------------------------------------------


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


# --- reading ----------------------------------------------------------------------------------------------------------


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


# --- faults -----------------------------------------------------------------------------------------------------------


def every_call(engine: ElasticsearchEngine) -> list[Callable[[], Any]]:
    return [
        *every_write(engine),
        engine.refresh,
        engine.count,
        engine.version,
        lambda: engine.get(["1"]),
        lambda: engine.digests(["1"]),
        lambda: list(engine.scan()),
        lambda: engine.search(SearchRequest("a")),
        lambda: engine.nearest(unit(1, 0), 1),
    ]


def test_an_engine_that_is_down(make: Make) -> None:
    for attempt in every_call(make(engine_url=f"http://127.0.0.1:{free_port()}")):
        with pytest.raises(EngineUnavailable, match="cannot be reached") as caught:
            attempt()
        assert caught.value.status == 503


def test_an_engine_that_is_silent(make: Make) -> None:
    over = threading.Event()

    def nothing(_: bytes, connection: socket.socket) -> bool:
        over.wait(30)
        return False

    with RawServer(nothing) as server:
        with pytest.raises(EngineUnavailable, match="in time"):
            make(engine_url=server.url, engine_timeout_s=0.2).search(SearchRequest("a"))
        assert len(server.requests) == 1
        over.set()


@pytest.mark.parametrize(
    ("status", "kind"), [("503 Service Unavailable", EngineUnavailable), ("500 Oops", EngineError)]
)
def test_an_engine_that_cannot(make: Make, status: str, kind: type[EngineError]) -> None:
    body = b'{"error":{"root_cause":[{"type":"t","reason":"no master"}],"type":"t","reason":"r"},"status":1}'

    def fault(_: bytes, connection: socket.socket) -> bool:
        connection.sendall(answer(body, status, content_type="application/json"))
        return True

    with RawServer(fault) as server, pytest.raises(EngineError, match="no master") as caught:
        make(engine_url=server.url).search(SearchRequest("a"))
    assert type(caught.value) is kind
    assert caught.value.status == int(status[:3])
    assert caught.value.body == json.loads(body)


def test_nothing_is_made_on_another_product(make: Make, opensearch: str, index: str) -> None:
    for attempt in every_write(make(engine_url=opensearch)):
        with pytest.raises(ConfigurationError, match="not an Elasticsearch"):
            attempt()
    assert concrete(opensearch, index) == []


def test_the_engine_comes_back(make: Make, elasticsearch: str) -> None:
    make().ensure(None, "")
    port = free_port()
    engine = make(engine_url=f"http://127.0.0.1:{port}")
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            engine.search(SearchRequest())

    def relay(connection: socket.socket, target: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                target.sendall(data)
        except OSError:
            pass

    host, real_port = elasticsearch.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", port)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            upstream = socket.create_connection((host, int(real_port)))
            threading.Thread(target=relay, args=(connection, upstream), daemon=True).start()
            relay(upstream, connection)

        threading.Thread(target=accept, daemon=True).start()
        assert engine.search(SearchRequest()).total == 0


def test_credentials(make: Make, secured_elasticsearch: Secured, index: str) -> None:
    secured = secured_elasticsearch
    address: dict[str, Any] = {"engine_url": secured.url, "engine_ca_file": secured.ca_file}
    for wrong in ({}, {"engine_username": secured.username, "engine_password": "guess"}, {"engine_api_key": "a:b"}):
        with pytest.raises(EngineError, match="refuses access") as caught:
            make(**address, **wrong).ensure(None, "")
        assert caught.value.status == 401
        assert "guess" not in str(caught.value)
    with pytest.raises(EngineUnavailable, match="certificate"):
        make(engine_url=secured.url).count()

    # All over the products and nothing in the cluster: no more rights than that are needed.
    engine = make(**address, engine_username=secured.restricted, engine_password=secured.password)
    engine.ensure(2, "e")
    engine.upsert([(Product("1", title="Tea"), unit(1, 1), "")])
    engine.refresh()
    assert ids(engine, "tea") == ["1"]
    with engine.rebuild(2, "e") as rebuild:
        rebuild.upsert([(Product("1", title="Coffee"), unit(1, 1), "")])
    assert ids(engine, "coffee") == ["1"]
    assert engine.version()
    assert [len(batch) for batch in engine.scan()] == [1]
    in_url = secured.url.replace("https://", f"https://{secured.restricted}:a%20long%20p%3Assword@")
    assert make(engine_url=in_url, engine_ca_file=secured.ca_file).count() == 1
    elsewhere = make(engine_url=in_url, engine_ca_file=secured.ca_file, index="others")
    with pytest.raises(EngineError, match="refuses access") as caught:
        elsewhere.ensure(None, "")
    assert caught.value.status == 403


@pytest.mark.parametrize("key", ["id:secret", "aWQ6c2VjcmV0"])
def test_an_api_key_is_sent_in_either_form(make: Make, elasticsearch: str, key: str) -> None:
    with RawServer(lambda request, connection: pass_on(request, connection, elasticsearch)) as server:
        make(engine_url=server.url, engine_api_key=SecretStr(key), engine_username="ignored").count()
    assert header(server.requests[0], "authorization") == "ApiKey aWQ6c2VjcmV0"

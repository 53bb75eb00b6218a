"""``endcap attach``: in front of indices that Endcap did not make, on real servers, Icecat's documents as they are."""

import gzip
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from endcap.attach import following
from endcap.attach.config import remove_attachment, tomllib, write_attachment
from endcap.attach.field import VectorField
from endcap.attach.following import SyncReport, synchronise
from endcap.attach.source import Source
from endcap.commands.attach import attach, detach
from endcap.errors import ConfigurationError, EngineError, EngineUnavailable, UnknownIndex
from endcap.events import Action, Event
from endcap.jobs import load_jobs
from endcap.runtime import open_database, open_engine, open_runtime
from endcap.settings import Settings, load_settings
from endcap.stores.attached import Ledger
from tests.plugin.elasticsearch_support import call
from tests.services import patient
from tests.workers.test_tasks import Context

DOCUMENTS = 420
#: Where the copy is in Elasticsearch, too: each of the many attributes is a change of the cluster's state there.
FEW = 60


def icecat(shared: Path) -> list[dict[str, Any]]:
    with gzip.open(shared / "data" / "icecat-chorus-search" / "products_1.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)[:DOCUMENTS]


def bulk(url: str, index: str, lines: list[Any]) -> None:
    body = "".join(json.dumps(line) + "\n" for line in lines)
    headers = {"Content-Type": "application/x-ndjson"}
    answer = patient.request("POST", f"{url}/{index}/_bulk?refresh=true", body=body, headers=headers)
    assert answer.status == 200, answer.data
    assert not answer.json()["errors"], answer.data[:500]


def fill(url: str, index: str, documents: list[dict[str, Any]]) -> None:
    """As a shop does: two shards, ids of its own, mappings of what is searched for, none of the attributes."""
    text, keyword = {"type": "text"}, {"type": "keyword"}
    fields = {
        "title": text,
        "short_description": text,
        "supplier": keyword,
        "name": keyword,
        "price": {"type": "float"},
    }
    mappings = {"dynamic": False, "properties": fields}
    call("PUT", f"{url}/{index}", {"settings": {"number_of_shards": 2, "number_of_replicas": 0}, "mappings": mappings})
    bulk(url, index, [line for one in documents for line in ({"index": {"_id": f"ice-{one['id']}"}}, one)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, with its own settings' file."""
    monkeypatch.chdir(tmp_path)
    for name in ("ENDCAP_CONFIG", "ENDCAP_ENGINE_URL", "ENDCAP_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENDCAP_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def name() -> str:
    return f"shop-{uuid.uuid4().hex[:8]}"


def removed(url: str, name: str) -> Iterator[str]:
    yield name
    for found in json.loads(patient.request("GET", f"{url}/*{name}*").data):
        patient.request("DELETE", f"{url}/{found}")


@pytest.fixture
def shop(elasticsearch: str, name: str, shared_dir: Path) -> Iterator[str]:
    fill(elasticsearch, name, icecat(shared_dir))
    yield from removed(elasticsearch, name)


@pytest.fixture
def small_shop(elasticsearch: str, name: str, shared_dir: Path) -> Iterator[str]:
    fill(elasticsearch, name, icecat(shared_dir)[:FEW])
    yield from removed(elasticsearch, name)


@pytest.fixture
def open_shop(opensearch: str, name: str, shared_dir: Path) -> Iterator[str]:
    fill(opensearch, name, icecat(shared_dir))
    yield from removed(opensearch, name)


def invoked(command: Any, *arguments: str, **more: Any) -> str:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False, **more)
    assert result.exit_code == 0, result.output
    return result.output


class Lengths:
    """An encoder that knows how long texts are, and counts them."""

    id, dims = "lengths", 4

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray:
        self.encoded += len(texts)
        return np.stack([self.encode_query(text) for text in texts])

    def encode_query(self, text: str) -> np.ndarray:
        vector = np.array([1.0, len(text) % 7, len(text) % 5, 0.0], dtype=np.float32)
        return vector / np.linalg.norm(vector)


def synced() -> SyncReport:
    settings = load_settings()
    with closing(open_engine(settings)) as engine, closing(open_database(settings)) as database:
        return synchronise(settings, engine, database, None)


def copied(settings: Settings) -> dict[str, Any]:
    with closing(open_engine(settings)) as engine:
        return {product.id: product for batch in engine.scan(vectors=False) for product, _ in batch}


def state(url: str, index: str) -> Any:
    """Everything about an index that a write to it would change."""
    about = call("GET", f"{url}/{index}")
    found = call("GET", f"{url}/{index}/_stats/docs,indexing?level=shards")["indices"][index]["shards"]
    return about, {shard: [one["seq_no"] for one in copies] for shard, copies in found.items()}


@pytest.mark.elasticsearch
def test_attach_keeps_in_step_and_detach_leaves_no_trace(elasticsearch: str, small_shop: str, folder: Path) -> None:
    shop = small_shop
    before = state(elasticsearch, shop)
    shown = invoked(attach, elasticsearch, shop, "--encoder", "none", input="y\n")
    assert "title        title (text; guessed)" in shown
    assert "brand        supplier (keyword; guessed)" in shown
    assert f"{FEW} documents read" in shown
    assert state(elasticsearch, shop) == before, "the shop's index is only read"
    settings = load_settings()
    assert (settings.index, settings.index_place) == (f"endcap-{shop}", "engine")
    assert settings.product_indices == {shop}
    products = copied(settings)
    assert len(products) == FEW
    assert products["ice-3920564"].title.startswith("Xerox 006R90321 toner")
    assert (products["ice-3920564"].brand, products["ice-3920564"].price) == ("Xerox", 4995)

    report = synced()
    assert (report.read, report.deleted, report.requests_for_deleted) == (0, 0, 2), "one count a shard"
    ids = sorted(products)
    changes: list[Any] = [{"delete": {"_id": one}} for one in ids[5:55:20]]
    changes += [{"update": {"_id": ids[0]}}, {"doc": {"price": 1.5}}]
    changes += [{"index": {"_id": "new"}}, {"title": "A new lamp", "supplier": "Lumen"}]
    bulk(elasticsearch, shop, changes)
    report = synced()
    assert (report.read, report.deleted, report.total) == (2, 3, FEW - 2)
    products = copied(settings)
    assert products[ids[0]].price == 1.5
    assert products["new"].brand == "Lumen"
    assert not set(ids[5:55:20]) & set(products)

    invoked(detach, "--yes")
    left = [one for one in call("GET", f"{elasticsearch}/*{shop}*") if one != shop]
    assert left == []
    assert not (folder / "endcap.toml").exists()
    with closing(open_database(load_settings())) as database:
        assert Ledger(database, f"{elasticsearch}/{shop}").units() == []


@pytest.mark.opensearch
def test_over_opensearch_features_rank_behind_the_hook(opensearch: str, open_shop: str, folder: Path) -> None:
    from opensearchpy import OpenSearch

    from endcap_reranker.app import create_app
    from tests.reranker.hook_support import serving

    invoked(attach, opensearch, open_shop, "--encoder", "none", "--yes")
    settings = load_settings()
    assert settings.index_place == "embedded", "OpenSearch refuses the client that Endcap's own index would need"
    assert len(copied(settings)) == DOCUMENTS
    with closing(open_runtime(settings)) as runtime:
        assert runtime.upkeep.wait_ready(120.0)
        assert not runtime.upkeep.problems
        table = runtime.personalizer.table
        assert table is not None
        brands = np.unique(table.brand[table.brand >= 0], return_counts=True)
        with serving(create_app(runtime)) as url:
            client = OpenSearch(url, timeout=60)
            body = {"query": {"match": {"title": "notebook"}}, "size": 50}
            plain = client.search(index=open_shop, body=body)["hits"]["hits"]
            assert len(plain) > 5
            last = plain[-1]["_id"]
            runtime.record([Event("e1", time.time(), "ann", Action.PURCHASE, last)])
            found = client.search(index=open_shop, body=body, headers={"X-Endcap-Shopper": "ann"})["hits"]["hits"]
            assert {hit["_id"] for hit in found} == {hit["_id"] for hit in plain}
            assert found[0]["_id"] == last
            brand = plain[-1]["_source"]["supplier"]

            def mean(hits: list[Any]) -> float:
                return float(np.mean([n for n, hit in enumerate(hits) if hit["_source"]["supplier"] == brand]))

            assert len(brands[0]) > 1
            assert mean(found) < mean(plain), "products of the brand that was bought rise: features, not ids alone"
    invoked(detach, "--yes")
    assert not (folder / "endcap.toml").exists()
    assert not list((folder / "data" / "engine").glob("*"))


@pytest.mark.elasticsearch
def test_a_fill_that_broke_off_goes_on_and_encodes_nothing_twice(
    elasticsearch: str, shop: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_attachment(
        folder / "endcap.toml",
        {"engine_url": elasticsearch, "index": "copy", "source_index": shop, "index_place": "embedded"},
    )
    monkeypatch.setattr(following, "_STEP", 100)
    monkeypatch.setattr("endcap.attach.source.PAGE", 100)
    settings, encoder = load_settings(), Lengths()

    def stop(report: SyncReport, total: int) -> None:
        assert total == DOCUMENTS
        if report.read >= 300:
            raise KeyboardInterrupt

    with closing(open_engine(settings)) as engine, closing(open_database(settings)) as database:
        with pytest.raises(KeyboardInterrupt):
            synchronise(settings, engine, database, encoder, on_progress=stop)
        report = synchronise(settings, engine, database, encoder)
        assert report.read == DOCUMENTS - 300
        assert report.total == DOCUMENTS
        assert encoder.encoded == DOCUMENTS
        assert all(vector is not None for batch in engine.scan() for _, vector in batch)


@pytest.mark.elasticsearch
def test_an_index_made_anew_under_its_name_and_one_that_is_gone(
    elasticsearch: str, shop: str, folder: Path, shared_dir: Path
) -> None:
    invoked(attach, elasticsearch, shop, "--encoder", "none", "--place", "embedded", "--yes")
    call("DELETE", f"{elasticsearch}/{shop}")
    with pytest.raises(UnknownIndex):
        synced()
    assert len(copied(load_settings())) == DOCUMENTS, "an index that is away for a moment empties nothing"
    fill(elasticsearch, shop, icecat(shared_dir)[:200])
    report = synced()
    assert (report.read, report.unchanged, report.deleted, report.total) == (200, 200, DOCUMENTS - 200, 200)


@pytest.mark.elasticsearch
def test_deletions_are_found_by_halving_not_by_reading(
    elasticsearch: str, shop: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_LEAF", 8)
    invoked(attach, elasticsearch, shop, "--encoder", "none", "--place", "embedded", "--yes")
    monkeypatch.setattr(Source, "changed", lambda *args: itertools.repeat([], 0))
    gone = sorted(copied(load_settings()))[::350]
    bulk(elasticsearch, shop, [{"delete": {"_id": one}} for one in gone])
    report = synced()
    assert report.deleted == len(gone) == 2
    assert report.requests_for_deleted < 40


@pytest.mark.elasticsearch
def test_what_cannot_be_asked_now_is_not_taken_for_deleted(elasticsearch: str, name: str, folder: Path) -> None:
    for index, settings in ((f"{name}-a", {}), (f"{name}-b", {"index.routing.allocation.require._name": "nobody"})):
        body = {"settings": {"number_of_replicas": 0, **settings}, "aliases": {name: {}}}
        call("PUT", f"{elasticsearch}/{index}?wait_for_active_shards=0", body)
    bulk(elasticsearch, f"{name}-a", [{"index": {"_id": "1"}}, {"title": "here"}])
    with closing(Source(load_settings(engine_url=elasticsearch), name)) as source:
        with pytest.raises(EngineUnavailable):
            source.existing(["1", "2"])
        call("DELETE", f"{elasticsearch}/{name}-b")
        assert source.existing(["1", "2"]) == {"1"}
    call("DELETE", f"{elasticsearch}/{name}-a")


@pytest.mark.elasticsearch
def test_the_job_follows_an_index_that_is_written_to_meanwhile(elasticsearch: str, shop: str, folder: Path) -> None:
    invoked(attach, elasticsearch, shop, "--encoder", "none", "--place", "embedded", "--yes")
    ids = sorted(copied(load_settings()))
    draw = random.Random(5)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            lines: list[Any] = []
            for one in draw.sample(ids, 12):
                if draw.random() < 0.4:
                    lines += [{"delete": {"_id": one}}]
                else:
                    lines += [{"index": {"_id": one}}, {"title": f"lamp {one}", "price": draw.randint(1, 500)}]
            bulk(elasticsearch, shop, lines)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for one in writers:
        one.start()
    try:
        for _ in range(3):
            run_job()
    finally:
        stop.set()
        for one in writers:
            one.join()
    assert run_job()["refused"] == 0
    body = {"size": 1_000, "_source": ["price"]}
    hits = call("POST", f"{elasticsearch}/{shop}/_search", body)["hits"]["hits"]
    have = copied(load_settings())
    assert {one: product.price for one, product in have.items()} == {
        hit["_id"]: hit["_source"].get("price") for hit in hits
    }


@pytest.mark.elasticsearch
def test_vectors_in_a_field_of_the_index_itself_where_asked_for(
    elasticsearch: str, name: str, shared_dir: Path, folder: Path
) -> None:
    documents = icecat(shared_dir)[:60]
    fill(elasticsearch, name, documents)
    settings = {"engine_url": elasticsearch, "index": "copy", "source_index": name, "index_place": "embedded"}
    write_attachment(folder / "endcap.toml", {**settings, "source_vector_field": "meaning"})
    encoder = Lengths()

    def turn() -> SyncReport:
        call("POST", f"{elasticsearch}/{name}/_refresh")
        made = load_settings()
        with closing(open_engine(made)) as engine, closing(open_database(made)) as database:
            return synchronise(made, engine, database, encoder)

    def stored(one: str) -> Any:
        return call("GET", f"{elasticsearch}/{name}/_doc/{one}")["_source"]

    first = f"ice-{documents[0]['id']}"
    assert [turn().vectors for _ in range(3)] == [60, 0, 0], "its own writes make no further work"
    knn = {"field": "meaning", "query_vector": encoder.encode_query("x").tolist(), "k": 5, "num_candidates": 20}
    assert len(call("POST", f"{elasticsearch}/{name}/_search", {"knn": knn})["hits"]["hits"]) == 5
    assert stored(first) == {**documents[0], "meaning": stored(first)["meaning"]}
    bulk(elasticsearch, name, [{"index": {"_id": first}}, documents[0]])  # the shop writes it anew, without the vector
    second = f"ice-{documents[1]['id']}"
    bulk(elasticsearch, name, [{"update": {"_id": second}}, {"doc": {"title": "something else"}}])
    before = stored(second)["meaning"]
    assert [turn().vectors for _ in range(2)] == [2, 0]
    assert stored(first)["meaning"]
    assert stored(second)["meaning"] != before
    invoked(detach, "--yes")
    assert stored(first) == documents[0]
    for _ in removed(elasticsearch, name):
        pass


@pytest.mark.elasticsearch
@pytest.mark.parametrize("kept", [{"excludes": ["own"]}, {"includes": ["title"]}, {"enabled": False}])
def test_an_index_that_keeps_only_parts_of_its_documents_is_not_written_to(
    elasticsearch: str, name: str, kept: dict[str, Any], folder: Path
) -> None:
    own = {"type": "dense_vector", "dims": 2}
    call("PUT", f"{elasticsearch}/{name}", {"mappings": {"_source": kept, "properties": {"own": own}}})
    with closing(Source(load_settings(engine_url=elasticsearch), name)) as source:
        with pytest.raises(ConfigurationError, match="would be lost"):
            VectorField(source, "meaning").ensure(2)
        assert list(source.fields()) == ["own"]
    call("DELETE", f"{elasticsearch}/{name}")


@pytest.mark.elasticsearch
def test_documents_that_come_without_their_vectors_are_not_written_back(
    elasticsearch: str, name: str, folder: Path
) -> None:
    vector = {"type": "dense_vector", "dims": 2}
    mappings = {"_source": {"excludes": ["meaning"]}, "properties": {"meaning": vector}}
    call("PUT", f"{elasticsearch}/{name}", {"mappings": mappings})
    bulk(elasticsearch, name, [{"index": {"_id": "1"}}, {"title": "here", "meaning": [1, 2]}])
    before = call("GET", f"{elasticsearch}/{name}/_doc/1")
    with closing(Source(load_settings(engine_url=elasticsearch), name)) as source:
        with pytest.raises(EngineError):
            VectorField(source, "meaning").remove()
    assert call("GET", f"{elasticsearch}/{name}/_doc/1") == before
    call("DELETE", f"{elasticsearch}/{name}")


def run_job() -> Any:
    settings = load_settings()
    assert settings.schedule == {"attach-sync": "* * * * *"}
    return load_jobs()["attach-sync"].run(Context(settings, settings.data_dir, {"rate": 100_000.0}))


def test_the_settings_file_keeps_what_was_in_it(tmp_path: Path) -> None:
    file = tmp_path / "endcap.toml"
    own = '# mine\nwindow = 50\n\n[field_roles]\nbrand = "maker"\n'
    file.write_text(own)
    with pytest.raises(ConfigurationError, match="field_roles"):
        write_attachment(file, {"field_roles": {"brand": "supplier"}})
    values = {"index": 'a"b', "searchable_indices": ["x"], "schedule": {"attach-sync": "* * * * *"}}
    write_attachment(file, values)
    write_attachment(file, values)
    assert tomllib.loads(file.read_text()) == {**values, "window": 50, "field_roles": {"brand": "maker"}}
    assert remove_attachment(file)
    assert file.read_text() == own
    assert not remove_attachment(file)


@pytest.mark.elasticsearch
def test_a_schedule_of_the_shops_own_is_left_alone(elasticsearch: str, small_shop: str, folder: Path) -> None:
    own = '[schedule]\ntrain = "off"\n'
    (folder / "endcap.toml").write_text(own)
    shown = invoked(attach, elasticsearch, small_shop, "--encoder", "none", "--place", "embedded", "--yes")
    assert "add to your schedule: attach-sync" in shown
    assert load_settings().schedule == {"train": "off"}
    invoked(detach, "--yes")
    assert (folder / "endcap.toml").read_text() == own


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http://ann:secret@127.0.0.1:1", "shop"], "must not hold a password"),
        (["ftp://x", "shop"], "URL must be"),
        (["http://127.0.0.1:1", "shop*"], "one index or alias"),
        (["http://127.0.0.1:1", "shop", "--copy", "shop"], "never written to"),
        (["http://127.0.0.1:1", "shop"], "cannot be reached"),
    ],
)
def test_bad_input_is_named(arguments: list[str], says: str, folder: Path) -> None:
    result = CliRunner().invoke(attach, arguments)
    assert result.exit_code == 1
    assert says in str(result.exception)
    assert not (folder / "endcap.toml").exists()

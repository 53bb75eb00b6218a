"""What a generator made up enriches training and goes nowhere else: every path on which it could is tried."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from endcap.catalog.product import GENERATED_PREFIX, product_keys
from endcap.catalog.table import ProductTable
from endcap.cli import endcap
from endcap.events import Action, Event
from endcap.indexing import apply_changes, index_products
from endcap.runtime import Runtime, open_runtime
from endcap.sequences import Alignment, InputSpec, Vocabulary
from endcap.settings import load_settings
from endcap.stores.generated import GeneratedProduct, GeneratedProducts
from endcap_workers.augmentation.job import sequences
from endcap_workers.reports.making import build_report
from tests.reranker.augment_support import events, product, stock
from tests.serving import eventually

MADE_UP = f"{GENERATED_PREFIX}v1:0"
ROW = GeneratedProduct(MADE_UP, "Shop > shelf0", 2.0, {"brand": "Brand 1"}, ("b1-s0-0", "b2-s0-0"), ((MADE_UP,),))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A shop with sales, and a generated row in its store."""
    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("shop"), index="shop", text_encoder="none", product_refresh_s=0.2,
        deadline_ms=60_000,
    )  # fmt: skip
    opened = open_runtime(settings)
    index_products(stock(), opened.engine, None)
    opened.record([*events(time.time())[:400], purchase("real", "b1-s1-0")])
    GeneratedProducts(opened.database).add("v1", 3, [ROW])
    assert opened.upkeep.wait_ready(120.0)
    opened.upkeep.reload()
    yield opened
    opened.close()


def purchase(event_id: str, product_id: str) -> Event:
    return Event(event_id, time.time(), "s1", Action.PURCHASE, product_id, value=2.0)


def command(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    settings = runtime.settings
    monkeypatch.setenv("ENDCAP_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("ENDCAP_INDEX", settings.index)
    monkeypatch.setenv("ENDCAP_TEXT_ENCODER", "none")
    return CliRunner().invoke(endcap, list(arguments))


def test_it_is_kept_with_its_provenance_and_deleted_whole(
    client: FlaskClient, operator: dict[str, str], runtime: Runtime
) -> None:
    store = GeneratedProducts(runtime.database)
    other = GeneratedProduct(f"{GENERATED_PREFIX}v2:0", "", None, {}, ("b1-s0-0",), ())
    store.add("v2", 5, [other])

    assert list(store.rows("v1")) == [ROW]
    listed = client.get("/admin/v1/augmentation/generated", headers=operator).get_json()["generations"]
    assert {(one["generator"], one["seed"], one["rows"]) for one in listed} == {("v1", 3, 1), ("v2", 5, 1)}
    assert client.delete("/admin/v1/augmentation/generated?generator=v9", headers=operator).status_code == 404
    answer = client.delete("/admin/v1/augmentation/generated?generator=v2", headers=operator)
    assert answer.get_json()["deleted"] == 1
    assert list(store.rows()) == [ROW]
    assert client.delete("/admin/v1/augmentation/generated", headers=operator).get_json()["deleted"] == 1
    assert store.generations() == []
    store.add("v1", 3, [ROW])


def test_it_is_not_indexed(
    client: FlaskClient, operator: dict[str, str], runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = runtime.engine.count()

    sent = {"id": MADE_UP, "title": "made up", "brand": "Brand 1"}
    answer = client.post("/admin/v1/products", json={"products": [sent]}, headers=operator).get_json()
    assert (answer["indexed"], answer["refused"][0]["id"]) == (0, MADE_UP)
    assert "training only" in answer["refused"][0]["reason"]
    refused: list[str] = []
    index_products([product(MADE_UP, 1, 1)], runtime.engine, None, on_refused=lambda one, why: refused.append(one))
    apply_changes([(MADE_UP, {"price": 1.0})], runtime.engine, on_refused=lambda one, why: refused.append(one))
    assert refused == [MADE_UP, MADE_UP]
    file = tmp_path / "products.jsonl"
    file.write_text(json.dumps(sent) + "\n")
    said = command(runtime, monkeypatch, "index", str(file))
    assert "training only" in said.output or "refused" in said.output, said.output

    assert runtime.engine.count() == before == len(stock())
    assert runtime.engine.get([MADE_UP]) == [None]
    assert MADE_UP not in [one.id for batch in runtime.engine.scan() for one, _ in batch]


def test_nothing_happens_to_it(
    client: FlaskClient, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = runtime.log.last_sequence()

    event = {"action_name": "purchase", "client_id": "s1", "event_attributes": {"object": {"object_id": MADE_UP}}}
    assert client.post("/v1/events", json=[event]).get_json()["accepted"] == 0
    assert runtime.record([purchase("made-up", MADE_UP)]) == [False]
    assert list(runtime.log.append_many([purchase("made-up", MADE_UP)])) == [0]
    assert runtime.log.last_sequence() == before

    # What is exported holds nothing of it, and a file that does is not read back.
    for kind in ("events", "rankings"):
        assert command(runtime, monkeypatch, "export", kind, str(tmp_path)).exit_code == 0
    import pyarrow.parquet

    files = sorted(tmp_path.glob("events-*.parquet"))
    assert files
    for file in tmp_path.glob("*.parquet"):
        assert GENERATED_PREFIX not in str(pyarrow.parquet.read_table(file).to_pylist())
    rows = pyarrow.parquet.read_table(files[-1])
    ids, names = rows.column("id").to_pylist(), rows.schema.get_field_index("product")
    forged = rows.set_column(0, "id", pyarrow.array([f"forged {one}" for one in ids])).set_column(
        names, "product", pyarrow.array([MADE_UP] * len(rows))
    )
    (tmp_path / "forged").mkdir()
    pyarrow.parquet.write_table(forged, tmp_path / "forged" / files[-1].name)
    said = command(runtime, monkeypatch, "restore", str(tmp_path / "forged"))
    assert "0 events restored" in said.output, said.output
    assert runtime.log.last_sequence() == before


def test_it_is_not_shown(client: FlaskClient, operator: dict[str, str], runtime: Runtime) -> None:
    for path in (
        "/v1/search?q=&size=100",
        "/v1/search?q=shelf0&size=100",
        "/v1/recommend?size=50",
        "/v1/recommend?size=50&placement=basket&ids=b1-s0-0",
        f"/v1/recommend?size=50&placement=cart&ids={MADE_UP}",
        f"/v1/recommend?size=50&ids={MADE_UP}",
        "/v1/suggest?q=thing",
        "/v1/suggest?q=endcap",
    ):
        answer = client.get(path, headers={"X-Endcap-Shopper": "s1"})
        assert answer.status_code == 200, answer.text
        assert GENERATED_PREFIX not in answer.text, path
    search = client.post("/shop/_search", json={"query": {"match_all": {}}, "size": 500})
    assert search.get_json()["hits"]["total"]["value"] == len(stock())
    assert GENERATED_PREFIX not in search.text


def test_it_is_not_counted(client: FlaskClient, operator: dict[str, str], runtime: Runtime) -> None:
    catalogue = client.get("/admin/v1/catalogue", headers=operator).get_json()
    assert (catalogue["products"], catalogue["loaded"]) == (len(stock()), len(stock()))
    metrics = client.get("/metrics", headers=operator).text
    assert f"endcap_products {len(stock())}" in metrics.replace(".0", "")
    # Popularity; a thread of its own follows the log.
    assert eventually(lambda: runtime.popularity.sequence >= runtime.log.last_sequence())
    known, unknown = runtime.popularity.read(product_keys(["b1-s1-0", MADE_UP]), time.time())
    assert known.any()
    assert not unknown.any()


@pytest.mark.parametrize("kind", ["inventory", "fraud"])
def test_no_report_speaks_of_it(runtime: Runtime, kind: str) -> None:
    said = json.dumps(build_report(kind, runtime.database, runtime.settings, lambda *_: None).to_json())

    assert "b1-s1-0" in said or kind == "fraud"
    assert GENERATED_PREFIX not in said


def test_training_and_evaluation_meet_it_nowhere_but_in_its_store(runtime: Runtime) -> None:
    """What models are trained on and judged by comes from the log and the index; both are read here as they read it."""
    table = ProductTable.collect(runtime.engine.scan())
    vocabulary = Vocabulary.of(table, table.ids)
    found = sequences(runtime.log, table, Alignment(table, vocabulary, InputSpec(features=())))

    assert not [one for one in (*table.ids, *vocabulary.products) if one.startswith(GENERATED_PREFIX)]
    assert found
    assert np.concatenate(found)[:, 0].max() < vocabulary.numbers

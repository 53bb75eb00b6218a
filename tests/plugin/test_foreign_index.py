"""In front of an index that Endcap did not make: ranking knows the shop's own products and never writes to them."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from endcap.engines.elasticsearch import ElasticsearchEngine
from endcap.errors import ConfigurationError
from endcap.events import Action, Event
from endcap.runtime import open_runtime
from endcap.settings import load_settings
from tests.serving import eventually

DOCUMENTS = [
    {
        "sku": "x",
        "name": "Red shoe",
        "manufacturer": "Fleet",
        "price": {"amount": "19,90 €"},
        "category": "Shoes > Running",
    },
    {
        "sku": "y",
        "name": "Blue shoe",
        "manufacturer": "Fleet",
        "price": {"amount": "29,90 €"},
        "category": "Shoes > Running",
    },
    {
        "sku": "z",
        "name": "Green shoe",
        "manufacturer": "Bolt",
        "price": {"amount": "n/a"},
        "category": "Shoes > Running",
    },
]


@pytest.fixture
def index(elasticsearch: str) -> Iterator[str]:
    client = Elasticsearch(elasticsearch, request_timeout=60)
    name = f"shop-{uuid.uuid4().hex[:8]}"
    for number, document in enumerate(DOCUMENTS):
        client.index(index=name, id=f"doc-{number}", document=document)
    client.indices.refresh(index=name)
    yield name
    client.indices.delete(index=name)
    client.close()


@pytest.mark.elasticsearch
def test_the_shops_documents_are_read_by_guessed_and_named_roles(
    elasticsearch: str, index: str, tmp_path: Path
) -> None:
    settings = load_settings(
        engine_url=elasticsearch, index=index, data_dir=tmp_path, field_roles={"brand": "manufacturer"}
    )
    engine = ElasticsearchEngine(settings)
    products = {product.id: product for batch in engine.scan() for product, _ in batch}
    assert set(products) == {"doc-0", "doc-1", "doc-2"}, "hits and events name documents by _id"
    assert (products["doc-0"].title, products["doc-0"].brand) == ("Red shoe", "Fleet")
    assert products["doc-1"].categories == ("Shoes", "Running")
    with pytest.raises(ConfigurationError):
        engine.upsert([])
    engine.close()


@pytest.mark.elasticsearch
def test_a_purchase_lifts_the_brand_in_a_foreign_index(elasticsearch: str, index: str, tmp_path: Path) -> None:
    runtime = open_runtime(load_settings(engine_url=elasticsearch, index=index, data_dir=tmp_path, text_encoder="none"))
    try:
        assert runtime.upkeep.wait_ready(120.0)
        runtime.record([Event("e1", time.time(), "ann", Action.PURCHASE, "doc-0")])
        ranking = runtime.personalizer.rank("ann", "shoe", ["doc-2", "doc-1", "doc-0"], np.ones(3, np.float32))
        assert ranking.order.tolist() == [2, 1, 0], "the bought one, its brand, the rest"
    finally:
        runtime.close()


@pytest.mark.opensearch
def test_over_opensearch_behaviour_alone_ranks_and_the_problem_is_visible(opensearch: str, tmp_path: Path) -> None:
    runtime = open_runtime(load_settings(engine_url=opensearch, index="absent", data_dir=tmp_path, text_encoder="none"))
    try:
        assert runtime.upkeep.wait_ready(120.0)
        assert eventually(lambda: "products" in runtime.upkeep.problems)
        assert "not supported" in runtime.upkeep.problems["products"]
        runtime.record([Event("e1", time.time(), "ann", Action.PURCHASE, "b")])
        assert runtime.personalizer.rank("ann", "", ["a", "b"], np.ones(2, np.float32)).order.tolist() == [1, 0]
    finally:
        runtime.close()

"""Synonyms and rescue as a storefront, an operator of the API and one of the console see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from endcap.catalog import Product
from endcap.indexing import index_products
from endcap.runtime import Runtime, open_runtime
from endcap.settings import load_settings
from endcap.stores.tokens import Tokens
from endcap_reranker.app import create_app


@pytest.fixture
def runtime(tmp_path: Any) -> Iterator[Runtime]:
    file = tmp_path / "synonyms.txt"
    file.write_text("sofa => couch\n")
    settings = load_settings(data_dir=tmp_path / "data", text_encoder="none", synonyms_file=str(file))
    made = open_runtime(settings, start=False)
    shop = [
        Product("t1", "Television 55 inch", brand="Loewe", price=900.0),
        Product("t2", "Wall mount for a tv", brand="Vogel", price=30.0),
        Product("c1", "Couch", brand="Home", price=400.0),
    ]
    index_products(shop, made.engine, None)
    made.upkeep.reload()
    yield made
    made.close()


@pytest.fixture
def client(runtime: Runtime) -> FlaskClient:
    return create_app(runtime).test_client()


def ids(client: FlaskClient, **query: Any) -> list[str]:
    return [hit["id"] for hit in client.get("/v1/search", query_string=query).get_json()["hits"]]


def test_a_rule_counts_from_the_next_look_on_and_no_longer_than_it_stands(
    client: FlaskClient, runtime: Runtime
) -> None:
    headers = {"Authorization": f"Bearer {Tokens(runtime.database).create('op', 'operator')[0]}"}
    reader = {"Authorization": f"Bearer {Tokens(runtime.database).create('r', 'reader')[0]}"}
    assert ids(client, q="television") == ["t1"]
    assert ids(client, q="sofa") == ["c1"], "the file's"
    made = client.post("/admin/v1/synonyms", json={"rule": "TV, Television"}, headers=headers)
    assert (made.status_code, made.json["rule"], made.json["by"]) == (201, "tv, television", "op")
    runtime.synonyms.turn()
    assert set(ids(client, q="television")) == {"t1", "t2"}
    said = client.get("/admin/v1/synonyms/expand?q=television", headers=reader).json
    assert said == {"text": "television", "variants": ["tv"]}
    assert len(client.get("/admin/v1/synonyms", headers=reader).json["synonyms"]) == 1
    for rule in ("alone", "a => b => c", "tv, television"):
        refused = client.post("/admin/v1/synonyms", json={"rule": rule}, headers=headers)
        assert (refused.status_code, refused.content_type) == (400, "application/problem+json")
    assert client.post("/admin/v1/synonyms", json={"rule": "a, b"}, headers=reader).status_code == 403
    path = f"/admin/v1/synonyms/{made.json['id']}"
    assert client.delete(path, headers=headers).json == {"removed": made.json["id"]}
    assert client.delete(path, headers=headers).status_code == 404
    runtime.synonyms.turn()
    assert ids(client, q="television") == ["t1"]


def test_an_answer_says_what_was_given_up(client: FlaskClient) -> None:
    def asked(**query: Any) -> tuple[list[str], list[str]]:
        answer = client.get("/v1/search", query_string=query).get_json()
        return [hit["id"] for hit in answer["hits"]], answer["relaxed"]

    assert asked(q="couch") == (["c1"], [])
    assert asked(q="couhc") == (["c1"], ["spelling"])
    assert asked(q="couch qqqqqqqq") == (["c1"], ["1 of 2 words"])
    assert asked(q="couch", price_max=10) == ([], []), "filters hold unless the storefront says otherwise"
    assert asked(q="couch", price_max=10, rescue="on") == (["c1"], ["filter price dropped"])
    assert asked(q="qqqqqqqq", price_max=10, rescue="on") == ([], [])

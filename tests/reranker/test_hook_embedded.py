"""The hook over the embedded engine: the same behaviour with no server behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from endcap.catalog import Product
from endcap.runtime import Runtime, open_runtime
from endcap.settings import Settings
from endcap_reranker.app import create_app
from tests.reranker.hook_support import SHOPPER, ByHash, expected_order, ids, products, whole_hits, without_hits
from tests.reranker.test_hook_clients import SEARCH_UI, SEARCHKIT

RED: dict[str, Any] = {"query": {"match": {"title": "red"}}}


@pytest.fixture(scope="module", params=["never", "always"])
def runtime(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Runtime]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        text_encoder="none",
        index="shop",
        window=50,
        two_phase=request.param,
    )
    runtime = open_runtime(settings, start=False)
    items = [
        Product(f"p{number}", product["title"], brand=product.get("brand", ""), price=product.get("price"))
        for number, product in enumerate(products())
    ]
    runtime.engine.ensure(None, "")
    runtime.engine.upsert((item, None, "") for item in items)
    runtime.engine.refresh()
    runtime.personalizer.close()
    runtime.personalizer = ByHash()  # type: ignore[assignment]
    try:
        yield runtime
    finally:
        runtime.engine.close()
        runtime.log.close()


def ask(runtime: Runtime, body: dict[str, Any], **headers: str) -> Any:
    answer = create_app(runtime).test_client().post("/shop/_search", json=body, headers=headers)
    assert answer.status_code == 200, answer.data
    return answer.json


@pytest.mark.parametrize(
    "body", [RED, {}, SEARCHKIT, SEARCH_UI, {**RED, "highlight": {"fields": {"title": {}}}, "size": 7}]
)
def test_pages_are_cut_from_the_shoppers_order(runtime: Runtime, body: dict[str, Any]) -> None:
    body = {name: part for name, part in body.items() if name != "runtime_mappings"}
    whole = ask(runtime, {**body, "from": 0, "size": 180})
    start, size = body.get("from", 0), body.get("size", 10)
    answer = ask(runtime, body, **SHOPPER)
    assert ids(answer) == expected_order(ids(whole))[start : start + size]
    assert without_hits(answer) == without_hits(whole)
    assert all(whole_hits(whole)[name] == hit for name, hit in whole_hits(answer).items())


def test_pages_partition_the_answer(runtime: Runtime) -> None:
    found = [one for start in range(0, 190, 19) for one in ids(ask(runtime, {"from": start, "size": 19}, **SHOPPER))]
    assert found == expected_order(ids(ask(runtime, {"size": 180})))


def test_what_it_does_not_answer_is_refused_in_elasticsearchs_shape(runtime: Runtime) -> None:
    client = create_app(runtime).test_client()
    answer = client.post("/shop/_search", json={"query": {"script_score": {}}}, headers=SHOPPER)
    assert answer.status_code == 400
    assert answer.json["error"]["root_cause"]
    assert client.post("/other/_search", json={}).status_code == 403

"""``/v1/rerank`` in the shapes that engines and clients send, over real products and purchases."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from endcap.runtime import Runtime, open_runtime
from endcap_reranker.app import create_app
from tests.reranker.demo_support import open_shop, set_up_shop, shop_settings

SHOPPER = "rerank-tester"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with open_shop(set_up_shop(tmp_path_factory.mktemp("shop"), text_encoder="none")) as opened:
        yield opened


@pytest.fixture(scope="module")
def ids(runtime: Runtime, client: FlaskClient) -> list[str]:
    """Twenty products, the last of which the shopper bought three times."""
    table = runtime.personalizer.table
    assert table is not None
    chosen = table.ids[:20]
    event = {"action_name": "purchase", "client_id": SHOPPER, "event_attributes": {"object": {"object_id": chosen[-1]}}}
    assert client.post("/v1/events", json=[event] * 3).get_json()["accepted"] == 3
    return chosen


def scored(client: FlaskClient, body: Any, **headers: str) -> tuple[list[float], Any, Any]:
    """Scores in input order, the answer's body and headers; checks that every document has exactly one good score."""
    answer = client.post("/v1/rerank", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    said = answer.get_json()
    rows = said if isinstance(said, list) else said["results"]
    count = len(body.get("documents") or body["texts"])
    assert sorted(row["index"] for row in rows) == list(range(count))
    values = {row["index"]: row.get("score", row.get("relevance_score")) for row in rows}
    scores = [values[place] for place in range(count)]
    assert all(isinstance(one, float) and math.isfinite(one) and one >= 0 for one in scores)
    return scores, said, answer.headers


def test_cohere_and_jina(client: FlaskClient, ids: list[str]) -> None:
    body = {"model": "endcap", "query": "milk", "documents": ids, "user": SHOPPER}
    scores, said, headers = scored(client, body)
    assert set(said) == {"model", "results"}
    assert all(set(row) == {"index", "relevance_score"} for row in said["results"])
    assert said["results"][0]["index"] == 19 == scores.index(max(scores))
    assert [row["relevance_score"] for row in said["results"]] == sorted(scores, reverse=True)
    assert headers["X-Endcap-Personalized"] == "1"
    assert headers["X-Endcap-Ranking"]
    assert "X-Endcap-Degraded" not in headers


def test_top_n_and_documents_as_cohere_gives_them(client: FlaskClient, ids: list[str]) -> None:
    documents = [{"id": one, "text": f"text of {one}"} for one in ids]
    body = {"query": "milk", "documents": documents, "top_n": 3, "return_documents": True, "user": SHOPPER}
    results = client.post("/v1/rerank", json=body).get_json()["results"]
    assert len(results) == 3
    assert results[0] == {
        "index": 19,
        "relevance_score": results[0]["relevance_score"],
        "document": {"text": f"text of {ids[19]}"},
    }


def test_tei(client: FlaskClient, ids: list[str]) -> None:
    body = {"query": "milk", "texts": ids, "return_text": True}
    scores, said, _ = scored(client, body, **{"X-Endcap-Shopper": SHOPPER})
    assert all(set(row) == {"index", "score", "text"} for row in said)
    assert said[0]["index"] == 19
    assert said[0]["text"] == ids[19]
    assert max(scores) <= 1
    raw, said, _ = scored(client, {"query": "milk", "texts": ids, "raw_scores": True}, **{"X-Endcap-Shopper": SHOPPER})
    assert all(set(row) == {"index", "score"} for row in said)
    assert max(raw) > 1
    assert sorted(range(20), key=raw.__getitem__) == sorted(range(20), key=scores.__getitem__)


def test_elasticsearchs_custom_service(client: FlaskClient, ids: list[str]) -> None:
    """``"request": "{\\"query\\":${query},\\"documents\\":${input}}"``: both are put in as JSON, unquoted."""
    template = '{"query":%s,"documents":%s}'
    inference_text = json.dumps({"q": "milk", "user": SHOPPER})
    sent = template % (json.dumps(inference_text), json.dumps(ids))
    answer = client.post(
        "/v1/rerank", data=sent, content_type="application/json", headers={"Authorization": "Bearer x"}
    )
    rows = answer.get_json()["results"]
    # $.results[*].relevance_score and $.results[*].index, and nothing that its parsers refuse.
    assert all(set(row) == {"index", "relevance_score"} for row in rows)
    assert sorted(row["index"] for row in rows) == list(range(20))
    assert rows[0]["index"] == 19
    assert answer.headers["X-Endcap-Personalized"] == "1"


def test_opensearchs_ml_inference_gets_scores_in_input_order(client: FlaskClient, ids: list[str]) -> None:
    scores, said, _ = scored(client, {"query": "milk", "documents": ids, "user_id": SHOPPER})
    assert [row["relevance_score"] for row in said["results"]] == scores
    assert scores.index(max(scores)) == 19
    quoted, _, _ = scored(client, {"query": "milk", "documents": ids, "user_id": ""})
    assert quoted == sorted(quoted, reverse=True)
    answer = client.post("/v1/rerank", json={"query": "milk", "documents": json.dumps(ids), "user_id": SHOPPER})
    assert [row["relevance_score"] for row in answer.get_json()["results"]] == pytest.approx(scores, abs=1e-5)


SHAPES: dict[str, Callable[[list[Any], str], Any]] = {
    "cohere": lambda documents, who: {"model": "endcap", "query": "milk", "documents": documents, "user": who},
    "jina": lambda documents, who: {
        "model": "endcap", "query": "milk", "documents": [{"text": str(one)} for one in documents], "user": who,
        "top_n": len(documents), "return_documents": True,
    },
    "tei": lambda documents, who: {"query": json.dumps({"q": "milk", "user": who}), "texts": documents},
    "tei, raw": lambda documents, who: {"query": "milk", "texts": documents, "raw_scores": True, "user": who},
    "elasticsearch": lambda documents, who: {"query": json.dumps({"q": "milk", "user": who}), "documents": documents},
    "opensearch": lambda documents, who: {"query": "milk", "documents": documents, "user_id": who},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("who", [SHOPPER, ""])
def test_every_shape_gives_each_document_exactly_one_good_score(
    client: FlaskClient, ids: list[str], shape: str, who: str
) -> None:
    lists: list[list[str]] = [
        ids[:1],
        ["no such product"],
        ids[:3] * 2,  # one product twice
        [
            ids[0],
            "",
            " ",
            "unknown",
            f"Milk ({ids[1]})",
            json.dumps({"id": ids[2]}),
            f"{ids[3]} {ids[4]}",
            "\ud83e\udd5b",
        ],
        ids * 60,
    ]
    for documents in lists:
        scores, said, _ = scored(client, SHAPES[shape](documents, who))
        rows = said if isinstance(said, list) else said["results"]
        in_order = [row["index"] for row in rows] == list(range(len(documents)))
        if shape == "opensearch":
            assert in_order
        else:
            given = [row.get("score", row.get("relevance_score")) for row in rows]
            assert given == sorted(given, reverse=True)
        # What Elasticsearch makes of a score keeps the order.
        engines = [max(one, 0.0) + min(math.exp(one), 1.0) for one in scores]
        by_score = sorted(range(len(scores)), key=scores.__getitem__)
        assert sorted(range(len(scores)), key=engines.__getitem__) == by_score


def test_elasticsearchs_parser_reads_two_lists_of_one_length(client: FlaskClient, ids: list[str]) -> None:
    """``$.results[*].index`` holds every place once; an optional part of the template may come as null."""
    sent = f'{{"query":"milk","documents":{json.dumps(ids)},"top_n":null,"return_documents":null}}'
    rows = client.post("/v1/rerank", data=sent, content_type="application/json").get_json()["results"]
    assert sorted(row["index"] for row in rows) == list(range(20))
    assert all(type(row["index"]) is int and type(row["relevance_score"]) is float for row in rows)


@pytest.mark.parametrize(
    "write",
    [
        lambda one: one,
        lambda one: int(one),
        lambda one: {"id": one},
        lambda one: {"text": json.dumps({"product_id": one, "title": "Milk"})},
        lambda one: json.dumps({"_id": one}),
        lambda one: f"id: {one} | title: Milk, 1 gal",
        lambda one: f"Milk, 1 gal ({one})",
    ],
)
def test_a_document_may_say_which_product_it_is_in_many_ways(client: FlaskClient, ids: list[str], write: Any) -> None:
    plain, _, _ = scored(client, {"query": "milk", "documents": ids, "user": SHOPPER})
    other, _, headers = scored(client, {"query": "milk", "documents": [write(one) for one in ids], "user": SHOPPER})
    assert other == pytest.approx(plain, abs=1e-5)
    assert "X-Endcap-Degraded" not in headers


def test_unknown_documents_stand_in_the_middle(client: FlaskClient, ids: list[str]) -> None:
    documents = [*ids[:10], "no such product", *ids[10:], "", f"{ids[0]} or {ids[1]}"]
    scores, _, headers = scored(client, {"query": "milk", "documents": documents, "user": SHOPPER})
    for place in (10, 21, 22):
        assert scores[place] == pytest.approx(0.5)
    known = sorted(scores[place] for place in range(23) if place not in (10, 21, 22))
    assert known[0] < 0.5 < known[-1]
    assert headers["X-Endcap-Personalized"] == "1"


def test_only_unknown_documents_keep_their_order(client: FlaskClient, ids: list[str]) -> None:
    scores, _, headers = scored(client, {"query": "x", "documents": ["one thing", "another thing"], "user": SHOPPER})
    assert scores[0] > scores[1]
    assert headers["X-Endcap-Degraded"] == "unknown_documents"


@pytest.mark.parametrize("who", [{}, {"user": "x" * 5_000}])
def test_nobody_gets_the_order_that_came_in(client: FlaskClient, ids: list[str], who: dict[str, str]) -> None:
    scores, said, headers = scored(client, {"query": "milk", "documents": ids, **who})
    assert [row["index"] for row in said["results"]] == list(range(20))
    assert len(set(scores)) == 20
    assert headers["X-Endcap-Personalized"] == "0"
    assert headers.get("X-Endcap-Degraded") == ("shopper_id" if who else None)


def test_the_header_switches_it_off(client: FlaskClient, ids: list[str]) -> None:
    body = {"query": "milk", "documents": ids, "user": SHOPPER}
    scores, _, headers = scored(client, body, **{"X-Endcap-Personalize": "off"})
    assert scores == sorted(scores, reverse=True)
    assert headers["X-Endcap-Personalized"] == "0"


def test_before_the_products_are_known_it_fails_open(tmp_path: Path) -> None:
    runtime = open_runtime(shop_settings(tmp_path, text_encoder="none"), start=False)
    scores, _, headers = scored(
        create_app(runtime).test_client(), {"query": "x", "documents": ["1", "2", "3"], "user": "u"}
    )
    assert scores == sorted(scores, reverse=True)
    assert headers["X-Endcap-Degraded"] == "warming_up"
    runtime.close()


def test_a_signed_shop_believes_only_signed_shoppers(tmp_path: Path) -> None:
    runtime = open_runtime(shop_settings(tmp_path, text_encoder="none", shopper_secret="s3cret"), start=False)
    _, _, headers = scored(create_app(runtime).test_client(), {"query": "x", "documents": ["1"], "user": "u"})
    assert headers["X-Endcap-Degraded"] == "shopper_signature"
    runtime.close()


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ({"query": "x"}, "documents"),
        ({"documents": ["1"]}, "query"),
        ({"query": 7, "documents": ["1"]}, "query"),
        ({"query": "x" * 1001, "documents": ["1"]}, "query"),
        ({"query": "x", "documents": []}, "documents"),
        ({"query": "x", "texts": []}, "texts"),
        ({"query": "x", "documents": ["1"], "texts": ["1"]}, "one of the two"),
        ({"query": "x", "documents": "milk"}, "documents"),
        ({"query": "x", "documents": ["1", None]}, "documents.1"),
        ({"query": "x", "documents": [["1"]]}, "documents.0"),
        ({"query": "x", "documents": ["1"] * 10_001}, "10000"),
        ({"query": "x", "documents": ["1"], "top_n": 0}, "top_n"),
        ({"query": "x", "documents": ["1"], "top_n": "all"}, "top_n"),
        ({"query": "x", "documents": ["1"], "return_documents": "yes"}, "return_documents"),
    ],
)
def test_bad_input_is_named(client: FlaskClient, body: Any, names: str) -> None:
    sent = body if isinstance(body, str) else json.dumps(body)
    answer = client.post("/v1/rerank", data=sent, content_type="application/json")
    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"
    assert names in answer.get_json()["detail"]


def test_many_ids_are_taken_and_so_many_texts_are_not(client: FlaskClient, ids: list[str]) -> None:
    """Ids are looked up all at once; every text costs a reading, for which nobody's deadline is long enough."""
    many = ids * 500
    for documents in (many, [{"id": one} for one in many], [int(one) for one in many]):
        assert len(scored(client, {"query": "milk", "documents": documents, "user": SHOPPER})[0]) == 10_000
    texts = [f"Milk ({one})" for one in (ids * 51)[:1_001]]
    scored(client, {"query": "milk", "documents": texts[1:], "user": SHOPPER})
    for named in ("documents", "texts"):
        answer = client.post("/v1/rerank", json={"query": "milk", named: [*texts, *ids]})
        assert answer.status_code == 400
        assert answer.get_json()["detail"].startswith(f"{named}: 1001 texts; at most 1000")


def test_other_refusals(client: FlaskClient) -> None:
    assert client.get("/v1/rerank").status_code == 405
    assert client.post("/v1/rerank", data="<q/>", content_type="application/xml").status_code == 415

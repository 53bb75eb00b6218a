"""The storefront API's OpenAPI document: valid, whole, and what real answers look like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, TypeAdapter

from endcap.runtime import Runtime
from endcap_reranker.api import answers
from endcap_reranker.api.blueprint import ROUTES
from tests.reranker.demo_support import open_shop, set_up_shop


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with open_shop(set_up_shop(tmp_path_factory.mktemp("shop"))) as opened:
        opened.discovery.refresh()
        yield opened


@pytest.fixture(scope="module")
def described(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/v1/openapi.json")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    return dict(answer.get_json())


def names(described: dict[str, Any], path: str, method: str = "get") -> set[str]:
    return {one["name"] for one in described["paths"][path][method]["parameters"] if "name" in one}


def test_the_document_is_valid_and_has_every_route(described: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(described).validate()
    there = {path.removeprefix("/v1/").partition("/")[0]: set(one) for path, one in described["paths"].items()}
    assert there == {path: {method.lower() for method in methods} for path, methods in ROUTES.items()}
    operations = [one["operationId"] for path in described["paths"].values() for one in path.values()]
    assert len(operations) == len(set(operations))


def test_what_it_says_of_parameters_is_taken(client: FlaskClient, described: dict[str, Any]) -> None:
    assert {"q", "brand", "price_min", "stock_max", "attributes", "facets", "rescue"} <= names(described, "/v1/search")
    assert {"ids", "exclude", "size", "category"} <= names(described, "/v1/similar/{product}")
    assert names(described, "/v1/suggest") == {"q", "queries", "products", "categories"}
    content = described["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"]["required"] == ["image"]
    for path in ("/v1/search", "/v1/suggest", "/v1/trending"):
        for name in names(described, path) - {"attributes"}:
            answer = client.get(path, query_string={"q": "milk", name: ""} if "trend" not in path else {name: ""})
            assert "Extra inputs" not in answer.text, (path, name)
    assert client.get("/v1/search", query_string={"q": "milk", "attributes.size": "22 lb"}).status_code == 200


def exactly(model: type[BaseModel] | Any, said: Any) -> None:
    """The answer has the model's fields and no others."""
    kind: TypeAdapter[Any] = TypeAdapter(model)
    made = kind.dump_python(kind.validate_python(said), mode="json", exclude_unset=True)
    assert made == said


def test_real_answers_are_as_it_says(client: FlaskClient) -> None:
    who = {"X-Endcap-Shopper": "someone"}
    said = client.get("/v1/search?q=milk&facets=brand,price&highlight=on&explain=on", headers=who).get_json()
    assert said["hits"]
    exactly(answers.SearchAnswer, said)
    product = said["hits"][0]["id"]
    for path in ("recommend", "trending", "buy-again", f"similar/{product}", f"cross-sell?ids={product}"):
        exactly(answers.RecommendAnswer, client.get(f"/v1/{path}", headers=who).get_json())
    exactly(answers.SuggestAnswer, client.get("/v1/suggest?q=mil", headers=who).get_json())
    events = [
        {"action_name": "click", "client_id": "someone", "event_attributes": {"object": {"object_id": product}}},
        {"action_name": "dance"},
    ]
    for event in events[:1]:
        answers.EventBody.model_validate(event)
    said = client.post("/v1/events", json=events).get_json()
    assert (said["accepted"], said["rejected"]) == (1, 1)
    exactly(answers.EventsAnswer, said)
    joined = {"from": "anonymous-openapi", "to": "someone"}
    answers.IdentifyBody.model_validate(joined)
    exactly(answers.IdentifyAnswer, client.post("/v1/identify", json=joined).get_json())
    asked = {"query": "milk", "documents": [product, "x"], "return_documents": True, "user": "someone"}
    answers.RerankBody.model_validate(asked)
    exactly(answers.RerankAnswer, client.post("/v1/rerank", json=asked).get_json())
    exactly(list[answers.TeiAnswer], client.post("/v1/rerank", json={"query": "milk", "texts": [product]}).get_json())


@pytest.mark.parametrize("first", ["endcap_reranker.admin.openapi", "endcap_reranker.api.openapi"])
def test_either_document_can_be_made_first(first: str) -> None:
    """`endcap openapi` begins with the admin side, a server with the other."""
    subprocess.run([sys.executable, "-c", f"import {first}"], check=True, timeout=60)

"""The admin API against its own document: whatever is sent, every answer is one that the document has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from endcap.catalog import Product
from endcap.indexing import index_products
from endcap.registry import Registry
from endcap.runtime import Runtime, open_runtime
from endcap.settings import load_settings
from endcap_reranker.app import create_app

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
    ignored_auth,
]
#: Operations whose bodies have demands between fields that JSON Schema cannot state: weights that sum to 1, what a kind
#: of rule takes. There a valid-looking body may be refused; that the reason is given is tested elsewhere.
UNSTATED = {f"{method} /admin/v1/{path}" for method, path in (
    ("POST", "rules"), ("PUT", "rules/{number}"), ("POST", "experiments"), ("PUT", "experiments/{name}"),
    ("POST", "synonyms"),
)}  # fmt: skip
TOKEN = "t" * 40
DOCUMENT = "/admin/v1/openapi.json"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("admin")
    chosen = load_settings(
        data_dir=folder, text_encoder="none", admin_token=TOKEN, admin_calls_per_minute=1_000_000,
        login_failures_per_minute=1_000_000,
    )  # fmt: skip
    made = open_runtime(chosen, start=False)
    index_products([Product(id=f"p{n}", title=f"milk {n}") for n in range(5)], made.engine, None)
    made.upkeep.reload()
    registry = Registry(made.database, chosen.models_folder)
    registry.add_candidate("policy", "1", Path(folder), {"ndcg": 0.5})
    yield made
    made.close()


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> Flask:
    return create_app(runtime)


def test_every_answer_is_one_that_the_document_has(app: Flask) -> None:
    described = schemathesis.openapi.from_wsgi(DOCUMENT, app)
    wrong: dict[str, str] = {}
    for found in described.get_all_operations():
        operation = found.ok()
        try:
            _fuzz(operation)
        except (AssertionError, FailureGroup) as error:
            wrong[operation.label] = str(error)
    assert not wrong, "\n\n".join(f"{label}\n{text}" for label, text in wrong.items())


def _fuzz(operation: Any) -> None:
    checks = [one for one in CHECKS if one is not positive_data_acceptance or operation.label not in UNSTATED]
    strategy = operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE)

    @given(case=strategy)
    @settings(max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, checks=checks)

    ask()


def test_the_document_is_openapi_3_1(app: Flask) -> None:
    described = app.test_client().get(DOCUMENT).get_json()
    assert described["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(described).validate()

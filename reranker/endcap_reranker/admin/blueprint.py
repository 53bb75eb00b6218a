"""The admin API's blueprint: every topic's operations under ``/admin/v1``, and the document that describes them."""

from __future__ import annotations

from importlib import import_module

import orjson
from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import PathConverter

from endcap.runtime import Runtime
from endcap_reranker.admin.access import guarded
from endcap_reranker.admin.openapi import document
from endcap_reranker.admin.operation import JSON, Topic
from endcap_reranker.api.problems import answer_problems

PREFIX = "/admin/v1"
_ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

#: Modules with ``routes(runtime) -> Topic``, in the order of the documentation.
TOPICS = (
    "endcap_reranker.admin.runs",
    "endcap_reranker.admin.versions",
    "endcap_reranker.admin.catalogue",
    "endcap_reranker.admin.products",
    "endcap_reranker.admin.augmentation",
    "endcap_reranker.admin.shoppers",
    "endcap_reranker.admin.traffic",
    "endcap_reranker.admin.settings",
    "endcap_reranker.admin.audit",
    "endcap_reranker.admin.rules",
    "endcap_reranker.admin.synonyms",
    "endcap_reranker.admin.experiments",
    "endcap_reranker.admin.flags",
    "endcap_reranker.admin.reports",
)


def topics(runtime: Runtime) -> list[Topic]:
    """Every topic over a runtime."""
    return [import_module(name).routes(runtime) for name in TOPICS]


class Anything(PathConverter):
    """The rest of a path, line breaks included: what is no path of ours is refused in our own words, too."""

    regex = r"[^/](?s:.)*?"


def _know_anything(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["anything"] = Anything


def create_admin(runtime: Runtime) -> Blueprint:
    """The admin API over a runtime."""
    admin = Blueprint("endcap_admin", __name__, url_prefix=PREFIX)
    admin.record_once(_know_anything)
    all_topics = topics(runtime)
    methods: dict[str, list[str]] = {}
    for topic in all_topics:
        for one in topic.operations:
            view = one.view(runtime.settings.max_body_bytes)
            # HEAD would come with every GET by itself; it is not in the document, and nobody needs it here.
            admin.add_url_rule(one.path, endpoint=one.name, view_func=view, methods=[one.method])
            methods.setdefault(one.path, []).append(one.method)

    described = orjson.dumps(document(all_topics), option=orjson.OPT_INDENT_2)

    @admin.get("/openapi.json")
    def openapi() -> Response:
        # Open to everyone: it says what there is, which is public, and nothing of what is in it.
        return Response(described, content_type=JSON)

    answer_problems(admin)

    guarded(admin, runtime)

    # Flask asks a blueprint about a 404 or 405 only where one of its own routes matched: these catch the rest.
    def refuse(**parts: str) -> Response:
        allowed = methods.get(str(request.url_rule.rule).removeprefix(PREFIX) if request.url_rule else "")
        if allowed:
            raise MethodNotAllowed(valid_methods=allowed)
        raise NotFound(f"there is no such path; {PREFIX}/openapi.json lists them all")

    for path, known in methods.items():
        others = [one for one in _ALL_METHODS if one not in known]
        admin.add_url_rule(path, endpoint=f"refuse {path}".replace(".", " "), view_func=refuse, methods=others)
    for path in ("/", "/<anything:path>"):
        admin.add_url_rule(path, endpoint=f"unknown {path}", view_func=refuse, methods=_ALL_METHODS)
    return admin

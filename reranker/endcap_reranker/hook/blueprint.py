"""The hook as a Flask blueprint, mountable in anyone's application.

Only searches get through: ``_search`` and ``_msearch`` of the indices that the settings name, and ``GET /`` by which
some clients find out what they talk to. Everything else is refused here, in Elasticsearch's own words.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, abort, request

from endcap.errors import EndcapError
from endcap_reranker import telemetry
from endcap_reranker.cors import Cors
from endcap_reranker.errors import Forbidden, UnsupportedMediaType, error_response, json_response
from endcap_reranker.hook.service import Hook, HookParts

_ALL_METHODS = ["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH"]
_SEARCH_METHODS = ("GET", "POST", "HEAD")


def hook_blueprint(runtime: HookParts, url_prefix: str = "", name: str = "endcap_hook") -> Blueprint:
    """The hook in front of ``runtime.wire``.

    Mounted at the root it also answers paths that begin with an underscore, and single names of searchable indices
    (refusing them); an application with pages of its own can mount it under a prefix instead.
    """
    hook = Hook(runtime)
    blueprint = Blueprint(name, __name__, url_prefix=url_prefix or None)

    def search(index: str | None = None) -> Response:
        return _endpoint("_search", index)

    def msearch(index: str | None = None) -> Response:
        return _endpoint("_msearch", index)

    def _endpoint(endpoint: str, index: str | None) -> Response:
        if request.method not in _SEARCH_METHODS:
            return _counted(endpoint, _wrong_method())
        incoming = hook.incoming(request, ndjson=endpoint == "_msearch")
        if request.method == "HEAD":
            answer = hook.head(incoming, index, endpoint)
        elif endpoint == "_search":
            answer = hook.search(incoming, index)
        else:
            answer = hook.msearch(incoming, index)
        return _counted(endpoint, answer)

    def scroll() -> Response:
        if not hook.guard.cursors:
            raise Forbidden("scroll is not allowed here: page with from and size, or with search_after")
        if request.method not in _SEARCH_METHODS:
            return _wrong_method()
        return hook.scroll(hook.incoming(request, ndjson=False))

    def info() -> Response:
        # A browser that opens the hook's address wants a page, and there is none here.
        if request.accept_mimetypes.accept_html and "text/html" in request.headers.get("Accept", ""):
            abort(404)
        return hook.info(hook.incoming(request, ndjson=False))

    def refused(**parts: Any) -> Response:
        raise Forbidden(f"[{request.method} {request.path[:200]}] is not allowed here: only _search and _msearch are")

    blueprint.add_url_rule("/_search", view_func=search, methods=_ALL_METHODS)
    blueprint.add_url_rule("/_msearch", view_func=msearch, methods=_ALL_METHODS)
    blueprint.add_url_rule("/_search/scroll", view_func=scroll, methods=_ALL_METHODS)
    blueprint.add_url_rule("/<index>/_search", view_func=search, methods=_ALL_METHODS)
    blueprint.add_url_rule("/<index>/_msearch", view_func=msearch, methods=_ALL_METHODS)
    blueprint.add_url_rule("/_<path:rest>", view_func=refused, methods=_ALL_METHODS)
    blueprint.add_url_rule("/<index>/_<path:rest>", view_func=refused, methods=_ALL_METHODS)
    for number, index in enumerate(sorted(hook.guard.allowed)):
        path = "/" + index.replace("<", "")  # no name of an index has one
        blueprint.add_url_rule(path, f"refused_{number}", refused, methods=_ALL_METHODS)
    blueprint.add_url_rule("/", view_func=info, methods=["GET", "HEAD"])

    cors = Cors(runtime.settings)
    if cors.origins:
        blueprint.after_request(cors)

    @blueprint.errorhandler(UnsupportedMediaType)
    def _media_type(error: UnsupportedMediaType) -> Response:
        return _counted("refused", json_response({"error": str(error), "status": error.status}, error.status))

    @blueprint.errorhandler(EndcapError)
    def _endcap(error: EndcapError) -> Response:
        return _counted("refused", error_response(error))

    return blueprint


def _counted(endpoint: str, answer: Response) -> Response:
    telemetry.REQUESTS.labels(endpoint, str(answer.status_code)).inc()
    return answer


def _wrong_method() -> Response:
    reason = f"Incorrect HTTP method for uri [{request.path[:200]}] and method [{request.method}], allowed: [GET, POST]"
    answer = json_response({"error": reason, "status": 405}, 405)
    answer.headers["Allow"] = "GET,POST"
    return answer

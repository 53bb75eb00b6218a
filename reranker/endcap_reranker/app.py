"""The application factory: the hook, Endcap's own API and the storefront demo in one Flask application."""

from __future__ import annotations

import importlib
import importlib.util

from flask import Flask, Response

from endcap.errors import EndcapError
from endcap.runtime import Runtime
from endcap_reranker import telemetry
from endcap_reranker.api.problems import problem_of
from endcap_reranker.bookkeeping import keep_books
from endcap_reranker.doors import check_details, hang_doors, may_see_details
from endcap_reranker.draining import draining
from endcap_reranker.errors import install_error_handlers, json_response
from endcap_reranker.hook import hook_blueprint
from endcap_reranker.proxies import TrustedProxies

#: Factories (``module:function``, each taking the runtime) of the blueprints beside the hook, in the order mounted.
BLUEPRINTS = (
    "endcap_reranker.api:create_api",
    "endcap_reranker.admin.blueprint:create_admin",
    "endcap_reranker.console:create_console",
    "endcap_reranker.demo.pages:create_demo",
)


def create_app(runtime: Runtime) -> Flask:
    """A WSGI application over a runtime. The caller closes the runtime."""
    app = Flask("endcap_reranker", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # A redirect is no answer to a search: what is not a path of ours is refused.
    app.url_map.merge_slashes = False
    app.extensions["endcap"] = runtime
    install_error_handlers(app)
    keep_books(app, runtime)
    hang_doors(app, runtime)
    app.wsgi_app = TrustedProxies(app.wsgi_app, runtime.settings.trusted_proxies)  # type: ignore[method-assign]
    register_blueprints(app, runtime)

    @app.get("/healthz")
    def healthz() -> Response:
        return json_response({"status": "ok"})

    @app.get("/readyz")
    def readyz() -> Response:
        # Searches work as soon as the engine does. While the products are still being loaded they go out in the
        # engine's order; taking the server out of service for that would be worse.
        state: dict[str, object] = {
            "personalizing": runtime.upkeep.ready,
            "recommending": runtime.discovery.caught_up,
        }
        details = may_see_details(runtime.settings)
        if details:
            state["problems"] = runtime.upkeep.problems
        if draining():
            return json_response({"status": "stopping", **state}, 503)
        try:
            products = runtime.engine.count()
        except EndcapError as error:
            reason = {"reason": str(error)} if details else {}
            return json_response({"status": "unavailable", **reason, **state}, 503)
        if details:
            state |= {"engine": runtime.engine.name, "products": products}
        return json_response({"status": "ready", **state})

    @app.get("/metrics")
    def metrics() -> Response:
        try:
            check_details(runtime.settings)
        except EndcapError as error:
            return problem_of(error)
        body, media_type = telemetry.exposition(runtime)
        return Response(body, content_type=media_type)

    return app


def register_blueprints(app: Flask, runtime: Runtime) -> None:
    """Mount every part. The hook comes last: where a page of the application has the same path, the page answers."""
    for name in BLUEPRINTS:
        module, _, function = name.partition(":")
        if importlib.util.find_spec(module) is not None:
            app.register_blueprint(getattr(importlib.import_module(module), function)(runtime))
    app.register_blueprint(hook_blueprint(runtime))

"""The blueprint: routes, CORS and the error format. What the routes do is in the modules beside it."""

from __future__ import annotations

import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import MethodNotAllowed, NotFound

from endcap.errors import InvalidInput, TooLarge
from endcap.recall import Recaller
from endcap.recommend import Recommender
from endcap.runtime import Runtime, open_fetcher
from endcap_reranker.api.events import accept_events, identify
from endcap_reranker.api.openapi import document
from endcap_reranker.api.parameters import checked, from_json, from_query, read_body
from endcap_reranker.api.photo import UPLOAD, PhotoSlots, named, picture_of, refuse_other, uploaded
from endcap_reranker.api.problems import answer_problems
from endcap_reranker.api.recommend import known_product, recommend, recommend_parameters
from endcap_reranker.api.rerank import parse_rerank, rerank
from endcap_reranker.api.search import search
from endcap_reranker.api.suggest import SuggestParameters, suggest
from endcap_reranker.cors import Cors
from endcap_reranker.identity import ANONYMOUS, Identifier, Identity, personalization_off

#: What there is, and by which methods.
ROUTES = {
    "search": ["GET", "POST"],
    "events": ["POST"],
    "identify": ["POST"],
    "rerank": ["POST"],
    "suggest": ["GET"],
    "recommend": ["GET"],
    "similar": ["GET"],
    "cross-sell": ["GET"],
    "trending": ["GET"],
    "buy-again": ["GET"],
    "openapi.json": ["GET"],
}


def create_api(runtime: Runtime) -> Blueprint:
    """The API over a runtime. Mount it in any Flask application: ``app.register_blueprint(create_api(runtime))``."""
    api = Blueprint("endcap_api", __name__, url_prefix="/v1")
    settings = runtime.settings
    identifier = Identifier(settings)
    fetcher, photo_slots = open_fetcher(settings), PhotoSlots(settings)
    recaller = Recaller(
        runtime.engine, runtime.encoder, lambda: runtime.synonyms.current, lambda: runtime.discovery.compounds
    )
    discovery = runtime.discovery
    recommender = Recommender(
        discovery, runtime.personalizer, runtime.profiles, runtime.engine.nearest if runtime.encoder else None
    )

    @api.get("/search")
    def search_get() -> Response:
        return _json(
            search(runtime, recaller, from_query(request.args), identifier.of_request(request), _switched_off())
        )

    @api.post("/search")
    def search_post() -> Response:
        who = identifier.of_request(request)
        if request.mimetype == UPLOAD:
            with photo_slots.one():
                wanted, picture = uploaded(request, settings)
                return _json(search(runtime, recaller, wanted, who, _switched_off(), picture))
        refuse_other(request.mimetype)
        # A picture in base64 takes a third more than its bytes.
        body = read_body(request, max(settings.max_body_bytes, settings.max_image_bytes * 3 // 2))
        if (photo := named(body, settings)) is not None:
            with photo_slots.one():
                picture = picture_of(photo[1], fetcher)
                return _json(search(runtime, recaller, photo[0], who, _switched_off(), picture))
        if len(body) > settings.max_body_bytes:
            raise TooLarge(f"the body exceeds {settings.max_body_bytes} bytes (setting max_body_bytes)")
        wanted = from_json(body, request.mimetype)
        return _json(search(runtime, recaller, wanted, who, _switched_off()))

    @api.post("/events")
    def events_post() -> Response:
        body = read_body(request, settings.max_body_bytes)
        return _json(accept_events(runtime, identifier, body, request.mimetype, identifier.of_request(request)))

    @api.post("/identify")
    def identify_post() -> Response:
        return _json(identify(runtime, identifier, read_body(request, settings.max_body_bytes)))

    @api.post("/rerank")
    def rerank_post() -> Response:
        wanted = parse_rerank(read_body(request, settings.max_body_bytes), request.mimetype)
        made = rerank(runtime, wanted, identifier, identifier.of_request(request), _switched_off())
        response = _json(made.body)
        response.headers.update(made.headers)
        return response

    @api.get("/suggest")
    def suggest_get() -> Response:
        wanted = checked(SuggestParameters, request.args.to_dict())
        return _json(suggest(runtime, discovery, wanted, identifier.of_request(request), _switched_off()))

    @api.get("/recommend")
    def recommend_get() -> Response:
        wanted = recommend_parameters(request.args)
        return _json(recommend(runtime, recommender, wanted.placement, wanted, _shopper(wanted.shopper), wanted.ids))

    @api.get("/similar/<path:product>")
    def similar(product: str) -> Response:
        wanted = recommend_parameters(request.args)
        seeds = [known_product(runtime, discovery, product)]
        return _json(recommend(runtime, recommender, "similar", wanted, _shopper(wanted.shopper), seeds))

    @api.get("/cross-sell")
    def cross_sell() -> Response:
        wanted = recommend_parameters(request.args)
        if not wanted.ids:
            raise InvalidInput("ids: name the products in view, ids=1,2")
        return _json(recommend(runtime, recommender, "cross-sell", wanted, _shopper(wanted.shopper), wanted.ids))

    @api.get("/trending")
    def trending() -> Response:
        wanted = recommend_parameters(request.args)
        return _json(recommend(runtime, recommender, "trending", wanted, _shopper(wanted.shopper)))

    @api.get("/buy-again")
    def buy_again() -> Response:
        wanted = recommend_parameters(request.args)
        return _json(recommend(runtime, recommender, "buy-again", wanted, _shopper(wanted.shopper)))

    described = orjson.dumps(document(settings), option=orjson.OPT_INDENT_2)

    @api.get("/openapi.json")
    def openapi() -> Response:
        return Response(described, content_type="application/json")

    def _shopper(named: str) -> Identity:
        if _switched_off():
            return ANONYMOUS
        return identifier.check(named) if named else identifier.of_request(request)

    def _switched_off() -> bool:
        return personalization_off(request, settings)

    api.after_request(Cors(settings))

    answer_problems(api)

    # Flask asks a blueprint about a 404 or 405 only where one of its own routes matched: these catch the rest of /v1.
    @api.route("/", defaults={"path": ""}, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    @api.route("/<path:path>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def unknown(path: str) -> Response:
        allowed = ROUTES.get("similar" if path.startswith("similar/") else path)
        if allowed and request.method not in allowed:
            raise MethodNotAllowed(valid_methods=[*allowed, "OPTIONS"])
        raise NotFound(f"/v1/{path:.100} is not part of this API: there are /v1/{', /v1/'.join(ROUTES)}.")

    return api


def _json(answer: object) -> Response:
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), content_type="application/json")

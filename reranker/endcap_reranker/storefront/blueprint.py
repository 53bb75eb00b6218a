"""The page and what it needs besides ``/v1``: shoppers to choose from and what each did lately.

Histories are shown to anyone who asks: right for a demo on public data, wrong for a shop. The page is therefore only
there where a showcase was set up (``endcap demo`` does so).
"""

from __future__ import annotations

import random
import uuid
from datetime import datetime, timezone
from typing import Any

import orjson
from flask import Blueprint, Response, render_template, request, send_file

from endcap.errors import EndcapError
from endcap.events import Action
from endcap.runtime import Runtime, open_fetcher
from endcap_reranker.api.problems import problem, problem_of
from endcap_reranker.identity import Identifier
from endcap_reranker.storefront.showcase import ShopperCard, Showcase

HISTORY_LENGTH = 12
COOKIE_AGE_S = 180 * 86_400
PICTURE_AGE_S = 3_600
#: Shown on the page by ending; an SVG may hold a script.
_PICTURES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
}
_VERBS = {
    Action.VIEW: "Viewed",
    Action.CLICK: "Viewed",
    Action.CART: "Added to cart",
    Action.UNCART: "Removed from cart",
    Action.PURCHASE: "Bought",
    Action.RETURN: "Returned",
}
_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


def create_storefront(runtime: Runtime, showcase: Showcase) -> Blueprint:
    """The storefront over a runtime. ``/v1`` (:func:`endcap_reranker.api.create_api`) must be mounted beside it."""
    front = Blueprint(
        "endcap_storefront",
        __name__,
        static_folder="static",
        static_url_path="/storefront/static",
        template_folder="templates",
    )
    settings = runtime.settings
    identifier = Identifier(settings)
    fetcher = open_fetcher(settings)

    @front.get("/")
    def page() -> Response:
        shown = [showcase.by_id[one] for one in showcase.featured if one in showcase.by_id]
        guest = identifier.of_request(request).shopper
        photos = runtime.photos is not None and runtime.photos.available
        boot = {
            "shoppers": [_card(card) for card in shown],
            "guest": {"id": guest, "token": identifier.sign(guest)} if guest.startswith("guest-") else None,
            "queries": showcase.queries,
            "shopperHeader": settings.shopper_header,
            "window": settings.window,
            "anyone": bool(showcase.shoppers),
            "photos": photos,
            "samples": showcase.photos,
        }
        html = render_template(
            "storefront.html",
            showcase=showcase,
            boot=orjson.dumps(boot).decode(),
            photos=photos,
            pictures=bool(settings.image_dir),
        )
        return Response(html, content_type="text/html; charset=utf-8")

    @front.get("/storefront/pictures/<path:image>")
    def product_picture(image: str) -> Response:
        file = fetcher.file(image)
        media_type = _PICTURES.get(file.suffix.lower())
        if media_type is None or not file.is_file():
            return problem(404, "not_found", f"There is no picture {image:.80}.")
        return send_file(file, media_type, max_age=PICTURE_AGE_S)

    @front.get("/storefront/shoppers/random")
    def any_shopper() -> Response:
        if not showcase.shoppers:
            return problem(404, "not_found", "This shop has no shoppers yet.")
        # Those who buy often show more; any of the upper half will do.
        half = showcase.shoppers[: max(1, len(showcase.shoppers) // 2)]
        return _json(_card(random.choice(half)))  # noqa: S311 - which shopper is shown is no secret

    @front.post("/storefront/shoppers")
    def new_shopper() -> Response:
        shopper = f"guest-{uuid.uuid4().hex[:12]}"
        response = _json({"id": shopper, "token": identifier.sign(shopper)})
        response.set_cookie(
            settings.shopper_cookie,
            identifier.sign(shopper),
            max_age=COOKIE_AGE_S,
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
        )
        return response

    @front.get("/storefront/shoppers/<shopper>")
    def shopper_page(shopper: str) -> Response:
        card = showcase.by_id.get(shopper)
        if card is None and not shopper.startswith("guest-"):
            return problem(404, "not_found", f"There is no shopper {shopper:.80}.")
        guest = ShopperCard(shopper, "You", "New here: nothing is known yet")
        return _json({**_card(card or guest), "history": _history(runtime, shopper)})

    @front.errorhandler(EndcapError)
    def own_error(error: EndcapError) -> Response:
        return problem_of(error)

    @front.after_request
    def harden(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        if response.mimetype in {"text/html", "application/json"}:
            response.headers["Cache-Control"] = "no-store"
        return response

    def _card(card: ShopperCard) -> dict[str, Any]:
        return {
            "id": card.id,
            "token": identifier.sign(card.id),
            "name": card.name,
            "line": card.line,
            "purchases": card.purchases,
        }

    return front


def _history(runtime: Runtime, shopper: str) -> list[dict[str, Any]]:
    """The shopper's latest actions, newest first, with the products' titles; products no longer sold are left out."""
    events = [event for event in runtime.log.history(shopper, 5 * HISTORY_LENGTH) if event.action in _VERBS]
    documents = runtime.engine.get([event.product for event in events])
    return [
        {
            "verb": _VERBS[event.action],
            "action": event.action.name.lower(),
            "product": event.product,
            "title": str(document.get("title") or event.product),
            "brand": str(document.get("brand") or ""),
            "time": datetime.fromtimestamp(event.time, timezone.utc).isoformat(timespec="seconds"),
        }
        for event, document in zip(events, documents, strict=True)
        if document is not None
    ][:HISTORY_LENGTH]


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), content_type="application/json")

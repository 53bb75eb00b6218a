"""Which pages' scripts may call, by ``cors_origins``. Storefront clients search from the browser."""

from __future__ import annotations

from flask import Response, request

from endcap.settings import Settings
from endcap_reranker.identity import SESSION_HEADER

#: Answer headers that scripts may read.
EXPOSED = (
    "X-Endcap-Ranking, X-Endcap-Personalized, X-Endcap-Degraded, X-Endcap-Fallback, X-Endcap-Sponsored, "
    "Server-Timing, X-Elastic-Product"
)


class Cors:
    """An ``after_request`` function. ``*`` in the settings allows every origin, but then without cookies."""

    def __init__(self, settings: Settings) -> None:
        self.origins = frozenset(settings.cors_origins)
        own = (settings.shopper_header, settings.personalize_header, settings.segment_header, SESSION_HEADER)
        self._headers = ", ".join(("Content-Type", "Authorization", "X-Opaque-Id", *own))

    def __call__(self, response: Response) -> Response:
        """Add the headers that the calling page's origin needs."""
        origin = request.headers.get("Origin", "")
        named = origin in self.origins
        # The engine's own words on this are about other callers.
        for name in [name for name, _ in response.headers if name.lower().startswith("access-control-")]:
            del response.headers[name]
        response.headers.add("Vary", "Origin")
        if not origin or not (named or "*" in self.origins):
            return response
        response.headers["Access-Control-Allow-Origin"] = origin if named else "*"
        response.headers["Access-Control-Expose-Headers"] = EXPOSED
        if named:
            response.headers["Access-Control-Allow-Credentials"] = "true"
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, HEAD"
            response.headers["Access-Control-Allow-Headers"] = self._headers
            response.headers["Access-Control-Max-Age"] = "600"
        return response

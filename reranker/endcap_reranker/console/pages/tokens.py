"""Who may come in: tokens, made and revoked."""

from __future__ import annotations

import time

from flask import Response, make_response, request

from endcap.errors import InvalidInput
from endcap.stores.tokens import ROLES
from endcap_reranker.admin.access import access
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes


def _routes(routes: Routes) -> None:
    @routes.get()
    def show() -> str:
        return render("console/tokens.html", tokens=access().tokens.all(), roles=ROLES, now=time.time(), fresh="")

    @routes.post("", role="admin")
    def create() -> Response:
        given = request.form.get("days", "").strip()
        try:
            days = float(given) if given else None
        except ValueError:
            raise InvalidInput("days: a number, or nothing for a token that does not expire") from None
        text, made = access().tokens.create(request.form.get("name", ""), request.form.get("role", ""), days)
        # Shown in the answer itself and nowhere else: it must not be in an address or a cookie.
        page = render(
            "console/tokens.html", tokens=access().tokens.all(), roles=ROLES, now=time.time(), fresh=text, made=made
        )
        return make_response(page)

    @routes.post("/<token_id>/revoke", role="admin")
    def revoke(token_id: str) -> Response:
        gone = access().tokens.revoke(token_id)
        return back(f"The token {gone.name} is revoked.")


PAGE = Page("tokens", "Tokens", "Server", _routes, "admin")

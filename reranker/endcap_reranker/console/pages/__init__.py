"""The console's pages. Each is a module with ``PAGE``; :data:`PAGES` lists them in the order of the navigation.

A page in short::

    def _routes(routes: Routes) -> None:
        @routes.get()
        def show() -> str:
            return render("console/flags.html", flags=...)

        @routes.post("/<flag>/confirm", role="operator")
        def confirm(flag: str) -> Response:
            ...
            return back("Confirmed.")

    PAGE = Page("flags", "Flags", "Shop", _routes)

Templates extend ``console/base.html`` and import ``console/macros.html``. Errors of :class:`endcap.errors.EndcapError`
need no handling: a page says what is wrong, a form goes back to where it came from and says it there. Every POST is
checked for its proof (``{{ ui.csrf() }}``) and written to the audit log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Blueprint, Response

from endcap.runtime import Runtime
from endcap.stores.tokens import Role

View = TypeVar("View", bound=Callable[..., str | Response])

#: Modules, in the order of the navigation.
_NAMES = (
    "overview",
    "events",
    "models",
    "jobs",
    "shopper",
    "catalogue",
    "newcomers",
    "experiments",
    "rules",
    "synonyms",
    "flags",
    "reports",
    "audit",
    "tokens",
    "settings",
)
PAGES = tuple(f"endcap_reranker.console.pages.{name}" for name in _NAMES)


@dataclass(frozen=True, slots=True)
class Page:
    """``name`` is the last part of its address, ``title`` stands in the navigation below the heading ``group``."""

    name: str
    title: str
    group: str
    routes: Callable[[Routes], None]
    role: Role = "reader"


class Routes:
    """What a page adds its views to. ``runtime`` is the process's."""

    def __init__(self, blueprint: Blueprint, runtime: Runtime, page: Page) -> None:
        self.runtime = runtime
        self._blueprint = blueprint
        self._page = page

    def get(self, path: str = "", role: Role | None = None) -> Callable[[View], View]:
        """A view at ``/console/NAME`` + ``path``, for tokens of the page's role or the one given."""
        return self._add("GET", path, role or self._page.role)

    def post(self, path: str = "", role: Role = "operator") -> Callable[[View], View]:
        """A form's target."""
        return self._add("POST", path, role)

    def _add(self, method: str, path: str, role: Role) -> Callable[[View], View]:
        def decorate(view: View) -> View:
            view.endcap_role = role  # type: ignore[attr-defined]
            view.endcap_page = self._page.name  # type: ignore[attr-defined]
            endpoint = f"{self._page.name}_{view.__name__}"
            self._blueprint.add_url_rule(f"/{self._page.name}{path}", endpoint, view, methods=[method])
            return view

        return decorate


def role_of(view: Any) -> Role | None:
    """The role that a view needs; None for one that anybody may see."""
    return getattr(view, "endcap_role", None)

"""Business rules: what is in force, made and removed."""

from __future__ import annotations

import time
from typing import Any

from flask import Response, request

from endcap.policy.rule import KINDS, rule_of
from endcap.stores.rules import Rules
from endcap_reranker.admin.access import caller
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes

_LISTS = ("products", "brands", "categories")
_NUMBERS = ("amount", "position", "share", "most", "hours", "bid", "floor")


def _routes(routes: Routes) -> None:
    store = Rules(routes.runtime.database)

    @routes.get()
    def show() -> str:
        found = [(one, one.rule.model_dump(mode="json", exclude_defaults=True)) for one in store.all()]
        return render("console/rules.html", rules=found, kinds=KINDS, numbers=_NUMBERS, now=time.time())

    @routes.post("")
    def add() -> Response:
        made = store.add(rule_of(_filled()), caller().name)
        return back(f"The rule “{made.rule.name}” is in force.")

    @routes.post("/<int:number>/switch")
    def switch(number: int) -> Response:
        one = store.get(number)
        changed = one.rule.model_copy(update={"enabled": not one.rule.enabled})
        store.replace(number, changed, caller().name)
        return back(f"The rule “{changed.name}” is {'in force' if changed.enabled else 'off'}.")

    @routes.post("/<int:number>/remove")
    def remove(number: int) -> Response:
        name = store.get(number).rule.name
        store.remove(number)
        return back(f"The rule “{name}” is gone.")


def _filled() -> dict[str, Any]:
    """The form as a rule is written; what was left empty is left out."""
    form = request.form
    rule: dict[str, Any] = {"name": form.get("name", "").strip(), "kind": form.get("kind", "")}
    target = {name: _listed(form.get(name, "")) for name in _LISTS}
    rule["target"] = {name: values for name, values in target.items() if values}
    when = {"queries": _listed(form.get("queries", "")), "segments": _listed(form.get("segments", ""))}
    rule["when"] = {name: values for name, values in when.items() if values}
    rule.update({name: text for name in _NUMBERS if (text := form.get(name, "").strip())})
    return rule


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


PAGE = Page("rules", "Rules", "Ranking", _routes)

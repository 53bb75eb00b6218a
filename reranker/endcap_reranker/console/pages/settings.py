"""The settings as they are in force, and where each value comes from."""

from __future__ import annotations

import orjson

from endcap.commands.settings import shown
from endcap.settings import Settings, setting_sources
from endcap_reranker.console.frame import render
from endcap_reranker.console.pages import Page, Routes


def _routes(routes: Routes) -> None:
    settings = routes.runtime.settings

    @routes.get()
    def show() -> str:
        sources = setting_sources()
        rows = []
        for name, field in Settings.model_fields.items():
            value = shown(getattr(settings, name))
            default = shown(field.get_default(call_default_factory=True))
            # What was given on the command line is neither in the environment nor in the file.
            source = sources[name] if sources[name] != "default" or value == default else "command line"
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            rows.append((name, text, source, field.description or "", value != default))
        return render("console/settings.html", rows=rows)


PAGE = Page("settings", "Settings", "Server", _routes, "operator")

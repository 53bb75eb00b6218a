"""The settings as they are in force."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from endcap.commands.settings import shown
from endcap.runtime import Runtime
from endcap.settings import Settings, setting_sources
from endcap_reranker.admin.operation import Answer, Topic


class SettingAnswer(Answer):
    """One setting."""

    name: str
    value: Any = Field(description="Of a secret only whether it is set; addresses without their passwords.")
    default: Any
    source: str = Field(description="The variable or the file that it comes from, `default`, or `command line`.")
    description: str


class SettingList(Answer):
    """All settings."""

    settings: list[SettingAnswer]


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("settings", "The settings.")

    @topic.operation(
        "GET", "/settings", role="operator", summary="All settings, as they are in force.", answer=SettingList
    )
    def list_settings() -> SettingList:
        """They are changed in the environment or in `endcap.toml`, and take effect at the next start."""
        return SettingList(settings=in_force(runtime.settings))

    return topic


def in_force(settings: Settings) -> list[SettingAnswer]:
    """Each setting with its value, as it may be shown, and where that comes from."""
    sources = setting_sources()
    found = []
    for name, field in Settings.model_fields.items():
        value = shown(getattr(settings, name))
        default = shown(field.get_default(call_default_factory=True))
        # What was given on the command line is neither in the environment nor in the file.
        source = sources[name] if sources[name] != "default" or value == default else "command line"
        found.append(
            SettingAnswer(name=name, value=value, default=default, source=source, description=field.description or "")
        )
    return found

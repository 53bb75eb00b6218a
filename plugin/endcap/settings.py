"""The one table of settings, put together from its topics (:mod:`endcap.setting_topics`).

``docs/settings.md`` is generated from it and a test holds the two together.

A value comes from, strongest first: a keyword argument, the environment (``ENDCAP_WINDOW=200``), the file named by
``ENDCAP_CONFIG`` (default ``endcap.toml`` in the working directory), the default below. Secrets are ``SecretStr`` and
never printed.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from endcap.errors import ConfigurationError
from endcap.setting_topics.access import Access
from endcap.setting_topics.learning import Learning
from endcap.setting_topics.places import Places
from endcap.setting_topics.reporting import Reporting
from endcap.setting_topics.serving import Serving

CONFIG_VARIABLE = "ENDCAP_CONFIG"
#: Variables that only the tests and benchmarks read.
_NOT_SETTINGS = (CONFIG_VARIABLE, "ENDCAP_TEST_", "ENDCAP_SHARED")

logger = logging.getLogger(__name__)


class Settings(Reporting, Learning, Access, Serving, Places, BaseSettings):
    """All settings, with their defaults. Everything embedded until one of the ``*_url`` settings says otherwise.

    They are declared by topic in :mod:`endcap.setting_topics`; the first topic is named last here, since fields come in
    the order in which classes are built.
    """

    model_config = SettingsConfigDict(env_prefix="ENDCAP_", extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=config_file())

    @property
    def models_folder(self) -> Path:
        """Where the model bundles lie."""
        return Path(self.model_dir) if self.model_dir else self.data_dir / "models"

    @property
    def hook_indices(self) -> frozenset[str]:
        """Indices that may be searched from outside."""
        return frozenset(self.searchable_indices or [self.index]) | self.product_indices

    @property
    def product_indices(self) -> frozenset[str]:
        """Indices whose hits are products."""
        return frozenset(self.personalized_indices or [self.index])


def load_settings(**overrides: object) -> Settings:
    """The settings in force. An unknown ``ENDCAP_*`` variable is warned about, an unknown key is an error.

    Raises:
        ConfigurationError: naming the setting, what it got and what it takes.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    if named and not Path(named).is_file():
        raise ConfigurationError(f"settings: {CONFIG_VARIABLE} names {named}, which is no file.")
    known = [f"ENDCAP_{name.upper()}" for name in Settings.model_fields]
    for variable in os.environ:
        name = variable.upper()
        if name.startswith("ENDCAP_") and not name.startswith(_NOT_SETTINGS) and name not in known:
            logger.warning("the environment variable %s is no setting%s", variable, _did_you_mean(name, known))
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(map(_problem, error.errors(include_input=False)))
    except SettingsError as error:
        problems = f"{error}: lists and tables are written as JSON there"
    except ValueError as error:
        problems = f"{config_file()} is not TOML: {error}"
    raise ConfigurationError(f"settings: {problems}. `endcap settings --markdown` lists them all.")


def settings_environment(settings: Settings) -> dict[str, str]:
    """Variables that give another process of ours the same settings, secrets included."""
    made = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if not isinstance(value, str):
            value = json.dumps(value, default=str) if isinstance(value, list | dict | bool) else str(value)
        made[f"ENDCAP_{name.upper()}"] = value
    return made


def setting_sources() -> dict[str, str]:
    """Where each setting's value comes from: the name of a variable, the name of the file, or ``default``."""
    variables = {variable.upper(): variable for variable in os.environ}
    file = config_file()
    keys = TomlConfigSettingsSource(Settings, toml_file=file)()
    return {
        name: variables.get(f"ENDCAP_{name.upper()}") or (str(file) if name in keys else "default")
        for name in Settings.model_fields
    }


def config_file() -> Path:
    """The file that settings are read from, whether it is there or not."""
    return Path(os.environ.get(CONFIG_VARIABLE) or "endcap.toml")


def _problem(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"there is no setting {name}{_did_you_mean(name, list(Settings.model_fields))}"
    return f"{name}: {item['msg']}"


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""

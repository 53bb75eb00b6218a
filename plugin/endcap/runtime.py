"""Puts the parts together from the settings: the one place that knows which implementation is in force."""

from __future__ import annotations

from dataclasses import dataclass

from endcap.encoders import TextEncoder
from endcap.engines import Engine, WireEngine
from endcap.personalizer import Personalizer
from endcap.settings import Settings


@dataclass(slots=True)
class Runtime:
    """Everything a server process or a command needs. ``encoder`` is None for keyword search only."""

    settings: Settings
    engine: Engine
    wire: WireEngine
    encoder: TextEncoder | None
    personalizer: Personalizer

    def close(self) -> None:
        raise NotImplementedError


def open_runtime(settings: Settings) -> Runtime:
    """Build every part that the settings ask for.

    Raises:
        ConfigurationError: a part that was asked for is not installed or cannot be set up.
    """
    raise NotImplementedError

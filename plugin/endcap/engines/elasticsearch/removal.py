"""Removing what Endcap made."""

from __future__ import annotations

from contextlib import closing

from endcap.engines.address import engine_address
from endcap.engines.elasticsearch.connection import connect, translated
from endcap.engines.elasticsearch.indices import Indices
from endcap.settings import Settings


def remove_index(settings: Settings) -> bool:
    """Remove the index behind ``settings.index``. False: there is none.

    Raises:
        ConfigurationError: Endcap did not make it.
    """
    address = engine_address(settings)
    with closing(connect(address, settings)) as client, translated(address, settings.index):
        indices = Indices(client, settings.index, settings.analyzer)
        serving = indices.serving()
        if serving is None:
            return False
        indices.drop(serving[0])
        return True

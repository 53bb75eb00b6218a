"""Opens the parts that the settings ask for: which implementation is in force is decided here."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

from endcap.encoders import TextEncoder
from endcap.engines import Engine, WireEngine
from endcap.images.fetching import Fetcher
from endcap.settings import Settings
from endcap.stores.aliases import Aliases
from endcap.stores.events import EventLog
from endcap.stores.profiles import LogProfiles, ProfileStore, Restorer

if TYPE_CHECKING:
    from endcap.images.index import PhotoSearch

log = logging.getLogger(__name__)


def open_engine(settings: Settings) -> Engine:
    """The engine that the settings ask for."""
    if settings.engine_url and settings.index_place != "embedded":
        from endcap.engines.elasticsearch import ElasticsearchEngine

        return ElasticsearchEngine(settings)
    from endcap.engines.embedded import EmbeddedEngine
    from endcap.engines.embedded.schema import language_of

    return EmbeddedEngine(settings.data_dir, settings.index, language=language_of(settings.analyzer))


def open_wire(settings: Settings, engine: Engine) -> WireEngine:
    """What the hook stands in front of: the shop's own engine, or the embedded one."""
    if settings.engine_url:
        from endcap.engines.forward import HttpWireEngine

        return HttpWireEngine(settings)
    from endcap.engines.embedded import EmbeddedEngine
    from endcap.engines.embedded.wire import EmbeddedWireEngine

    assert isinstance(engine, EmbeddedEngine)
    return EmbeddedWireEngine(engine, settings.index)


def open_fetcher(settings: Settings) -> Fetcher:
    """Where pictures may come from."""
    return Fetcher(settings.image_hosts, settings.image_dir, settings.max_image_bytes)


def open_photos(settings: Settings, encoder: TextEncoder | None) -> PhotoSearch | None:
    """Search by photo; None where pictures cannot be read for want of Pillow (the extra ``images``)."""
    if find_spec("PIL") is None:
        return None
    from endcap.images.encoder import image_encoder_at_hand
    from endcap.images.index import FILE, PhotoSearch

    return PhotoSearch(settings.data_dir / FILE, lambda: image_encoder_at_hand(settings, encoder))


def open_profiles(settings: Settings, log_: EventLog, aliases: Aliases) -> ProfileStore:
    """Profiles in Redis where there is one, else in process.

    Raises:
        ConfigurationError: Redis's client is not installed, or ``redis_url`` is no URL of one.
    """
    restorer = Restorer(log_, aliases, settings.profile_bytes, settings.profile_recent, settings.half_life_days)
    in_process = LogProfiles(restorer, settings.profile_cache_mb)
    if not settings.redis_url:
        return in_process
    from endcap.stores.redis_profiles import RedisProfiles

    return RedisProfiles(settings.redis_url, restorer, in_process)

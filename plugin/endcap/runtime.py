"""Puts the parts together from the settings: what a server process or a command works with."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from endcap.bundles import Bundle
from endcap.compounds import splits_compounds
from endcap.dispatch import SWEEP_S, Dispatcher, over_celery
from endcap.encoders import TextEncoder, text_encoder_at_hand
from endcap.engines import Engine, WireEngine
from endcap.errors import ConfigurationError, EndcapError
from endcap.events import Event
from endcap.experiments.models import ArmModels
from endcap.live import LiveModel
from endcap.opening import open_engine, open_fetcher, open_photos, open_profiles, open_wire
from endcap.personalizer import Personalizer
from endcap.policy.opening import follow_policy, open_arranger
from endcap.popularity import Popularity
from endcap.rates import INTERVAL_S as RATES_S
from endcap.rates import RateWatch
from endcap.recommend.discovery import INTERVAL_S, Discovery
from endcap.registry import open_registry
from endcap.sequences import Alignment
from endcap.serving_log import WRITE_EVERY_S, ServingLog
from endcap.settings import Settings
from endcap.shadow import TURN_S as SHADOW_S
from endcap.shadow import ShadowScoring
from endcap.stores.aliases import Aliases
from endcap.stores.background import Background
from endcap.stores.database import Database, open_database
from endcap.stores.erasure import Erasure
from endcap.stores.events import EventLog
from endcap.stores.flags import Flags
from endcap.stores.profiles import ProfileStore
from endcap.stores.rankings import Rankings
from endcap.stores.rejects import Reject, Rejects
from endcap.stores.runs import Runs
from endcap.stores.synonyms import SynonymStore
from endcap.stores.traffic import WRITE_EVERY_S as TRAFFIC_EVERY_S
from endcap.stores.traffic import Traffic
from endcap.synonyms import LiveSynonyms
from endcap.upkeep import Upkeep

if TYPE_CHECKING:
    from endcap.images.index import PhotoSearch

__all__ = [
    "Runtime", "Upkeep", "open_database", "open_engine", "open_fetcher", "open_photos", "open_profiles", "open_runtime",
    "open_wire",
]  # fmt: skip

log = logging.getLogger(__name__)

#: Seconds between looks for another live model.
_MODEL_S = 1.0
#: Seconds for which a rejected event may wait to be kept.
_REJECTS_S = 1.0
#: Seconds between looks at how the profiles' store is.
_PROFILES_S = 1.0
#: Seconds between looks for changed synonyms.
_SYNONYMS_S = 1.0
#: Seconds between looks whether photos can be searched by.
_PHOTOS_S = 30.0


@dataclass(slots=True)
class Runtime:
    """Everything a server process or a command needs. ``encoder`` is None for keyword search only."""

    settings: Settings
    engine: Engine
    wire: WireEngine
    encoder: TextEncoder | None
    database: Database
    log: EventLog
    flags: Flags
    profiles: ProfileStore
    popularity: Popularity
    personalizer: Personalizer
    upkeep: Upkeep = field(repr=False)
    discovery: Discovery = field(repr=False)
    rankings: Rankings = field(repr=False)
    serving_log: ServingLog = field(repr=False)
    aliases: Aliases = field(repr=False)
    rejected: Background[Reject] = field(repr=False)
    erasure: Erasure = field(repr=False)
    traffic: Traffic = field(repr=False)
    rates: RateWatch = field(repr=False)
    synonyms: LiveSynonyms = field(repr=False)
    photos: PhotoSearch | None = field(repr=False)

    @property
    def hidden_fields(self) -> tuple[str, ...]:
        """Fields of the index's documents that are Endcap's own, as of the last look at it."""
        return self.upkeep.hidden_fields

    @property
    def live_bundle(self) -> Bundle | None:
        """The bundle that scores in this process; None for the baseline."""
        return self.upkeep.model.bundle

    @property
    def alignment(self) -> Alignment | None:
        """The products in the live model's terms; None for the baseline, or before they are loaded."""
        table = self.personalizer.table
        return self.upkeep.model.alignment(table) if table is not None else None

    def record(self, events: Sequence[Event]) -> list[bool]:
        """Store events; True for each that is new. The shoppers' next search knows of them.

        Raises:
            LogUnavailable: none was stored.
        """
        fresh, last = self.log.append_numbered(events)
        self.profiles.touched({event.shopper: last for event, new in zip(events, fresh) if new})
        self.rates.seen([event for event, new in zip(events, fresh) if new])
        return fresh

    def identify(self, anonymous: str, shopper: str, event: Event | None = None, by_hand: bool = False) -> bool:
        """An anonymous visitor logged in: what was done under that id counts for the shopper. True if that is new.
        ``by_hand``: a person says so, who may have parted the two before (:meth:`Erasure.separate`).

        Raises:
            AliasRefused: the two cannot be joined.
            LogUnavailable: nothing was stored.
        """
        new = self.aliases.attach(anonymous, shopper, time.time(), event, by_hand)
        self.profiles.forgotten({shopper})
        return new

    def close(self) -> None:
        """Stop the threads and give back files and connections."""
        self.upkeep.close()
        self.personalizer.close()
        self.serving_log.queue.close()
        self.rejected.close()
        self.profiles.close()
        try:
            self.traffic.turn()
        except EndcapError as error:
            log.warning("the last counts of the traffic are lost: %s", error)
        self.database.close()
        self.wire.close()
        self.engine.close()


def open_runtime(settings: Settings, start: bool = True) -> Runtime:
    """Build every part that the settings ask for, and start the upkeep unless told otherwise.

    Raises:
        ConfigurationError: a part that was asked for is not installed or cannot be set up.
        LogUnavailable: the event log cannot be opened.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"data_dir cannot be made: {error}") from None
    engine = open_engine(settings)
    database = open_database(settings, limited=start)
    events = EventLog(database)
    popularity = Popularity(settings.popularity_half_life_days)
    aliases = Aliases(database, events)
    profiles = open_profiles(settings, events, aliases)
    encoder = text_encoder_at_hand(settings)
    model = LiveModel(settings.models_folder, encoder.id if encoder else "", settings.triton_url, settings.augmentation)
    arranger = open_arranger(settings)
    personalizer = Personalizer(
        model.scorer, profiles, popularity, None, settings.deadline_ms, settings.scoring_threads, arranger=arranger
    )
    personalizer.newcomers = model.newcomers
    flags = Flags(database)
    upkeep = Upkeep(settings, engine, events, popularity, profiles, personalizer, model, flags)
    erasure = Erasure(database, events, aliases, profiles)
    discovery = Discovery(
        events, popularity, personalizer, settings.data_dir, excluded=flags.excluded_shoppers, owners=aliases.owners,
        erasures=erasure.version, split_compounds=splits_compounds(settings),
    )  # fmt: skip
    upkeep.add("discovery", discovery.turn, INTERVAL_S)
    rankings = Rankings(database)
    serving_log = ServingLog(rankings, settings.log_rankings, settings.log_features)
    upkeep.add("profiles", profiles.turn, _PROFILES_S)
    upkeep.add("erasures", erasure.follow, _PROFILES_S)
    rejected = Background(Rejects(database).append)
    upkeep.add("rejects", rejected.turn, _REJECTS_S)
    upkeep.add("rankings", serving_log.queue.turn, WRITE_EVERY_S)
    registry = open_registry(settings, database)
    arms = ArmModels(
        registry, encoder.id if encoder else "", model.scorer, settings.experiment_models_mb,
        augmentation=settings.augmentation,
    )  # fmt: skip
    upkeep.add("policy", follow_policy(settings, database, arranger, rankings, arms).turn, _MODEL_S)
    upkeep.add("experiment models", arms.turn, _MODEL_S)
    upkeep.before_swap += (arms.prepare, arranger.prepare)
    traffic = Traffic(database)
    upkeep.add("traffic", traffic.turn, TRAFFIC_EVERY_S)
    rates = RateWatch(flags, settings.fraud_rate_per_minute)
    upkeep.add("rates", rates.turn, RATES_S)
    stored = SynonymStore(database)
    synonyms = LiveSynonyms(settings.synonyms_file, stored.version, lambda: [one.rule for one in stored.all()])
    synonyms.turn()
    upkeep.add("synonyms", synonyms.turn, _SYNONYMS_S)
    photos = open_photos(settings, encoder)
    shadow = ShadowScoring(registry, settings.shadow_sample, encoder.id if encoder else "")
    personalizer.observe = shadow.offer
    upkeep.add("shadow", shadow.turn, SHADOW_S)
    if photos is not None:
        upkeep.add("photos", photos.turn, _PHOTOS_S)
    if over_celery(settings):
        runs = Runs(database, settings.worker_lease_s, settings.run_attempts)
        upkeep.add("dispatch", Dispatcher(settings, runs).turn, SWEEP_S)
    runtime = Runtime(
        settings, engine, open_wire(settings, engine), encoder, database, events, flags, profiles,
        popularity, personalizer, upkeep, discovery, rankings, serving_log, aliases, rejected,
        erasure, traffic, rates, synonyms, photos,
    )  # fmt: skip
    if start:
        upkeep.start()
    return runtime

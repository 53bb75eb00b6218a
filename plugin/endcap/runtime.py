"""Puts the parts together from the settings: the one place that knows which implementation is in force."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from endcap.bundles import Bundle
from endcap.catalog.table import ProductTable
from endcap.compounds import splits_compounds
from endcap.dispatch import SWEEP_S, Dispatcher, over_celery
from endcap.encoders import TextEncoder, text_encoder_at_hand
from endcap.engines import Engine, WireEngine
from endcap.errors import ConfigurationError, EndcapError, EngineUnavailable, UnknownIndex
from endcap.events import Action, Event
from endcap.experiments.models import ArmModels
from endcap.images.fetching import Fetcher
from endcap.live import LiveModel
from endcap.personalizer import Personalizer
from endcap.pictures import FILE as PICTURES
from endcap.pictures import PictureSource
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
from endcap.stores.events import EventLog, kept
from endcap.stores.flags import Flags
from endcap.stores.profiles import LogProfiles, ProfileStore, Restorer
from endcap.stores.rankings import Rankings
from endcap.stores.rejects import Reject, Rejects
from endcap.stores.runs import Runs
from endcap.stores.synonyms import SynonymStore
from endcap.stores.traffic import WRITE_EVERY_S as TRAFFIC_EVERY_S
from endcap.stores.traffic import Traffic
from endcap.synonyms import LiveSynonyms

if TYPE_CHECKING:
    from endcap.images.index import PhotoSearch

log = logging.getLogger(__name__)

#: Loading the products may take at most this share of the time.
_MOST_LOADING = 0.05
#: So many changed products are read one by one; of more, or where some were removed, the whole index is read again.
_MOST_CHANGES = 2_000
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
#: Seconds between two snapshots of the popularity.
_SNAPSHOT_S = 60.0


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


class Upkeep:
    """Three threads that keep a process's view of the world fresh: one follows the event log (popularity, and profiles
    that other processes' events have changed), one reloads the products when the engine's version changes, one
    switches to another live model.

    Faults are logged, visible in :attr:`problems`, and tried again at the next turn.
    """

    def __init__(
        self, settings: Settings, engine: Engine, log_: EventLog, popularity: Popularity, profiles: ProfileStore,
        personalizer: Personalizer, model: LiveModel, flags: Flags,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._engine = engine
        self._log = log_
        self._popularity = popularity
        self._profiles = profiles
        self._personalizer = personalizer
        self._model = model
        self._flags = flags
        self._snapshot = settings.data_dir / "popularity.npz"
        self._stop = threading.Event()
        self._caught_up = threading.Event()
        self._loaded = threading.Event()
        self._looked = threading.Event()
        self._version = ""
        self._loading = threading.Lock()
        self._pictures = PictureSource(settings.data_dir / PICTURES)
        self._pictures_read: object = None
        self.problems: dict[str, str] = {}
        self.hidden_fields: tuple[str, ...] = ()
        #: Told of every new product table before searches come with it.
        self.before_swap: list[Callable[[ProductTable], None]] = [model.prepare]
        self._threads = [
            threading.Thread(target=self._loop, args=arguments, daemon=True, name=f"endcap-{arguments[0]}")
            for arguments in (
                ("events", self._follow, settings.tail_interval_s),
                ("products", self._load, settings.product_refresh_s),
                ("model", self._follow_model, _MODEL_S),
            )
        ]

    @property
    def model(self) -> LiveModel:
        """What scores in this process, as of the last look."""
        return self._model

    def add(self, name: str, work: Callable[[], float], interval_s: float) -> None:
        """Have one more thread call ``work``, which gives the seconds that it wants to rest. Before :meth:`start`."""
        arguments = (name, work, interval_s)
        self._threads.append(threading.Thread(target=self._loop, args=arguments, daemon=True, name=f"endcap-{name}"))

    def start(self) -> None:
        """Start the threads. Must be called after a process has forked, not before."""
        for thread in self._threads:
            thread.start()

    def wait_ready(self, timeout_s: float) -> bool:
        """True once the products are loaded, the event log is caught up with, and the live model was looked for."""
        until = time.monotonic() + timeout_s
        parts = (self._loaded, self._caught_up, self._looked)
        return all(part.wait(max(0.0, until - time.monotonic())) for part in parts)

    @property
    def ready(self) -> bool:
        """See :meth:`wait_ready`."""
        return self._loaded.is_set() and self._caught_up.is_set() and self._looked.is_set()

    def reload(self) -> None:
        """Load the products now if they have changed; for those who cannot wait for the thread."""
        self._load()

    def close(self) -> None:
        """Stop, keeping a snapshot of the popularity for the next start."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=5.0)
        self._model.close()
        self._save()

    def _loop(self, name: str, work: Callable[[], float], interval: float) -> None:
        saved = time.monotonic()
        while not self._stop.is_set():
            rest = interval
            try:
                rest = max(interval, work())
                if self.problems.pop(name, None):
                    log.info("%s: well again", name)
            except EndcapError as error:
                if self.problems.get(name) != str(error):
                    log.warning("%s: %s; trying again", name, error)
                self.problems[name] = str(error)
            except Exception as error:
                log.exception("%s: unexpected; trying again", name)
                self.problems[name] = f"{type(error).__name__}: {error}"
            if name == "events" and time.monotonic() - saved > _SNAPSHOT_S:
                saved = time.monotonic()
                self._save()
            self._stop.wait(rest)

    def _follow(self) -> float:
        if not self._popularity.sequence:
            self._popularity.restore(self._snapshot, self._log.last_sequence())
        excluded = self._flags.excluded_shoppers()
        if excluded != self._popularity.left_out:
            self._popularity.leave_out(excluded, self._log)
        while not self._stop.is_set():
            found = self._log.since(self._popularity.sequence)
            if not len(found):
                break
            self._profiles.touched(dict(zip(found.shoppers, found.sequence.tolist())))
            logins = np.flatnonzero(found.actions == Action.LOGIN)
            self._profiles.forgotten({found.shoppers[row] for row in logins.tolist()})
            counted = found.at(kept(found.shoppers, excluded))
            self._popularity.add(counted.keys, counted.times, counted.actions, int(found.sequence[-1]))
        self._caught_up.set()
        return 0.0

    def _load(self) -> float:
        # One at a time: who began earlier must not put an older table in place of a newer one.
        with self._loading:
            return self._load_alone()

    def _load_alone(self) -> float:
        started = time.monotonic()
        try:
            self.hidden_fields = self._engine.hidden_fields()
            version = self._engine.version()
            bundle = self._model.bundle
            pictures = self._pictures.stamp if bundle is not None and bundle.spec.pictures else None
            if (version, pictures) == (self._version, self._pictures_read) and self._loaded.is_set():
                return 0.0
            table = self._changed()
            if table is None:
                margin, added = self._settings.margin_attribute, self._settings.added_attribute
                table = ProductTable.collect(self._engine.scan(), margin, added)
                table.pictures = self._pictures
            for prepare in self.before_swap:
                prepare(table)
            self._personalizer.table = table
            self._version, self._pictures_read = version, pictures
        except UnknownIndex:  # nothing was indexed yet, or the index was deleted
            self._personalizer.table = ProductTable([])
            self._version = ""
        except EngineUnavailable:
            raise
        except EndcapError:
            # It answers, but cannot be read (OpenSearch refuses the client, a right is missing): what shoppers did and
            # what sells is enough to rank by. The problem stays visible until it is solved.
            if self._personalizer.table is None:
                self._personalizer.table = ProductTable([])
                self._loaded.set()
            raise
        self._loaded.set()
        return (time.monotonic() - started) / _MOST_LOADING

    def _changed(self) -> ProductTable | None:
        """The table in use with the few products that have changed since it was loaded; None where they are not few, or
        the engine cannot tell."""
        table = self._personalizer.table
        if not table or not self._version:
            return None
        found = self._engine.changes(self._version, _MOST_CHANGES)
        if found is None:
            return None
        try:
            made = table.with_changes(found)
        except ValueError:  # vectors of another encoder
            return None
        return made if len(made) == self._engine.count() else None

    def _follow_model(self) -> float:
        try:
            self._model.look()
        finally:
            self._looked.set()
        return 0.0

    def _save(self) -> None:
        try:
            self._popularity.save(self._snapshot)
        except OSError as error:
            log.warning("the popularity snapshot could not be written: %s", error)


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
    restorer = Restorer(log_, aliases, settings.profile_products, settings.profile_recent, settings.half_life_days)
    in_process = LogProfiles(restorer, settings.profile_cache_mb)
    if not settings.redis_url:
        return in_process
    from endcap.stores.redis_profiles import RedisProfiles

    return RedisProfiles(settings.redis_url, restorer, in_process)


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

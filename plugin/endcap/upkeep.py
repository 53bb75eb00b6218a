"""What a server does beside answering: follows the log, the products and the live model, each in its own thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from endcap.catalog.table import ProductTable
from endcap.engines import Engine
from endcap.errors import EndcapError, EngineUnavailable, UnknownIndex
from endcap.events import Action
from endcap.live import LiveModel
from endcap.personalizer import Personalizer
from endcap.pictures import FILE as PICTURES
from endcap.pictures import PictureSource
from endcap.popularity import Popularity
from endcap.settings import Settings
from endcap.stores.events import EventLog, kept
from endcap.stores.flags import Flags
from endcap.stores.profiles import ProfileStore

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

#: Loading the products may take at most this share of the time.
_MOST_LOADING = 0.05
#: So many changed products are read one by one; of more, or where some were removed, the whole index is read again.
_MOST_CHANGES = 2_000
#: Seconds between looks for another live model.
_MODEL_S = 1.0
#: Seconds between two snapshots of the popularity.
_SNAPSHOT_S = 60.0


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
        self._told = 0  # events up to this number are no news to the profiles
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
            newest = self._log.last_sequence()
            self._popularity.restore(self._snapshot, newest)
            if not self._popularity.sequence and not self._caught_up.is_set():
                # All of the log is counted now, but is no news: profiles are read with what is in it. To say it all
                # again to Redis would make a key for every shopper there ever was, and take longer than the counting.
                self._told = newest
                self._profiles.forgotten(self._profiles.kept())
        excluded = self._flags.excluded_shoppers()
        if excluded != self._popularity.left_out:
            self._popularity.leave_out(excluded, self._log)
        while not self._stop.is_set():
            found = self._log.since(self._popularity.sequence)
            if not len(found):
                break
            news = found.at(np.flatnonzero(found.sequence > self._told))
            self._profiles.touched(dict(zip(news.shoppers, news.sequence.tolist())))
            logins = np.flatnonzero(news.actions == Action.LOGIN)
            self._profiles.forgotten({news.shoppers[row] for row in logins.tolist()})
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
        if not self._popularity.sequence:  # a command that followed nothing must not replace what a server has counted
            return
        try:
            self._popularity.save(self._snapshot)
        except OSError as error:
            log.warning("the popularity snapshot could not be written: %s", error)

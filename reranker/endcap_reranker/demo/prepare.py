"""Sets the demo shop up: products indexed, purchases replayed, shoppers described. What is done is not done again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import orjson

from endcap.catalog.product import Product
from endcap.encoders import TextEncoder
from endcap.errors import EncoderMismatch
from endcap.files import write_atomically
from endcap.indexing import index_products
from endcap.runtime import Runtime, open_engine, open_runtime
from endcap.settings import Settings
from endcap_reranker.demo.dataset import Journey
from endcap_reranker.demo.searches import replay
from endcap_reranker.demo.shoppers import describe_households
from endcap_reranker.demo.stock import with_stock
from endcap_reranker.storefront import Showcase, save_showcase

STATE_FILE = "demo.json"
#: Raise it when the products or events change: an older shop is brought up to date at the next start.
VERSION = 2
QUERIES = (
    "yogurt",
    "frozen pizza",
    "cereal",
    "coffee",
    "shredded cheese",
    "dog food",
    "baby food",
    "soda",
    "ice cream",
    "something sweet for breakfast",
    "bread",
    "chips",
)
NOTE = (
    "Real purchases of 2,469 households (the Complete Journey by 84.51°, 2017), moved to end yesterday. "
    "Brands and flavours are anonymous in the data; titles are spelled out from the till’s abbreviations. "
    "Stock and lead times are simulated from the sales."
)
#: What stands at the top of the demo's reports.
REPORT_NOTE = (
    "The demo shop: purchases are real (the Complete Journey by 84.51°, 2017, moved to end yesterday). Stock and lead "
    "times are simulated: an (s, S) policy with seed 0 over the real daily sales. Searches are real purchases of the "
    "last 28 days, read as searches for their products’ type, and what was searched for on the demo’s own page."
)
#: (stage, done, total). Stages: "products", "purchases", "shoppers", "searches", "popularity".
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class DemoState:
    """What is done. ``shift_s`` is kept, so that an interrupted replay goes on in the same time. ``engine``: where the
    index is, empty for the folder."""

    version: int = VERSION
    encoder: str = ""
    engine: str = ""
    products: int = 0
    purchases: int = 0
    shift_s: float = 0.0
    finished: bool = False


def read_state(data_dir: Path) -> DemoState:
    """The state of the shop in a folder; a fresh one where there is none or another version's."""
    try:
        state = DemoState(**orjson.loads((data_dir / STATE_FILE).read_bytes()))
    except (FileNotFoundError, TypeError, orjson.JSONDecodeError):
        return DemoState()
    return state if state.version == VERSION else DemoState()


def is_prepared(settings: Settings) -> bool:
    """Whether the shop is there as these settings want it; quick.

    Raises:
        EngineError: the search engine that is to hold the index cannot be asked.
    """
    state = read_state(settings.data_dir)
    same = (state.encoder, state.engine) == (settings.text_encoder, engine_of(settings))
    return state.finished and same and has_products(settings)


def engine_of(settings: Settings) -> str:
    """The search engine that holds the index, without the password that its address may have; empty: the folder."""
    return urlsplit(settings.engine_url).netloc.rpartition("@")[2]


def has_products(settings: Settings) -> bool:
    """Whether another server's index is still there; what lies in the folder goes with it."""
    if not settings.engine_url:
        return True
    with closing(open_engine(settings)) as engine:
        return engine.count() > 0


def prepare(settings: Settings, progress: Progress, journey: Journey) -> DemoState:
    """Set the shop up in ``settings.data_dir``, or what is still missing of it.

    Products are encoded and purchases stored at the same time. Killed at any point, the next call goes on.

    Raises:
        ConfigurationError: the text encoder cannot be had.
        EngineError, LogUnavailable: as the parts report them.
    """
    if is_prepared(settings):
        return read_state(settings.data_dir)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    state = read_state(settings.data_dir)
    shift = state.shift_s or journey.shift_to_yesterday()
    state = DemoState(
        VERSION, settings.text_encoder, engine_of(settings), len(journey.products), len(journey.purchases), shift
    )
    _write_state(settings.data_dir, state)
    runtime = open_runtime(settings, start=False)
    try:
        purchases = _Replay(runtime, journey, shift, progress)
        purchases.start()
        try:
            _index(runtime, with_stock(journey.products, journey.purchases), progress)
            progress("shoppers", 0, 1)
            cards, featured = describe_households(journey.products, journey.purchases)
            save_showcase(Showcase("the demo shop", tuple(cards), tuple(featured), QUERIES, NOTE), settings.data_dir)
            progress("shoppers", 1, 1)
        except BaseException:
            purchases.stop()
            raise
        purchases.finish()
        progress("searches", 0, 0)
        replay(runtime, journey, shift, lambda done, total: progress("searches", done, total))
        # Counting what sells takes a while over so many events: done once here, every start finds the result.
        progress("popularity", 0, 1)
        runtime.upkeep.start()
        runtime.upkeep.wait_ready(300.0)
        progress("popularity", 1, 1)
    finally:
        runtime.close()
    state = DemoState(**{**asdict(state), "finished": True})
    _write_state(settings.data_dir, state)
    return state


def _write_state(data_dir: Path, state: DemoState) -> None:
    write_atomically(data_dir / STATE_FILE, orjson.dumps(asdict(state)))


def _index(runtime: Runtime, products: Sequence[Product], progress: Progress) -> None:
    # Products that differ in nothing the data tells share their text: side by side, each text is encoded once.
    products = sorted(products, key=lambda product: product.text())
    progress("products", 0, len(products))
    encoder = _Remembering(runtime.encoder) if runtime.encoder else None

    def fill(rebuild: bool) -> None:
        index_products(
            products,
            runtime.engine,
            encoder,
            rebuild=rebuild,
            batch_size=512,
            on_progress=lambda summary: progress("products", summary.read, len(products)),
        )

    try:
        fill(rebuild=False)
    except EncoderMismatch:
        fill(rebuild=True)


class _Replay(threading.Thread):
    """Stores the purchases while the products are being encoded; errors are raised by :meth:`finish`."""

    def __init__(self, runtime: Runtime, journey: Journey, shift_s: float, progress: Progress) -> None:
        super().__init__(name="endcap-replay", daemon=True)
        self._runtime = runtime
        self._journey = journey
        self._shift = shift_s
        self._progress = progress
        self._stopped = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        done, total = 0, len(self._journey.purchases)
        self._progress("purchases", 0, total)
        try:
            for batch in self._journey.events(self._shift):
                if self._stopped.is_set():
                    return
                self._runtime.log.append(batch)
                done += len(batch)
                self._progress("purchases", done, total)
        except Exception as error:
            self._error = error

    def stop(self) -> None:
        """End after the batch under way."""
        self._stopped.set()
        self.join()

    def finish(self) -> None:
        """Wait until all is stored."""
        self.join()
        if self._error is not None:
            raise self._error


class _Remembering:
    """A text encoder that encodes each text once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._known: dict[str, np.ndarray] = {}
        self.id = encoder.id
        self.dims = encoder.dims

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        if progress is not None:
            progress(len(texts))
        return np.stack([self._known[text] for text in texts])

    def encode_query(self, text: str) -> np.ndarray:
        return self._encoder.encode_query(text)

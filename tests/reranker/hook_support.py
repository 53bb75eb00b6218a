"""Parts for the hook's tests: deterministic personalizers, a window onto what reaches the engine, a small index."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
import pytest
import urllib3
from flask import Flask
from werkzeug.serving import make_server

from endcap.engines import WireAnswer
from endcap.engines.forward import HttpWireEngine
from endcap.personalizer import Ranking
from endcap.policy import Visit
from endcap.settings import Settings
from endcap_reranker.hook import hook_blueprint
from endcap_reranker.hook.reorder import Ranker

#: A call past the hook. Patient, as test machines are busy at times.
engine_call = urllib3.PoolManager(timeout=60, retries=False, maxsize=8).request


def fresh_call(method: str, url: str, **options: Any) -> urllib3.BaseHTTPResponse:
    """A call on a connection of its own: one that is kept belongs to one process of the server."""
    with urllib3.PoolManager(timeout=60, retries=False) as pool:
        options["headers"] = {"Connection": "close", **options.get("headers", {})}
        return pool.request(method, url, **options)


SHOPPER = {"X-Endcap-Shopper": "ann"}
COUNT = 180
WORDS = ["red", "shoe", "running", "leather", "summer", "winter", "light", "kids"]


class Unruled:
    """No business rule is in force."""

    rules_in_force = False
    hiding = False

    def hidden(
        self, query: str, ids: Sequence[str], visit: Visit, documents: Sequence[Any] = (), whole: bool = True
    ) -> np.ndarray:
        return np.zeros(len(ids), dtype=bool)


class ByHash(Unruled):
    """Orders by a hash of shopper and product: any order, but always the same. Unknown to it: the shopper "new"."""

    def rank(
        self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray, visit: Visit | None = None
    ) -> Ranking:
        assert engine_scores.dtype == np.float32
        assert engine_scores.shape == (len(ids),)
        if shopper == "new":
            return Ranking("r-new", np.arange(len(ids)), personalized=False)
        keys = [hashlib.sha256(f"{shopper}/{one}".encode()).digest() for one in ids]
        order = np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)
        return Ranking(f"r-{shopper}", order, personalized=True)


class Backwards(Unruled):
    """The engine's last candidate first; keeps the queries it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []

    def rank(
        self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray, visit: Visit | None = None
    ) -> Ranking:
        self.asked.append((shopper, query, len(ids)))
        return Ranking("r-back", np.arange(len(ids))[::-1].copy(), personalized=True)


class Broken(Unruled):
    """Breaks its promise in the way that it is told: by raising, or by an order that is none."""

    def __init__(self, order: Callable[[int], np.ndarray]) -> None:
        self.order = order

    def rank(
        self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray, visit: Visit | None = None
    ) -> Ranking:
        return Ranking("r-broken", self.order(len(ids)), personalized=True)


class Direct(HttpWireEngine):
    """The way to a running engine; remembers what went along it."""

    def __init__(self, url: str) -> None:
        super().__init__(Settings(engine_url=url))
        self.url = url
        self.sent: list[tuple[str, str, str, dict[str, str], bytes]] = []

    def send(
        self,
        method: Literal["GET", "POST", "HEAD"],
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
    ) -> WireAnswer:
        self.sent.append((method, path, query, dict(headers), body))
        return super().send(method, path, query, headers, body, timeout_s)

    def bodies(self) -> list[dict[str, Any]]:
        """The single searches sent since the last look, taken apart."""
        found = [orjson.loads(body) for *_, body in self.sent if body]
        self.sent.clear()
        return found


@dataclass
class Parts:
    """What the hook needs of a runtime."""

    settings: Settings
    wire: Any
    personalizer: Ranker
    hidden_fields: tuple[str, ...] = ()
    serving_log: Any = None


def parts(wire: Any, personalizer: Ranker | None = None, **settings: Any) -> Parts:
    """A window of 50 over the index ``shop``, in one phase, unless told otherwise."""
    values = {"index": "shop", "window": 50, "two_phase": "never", **settings}
    return Parts(Settings(**values), wire, personalizer or ByHash())


def products() -> list[dict[str, Any]]:
    """Products with many equal scores, some without optional fields, one with an integer beyond 64 bits."""
    draw = random.Random(7)
    made: list[dict[str, Any]] = []
    for number in range(COUNT):
        words = draw.choices(WORDS, k=draw.randint(2, 6))
        product = {"title": " ".join(words), "price": round(draw.uniform(1, 90), 2), "brand": draw.choice("abcde")}
        if number % 3:
            product["color"] = draw.choice(["red", "blue", "weiß", "紅色"])
        product["vector"] = [round(draw.uniform(-1, 1), 3) for _ in range(4)]
        made.append(product)
    made[5] = {"title": "shoe"}
    made[6]["ean"] = 123456789012345678901234567890
    made[7]["title"] = "紅色 鞋 shoe"
    return made


MAPPING: dict[str, Any] = {
    "title": {"type": "text"},
    "brand": {"type": "keyword"},
    "color": {"type": "keyword"},
    "price": {"type": "double"},
    "ean": {"type": "object", "enabled": False},
}
VECTOR = {"type": "dense_vector", "dims": 4, "index": True, "similarity": "cosine"}


def make_index(url: str, name: str, shards: int = 1, vectors: bool = True, alias: str = "") -> None:
    """Create an index of the products anew."""
    engine_call("DELETE", f"{url}/{name}?ignore_unavailable=true")
    mapping = {**MAPPING, **({"vector": VECTOR} if vectors else {})}
    body = {
        "settings": {"number_of_shards": shards, "number_of_replicas": 0},
        "mappings": {"properties": mapping},
        "aliases": {alias: {}} if alias else {},
    }
    made = engine_call("PUT", f"{url}/{name}", json=body)
    assert made.status == 200, made.data
    lines: list[Any] = []
    for number, product in enumerate(products()):
        source = product if vectors else {key: value for key, value in product.items() if key != "vector"}
        lines += [{"index": {"_id": f"p{number}"}}, source]
    import json

    data = "".join(json.dumps(line) + "\n" for line in lines)
    done = engine_call(
        "POST", f"{url}/{name}/_bulk?refresh=true", body=data, headers={"Content-Type": "application/json"}
    )
    assert not done.json()["errors"], done.data[:2000]


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The application on a socket; gives its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


class Hanging:
    """An engine that says nothing until it is told to (``answer``); ``asked``: it was sent a search, as a server asks
    other things by itself."""

    def __init__(self) -> None:
        self.asked, self.answer = threading.Event(), threading.Event()
        self.url = ""

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"].endswith("_search"):
            self.asked.set()
        self.answer.wait(120)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]


@contextmanager
def hanging_engine() -> Iterator[Hanging]:
    """One that is served."""
    engine = Hanging()
    with serving(engine) as engine.url:
        try:
            yield engine
        finally:
            engine.answer.set()


class Shop:
    """A hook over a real engine, and the engine itself beside it."""

    def __init__(self, url: str, personalizer: Ranker | None = None, **settings: Any) -> None:
        self.url = url
        self.wire = Direct(url)
        self.parts = parts(self.wire, personalizer, **settings)
        self.rebuild()

    def rebuild(self) -> None:
        """A new application of the parts as they are now."""
        self.app = Flask("shop")
        self.app.register_blueprint(hook_blueprint(self.parts))
        self.client = self.app.test_client(use_cookies=False)

    def search(self, body: Any = None, path: str = "/shop/_search", shopper: str = "ann", **options: Any) -> Any:
        """POST a search through the hook; the parsed answer, which must be a success."""
        answer = self.post(body, path, shopper, **options)
        assert answer.status_code == 200, answer.data
        return answer.json

    def post(self, body: Any = None, path: str = "/shop/_search", shopper: str = "ann", **options: Any) -> Any:
        """POST through the hook."""
        headers = {**({"X-Endcap-Shopper": shopper} if shopper else {}), **options.pop("headers", {})}
        if isinstance(body, (bytes, str)):
            headers = {"Content-Type": "application/json", **headers}
            return self.client.post(path, data=body, headers=headers, **options)
        return self.client.post(path, json=body, headers=headers, **options)

    def direct(self, body: Any = None, path: str = "/shop/_search") -> Any:
        """The engine's own answer, parsed."""
        import json

        # Not orjson: what the engine said about an integer beyond 64 bits counts.
        return json.loads(engine_call("POST", f"{self.url}{path}", json=body).data)


def ids(answer: Any) -> list[str]:
    """The ids of an answer's hits."""
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def expected_order(found: list[str], shopper: str = "ann", window: int = 50) -> list[str]:
    """What :class:`ByHash` makes of the engine's order."""
    head = sorted(found[:window], key=lambda one: hashlib.sha256(f"{shopper}/{one}".encode()).digest())
    return head + found[window:]


def without_hits(answer: Any) -> Any:
    """Everything of an answer but its hits and the time it took."""
    rest = {key: value for key, value in answer.items() if key != "took"}
    rest["hits"] = {key: value for key, value in answer["hits"].items() if key != "hits"}
    return rest


def whole_hits(answer: Any) -> dict[str, Any]:
    """Hits by id, without their scores (which belong to the places)."""
    return {hit["_id"]: {key: value for key, value in hit.items() if key != "_score"} for hit in answer["hits"]["hits"]}


RED: dict[str, Any] = {"query": {"match": {"title": "red"}}, "size": 6}
VENDOR = "application/vnd.elasticsearch+json; compatible-with=8"


@pytest.fixture(name="shop")
def auto_shop(shop_engine: str) -> Shop:
    """The hook over Elasticsearch, in as many phases as pay."""
    return Shop(shop_engine, two_phase="auto", searchable_indices=["shop", "articles"])


def expected(shop: Shop, shopper: str = "ann") -> list[str]:
    """The ids that :data:`RED` finds, in the shopper's order."""
    return expected_order(ids(shop.direct({**RED, "size": 180})), shopper)[:6]

"""A version goes live while shoppers search: two server processes, a real Triton, by the admin API."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import orjson
import urllib3

from endcap.catalog import Product
from endcap.engines.embedded import EmbeddedEngine
from endcap.registry import INTEREST, Registry
from endcap.settings import load_settings
from endcap.stores.database import Database
from tests.plugin.test_publishing import bundle_without_content
from tests.reranker.hook_support import fresh_call
from tests.reranker.test_hook_serve import served
from tests.services.triton import Triton
from tests.serving import eventually

TOKEN = "t" * 40
#: So many searches in a row by one scorer, after the switch, that every process is past it.
SETTLED = 100


class Load:
    """Four shoppers who search without a pause. Counts what they were answered, by scorer, and everything else."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/search?q=honey&size=5"
        self._stop = threading.Event()
        self.failed: list[str] = []
        #: (time, scorer, fallback)
        self.answers: list[tuple[float, str, str]] = []
        self._threads = [threading.Thread(target=self._search, args=(f"shopper {n}",)) for n in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _search(self, shopper: str) -> None:
        # A connection each time, so that both processes are asked.
        with urllib3.PoolManager(retries=False) as pool:
            while not self._stop.is_set():
                headers = {"X-Endcap-Shopper": shopper, "Connection": "close"}
                asked = time.monotonic()
                try:
                    answer = pool.request("GET", self._url, headers=headers, timeout=60.0)
                except urllib3.exceptions.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                body = orjson.loads(answer.data)
                if answer.status != 200 or len(body["hits"]) != 5 or body["ranking"]["degraded"]:
                    self.failed.append(f"{answer.status} {answer.data[:300]!r}")
                    continue
                self.answers.append((asked, body["ranking"]["scorer"], str(body["ranking"].get("fallback", ""))))

    def settled(self, scorer: str, since: float) -> bool:
        """Whether the latest searches of those asked since then were all scored by it."""
        latest = [by for asked, by, _ in list(self.answers) if asked > since][-SETTLED:]
        return len(latest) == SETTLED and set(latest) == {scorer}


def test_every_process_switches_and_no_search_fails(tmp_path: Path, triton: Triton) -> None:
    values = {
        "triton_url": triton.url, "triton_repository": str(triton.repository), "triton_device": "python",
        "admin_token": TOKEN, "deadline_ms": 60_000,
    }  # fmt: skip
    settings = load_settings(data_dir=tmp_path / "data", index="shop", text_encoder="none", **values)
    engine = EmbeddedEngine(settings.data_dir, settings.index)
    engine.ensure(None, "none")
    engine.upsert([(Product(f"p{number}", "Honey", price=1.0), None, "") for number in range(30)])
    engine.refresh()
    engine.close()
    database = Database.in_folder(settings.data_dir)
    registry = Registry(database, settings.models_folder)
    for number in (101, 102):
        registry.add_candidate(INTEREST, str(number), bundle_without_content(settings.models_folder, number))
    database.close()

    with served(tmp_path, "--workers", "2", "--port", "0", **values) as server:
        url = server.url()

        def call(path: str) -> int:
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
            answer = urllib3.request("POST", f"{url}/admin/v1/versions/{path}", body=b"{}", headers=headers, timeout=60)
            return answer.status

        for _ in server.one_by_one():  # both know the products
            assert eventually(lambda: _scorer(url) == "baseline")
        with Load(url) as load:
            assert call("interest/101/promote") == 409, "it was not judged"
            for path, scorer in (
                ("interest/101/pin", "triton:interest-101"),
                ("interest/102/pin", "triton:interest-102"),
                ("interest/roll-back", "triton:interest-101"),
            ):
                promoted = time.monotonic()
                assert call(path) == 200
                assert eventually(lambda: load.settled(scorer, promoted)), (path, load.answers[-3:], load.failed[-3:])  # noqa: B023
        assert load.failed == []
        assert not [fallback for _, _, fallback in load.answers if fallback]


def _scorer(url: str) -> str:
    """Who scores a search now; empty while nobody can."""
    ranking = fresh_call("GET", f"{url}/v1/search?q=honey&size=5", headers={"X-Endcap-Shopper": "x"}).json()["ranking"]
    return "" if ranking["degraded"] else str(ranking["scorer"])

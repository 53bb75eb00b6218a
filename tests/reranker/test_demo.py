"""The demo shop: readable products, deterministic events, set up once, even if killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from endcap.catalog.product import PATH_SEPARATOR
from endcap.events import Action
from endcap.runtime import open_runtime
from endcap_reranker.app import create_app
from endcap_reranker.demo import naming
from endcap_reranker.demo.command import demo_settings
from endcap_reranker.demo.dataset import load_journey
from endcap_reranker.demo.prepare import DemoState, is_prepared, prepare, read_state
from endcap_reranker.storefront import load_showcase
from tests.plugin.elasticsearch_support import concrete, index  # noqa: F401
from tests.reranker.demo_support import open_shop, set_up_shop, shop_settings, small_journey
from tests.reranker.hook_support import engine_call
from tests.services.process import free_port
from tests.serving import eventually

DAY_S = 86_400.0


def quiet(stage: str, done: int, total: int) -> None:
    """No progress bars."""


class TestNames:
    @pytest.mark.parametrize(
        ("category", "kind", "name"),
        [
            ("FRZN ICE", "ICE - CRUSHED/CUBED", "Ice Cubes"),
            ("BREAKFAST SWEETS", "SW GDS: SW ROLLS/DAN", "Sweet Rolls and Danish"),
            ("PASTA SAUCE", "PREMIUM", "Premium Pasta Sauce"),
            ("BACON", "PREMIUM", "Premium Bacon"),
            ("APPLES", "APPLES GALA (BULK&BAG)", "Gala Apples"),
            ("CANNED JUICES", "GRAPE JUICE (50% AND UNDER JCE", "Grape Juice Drink"),
            ("EGGS", "EGGS - LARGE", "Large Eggs"),
            ("SOMETHING NEW", "FRZN VEG W/BTR SAUCE", "Frozen Vegetable with Butter Sauce"),
        ],
    )
    def test_a_type_reads_like_a_shelf_label(self, category: str, kind: str, name: str) -> None:
        assert naming.type_name(category, kind) == name

    def test_categories(self) -> None:
        assert naming.category_name("PNT BTR/JELLY/JAMS") == "Peanut Butter, Jelly and Jam"
        assert naming.aisle("GROCERY", "YOGURT") == "Dairy & Eggs"
        assert naming.aisle("NUTRITION", "YOGURT") == "Natural Foods"

    @pytest.mark.parametrize(
        ("size", "name"),
        [
            ("22 LB", "22 lb"),
            ("10 3/4 OZ", "10 3/4 oz"),
            (".5 L", "0.5 l"),
            ("970632 PK", ""),
            ("PT", "1 pint"),
            ("", ""),
        ],
    )
    def test_sizes(self, size: str, name: str) -> None:
        assert naming.size_name(size) == name

    @pytest.mark.parametrize("category", ["COUPON/MISC ITEMS", "CIGARETTES", "TICKETS", "BOTTLE DEPOSITS"])
    def test_what_is_no_product(self, category: str) -> None:
        assert not naming.is_product("GROCERY", category, "ANYTHING")

    def test_no_product_of_the_shop_keeps_an_abbreviation(self) -> None:
        journey = load_journey()
        assert 19_000 < len(journey.products) < 19_900
        cryptic = re.compile(
            r"\b(FRZN|Frzn|Sw|Gds|Pnt|Btr|Misc|Pkgd|Cnd|Chix|Prep|Fd|Sft|Drnk|Btl|Mlt)\b|[(&/:]|[A-Z]{4}"
        )
        for product in journey.products:
            name = product.attributes["product_type"]
            assert name, product
            assert not cryptic.search(name), product
            assert 1 <= len(product.categories) <= 3
            assert PATH_SEPARATOR not in "".join(product.categories)
            assert product.brand == "Store Brand" or re.fullmatch(r"Brand \d+", product.brand)
            assert product.price is None or product.price > 0


class TestEvents:
    def test_ids_and_times_depend_on_the_data_alone(self) -> None:
        first = [one for batch in small_journey().events(3 * DAY_S) for one in batch]
        again = [one for batch in small_journey().events(3 * DAY_S, batch=7) for one in batch]
        assert first == again
        assert len({one.id for one in first}) == len(first) == len(small_journey().purchases)
        assert [one.time for one in first] == sorted(one.time for one in first)
        assert {one.action for one in first} == {Action.PURCHASE}

    def test_the_last_purchase_was_yesterday(self) -> None:
        now = 1_800_000_000.0
        shift = small_journey().shift_to_yesterday(now)
        assert shift % DAY_S == 0
        last = small_journey().purchases["time"].iloc[-1] + shift
        assert now // DAY_S - last // DAY_S == 1


class TestPreparing:
    def test_is_done_once(self, tmp_path: Path) -> None:
        settings = shop_settings(tmp_path, text_encoder="none")
        assert not is_prepared(settings)
        state = prepare(settings, quiet, small_journey())
        assert is_prepared(settings)
        assert not is_prepared(shop_settings(tmp_path, text_encoder="use-multilingual"))
        stages: list[str] = []
        assert prepare(settings, lambda stage, done, total: stages.append(stage), small_journey()) == state
        assert stages == []
        runtime = open_runtime(settings, start=False)
        assert runtime.engine.count() == len(small_journey().products) == state.products
        assert runtime.log.count() == len(small_journey().purchases) == state.purchases
        runtime.close()
        showcase = load_showcase(tmp_path)
        assert showcase is not None
        assert len(showcase.shoppers) == small_journey().purchases["household"].nunique()
        assert 3 <= len(showcase.featured) <= 12
        assert len({showcase.by_id[one].line for one in showcase.featured}) >= 3
        assert all(one.line.startswith("Buys ") for one in showcase.shoppers)

    def test_killed_half_way_it_goes_on(self, tmp_path: Path) -> None:
        script = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from endcap_reranker.demo import prepare as module\n"
            "from tests.reranker.demo_support import shop_settings, small_journey\n"
            "journey = small_journey()\n"
            "events = type(journey).events\n"
            "type(journey).events = lambda self, shift: events(self, shift, batch=2_000)\n"
            "def show(stage, done, total):\n"
            "    if stage == 'purchases' and done >= 6_000:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "module.prepare(shop_settings(Path(sys.argv[1]), text_encoder='none'), show, journey)\n"
        )
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, check=False)
        assert done.returncode == -signal.SIGKILL
        settings = shop_settings(tmp_path, text_encoder="none")
        broken_off = read_state(tmp_path)
        assert not broken_off.finished
        prepare(settings, quiet, small_journey())
        state = read_state(tmp_path)
        assert state.finished
        assert state.shift_s == broken_off.shift_s, "the same purchase must not come back at another time"
        runtime = open_runtime(settings, start=False)
        assert runtime.log.count() == len(small_journey().purchases)
        assert runtime.engine.count() == len(small_journey().products)
        runtime.close()

    def test_another_encoder_makes_the_index_anew(self, tmp_path: Path) -> None:
        prepare(shop_settings(tmp_path, text_encoder="none"), quiet, small_journey())
        settings = set_up_shop(tmp_path)
        assert is_prepared(settings)
        runtime = open_runtime(settings, start=False)
        assert runtime.encoder is not None
        assert len(runtime.engine.nearest(runtime.encoder.encode_query("milk"), 5).ids) == 5
        assert runtime.log.count() == len(small_journey().purchases)
        runtime.close()

    @pytest.mark.elasticsearch
    def test_it_stands_in_front_of_another_engine_where_one_is_named(
        self,
        tmp_path: Path,
        elasticsearch: str,
        index: str,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("ENDCAP_ENGINE_URL", elasticsearch)
        monkeypatch.setenv("ENDCAP_TEXT_ENCODER", "none")
        assert demo_settings(tmp_path).engine_url == elasticsearch
        settings = shop_settings(tmp_path, text_encoder="none", index=index)
        prepare(settings, quiet, replace(small_journey(), purchases=small_journey().purchases[:2_000]))
        assert is_prepared(settings)
        with open_shop(settings) as runtime:
            client = create_app(runtime).test_client()
            shopper = runtime.log.since(0, 1).shoppers[0]
            mine = {"X-Endcap-Shopper": shopper}
            found = client.get("/v1/search?q=milk", headers=mine).json
            assert found["total"] > 0
            assert found["ranking"]["personalized"]
            hook = client.get(f"/{index}/_search?q=milk", headers=mine)
            assert (hook.status_code, hook.headers["X-Endcap-Personalized"]) == (200, "1")
            assert hook.json["hits"]["hits"][0]["_index"].startswith(index)
        # Elsewhere it is not there, and neither is it where it was deleted.
        assert not is_prepared(settings.model_copy(update={"engine_url": ""}))
        for name in concrete(elasticsearch, index):
            engine_call("DELETE", f"{elasticsearch}/{name}")
        assert not is_prepared(settings)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 0}', b'{"shape": "other"}'])
    def test_a_state_that_cannot_be_read_is_none(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "demo.json").write_bytes(content)
        assert read_state(tmp_path) == DemoState()


def test_the_command_sets_up_serves_and_ends(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "shop"
    command = [sys.executable, "-c", "from endcap_reranker.demo.command import demo; demo()", "--small", "--no-browser"]
    environment = {**os.environ, "ENDCAP_TEXT_ENCODER": "none", "ENDCAP_DATABASE_URL": "sqlite:////nowhere/events.db"}
    with subprocess.Popen(
        [*command, "--port", str(port), "--data-dir", str(folder)], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if f"http://127.0.0.1:{port}/" in line and "open" in line:
                break
        else:
            pytest.fail("".join(lines))
        url = f"http://127.0.0.1:{port}/"
        token = next(line.split()[-1] for line in process.stderr if "log in with" in line)
        admin = urllib.request.Request(f"{url}admin/v1/jobs", headers={"Authorization": f"Bearer {token}"})
        assert urllib.request.urlopen(admin, timeout=60).status == 200
        page = urllib.request.urlopen(url, timeout=60)
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        assert b"Household" in page.read()
        found = orjson.loads(urllib.request.urlopen(f"{url}v1/search?q=milk", timeout=60).read())
        assert found["total"] > 0
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(90) == 0

    def silent() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) != 0

    assert eventually(silent), "the server outlived its command"

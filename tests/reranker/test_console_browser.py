"""The console in a real Chromium: log in, train, see it run, promoted; roll back. On a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from endcap.bundles import load_bundle, write_bundle
from endcap.keeper import Keeper
from endcap.personalizer import Ranking
from endcap.registry import INTEREST, open_registry
from endcap.runtime import Runtime
from endcap.settings import Settings, load_settings
from endcap.stores.tokens import Tokens
from endcap_reranker.console.pages import PAGES
from endcap_reranker.worker_beside import worker_beside
from tests.reranker.demo_support import open_shop
from tests.reranker.pages import opened
from tests.serving import eventually
from tests.workers.train_support import events, shop

PATHS = [*(name.rpartition(".")[2] for name in PAGES), "shopper?id=s1&q=shelf1"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made = shop(tmp_path_factory.mktemp("shop"), events(shoppers=40, days=80))
    return load_settings(
        **{**made.model_dump(), "deadline_ms": 60_000, "schedule": {}, "admin_calls_per_minute": 100_000}
    )


@pytest.fixture(scope="module")
def runtime(settings: Settings) -> Iterator[Runtime]:
    with open_shop(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def token(runtime: Runtime) -> str:
    return Tokens(runtime.database).create("Ann", "admin")[0]


@pytest.fixture
def enter(browser: Browser, url: str, token: str) -> Iterator[Any]:
    """A page of a browser that has just logged in."""
    with opened(browser, url) as pages:

        def entered(width: int = 1280, height: int = 860, **options: Any) -> Page:
            page = pages.new(width, height, **options)
            page.on("dialog", lambda dialog: dialog.accept())
            page.goto(f"{url}console")
            if options.get("java_script_enabled") is False:
                page.fill("#token", token)
                page.click("text=Log in >> nth=-1")
            else:
                expect(page.locator("#token")).to_be_focused()
                page.keyboard.type(token)
                page.keyboard.press("Enter")
            expect(page.locator("h1")).to_have_text("Overview")
            return page

        yield entered


def test_a_wrong_token_says_so(browser: Browser, url: str) -> None:
    page = browser.new_page()
    page.goto(f"{url}console")
    page.fill("#token", "endcap_wrong")
    page.click("button.primary")
    expect(page.locator(".note.bad")).to_contain_text("not known here")
    expect(page.locator("#token")).to_be_visible()
    page.close()


def test_the_loop_is_closed_from_the_console(enter: Any, runtime: Runtime, url: str) -> None:
    page: Page = enter()
    page.click("nav a >> text=Jobs")
    expect(page.locator(".note.warn")).to_contain_text("No worker is at work")
    before = _rank(runtime)
    keeper = worker_beside(runtime.settings)
    try:
        _train(page, url, keeper)
    finally:
        keeper.close()
    registry = open_registry(runtime.settings, runtime.database)
    trained = registry.versions(INTEREST)[0]
    if trained.state != "live":  # its gate may find nothing better in so small a training: a person decides
        page.goto(f"{url}console/models/interest/{trained.version}")
        page.click("text=Promote all the same")
        expect(page.locator(".note.good")).to_contain_text("is live")
    assert eventually(lambda: _rank(runtime).scorer == f"onnx:interest-{trained.version}")
    after = _rank(runtime)
    assert before.scorer == "baseline"
    assert after.order.tolist() != before.order.tolist()

    # The same weights as another version: a second training would only take longer.
    again = _copied(registry.folder(trained))
    registry.add_candidate(INTEREST, "2", again, {"held-out ndcg@10": 0.9})
    page.goto(f"{url}console/models/interest/2?with={trained.version}")
    expect(page.locator("table")).to_contain_text("held-out ndcg@10")
    page.click("text=Promote all the same")
    expect(page.locator(".note.good")).to_contain_text("interest 2 is live")
    page.click("nav a >> text=Models")
    expect(page.locator("tbody tr", has=page.locator("th", has_text=re.compile("^2$")))).to_contain_text("live")
    page.click("text=Roll back")
    expect(page.locator(".note.good")).to_contain_text(f"Rolled back: interest {trained.version} is live")
    assert eventually(lambda: _rank(runtime).scorer == f"onnx:interest-{trained.version}")
    page.click("nav a >> text=Audit log")
    expect(page.locator("tbody tr").first).to_contain_text("roll-back")
    expect(page.locator("tbody tr").first).to_contain_text("Ann")


def _train(page: Page, url: str, keeper: Keeper) -> None:
    """By the form of the job, as somebody who does not want to wait for a whole training."""
    page.goto(f"{url}console/jobs")
    row = page.locator("tbody tr", has=page.locator("th", has_text=re.compile("^Train a model.*train$")))
    row.locator("summary").click()
    for name, value in {"lists": "200", "epochs": "1"}.items():
        row.locator(f"[name={name}]").fill(value)
    row.locator("[name=promote]").select_option("True")
    row.locator("button.primary").click()
    expect(page.locator("h1")).to_contain_text("train")
    # It renews itself: waiting, running with its progress, done, without the page being loaded by hand.
    expect(page.locator("progress")).to_be_visible()
    keeper.start()  # not before: the run might be over by then
    expect(page.locator(".pill.good")).to_have_text("done", timeout=120_000)
    expect(page.locator("pre").first).to_contain_text("version")


def _rank(runtime: Runtime) -> Ranking:
    ids = [f"p{number}" for number in range(1, 80, 5)]
    return runtime.personalizer.rank("s1", "shelf1", ids, np.zeros(len(ids), dtype=np.float32))


def _copied(folder: Path) -> Path:
    bundle = load_bundle(folder)
    graph = (folder / "model.onnx").read_bytes()
    return write_bundle(
        folder.parent, graph, bundle.spec, bundle.vocabulary, version=2, seed=1,
        affinity=bundle.affinity, calibration=bundle.calibration,
    )  # fmt: skip


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (375, "dark"), (1280, "dark")])
def test_pages_fit_any_screen(enter: Any, url: str, width: int, scheme: str) -> None:
    page: Page = enter(width, 740, color_scheme=scheme)
    for name in PATHS:
        page.goto(f"{url}console/{name}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        small = page.evaluate(
            """[...document.querySelectorAll('button, summary, nav a, input:not([type=hidden]), select')]
               .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 31)
               .map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert small == [], name
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (light == "rgb(245, 244, 240)") == (scheme == "light")


def test_a_label_of_two_lines_does_not_lie_on_the_next_one(enter: Any, url: str) -> None:
    page: Page = enter(375, 740)
    page.goto(f"{url}console/tokens")
    cell = page.locator(".stacks td:not(:last-child)").first
    low = cell.evaluate("one => one.getBoundingClientRect().height")
    cell.evaluate("one => { one.dataset.label = 'calibration error of the held-out'; one.textContent = '1'; }")
    assert cell.evaluate("one => one.getBoundingClientRect().height") > low + 10


def test_by_keyboard_alone(enter: Any) -> None:
    page: Page = enter()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.locator("nav a", has_text="Models").focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Models")


def test_without_scripts_everything_is_there(enter: Any, url: str) -> None:
    page: Page = enter(java_script_enabled=False)
    for name in PATHS:
        page.goto(f"{url}console/{name}")
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator("nav.side a", has_text="Settings")).to_be_visible()

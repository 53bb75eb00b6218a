"""The grocery shop in a real Chromium: a photo goes in, the product comes out, on a desk and on a phone."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from endcap.errors import ConfigurationError
from endcap.runtime import Runtime, open_runtime
from endcap.settings import Settings, load_settings
from endcap_reranker.app import create_app
from endcap_reranker.demo import groceries
from endcap_reranker.demo.command import GROCERIES, demo_settings
from endcap_reranker.storefront import load_showcase
from tests.photo_support import packaged_encoders
from tests.reranker.pages import opened
from tests.reranker.test_storefront import settled


def unpacked(folder: Path) -> Settings:
    """The shop, made of the real data; searched by keywords and pictures, which is quick to set up."""
    try:
        groceries.grocery_folder()
    except ConfigurationError as reason:
        pytest.skip(f"shared data: {reason}")
    (folder / "encoders").symlink_to(packaged_encoders())
    settings = demo_settings(folder, GROCERIES)
    settings = load_settings(**{**settings.model_dump(), "text_encoder": "none"})
    groceries.prepare(settings, lambda stage, done, total: None)
    return settings


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    opened = open_runtime(unpacked(tmp_path_factory.mktemp("groceries")))
    yield opened
    opened.close()


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Any]:
    with opened(browser, url, but_for="422") as pages:

        def opener(width: int = 1280, height: int = 860, **options: Any) -> Page:
            page = pages.new(width, height, **options)
            page.goto(url)
            page.wait_for_selector("#cards-mine .card")
            settled(page)
            return page

        yield opener


def iconic(runtime: Runtime, name: str) -> Path:
    return Path(runtime.settings.image_dir) / "iconic" / f"{name}.jpg"


def shown(page: Page) -> list[str]:
    settled(page)
    found = page.locator("#cards-mine .card").evaluate_all("cards => cards.map(card => card.dataset.id)")
    return [str(one) for one in found]


def drop(page: Page, data: bytes, name: str) -> None:
    """As a file manager does it."""
    transfer = page.evaluate_handle(
        """([encoded, name]) => {
          const bytes = Uint8Array.from(atob(encoded), (one) => one.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name));
          return transfer;
        }""",
        [base64.b64encode(data).decode(), name],
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_be_hidden()


def test_a_dropped_photo_finds_the_product_and_words_narrow_it(open_page: Any, runtime: Runtime) -> None:
    page: Page = open_page()
    expect(page.locator("#photo-hint")).to_contain_text("Drop a photo")
    drop(page, iconic(runtime, "Pineapple").read_bytes(), "IMG_1.jpg")
    expect(page.locator("#photo-chip img")).to_be_visible()
    expect(page.locator("#head-mine")).to_have_text("What looks like your photo")
    assert shown(page)[0] == "Pineapple"
    expect(page.locator("#panel-engine")).to_be_hidden()
    expect(page.locator("#cards-mine .tile.pictured").first).to_be_visible()
    page.fill("#q", "yoghurt")
    page.press("#q", "Enter")
    expect(page.locator("#facts")).to_contain_text("by photo and words")
    settled(page)
    assert any("oghurt" in one for one in shown(page)[:4])
    page.get_by_role("button", name="Remove the photo").click()
    expect(page.locator("#photo-chip")).to_be_hidden()
    expect(page.locator("#panel-engine")).to_be_visible()
    expect(page.locator("#photo-button")).to_be_focused()


def test_the_camera_button_by_keyboard_and_filters(open_page: Any, runtime: Runtime) -> None:
    page: Page = open_page()
    # Listening before anything is pressed: the browser needs a moment until it hands choosers over.
    page.on("filechooser", lambda chooser: chooser.set_files(iconic(runtime, "Lemon")))
    page.focus("#q")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Search by photo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#facts")).to_contain_text("by photo")
    assert shown(page)[0] == "Lemon"
    page.locator("#facets .chip").first.click()
    expect(page.locator("#facets .chip").first).to_have_attribute("aria-pressed", "true")
    assert shown(page)
    assert page.locator("#photo").get_attribute("capture") is None


def test_what_is_no_picture_is_said_and_can_be_taken_back(open_page: Any) -> None:
    page: Page = open_page()
    drop(page, b"no picture at all", "notes.txt")
    expect(page.locator("#notice")).to_contain_text("The photo cannot be searched by")
    expect(page.locator("#notice")).to_contain_text("no image that can be read")
    page.locator("#notice").get_by_role("button", name="Remove the photo").click()
    expect(page.locator("#notice")).to_be_hidden()
    assert shown(page)


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_the_camera_opens_and_nothing_overflows(open_page: Any, width: int) -> None:
    page: Page = open_page(width, 800, has_touch=True, is_mobile=True)
    assert page.locator("#photo").get_attribute("capture") == "environment"
    page.locator("#photo-hint .samples button").first.tap()
    expect(page.locator("#photo-chip img")).to_be_visible()
    assert len(shown(page)) > 5
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#photo-button").bounding_box()
    assert box is not None
    assert min(box["width"], box["height"]) >= 40


def test_pictures_are_served_from_their_folder_alone(runtime: Runtime) -> None:
    client = create_app(runtime).test_client()
    picture = client.get("/storefront/pictures/iconic/Lemon.jpg")
    assert picture.status_code == 200
    assert picture.mimetype == "image/jpeg"
    for path in ("../groceries.json", "..%2f..%2fetc/passwd", "iconic", "iconic/none.jpg", "%2e%2e/photos.npz"):
        assert client.get(f"/storefront/pictures/{path}").status_code in (400, 404)
    showcase = load_showcase(runtime.settings.data_dir)
    assert showcase is not None
    assert len(showcase.photos) == 9
    assert all(client.get(f"/storefront/pictures/{one}").status_code == 200 for one in showcase.photos)


def test_the_shop_is_made_once_and_says_what_is_missing(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert groceries.is_prepared(runtime.settings)
    assert not groceries.is_prepared(demo_settings(tmp_path, GROCERIES))
    assert runtime.engine.count() == 81
    monkeypatch.setenv("ENDCAP_SHARED_DATA", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"GroceryStoreDataset.*ENDCAP_SHARED_DATA"):
        groceries.prepare(demo_settings(tmp_path, GROCERIES), lambda stage, done, total: None)

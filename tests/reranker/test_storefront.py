"""The storefront in a real Chromium: what a visitor sees and does, on a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, expect

from endcap.policy.rule import rule_of
from endcap.policy.rules import RuleBook
from endcap.runtime import Runtime
from endcap_reranker.app import create_app
from endcap_reranker.storefront import ShopperCard, Showcase, load_showcase, save_showcase
from tests.reranker.demo_support import open_shop, serving, set_up_shop
from tests.reranker.pages import opened
from tests.serving import eventually

PHONES = [(320, 640), (375, 780), (400, 860)]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with open_shop(set_up_shop(tmp_path_factory.mktemp("shop"))) as opened:
        yield opened


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Any]:
    with opened(browser, url) as pages:

        def opener(width: int = 1280, height: int = 860, query: str = "", **options: Any) -> Page:
            page = pages.new(width, height, **options)
            page.goto(url + query)
            page.wait_for_selector("#cards-mine .card")
            settled(page)
            return page

        yield opener


def settled(page: Page) -> None:
    """The answer to the latest search is on the page."""
    page.wait_for_selector("#columns:not([aria-busy])", state="attached")


def ids(page: Page, column: str) -> list[str]:
    """Products of a column, in order."""
    found = page.locator(f"#cards-{column} .card").evaluate_all("cards => cards.map(card => card.dataset.id)")
    return [str(one) for one in found]


def search(page: Page, text: str) -> None:
    page.fill("#q", text)
    page.press("#q", "Enter")
    expect(page).to_have_url(searched(text))
    settled(page)


def searched(text: str) -> Any:
    """The address of a search, as a pattern."""
    return re.compile(re.escape(f"q={quote_plus(text)}"))


def test_two_orders_of_the_same_products(open_page: Any) -> None:
    page: Page = open_page()
    search(page, "cheese")
    engine, mine = ids(page, "engine"), ids(page, "mine")
    assert engine
    assert engine != mine
    expect(page.locator("#head-mine")).to_contain_text("Household")
    expect(page.locator("#facts")).to_contain_text("personal")
    # Each product says how far it moved, and that is true.
    for card in page.locator("#cards-mine .card").all():
        place = int(card.locator(".rank").inner_text())
        move = card.locator(".move").inner_text().split("\n")[0]
        by = 0 if move == "=" else int(move[1:]) * (1 if move[0] == "▲" else -1)
        identity = card.get_attribute("data-id")
        if identity in engine:
            assert engine.index(str(identity)) + 1 == place + by


def test_what_is_sponsored_says_so(open_page: Any, runtime: Runtime) -> None:
    arranger = runtime.personalizer.arranger
    before = arranger.rules
    page: Page = open_page()
    search(page, "cheese")
    sold = ids(page, "mine")[3]
    rule = rule_of({"name": "offer", "kind": "sponsor", "bid": 1.0, "floor": 0.0, "target": {"products": [sold]}})
    try:
        arranger.rules = RuleBook({1: rule})
        search(page, "milk")
        expect(page.locator(".card .meta", has_text="Sponsored")).to_have_count(0)
        search(page, "cheese")
        expect(page.locator("#cards-mine .card .meta", has_text="Sponsored")).to_have_count(1)
        expect(page.locator(f"#cards-mine .card[data-id='{sold}'] .meta")).to_contain_text("Sponsored")
    finally:
        arranger.rules = before


def test_another_shopper_another_order(open_page: Any) -> None:
    page: Page = open_page()
    search(page, "frozen")
    orders = set()
    for number in range(1, 5):
        page.locator("#shoppers .shopper").nth(number).click()
        expect(page.locator("#shoppers .shopper").nth(number)).to_have_attribute("aria-pressed", "true")
        settled(page)
        orders.add(tuple(ids(page, "mine")))
        name = page.locator("#shoppers .shopper").nth(number).locator("b").inner_text()
        expect(page.locator("#head-mine")).to_contain_text(name)
        expect(page.locator("#history-list li").first).to_contain_text("Bought")
    assert len(orders) > 2


def test_a_purchase_moves_the_product_up_and_enters_the_history(open_page: Any, runtime: Runtime) -> None:
    page: Page = open_page(query="?q=cheese")
    page.locator('[data-shopper="guest"]').click()
    settled(page)
    expect(page.locator("#facts")).to_contain_text("not personal yet")
    engine, before = ids(page, "engine"), ids(page, "mine")
    wanted = before[-1]
    card = page.locator(f'#cards-mine .card[data-id="{wanted}"]')
    title = card.locator(".title").inner_text()
    card.get_by_role("button", name="Buy").click()
    expect(page.locator("#toast")).to_contain_text("Bought")
    settled(page)
    after = ids(page, "mine")
    assert after.index(wanted) < before.index(wanted)
    assert ids(page, "engine") == engine, "the engine's order is everyone's"
    expect(page.locator(f'#cards-mine .card[data-id="{wanted}"]')).to_contain_text("You bought this")
    expect(page.locator("#history-list li").first).to_contain_text(title)
    # It was a UBI event with everything that learning needs.
    guest = next(one for one in page.context.cookies() if one["name"] == "endcap_shopper")["value"]
    stored = runtime.log.history(guest)[0]
    assert (stored.action.name, stored.product, stored.query) == ("PURCHASE", wanted, "cheese")
    assert stored.position == before.index(wanted) + 1
    assert stored.query_id
    assert stored.value > 0
    # The cookie brings the guest back.
    page.reload()
    page.locator("#shoppers .shopper").first.click()
    settled(page)
    expect(page.locator("#history-list li").first).to_contain_text(title)


def test_a_product_can_be_looked_at_and_put_into_the_cart(open_page: Any) -> None:
    page: Page = open_page(query="?q=milk")
    page.locator("#cards-mine .title").first.click()
    dialog = page.locator("#product")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text("Engine’s place")
    dialog.get_by_role("button", name="Add to cart").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#toast")).to_contain_text("Added to cart")
    settled(page)
    expect(page.locator("#history-list li").first).to_contain_text("Added to cart")


def test_nothing_found_says_what_to_do(open_page: Any) -> None:
    page: Page = open_page()
    search(page, "qwxzv jjkpt")
    expect(page.locator("#notice")).to_contain_text("Nothing found")
    page.locator("#notice .chip").first.click()
    settled(page)
    expect(page.locator("#notice")).to_be_hidden()
    assert ids(page, "mine")


def test_a_hostile_query_stays_text(open_page: Any) -> None:
    page: Page = open_page()
    search(page, "<img src=x onerror=alert(1)>")
    assert page.locator("main img").count() == 0


def test_filters_and_pages(open_page: Any) -> None:
    page: Page = open_page()
    search(page, "frozen")
    first = ids(page, "mine")
    if page.locator("#pager").is_visible():
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#pager")).to_contain_text("Page 2")
        settled(page)
        assert not set(first) & set(ids(page, "mine"))
    chip = page.locator("#facets .chip", has_text="Store brand")
    chip.click()
    settled(page)
    expect(page.locator("#facets .chip", has_text="Store brand")).to_have_attribute("aria-pressed", "true")
    for meta in page.locator("#cards-mine .meta").all_inner_texts():
        assert meta.startswith("Store Brand")


def test_an_address_can_be_shared(open_page: Any) -> None:
    page: Page = open_page()
    page.locator("#shoppers .shopper").nth(3).click()
    settled(page)
    search(page, "cheese")
    order = ids(page, "mine")
    other: Page = open_page(query="?" + page.url.partition("?")[2])
    assert ids(other, "mine") == order
    assert other.locator("#q").input_value() == "cheese"


def test_by_keyboard_alone(open_page: Any) -> None:
    page: Page = open_page(query="?q=cheese")
    page.keyboard.press("/")
    page.keyboard.type("milk")
    page.keyboard.press("Enter")
    expect(page).to_have_url(searched("milk"))
    settled(page)
    page.locator("#shoppers .shopper").nth(2).focus()
    page.keyboard.press("Enter")
    settled(page)
    expect(page.locator("#shoppers .shopper").nth(2)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#shoppers .shopper").nth(2)).to_be_focused()
    unnamed = page.locator("button, input").evaluate_all(
        "all => all.filter(one => !(one.innerText.trim() || one.ariaLabel || one.labels?.length)).map(one => one.id)"
    )
    assert unnamed == []


@pytest.mark.parametrize(("width", "height"), PHONES)
def test_on_a_phone(open_page: Any, width: int, height: int) -> None:
    page: Page = open_page(width, height, query="?q=frozen", is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("innerWidth") == width
    expect(page.locator("#panel-mine")).to_be_visible()
    expect(page.locator("#panel-engine")).to_be_hidden()
    page.locator("#tab-engine").tap()
    expect(page.locator("#panel-engine")).to_be_visible()
    expect(page.locator("#panel-mine")).to_be_hidden()
    page.locator("#tab-mine").tap()
    page.locator("#cards-mine").get_by_role("button", name="Buy").first.tap()
    expect(page.locator("#toast")).to_contain_text("Bought")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    small = page.locator("#cards-mine .act, .tabs button, .search button").evaluate_all(
        "all => all.filter(one => one.getBoundingClientRect().height < 32).length"
    )
    assert small == 0, "too small for a finger"
    search(page, "qwxzv jjkpt")
    expect(page.locator("#notice")).to_contain_text("Nothing found")
    expect(page.locator(".tabs")).to_be_hidden()
    expect(page.get_by_text("not personal yet")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(open_page: Any, scheme: str) -> None:
    page: Page = open_page(query="?q=cheese", color_scheme=scheme)
    for selector in READ:
        ratio = page.locator(selector).first.evaluate(_CONTRAST)
        assert ratio >= 4.5, (selector, ratio)


READ = (".title", ".meta", ".why", ".price", ".shopper small", "#facts", ".act.buy", ".search button", ".move.up")
_CONTRAST = """node => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  let behind = node, back = [0, 0, 0, 0];
  while (behind && (back.length === 4 && back[3] === 0)) {
    back = rgb(getComputedStyle(behind).backgroundColor);
    behind = behind.parentElement;
  }
  const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const [a, b] = [light(rgb(getComputedStyle(node).color)), light(back)].sort((x, y) => y - x);
  return (a + .05) / (b + .05);
}"""


def test_when_the_server_is_gone_the_page_says_so_and_recovers(browser: Browser, runtime: Runtime) -> None:
    with serving(runtime) as address:
        page = browser.new_page()
        page.goto(f"{address}?q=milk")
        page.wait_for_selector("#cards-mine .card")
        page.route("**/v1/search", lambda route: route.abort())
        search(page, "cheese")
        expect(page.locator("#notice")).to_contain_text("cannot be reached")
        page.unroute("**/v1/search")
        page.get_by_role("button", name="Try again").click()
        page.wait_for_selector("#cards-mine .card")
        expect(page.locator("#notice")).to_be_hidden()
        page.close()


class TestPages:
    @pytest.fixture
    def client(self, runtime: Runtime) -> FlaskClient:
        return create_app(runtime).test_client()

    def test_the_page_forbids_what_it_does_not_need(self, client: FlaskClient) -> None:
        answer = client.get("/")
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "style=" not in answer.text
        assert "http://" not in answer.text
        assert "https://" not in answer.text

    def test_unknown_shoppers(self, client: FlaskClient) -> None:
        assert client.get("/storefront/shoppers/household-0").status_code == 404
        assert client.get(f"/storefront/shoppers/guest-{'x' * 10_000}").status_code in {200, 404}
        assert client.get("/storefront/shoppers/guest-new").get_json()["history"] == []

    def test_random_shoppers_differ(self, client: FlaskClient) -> None:
        assert len({client.get("/storefront/shoppers/random").get_json()["id"] for _ in range(12)}) > 1

    def test_a_showcase_comes_back_as_it_was_saved(self, tmp_path: Any) -> None:
        assert load_showcase(tmp_path) is None
        saved = Showcase(
            "</script><b>Shop", (ShopperCard("a", "Ann", "Buys <i>", 3),), ("a", "gone"), ("milk",), "note"
        )
        save_showcase(saved, tmp_path)
        assert load_showcase(tmp_path) == saved

    def test_names_cannot_break_out_of_the_page(self, runtime: Runtime, tmp_path: Any) -> None:
        from endcap_reranker.storefront import create_storefront

        app = Flask("test")
        card = ShopperCard("a", "</script><script>alert(1)</script>", "<b>", 3)
        app.register_blueprint(create_storefront(runtime, Showcase("<i>Shop</i>", (card,), ("a",))))
        text = app.test_client().get("/").text
        assert "<script>alert(1)" not in text
        assert "<i>Shop" not in text


def known_by_word(runtime: Runtime) -> None:
    """Waits until suggestions and recommendations can be made."""
    assert eventually(lambda: runtime.discovery.caught_up and runtime.discovery.suggester)
    runtime.discovery.refresh()


def test_what_is_typed_is_completed(open_page: Any, runtime: Runtime) -> None:
    known_by_word(runtime)
    page: Page = open_page()
    box, options = page.locator("#q"), page.locator("#suggestions [role=option]")
    # Letter by letter there would be a list after each, and on a slow machine one might be drawn over what is chosen.
    box.fill("yogrt")
    expect(options.first).to_be_visible()
    expect(box).to_have_attribute("aria-expanded", "true")
    box.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    box.press("Escape")
    expect(options.first).to_be_hidden()
    box.fill("yogur")
    product = page.locator("#suggestions [data-kind=product]").first
    title = product.locator("span").inner_text()
    product.click()
    expect(page).to_have_url(searched(title))
    settled(page)
    expect(page.locator("#suggestions")).to_be_hidden()
    expect(page.locator("#cards-mine .title", has_text=title).first).to_be_visible()


def test_a_product_shows_what_is_similar_and_what_goes_with_it(open_page: Any, runtime: Runtime) -> None:
    known_by_word(runtime)
    page: Page = open_page(query="?q=milk")
    page.locator("#cards-mine .title").first.click()
    dialog = page.locator("#product")
    similar = dialog.get_by_role("region", name="Similar").locator("button")
    together = dialog.get_by_role("region", name="Often bought together").locator("button")
    expect(similar).to_have_count(4)
    expect(together).to_have_count(4)
    wanted = similar.first.get_attribute("data-id")
    similar.first.click()
    expect(dialog).to_have_attribute("data-id", str(wanted))
    expect(similar).to_have_count(4)
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()

"""Pages of a real browser, and what they must not do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page

#: How long a page is waited for.
PATIENCE_MS = 60_000


class Pages:
    """Opens pages, each in a browser of its own as far as the server can tell.

    ``complaints``: errors on their consoles, and requests for anything elsewhere than ``url``.
    """

    def __init__(self, browser: Browser, url: str) -> None:
        self.complaints: list[str] = []
        self._browser, self._url = browser, url
        self._contexts: list[BrowserContext] = []

    def new(self, width: int = 1280, height: int = 860, **options: Any) -> Page:
        """A blank page."""
        context = self._browser.new_context(viewport={"width": width, "height": height}, **options)
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda asked: self._asked(asked.url))
        return page

    def close(self) -> None:
        """Close them all."""
        for context in self._contexts:
            context.close()

    def _asked(self, address: str) -> None:
        if not address.startswith((self._url, "data:", "blob:")):
            self.complaints.append(address)


@contextmanager
def opened(browser: Browser, url: str, but_for: str = "nothing else") -> Iterator[Pages]:
    """Pages for a test; in the end nothing was complained of, but for what holds those words."""
    pages = Pages(browser, url)
    try:
        yield pages
    finally:
        pages.close()
    assert [one for one in pages.complaints if but_for not in one] == []

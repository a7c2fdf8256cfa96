"""A headless Chromium for tests, which also collects console messages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, sync_playwright

from tests.support.servers import missing

#: Chromium's sandbox doesn't run as root, and its background services connect to the internet.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
]
#: The impact levels of axe-core findings that fail a test.
GRAVE = {"serious", "critical"}
#: The width of a phone's screen in CSS pixels.
PHONE = 390


@dataclass
class Visit:
    """A page of the site at `address`, and the errors and warnings in its console."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.set_default_timeout(15_000)

    def open(self, path: str) -> Page:
        """Open a path. Its response must have a strict Content-Security-Policy."""
        answer = self.page.goto(self.address + path)
        assert answer is not None
        assert answer.ok, (path, answer.status)
        assert "default-src 'self'" in answer.headers.get("content-security-policy", "")
        return self.page

    def barriers(self) -> list[str]:
        """The serious and critical axe-core findings on the current page."""
        heard = len(self.complaints)
        found = Axe().run(self.page).response["violations"]
        del self.complaints[heard:]  # axe-core's own messages
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found
            if one["impact"] in GRAVE
            for node in one["nodes"]
        ]

    def too_wide(self) -> int:
        """The pixels by which the page overflows its window horizontally."""
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(script))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} ({message.location.get('url')})")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The installed Chromium, headless."""
    path = shutil.which("chromium")
    if path is None:
        missing("no chromium on PATH")
    # Playwright runs an event loop in this thread, in which Django forbids queries by default.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        driver: Playwright
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
            yield browser
            browser.close()


@contextmanager
def visiting(
    browser: Browser,
    address: str,
    *,
    session: str = "",
    scheme: Any = "light",
    width: int = 1280,
    **options: Any,
) -> Iterator[Visit]:
    """A visit in a new browser context.

    `session` is the session key of a logged-in user; `scheme` is "light" or "dark"; `width` is in
    CSS pixels.
    """
    viewport: Any = {"width": width, "height": 900}
    context = browser.new_context(color_scheme=scheme, viewport=viewport, **options)
    if session:
        context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
    visit = Visit(context.new_page(), address)
    yield visit
    context.close()
    assert not visit.complaints, f"complaints: {visit.complaints}"

"""A real Chromium for tests, that notices what a person would see in its console only."""

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

#: Chromium refuses to run as root in its sandbox, and would call home in the background.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
]
#: What axe-core calls a barrier that keeps people out.
GRAVE = {"serious", "critical"}
#: The width of a phone, in CSS pixels.
PHONE = 390


@dataclass
class Visit:
    """A page of the site at `address`, and what its console complains of."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.set_default_timeout(15_000)

    def open(self, path: str) -> Page:
        """Go there; the answer must be a page with a strict Content-Security-Policy."""
        answer = self.page.goto(self.address + path)
        assert answer is not None
        assert answer.ok, (path, answer.status)
        assert "default-src 'self'" in answer.headers.get("content-security-policy", "")
        return self.page

    def barriers(self) -> list[str]:
        """What keeps people out of the page as it is now: axe-core's grave findings."""
        heard = len(self.complaints)
        found = Axe().run(self.page).response["violations"]
        del self.complaints[heard:]  # of what axe-core itself puts into the page
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found
            if one["impact"] in GRAVE
            for node in one["nodes"]
        ]

    def too_wide(self) -> int:
        """By how many pixels the page is wider than its window: more, and it scrolls sideways."""
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(script))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} ({message.location.get('url')})")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine, without a window."""
    path = shutil.which("chromium")
    if path is None:
        missing("no chromium on PATH")
    # While it runs, this thread has an event loop, and Django would not let it read rows.
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
    """A visit in a context of its own, without anything of earlier ones.

    `session` is the key of a session of the site's, for somebody who is logged in; `scheme` is
    "light" or "dark"; `width` is in CSS pixels.
    """
    viewport: Any = {"width": width, "height": 900}
    context = browser.new_context(color_scheme=scheme, viewport=viewport, **options)
    if session:
        context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
    visit = Visit(context.new_page(), address)
    yield visit
    context.close()
    assert not visit.complaints, f"complaints: {visit.complaints}"

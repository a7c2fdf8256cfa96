"""The helpers of the browser tests detect faulty pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser

from tests.support.browser import PHONE, visiting

PAGES = {
    "/good": '<img alt="A kitten" src="data:,">',
    "/inline-script": "<script>document.title = 'hello'</script>",
    "/inline-style": '<p style="color: red">Hello</p>',
    "/missing-file": '<link rel="stylesheet" href="/nowhere.css">',
    "/no-alternative": '<img src="/picture.svg">',
    "/too-wide": "<table><tr>" + "<td>wider</td>" * 100 + "</table>",
}


class Site(BaseHTTPRequestHandler):
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = PAGES.get(self.path, "").encode()
        known = self.path in PAGES
        head = b'<!doctype html><html lang="en"><title>Page</title><link rel="icon" href="data:,">'
        self.send_response(200 if known or not self.path.endswith(".css") else 404)
        self.send_header("Content-Type", "image/svg+xml" if "svg" in self.path else "text/html")
        if self.path != "/lax":
            policy = "default-src 'self'; img-src 'self' data:"
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(head + b"<main>" + body + b"</main></html>" if known else b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_good_page_has_nothing_against_it(browser: Browser, address: str) -> None:
    with visiting(browser, address, width=PHONE) as visit:
        visit.open("/good")

        assert (visit.barriers(), visit.too_wide()) == ([], 0)


@pytest.mark.parametrize("path", ["/inline-script", "/inline-style", "/missing-file"])
def test_what_the_console_complains_of_fails_a_visit(
    browser: Browser, address: str, path: str
) -> None:
    with pytest.raises(AssertionError, match="complaints"), visiting(browser, address) as visit:
        visit.open(path)


def test_a_page_without_a_policy_is_no_page_of_ours(browser: Browser, address: str) -> None:
    with pytest.raises(AssertionError), visiting(browser, address) as visit:
        visit.open("/lax")


def test_a_barrier_is_found(browser: Browser, address: str) -> None:
    with visiting(browser, address) as visit:
        visit.open("/no-alternative")

        assert [text.partition(":")[0] for text in visit.barriers()] == ["image-alt"]


def test_a_page_that_scrolls_sideways_is_too_wide(browser: Browser, address: str) -> None:
    with visiting(browser, address, width=PHONE) as visit:
        visit.open("/too-wide")

        assert visit.too_wide() > 0

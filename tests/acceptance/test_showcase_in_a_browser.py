"""What a newcomer sees: `serve`, its showcase, and a video that comes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.test_commands_of_the_site import served, surroundings
from tests.browser import PHONE, chromium, visiting


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("site")
    with served(surroundings(directory), directory / "log") as address:
        yield f"http://{address}"


def test_from_the_link_to_the_end_of_a_video_in_three_clicks(browser: Browser, site: str) -> None:
    with visiting(browser, site) as visit:
        page = visit.open("/")  # the first click: the link that `serve` prints
        loads: list[Any] = []
        page.get_by_role("button", name="Generate").click()
        page.on("domcontentloaded", loads.append)
        video = page.locator("video-job video").first
        expect(video).to_be_visible(timeout=60_000)

        video.evaluate("video => { video.muted = true; }")
        box = video.bounding_box()
        assert box is not None
        # The player's own button.
        page.mouse.click(box["x"] + 25, box["y"] + box["height"] - 35)
        ended = video.evaluate(
            "video => video.ended || new Promise(done => { video.onended = () => done(true); })"
        )

        assert (ended, loads) == (True, [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_gallery_keeps_nobody_out(browser: Browser, site: str, scheme: str) -> None:
    with visiting(browser, site, scheme=scheme) as visit:
        visit.open("/")

        assert visit.barriers() == []


def test_the_gallery_fits_a_phone(browser: Browser, site: str) -> None:
    with visiting(browser, site, width=PHONE) as visit:
        visit.open("/")

        assert visit.too_wide() == 0


def test_a_refusal_stands_at_its_field(browser: Browser, site: str) -> None:
    with visiting(browser, site) as visit:
        page = visit.open("/")
        page.get_by_label("What the video shows").fill(" ")

        page.get_by_role("button", name="Generate").click()

        expect(page.locator(".errorlist")).to_contain_text("required")


def test_nothing_is_sent_again_for_a_page_that_did_not_change(browser: Browser, site: str) -> None:
    with visiting(browser, site) as visit:
        page = visit.open("/")
        page.get_by_role("button", name="Generate").click()

        # While it waits or is generated, an answer is asked for that says: as before.
        with page.expect_response(
            lambda answer: "/status/" in answer.url and answer.status == 304, timeout=30_000
        ):
            pass

"""The first steps of a new user in a browser: `serve`, the showcase, and a live video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from playwright.sync_api import Browser, Route, expect

from project.showcase.models import Postcard
from tests.acceptance.test_commands_of_the_site import served, surroundings
from tests.support import jobs
from tests.support.browser import PHONE, visiting
from tests.support.scenes import scene
from tests.support.videos import make_image
from videojobs.models import VideoJob


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site") / "log"


@pytest.fixture(scope="module")
def site(log: Path) -> Iterator[str]:
    with served(surroundings(log.parent), log) as address:
        yield f"http://{address}"


def test_from_the_link_to_the_end_of_a_video_in_three_clicks(browser: Browser, site: str) -> None:
    with visiting(browser, site) as visit:
        page = visit.open("/")  # the first click: the link that `serve` prints
        loads: list[Any] = []
        page.get_by_role("button", name="Generate").click()
        page.wait_for_load_state()
        expect(page.locator("video-job")).to_be_visible()
        page.on("domcontentloaded", lambda page: loads.append(page))
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
def test_the_gallery_is_accessible(browser: Browser, site: str, scheme: str) -> None:
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
        page.get_by_label("Description of the video").fill(" ")

        page.get_by_role("button", name="Generate").click()

        expect(page.locator(".errorlist")).to_contain_text("required")


def test_who_goes_back_finds_a_new_form_without_the_words_that_were_sent(
    browser: Browser, site: str
) -> None:
    with visiting(browser, site) as visit:
        page = visit.open("/")
        page.get_by_label("Title").fill("Sent already")
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_role("heading", name="Sent already")).to_be_visible()

        page.go_back()

        expect(page.get_by_label("Title")).to_have_value("Greetings from the meadow")


def test_nothing_is_sent_again_of_a_status_that_did_not_change(
    browser: Browser, site: str, log: Path
) -> None:
    with visiting(browser, site) as visit:
        page = visit.open("/")
        page.get_by_role("button", name="Generate").click()

        # Chromium reports a 304 as a 200 from its cache, so look into the site's log.
        for _answer in range(10):
            with page.expect_response("**/status/"):
                pass
            if '/status/ HTTP/1.1" 304' in log.read_text():
                return

    raise AssertionError(log.read_text())


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_never_comes_is_not_the_last_one(browser: Browser, live_server: Any) -> None:
    job = jobs.make("processing", metadata={"gallery": True})
    Postcard.objects.create(title="A kitten", text="A kitten", job=job)

    def leave_unanswered(route: Route) -> None:
        pass

    with visiting(browser, live_server.url) as visit:
        visit.page.clock.install()
        visit.page.route("**/status/", leave_unanswered, times=1)
        page = visit.open("/")
        with page.expect_request("**/status/"):
            page.clock.run_for(5_000)
        VideoJob.objects.filter(pk=job.pk).update(status="cancelled", due_at=None)

        page.clock.run_for(60_000)

        expect(page.locator("[data-part=text]")).to_have_text("Cancelled")


@pytest.mark.django_db(transaction=True)
def test_nothing_moves_of_a_job_that_may_not_be_seen_any_more(
    browser: Browser, live_server: Any
) -> None:
    job = jobs.make("processing", metadata={"gallery": True})
    Postcard.objects.create(title="A kitten", text="A kitten", job=job)
    with visiting(browser, live_server.url) as visit:
        visit.page.clock.install()
        page = visit.open("/")
        expect(page.locator("progress")).to_be_visible()
        VideoJob.objects.filter(pk=job.pk).update(metadata={})

        page.clock.run_for(5_000)

        expect(page.locator("progress")).to_have_count(0)
        [refused] = visit.complaints
        assert "404" in refused
        visit.complaints.clear()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("comes", ["with the page", "later"])
def test_a_video_that_can_not_be_played_is_words_and_no_black_box(
    browser: Browser, live_server: Any, comes: str
) -> None:
    state = "stored" if comes == "with the page" else "processing"
    job = jobs.make(state, metadata={"gallery": True})
    Postcard.objects.create(title="A kitten", text="A kitten", job=job)
    with visiting(browser, live_server.url) as visit:
        visit.page.clock.install()
        page = visit.open("/")
        if comes == "later":
            stored = jobs.make("stored")
            fields = ("status", "mirror_status", "output", "output_size", "output_sha256")
            values = {name: getattr(stored, name) for name in fields}
            VideoJob.objects.filter(pk=job.pk).update(**values, due_at=None)
            page.clock.run_for(5_000)

        expect(page.get_by_text("The video can't be played right now.")).to_be_visible()
        expect(page.locator("video")).to_have_count(0)
        assert visit.barriers() == []
        assert all("404" in complaint for complaint in visit.complaints)
        visit.complaints.clear()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("comes", ["with the page", "later"])
@pytest.mark.parametrize("is_there", [True, False], ids=["whole", "missing"])
def test_an_image_is_shown_to_visitors(
    browser: Browser, live_server: Any, comes: str, is_there: bool, tmp_path: Path
) -> None:
    stored = jobs.make("stored", output="2026/i.png", content_type="image/png")
    if is_there:
        picture = make_image(tmp_path / "i.png", size=(640, 360), picture=scene(1))
        stored.output.storage.save("2026/i.png", ContentFile(picture.read_bytes()))
    fields = ("status", "mirror_status", "output", "output_size", "output_sha256", "content_type")
    values = {name: getattr(stored, name) for name in fields}
    job = jobs.make("processing", metadata={"gallery": True})
    Postcard.objects.create(title="A kitten", text="A kitten", job=job)
    with visiting(browser, live_server.url) as visit:
        visit.page.clock.install()
        if comes == "later":
            page = visit.open("/")
        VideoJob.objects.filter(pk=job.pk).update(**values, due_at=None)
        if comes == "later":
            page.clock.run_for(5_000)
        else:
            page = visit.open("/")

        image = page.locator("video-job img")
        if is_there:
            expect(image).to_be_visible()
            assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 640
        else:
            expect(page.get_by_text("The image can't be shown right now.")).to_be_visible()
            expect(image).to_have_count(0)
        assert visit.barriers() == []
        if directory := os.environ.get("VIDEOJOBS_TEST_LOOK"):
            page.screenshot(path=f"{directory}/visitor-{comes}-{is_there}.png")
        visit.complaints = [one for one in visit.complaints if is_there or "404" not in one]

"""countdown.js on the list, in a browser with a fake clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Page, Route

from tests.support import jobs
from tests.support.browser import chromium
from videojobs.models import ProviderHold

SCRIPT = (
    Path(__file__).resolve().parent.parent.parent
    / "videojobs"
    / "static"
    / "videojobs"
    / "countdown.js"
)
CELLS = "[...document.querySelectorAll('.field-next_step time')].map(time => time.textContent)"
POLICY = {"Content-Security-Policy": "default-src 'self'"}


NOTICE = "document.querySelector('.videojobs-notice').textContent"


@pytest.fixture
def listed(admin_client: Client) -> str:
    """A late job, and one with its next step in 3 s and its estimated completion in 40 s."""
    now = timezone.now()
    for _ in range(5):
        jobs.make(
            "failed",
            status="completed",
            submitted_at=now,
            finished_at=now + timedelta(seconds=100),
            mirror_status="skipped",
        )
    jobs.make("queued", due_at=now - timedelta(seconds=90))
    due_at, submitted_at = now + timedelta(seconds=3.9), now - timedelta(seconds=59.1)
    jobs.make("processing", due_at=due_at, submitted_at=submitted_at)
    jobs.make_hold("unreachable")
    ProviderHold.objects.update(until=now + timedelta(seconds=20.9), reason="in 20 s <b>")
    return str(admin_client.get("/admin/videojobs/videojob/").content.decode())


@pytest.fixture
def page(listed: str) -> Iterator[Page]:
    """The list in a browser whose clock is two hours ahead and under control of the test."""

    def answer(route: Route) -> None:
        if route.request.url.endswith("/list"):
            route.fulfill(body=listed, content_type="text/html", headers=POLICY)
        elif route.request.url.endswith("countdown.js"):
            route.fulfill(body=SCRIPT.read_text(), content_type="text/javascript")
        else:
            route.abort()

    with chromium() as browser:
        page = browser.new_page()
        page.clock.install(time=timezone.now() + timedelta(hours=2))
        page.route("**/*", answer)
        page.goto("http://admin.example/list")
        yield page


@pytest.mark.django_db
def test_what_comes_counts_down_and_says_no_more_than_is_known(page: Page) -> None:
    seen = []
    for seconds in (1, 1, 3, 60):
        page.clock.run_for(seconds * 1000)
        seen.append(page.evaluate(CELLS)[:2])

    # The fake clock also advances in real time.
    assert seen[0] in (["in 2 s", "done in about 39 s"], ["in 1 s", "done in about 38 s"])
    assert seen[1] in (["in 1 s", "done in about 38 s"], ["now", "done in about 37 s"])
    assert seen[2][0] == "now"
    assert seen[3] == ["now", ""]


@pytest.mark.django_db
def test_what_is_late_stays_as_the_server_said(page: Page) -> None:
    page.clock.run_for(300_000)

    assert page.evaluate(CELLS)[2:] == ["1 min late"]


@pytest.mark.django_db
def test_the_next_try_of_a_hold_counts_down_with_the_jobs_below_it(page: Page) -> None:
    page.clock.run_for(10_000)
    soon = page.evaluate(NOTICE)
    page.clock.run_for(20_000)
    over = page.evaluate(NOTICE)

    # The reason of a hold may contain the same words.
    assert ": in 20 s <b>." in soon
    assert soon.endswith(("Next attempt: in 10 s.", "Next attempt: in 9 s."))
    assert over.endswith("Next attempt: now.")

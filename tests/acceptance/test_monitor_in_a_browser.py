"""The live monitor in Chromium: it refreshes, and pauses in a hidden tab."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect

from tests.support import jobs
from tests.support.browser import Visit, visiting

pytestmark = pytest.mark.django_db(transaction=True)

MONITOR = "/admin/videojobs/videojob/monitor/"
QUEUED = '[data-text="queued"]'


@pytest.fixture
def visit(browser: Browser, live_server: Any, client: Client) -> Iterator[Visit]:
    client.force_login(User.objects.create_superuser("ann"))
    session = client.cookies["sessionid"].value
    with visiting(browser, live_server.url, session=session) as visit:
        visit.page.clock.install()
        yield visit


def hide(page: Page, hidden: bool) -> None:
    """Simulate switching tabs: a headless window is always visible."""
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_its_numbers_follow_the_jobs_without_a_reload(visit: Visit) -> None:
    jobs.make("queued")
    page = visit.open(MONITOR)
    expect(page.locator(QUEUED)).to_have_text("1")

    jobs.make("queued")
    page.clock.run_for(6_000)

    expect(page.locator(QUEUED)).to_have_text("2")


def test_an_open_page_counts_from_when_it_says_and_leads_to_the_jobs_that_it_counts(
    visit: Visit,
) -> None:
    now = timezone.now()
    with time_machine.travel(now) as clock:
        old = jobs.make("queued", created_at=now - timedelta(minutes=59))
        page = visit.open(f"{MONITOR}?hours=1")
        heading, number = page.get_by_text("Since "), page.locator('[data-text="new"]')
        expect(number).to_have_text("1")
        before = heading.inner_text()

        clock.shift(timedelta(minutes=10))
        jobs.make("queued")
        jobs.make("queued")
        page.clock.run_for(6_000)
        expect(number).to_have_text("2")

        expect(heading).not_to_have_text(before)
        number.click()
        expect(page.locator("#result_list tbody tr")).to_have_count(2)
        expect(page.get_by_text(str(old.pk)[:8])).to_have_count(0)


def test_its_charts_follow_the_jobs_too(visit: Visit) -> None:
    jobs.make("stored", submitted_at=jobs.from_now(-60), mirrored_at=jobs.from_now(-1))
    page = visit.open(MONITOR)
    chart = page.locator("[data-part] svg").first
    before = chart.inner_html()

    for _ in range(30):
        jobs.make("stored", submitted_at=jobs.from_now(-60), mirrored_at=jobs.from_now(-1))
    page.clock.run_for(6_000)

    expect(chart).not_to_have_js_property("innerHTML", before)


def test_no_chart_stands_alone_below_the_others_on_a_wide_screen(visit: Visit) -> None:
    page = visit.open(MONITOR)
    page.set_viewport_size({"width": 1360, "height": 900})

    tops = {box["y"] for box in map(_box, page.locator("figure").all())}

    assert len(tops) == 1


def _box(part: Locator) -> FloatRect:
    box = part.bounding_box()
    assert box is not None
    return box


def test_it_asks_for_nothing_in_a_hidden_tab_and_at_once_when_it_is_shown_again(
    visit: Visit,
) -> None:
    page = visit.open(MONITOR)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    hide(page, True)
    page.clock.run_for(60_000)
    asked_while_hidden = list(asked)
    with page.expect_response("**/data/**"):
        hide(page, False)

    assert asked_while_hidden == []


def test_it_says_so_when_nobody_is_signed_in_any_more(visit: Visit) -> None:
    page = visit.open(MONITOR)

    login = page.get_by_role("link", name="Log in")
    expect(login).to_be_hidden()
    as_of = page.locator("[data-time]").get_attribute("data-time")

    Session.objects.all().delete()
    page.clock.run_for(6_000)

    expect(page.locator("[data-trouble]")).to_contain_text("You are logged out")
    expect(page.locator("[data-trouble]")).to_contain_text(f"Not updated since {as_of}")
    login.click()
    expect(page).to_have_url(re.compile(r"/admin/login/\?next=/admin/videojobs/videojob/monitor/$"))


def test_it_says_since_when_it_is_paused_by_the_clock_of_the_site(visit: Visit) -> None:
    page = visit.open(MONITOR)
    with page.expect_response("**/data/**") as answer:
        page.clock.run_for(6_000)
    expect(page.locator("[data-age]")).to_have_text("Updated 0 s ago")

    page.get_by_role("button", name="Pause").click()

    time = answer.value.json()["time"]
    expect(page.locator("[data-trouble]")).to_have_text(f"Paused; not updated since {time}")
    assert visit.barriers() == []


def test_what_is_nothing_becomes_quiet_and_a_notice_goes(visit: Visit) -> None:
    job = jobs.make("unconfirmed")
    page = visit.open(MONITOR)
    figure = page.locator('[data-figure="unconfirmed"]')
    notice = page.get_by_role("link", name="1 job needs attention.")
    expect(notice).to_be_visible()
    expect(figure).not_to_have_attribute("data-zero", "")

    job.delete()
    page.clock.run_for(6_000)

    expect(figure).to_have_attribute("data-zero", "")
    expect(notice).to_be_hidden()
    expect(page.locator(".videojobs-notice:visible")).to_have_count(0)

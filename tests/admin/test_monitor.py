from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.support import jobs
from videojobs import monitor
from videojobs.models import JobEvent, ProviderHold

pytestmark = pytest.mark.django_db

LIST = "/admin/videojobs/videojob/"
PAGE = f"{LIST}monitor/"
DATA = f"{PAGE}data/"
#: 4.5 minutes past a full hour, so that the current slots have begun.
SOME_TIME = datetime(2026, 11, 28, 10, 4, 30, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m 👩‍👩‍👧 '\"&"


def read(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, (url, response.status_code)
    return response.content.decode()


def a_site() -> None:
    """Jobs in every state, with data for each figure and chart."""
    now = timezone.now()
    earlier = {
        f"{act}_at": now - timedelta(hours=1) for act in ("created", "submitted", "mirrored")
    }
    for number, state in enumerate(jobs.STATES, 1):
        for _ in range(number):
            job = jobs.make(state, **earlier)
        if state == "mirror-failed":
            JobEvent.objects.create(job=job, kind="mirror", new="failed")
    jobs.make("queued", due_at=now - timedelta(seconds=30), error_count=2)
    jobs.make("due", error_count=2)
    jobs.make("failed", created_at=now - timedelta(days=9), finished_at=now - timedelta(days=9))


def figures(text: str) -> dict[str, str]:
    """The texts of the page by the names that monitor.js uses."""
    found = re.findall(r'data-text="([^"]+)">([^<]*)<', text)
    return {name: html.unescape(value) for name, value in found}


def links(text: str) -> dict[str, tuple[str, int]]:
    """The URLs and the counts of the figures that link a list."""
    link = r'<a href="([^"]+)" data-query="([^"]+)" data-text="\2">([\d,]+)</a>'
    return {name: (html.unescape(url), int(count)) for url, name, count in re.findall(link, text)}


@pytest.mark.parametrize("url", [PAGE, DATA])
def test_nobody_sees_it_who_is_not_signed_in(client: Client, url: str) -> None:
    response = client.get(url)

    assert response.status_code == 302
    assert "/login/" in response["Location"]


@pytest.mark.parametrize("url", [PAGE, DATA])
def test_nobody_sees_it_who_may_not_look_at_jobs(client: Client, url: str) -> None:
    client.force_login(User.objects.create_user("other", is_staff=True))

    assert client.get(url).status_code == 403


@pytest.mark.parametrize("url", [PAGE, DATA])
def test_it_can_only_be_read(staff: Client, url: str) -> None:
    assert staff.post(url).status_code == 405


@pytest.mark.parametrize("url", [PAGE, DATA])
@pytest.mark.parametrize("hours", ["0", "2", "-1", "9" * 30, "6.0", "٦", "", "six", "<b>"])
def test_other_hours_than_those_to_choose_from_are_refused(
    staff: Client, url: str, hours: str
) -> None:
    assert staff.get(url, {"hours": hours}).status_code == 400


@pytest.mark.parametrize("hours", list(monitor.WINDOWS))
def test_it_looks_back_as_far_as_is_asked_for(staff: Client, hours: int) -> None:
    text = read(staff, f"{PAGE}?hours={hours}")

    assert f'<a href="?hours={hours}" aria-current="page">' in text
    assert f'data-url="{DATA}?hours={hours}"' in text


def test_it_looks_back_for_six_hours_unless_it_is_asked(staff: Client) -> None:
    assert 'aria-current="page">6 h</a>' in read(staff, PAGE)


def test_each_figure_leads_to_a_list_of_as_many_jobs(staff: Client) -> None:
    a_site()

    found = links(read(staff, PAGE))

    assert len(found) == 18
    for name, (url, count) in found.items():
        response = staff.get(url)
        assert response.status_code == 200, name
        assert response.context["cl"].result_count == count > 0, name


def test_the_list_leads_to_the_monitor_and_back(staff: Client) -> None:
    assert f'<a href="{PAGE}">Live monitor</a>' in read(staff, LIST)
    assert f'<li><a href="{LIST}">All jobs</a></li>' in read(staff, PAGE)


def test_the_data_are_what_the_page_shows(staff: Client) -> None:
    with time_machine.travel(timezone.now(), tick=False):
        a_site()
        text = read(staff, PAGE)

        data = staff.get(DATA).json()

    assert figures(text) == data["texts"]
    queries = {name: url.partition("?")[2] for name, (url, _count) in links(text).items()}
    assert queries == data["queries"]
    names = re.findall(r'data-part="([^"]+)"', text)
    assert sorted(names) == sorted(data["parts"])
    assert len(names) == 6
    for part in data["parts"].values():
        assert part in text


def test_of_a_page_that_is_open_for_long_the_heading_and_the_links_are_those_of_its_numbers(
    staff: Client,
) -> None:
    with time_machine.travel(SOME_TIME, tick=False) as clock:
        a_site()
        opened = read(staff, f"{PAGE}?hours=1")
        clock.shift(timedelta(hours=14))
        jobs.make("stored", mirrored_at=timezone.now())

        data = staff.get(DATA, {"hours": 1}).json()

        assert figures(opened)["happened-heading"] == "Since 28 Nov 09:04"
        assert data["texts"]["happened-heading"] == "Since 28 Nov 23:04"
        for name in ("new", "completed", "ended-badly", "stored"):
            response = staff.get(f"{LIST}?{data['queries'][name]}")
            count = int(data["texts"][name])
            assert response.context["cl"].result_count == count, name


def test_names_are_unique(staff: Client) -> None:
    text = read(staff, PAGE)

    for attribute in ("id", "data-figure", "data-text", "data-query", "data-part"):
        names = re.findall(rf'\s{attribute}="([^"]+)"', text)
        assert len(names) == len(set(names)) > 0, attribute


@pytest.mark.parametrize("url", [PAGE, DATA])
def test_nobody_keeps_a_copy(staff: Client, url: str) -> None:
    assert "no-store" in staff.get(url)["Cache-Control"]


@pytest.mark.parametrize("url", [PAGE, DATA])
def test_it_takes_one_query_more_for_many_jobs_than_for_none_and_writes_nothing(
    staff: Client, url: str
) -> None:
    with CaptureQueriesContext(connection) as none:
        staff.get(url)
    a_site()
    monitor.forget()

    with CaptureQueriesContext(connection) as many:
        staff.get(url)

    # The additional query fetches the error of a failed check.
    assert (len(none), len(many)) == (9, 10)
    assert {query["sql"].split()[0].strip("(") for query in many} == {"SELECT"}


def test_an_empty_site_says_so_in_each_chart(staff: Client) -> None:
    text = read(staff, PAGE)

    assert text.count("Nothing in the last 6 h.") == 3
    assert '<svg class="videojobs-chart"' not in text


def test_a_chart_is_a_picture_with_words_and_a_table_of_the_same_numbers(staff: Client) -> None:
    a_site()

    text = read(staff, PAGE)

    assert text.count('role="img" aria-label=') == 3
    assert "Jobs and results, jobs per 10 min, in the last 6 h: new; completed;" in text
    assert text.partition("<main")[2].count("<caption>") == 3
    assert text.count('<th scope="row">') == 3 * 37


def test_nothing_is_styled_or_scripted_inline(staff: Client) -> None:
    a_site()

    text = read(staff, PAGE).partition("<main")[2]

    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", text)


def test_a_hostile_reason_of_a_hold_is_shown_as_text(staff: Client) -> None:
    jobs.make_hold("rejected")
    ProviderHold.objects.update(reason=HOSTILE)

    text, data = read(staff, PAGE), staff.get(DATA).json()

    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert(1)</script>" in data["texts"]["hold"]
    assert "alert(1)" not in "".join(data["parts"].values())


@pytest.mark.parametrize("url", [PAGE, DATA])
def test_a_hold_shows_no_secret(staff: Client, url: str) -> None:
    jobs.make_hold("rejected")
    ProviderHold.objects.update(reason="no https://cdn.example.com/v.mp4?Signature=8f2c-secret")

    text = read(staff, url)

    assert "rejecting the API key" in text
    assert "8f2c-secret" not in text


def test_figures_that_somebody_should_look_into_stand_out(staff: Client) -> None:
    jobs.make("unconfirmed")

    text = re.sub(r"\s+", " ", read(staff, PAGE))

    assert 'videojobs-figure videojobs-alarming" data-figure="unconfirmed"> <dt>' in text
    assert 'videojobs-figure videojobs-alarming" data-figure="expired" data-zero> <dt>' in text
    assert "1 job needs attention." in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("took", "—"),
        ("answered", "—"),
        ("answered-note", "none in the last 6 h"),
        ("late-note", ""),
        ("failing-note", ""),
        ("bytes", "0 bytes"),
        ("outputs-note", "as of 0 s ago"),
        ("hold", ""),
        ("unserved", ""),
        ("attention", ""),
    ],
)
def test_where_nothing_is_known_nothing_is_claimed(staff: Client, name: str, text: str) -> None:
    shown: dict[str, Any] = figures(read(staff, PAGE))

    assert shown[name].replace("\xa0", " ") == text


def test_rates_and_lateness_are_told_beside_their_numbers(staff: Client) -> None:
    jobs.make("queued", due_at=timezone.now() - timedelta(minutes=3), error_count=1)
    for _ in range(3):
        jobs.make("queued")

    shown = figures(read(staff, PAGE))

    assert shown["failing-note"] == "25 % of 4 polled jobs"
    assert shown["late-note"] == "longest: 3 min"


def test_the_lateness_of_the_one_in_the_middle_is_told_where_it_is_another(staff: Client) -> None:
    for minutes in (2, 2, 5):
        jobs.make("queued", due_at=timezone.now() - timedelta(minutes=minutes))

    note = figures(read(staff, PAGE))["late-note"]

    assert note == "median: 2.1 min, longest: 5 min"


@pytest.mark.parametrize(
    ("hours", "slot", "window"),
    [
        (1, "jobs per 2 min", "the last hour"),
        (6, "jobs per 10 min", "the last 6 h"),
        (24, "jobs per hour", "the last day"),
        (168, "jobs per 6 h", "the last 7 d"),
    ],
)
def test_one_hour_and_one_day_are_said_without_their_number(
    staff: Client, hours: int, slot: str, window: str
) -> None:
    a_site()

    text = read(staff, f"{PAGE}?hours={hours}")

    assert f"Jobs and results, {slot}, in {window}: new; completed;" in text
    assert f"Time to complete, in {window}: " in text


def test_a_notice_of_jobs_that_need_a_person_leads_to_them(staff: Client) -> None:
    jobs.make("unconfirmed")
    jobs.make("mirror-failed")
    jobs.make("queued")

    text = read(staff, PAGE)

    [url] = re.findall(r'<a href="([^"]+)" data-text="attention">2 jobs need attention\.</a>', text)
    assert staff.get(url).context["cl"].result_count == 2


def test_what_is_nothing_is_quiet_in_whatever_words(staff: Client) -> None:
    empty, none = read(staff, PAGE), staff.get(DATA).json()["zeros"]
    a_site()
    monitor.forget()
    full, some = read(staff, PAGE), staff.get(DATA).json()["zeros"]

    for text, zeros in ((empty, none), (full, some)):
        assert re.findall(r'data-figure="([^"]+)" data-zero', text) == zeros
    assert {"bytes", "outputs", "queued"} <= set(none)
    assert not {"bytes", "outputs", "queued"} & set(some)


def test_times_are_those_of_the_site_and_who_is_signed_out_is_led_back(staff: Client) -> None:
    with time_machine.travel(SOME_TIME, tick=False):
        text = read(staff, f"{PAGE}?hours=1")
        data = staff.get(DATA).json()

    local = timezone.localtime(SOME_TIME).strftime("%H:%M:%S")
    assert f">{local}</time>" in text
    assert data["time"] == local
    [url] = re.findall(r'<a data-login hidden href="([^"]+)">', text)
    assert url == "/admin/login/?next=/admin/videojobs/videojob/monitor/%3Fhours%3D1"


def test_what_stalled_means_is_said_only_where_something_is(staff: Client) -> None:
    quiet = figures(read(staff, PAGE))["stalled-note"]
    jobs.make("queued", due_at=timezone.now() - timedelta(hours=1))

    assert quiet == ""
    assert "the sweep requeues them" in figures(read(staff, PAGE))["stalled-note"]


def test_where_no_worker_runs_it_is_said_above_the_numbers(staff: Client) -> None:
    jobs.make("queued", due_at=timezone.now() - timedelta(minutes=12))

    text = read(staff, PAGE)

    assert "1 job has been waiting for a worker for 12 min" in figures(text)["unserved"]
    assert f'<a href="{LIST}?attention=stalled">Show them</a>' in text


def test_the_last_error_stands_beside_the_jobs_whose_check_failed(staff: Client) -> None:
    job = jobs.make("queued", error_count=1, last_checked_at=timezone.now())
    reason = f"HTTP 500 {HOSTILE} https://cdn.example.com/v.mp4?Signature=8f2c-secret " + "x" * 999
    job.events.create(kind="note", reason=reason, created_at=timezone.now() - timedelta(minutes=3))

    text, data = read(staff, PAGE), staff.get(DATA).json()

    note = figures(text)["failing-note"]
    assert note.startswith("100 % of 1 polled jobs; 3 min ago: HTTP 500 <script>")
    assert note == data["texts"]["failing-note"]
    assert len(note) < 250
    assert not any(part in text for part in ("8f2c-secret", "\u202e", "<script>alert"))

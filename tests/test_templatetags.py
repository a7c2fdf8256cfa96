"""The `video_job` tag, with and without JavaScript, and with hostile texts."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.template import Context, Template
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone, translation
from pytest_django import Settings

from tests.support import jobs
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\n\n👩‍👩‍👧 '\"&"


def render(job: VideoJob | None, label: str = "", **context: Any) -> str:
    template = Template("{% load videojobs %}{% video_job job label interval=2.5 %}")
    return template.render(Context({"job": job, "label": label, **context}))


WORDS = {
    "pending": "Waiting",
    "submitting": "Waiting",
    "unconfirmed": "Delayed; we are looking into it",
    "queued": "Waiting",
    "processing": "Being generated",
    "overdue": "Being generated",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "stopped": "Cancelled",
    "expired": "Delayed; we are looking into it",
    "due": "Fetching the video",
    "stored": "Ready",
    "skipped": "Ready",
    "mirror-failed": "Delayed; we are looking into it",
}


@pytest.mark.parametrize("state", jobs.STATES)
def test_each_state_has_its_words(state: str) -> None:
    assert f'<p data-part="text">{WORDS[state]}</p>' in render(jobs.make(state))


def test_a_change_is_announced() -> None:
    text = render(jobs.make())

    assert text.index('role="status"') < text.index('data-part="text"')


def test_a_stored_video_is_there_without_a_script() -> None:
    job = jobs.make_stored(poster="2026/sample.jpg")

    text = render(job, "A kitten")

    assert (
        f'<video controls playsinline preload="metadata" src="{job.output.url}"'
        f' poster="{job.poster.url}" aria-label="A kitten"></video>'
    ) in text


def test_a_stored_image_is_there_without_a_script() -> None:
    job = jobs.make("stored", output="2026/sample.png", content_type="image/png")

    text = render(job, "A <kitten>")

    assert f'<img src="{job.output.url}" alt="A &lt;kitten&gt;">' in text
    assert "<video " not in text


@pytest.mark.parametrize("state", ["stored", "failed", "unconfirmed", "mirror-failed"])
def test_a_finished_job_has_nothing_for_the_script(state: str) -> None:
    text = render(jobs.make(state))

    assert "data-url" not in text
    assert "<progress" not in text


def test_an_active_job_has_the_url_and_interval_for_polling() -> None:
    job = jobs.make()

    text = render(job)

    assert f'data-url="{reverse("videojobs:status", args=[job.pk])}"' in text
    assert 'data-interval="2.5"' in text
    assert 'data-fetching="Fetching the video"' in text
    assert 'data-seconds-left="about {} s left"' in text


def test_unknown_progress_is_not_shown() -> None:
    text = render(jobs.make("processing"))

    assert '<p data-part="left" hidden></p>' in text
    assert 'max="1"></progress>' in text


@pytest.mark.parametrize(
    ("left", "words"),
    [
        *((3, "about 10 s left"), (41, "about 50 s left"), (80, "about 80 s left")),
        *((100, "about 2 min left"), (290, "about 5 min left")),
    ],
)
def test_the_time_left_is_rounded(left: float, words: str) -> None:
    length = 400.0
    long_ago = timezone.now() - timedelta(hours=1)
    for _ in range(5):
        jobs.make("stored", submitted_at=long_ago, finished_at=long_ago + timedelta(seconds=length))
    submitted_at = timezone.now() - timedelta(seconds=length - left)

    due_at = timezone.now()

    text = render(jobs.make("processing", submitted_at=submitted_at, due_at=due_at))

    assert f'<p data-part="left">{words}</p>' in text


def test_numbers_are_html_in_every_language(settings: Settings) -> None:
    with translation.override("de"):
        text = render(jobs.make("due"))

    assert 'value="0.95"' in text
    assert 'data-interval="2.5"' in text


def test_the_reason_of_a_failure_is_shown_and_harmless(settings: Settings) -> None:
    link = f"https://cdn.example.com/v.mp4?{jobs.SECRET}"

    text = render(jobs.make("failed", error=f"{HOSTILE} {link}"))

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in text
    assert "\u202e" not in text
    assert jobs.SECRET not in text


@pytest.mark.parametrize("state", ["queued", "stored"])
def test_a_hostile_label_stays_in_its_attribute(state: str) -> None:
    text = render(jobs.make(state), '"><script>alert(1)</script>')

    assert "&quot;&gt;&lt;script&gt;" in text
    assert "<script" not in text


def test_no_job_is_nothing() -> None:
    assert render(None).strip() == ""


def test_nothing_in_it_needs_a_weaker_policy() -> None:
    text = "".join(render(jobs.make(state), HOSTILE) for state in jobs.STATES)

    assert "style=" not in text
    assert " on" not in text.replace(" only", "")


def test_rendering_costs_no_query_but_one_a_minute() -> None:
    made = [jobs.make(state, submitted_at=timezone.now()) for state in jobs.STATES]

    with CaptureQueriesContext(connection) as captured:
        for job in made:
            render(job)

    assert len(captured) == 1


def test_the_script_is_a_file_that_waits_for_the_page() -> None:
    text = Template("{% load videojobs %}{% video_job_script %}").render(Context())

    assert text == '<script src="/static/videojobs/job.js" defer></script>'

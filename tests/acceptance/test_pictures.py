"""Screenshots for the documentation, of a site after a day in use.

`./dev screenshots` saves them; a test run only verifies that they can be taken.
"""

from __future__ import annotations

import os
import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser
from pytest_django import Settings

from project.showcase.models import Postcard
from tests.acceptance.test_admin_in_a_browser import LIST, page_of
from tests.support import jobs
from tests.support.browser import visiting
from tests.support.scenes import scene
from tests.support.videos import make_video
from videojobs import services
from videojobs.models import VideoJob
from videojobs.testing import Script, SimulatedProvider

pytestmark = pytest.mark.django_db(transaction=True)

SETTLED = "[...document.querySelectorAll('video')].every(video => video.readyState >= 2)"
DIRECTORY = "VIDEOJOBS_TEST_PICTURES"
POSTCARDS = [
    ("Low tide", "Hills behind a bay at dusk, the last light on the water"),
    ("From the meadow", "A clear morning above green hills, a light wind in the grass"),
    ("Good night", "The moon rises over dark mountains, slowly"),
    ("Red evening", "A desert after sunset, the air still shimmers"),
    ("First frost", "A pale winter sun above grey fields"),
    ("Lagoon", "Turquoise hills in the haze, seen from a boat"),
]


@pytest.fixture
def a_day(simulated_provider: SimulatedProvider, settings: Settings, tmp_path: Path) -> VideoJob:
    """The jobs of a day: stored videos, unfinished jobs, and a few failures."""
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "POLL_INTERVAL": 30.0, "MAY_SEE_JOB": None}
    now = timezone.now()
    for number, (title, text) in reversed(list(enumerate(POSTCARDS))):
        video = make_video(tmp_path / f"{number}.mp4", size=(640, 360), picture=scene(number))
        job = generated(simulated_provider, text, video.read_bytes())
        written_at = now - timedelta(minutes=6 + 4 * number)
        VideoJob.objects.filter(pk=job.pk).update(created_at=written_at)
        Postcard.objects.create(title=title, text=text, job=job, created_at=written_at)
    earlier(now)
    for state, prompt, due, age in (
        ("overdue", "Clouds over a city, in fast motion", 340, 42),
        ("due", "A kite above the dunes", 55, 3),
        ("queued", "A train in the snow, seen from above", 27, 2),
        ("processing", "A lighthouse at night, waves against the rocks", 21, 1),
        ("pending", "A paper boat in the rain", 12, 0.1),
    ):
        began = jobs.from_now(-60 * age)
        times = {"submitted_at": began, "created_at": began, "due_at": jobs.from_now(due)}
        jobs.make(state, prompt=prompt, check_count=int(2 * age), **times)
    jobs.make("unconfirmed", prompt="A candle in the dark", created_at=jobs.from_now(-240))
    jobs.make("mirror-failed", prompt="Leaves in a stream", created_at=jobs.from_now(-300))
    return job


def generated(provider: SimulatedProvider, prompt: str, video: bytes) -> VideoJob:
    """A job that a worker has completed."""
    provider.expect(prompt, Script(["completed"], output=video, actual_duration=1.0))
    job = VideoJob.objects.submit(prompt, duration=5, ratio="16:9", metadata={"gallery": True})
    for step in (services.submit, services.poll, services.mirror):
        VideoJob.objects.filter(pk=job.pk).update(due_at=timezone.now())
        step(job.pk)
        job.refresh_from_db()
    assert job.mirror_status == "stored"
    return job


def earlier(now: datetime) -> None:
    """Create jobs in the last few hours, as many as on a busy day."""
    chance = random.Random(7)
    for minutes in range(8, 600, 3):
        submitted_at = now - timedelta(minutes=minutes, seconds=chance.randrange(60))
        took = timedelta(seconds=chance.gammavariate(6, 22))
        state = chance.choices(["stored", "failed", "mirror-failed"], [60, 3, 1])[0]
        size = {"output_size": chance.randrange(2_000_000, 9_000_000)}
        jobs.make(
            state,
            prompt=chance.choice(POSTCARDS)[1],
            created_at=submitted_at - timedelta(seconds=2),
            submitted_at=submitted_at,
            last_checked_at=submitted_at + took,
            finished_at=submitted_at + took,
            mirrored_at=submitted_at + took + timedelta(seconds=8) if state == "stored" else None,
            check_count=1 + int(took.total_seconds() // 30),
            error="The prompt violates the content policy." if state == "failed" else "",
            **(size if state == "stored" else {}),
        )


def test_the_pictures_of_the_documentation_can_be_taken(
    browser: Browser, live_server: Any, client: Client, a_day: VideoJob, tmp_path: Path
) -> None:
    directory = Path(os.environ.get(DIRECTORY) or tmp_path)
    client.force_login(User.objects.create_superuser("ann"))
    session = client.cookies["sessionid"].value
    # Name → path and height of the screenshot in pixels.
    pages = {
        "list": (LIST, 900),
        "job": (page_of(a_day), 1400),
        "monitor": (f"{LIST}monitor/", 1220),
        "gallery": ("/", 1180),
    }

    for scheme in ("light", "dark"):
        with visiting(
            browser, live_server.url, session=session, scheme=scheme, width=1360
        ) as visit:
            for name, (path, height) in pages.items():
                page = visit.open(path)
                page.set_viewport_size({"width": 1360, "height": height})
                page.wait_for_function(SETTLED)
                page.screenshot(animations="disabled", path=directory / f"{name}-{scheme}.png")

    assert len(list(directory.glob("*.png"))) == 2 * len(pages)

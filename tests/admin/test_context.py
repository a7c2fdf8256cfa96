"""The context of the job page. Its appearance is tested in a browser."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.support import jobs
from videojobs.admin.detail import context
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db


def shown(client: Client, job: VideoJob) -> str:
    response = client.get(reverse("admin:videojobs_videojob_change", args=[job.pk]))
    assert response.status_code == 200
    return response.content.decode()


def test_the_history_tells_how_long_each_step_took() -> None:
    job = jobs.make("completed")
    start = timezone.now() - timedelta(hours=1)
    for seconds in (0, 2, 182):
        job.events.create(kind="note", new="x", created_at=start + timedelta(seconds=seconds))

    lines = context.history(job)["events"]

    assert [line["after"] for line in lines] == ["", "2 s", "3 min"]


def test_what_comes_counts_down(admin_client: Client) -> None:
    job = jobs.make("queued")
    jobs.make_hold("limited")

    text = shown(admin_client, job)

    assert re.search(r'Poll the provider: <time [^>]*countdown="in">in 24 s</time>\.', text)
    assert re.search(r'Next attempt: <time [^>]*countdown="in">in 4 min</time>\.', text)
    assert 'id="videojobs-countdown"' in text
    assert text.count("countdown.js") == 1


def test_a_failed_download_says_why(admin_client: Client) -> None:
    job = jobs.make("mirror-failed")
    job.events.create(kind="mirror", old="due", new="failed", reason="HTTP 410 for the output")

    text = shown(admin_client, job)

    assert "HTTP 410 for the output</pre>" in text


def test_a_job_that_is_tried_again_says_why_the_last_attempt_failed() -> None:
    job = jobs.make("processing", error_count=2)
    job.events.create(kind="note", new="processing", reason="HTTP 500")
    job.events.create(kind="note", new="processing", reason="HTTP 503")

    assert context.last_problem(job) == "HTTP 503"


def test_what_a_person_did_is_no_problem() -> None:
    job = jobs.make("processing", error_count=1)
    job.events.create(kind="note", new="processing", reason="HTTP 500")
    job.events.create(kind="note", new="processing", reason="to be checked now", actor="ann")

    assert context.last_problem(job) == "HTTP 500"


@pytest.mark.parametrize("state", ["processing", "stored", "due"])
def test_a_job_that_all_went_well_with_has_no_problem(state: str) -> None:
    job = jobs.make(state)
    job.events.create(kind="note", new=job.status, reason="HTTP 500")

    assert context.last_problem(job) == ""


def test_the_provider_s_own_error_comes_first(admin_client: Client) -> None:
    job = jobs.make("failed", error="content policy", error_count=1)
    job.events.create(kind="note", new="failed", reason="HTTP 500")

    text = shown(admin_client, job)

    assert "content policy</pre>" in text
    assert "HTTP 500</pre>" not in text

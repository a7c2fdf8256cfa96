"""A file that failed a check can be looked at before an operator has it stored unchecked."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from tests.support import jobs
from videojobs.models import VideoJob
from videojobs.providers import client
from videojobs.testing import SAMPLE, Script, SimulatedProvider, sample

pytestmark = pytest.mark.django_db(transaction=True)

OUTPUT = sample("a video that failed a check")


@pytest.fixture
def operator(staff: Client) -> Client:
    """A client of a user who may view jobs and download their outputs again."""
    permission = Permission.objects.get(codename="mirror_videojob")
    User.objects.get(username="viewer").user_permissions.add(permission)
    return staff


@pytest.fixture
def provider(simulated_provider: SimulatedProvider, settings: Any) -> SimulatedProvider:
    settings.VIDEOJOBS = jobs.asked_at(simulated_provider)
    simulated_provider.add_task("proj_1", Script(["completed"], output=OUTPUT))
    return simulated_provider


@pytest.fixture
def job(provider: SimulatedProvider) -> VideoJob:
    return jobs.make(
        "doubted",
        provider_task_id="proj_1",
        video_url="",
        endpoint=f"{provider.base_url}/v1/",
    )


def look(client: Client, job: VideoJob) -> Any:
    return client.post(reverse("admin:videojobs_videojob_original", args=[job.pk]))


def page(client: Client, job: VideoJob) -> str:
    return client.get(reverse("admin:videojobs_videojob_change", args=[job.pk])).content.decode()


def test_the_file_is_sent_as_a_download_and_not_stored(
    operator: Client, job: VideoJob, provider: SimulatedProvider
) -> None:
    response = look(operator, job)

    assert b"".join(response.streaming_content) == OUTPUT
    assert response["Content-Type"] == "application/octet-stream"
    assert response["X-Content-Type-Options"] == "nosniff"
    disposition = f'attachment; filename="{job.pk}-unchecked.mp4"'
    assert response["Content-Disposition"] == disposition
    assert VideoJob.objects.get().mirror_status == "failed"
    assert provider.leaks == []


def test_a_url_that_still_works_needs_no_fresh_one(
    operator: Client, job: VideoJob, provider: SimulatedProvider
) -> None:
    provider.set_script("proj_1", Script(["completed"], url_ttl=86400))
    found = client.fetch(job.endpoint, "proj_1")
    VideoJob.objects.update(video_url=found.video_url)

    response = look(operator, job)

    assert b"".join(response.streaming_content) == SAMPLE
    assert provider.checks("proj_1") == 1


def test_a_url_that_is_dead_is_replaced_by_a_fresh_one(
    operator: Client, job: VideoJob, provider: SimulatedProvider
) -> None:
    VideoJob.objects.update(video_url=f"http://127.0.0.1:{provider.port}/files/proj_1.mp4?x=1")

    assert b"".join(look(operator, job).streaming_content) == OUTPUT


def test_what_keeps_the_file_away_is_said_on_the_page(
    operator: Client, job: VideoJob, settings: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "ALLOWED_PRIVATE_NETWORKS": []}

    response = look(operator, job)

    assert response.status_code == 302
    assert "resolves to 127.0.0.1" in page(operator, job)


def test_during_a_hold_the_provider_is_not_asked(
    operator: Client, job: VideoJob, provider: SimulatedProvider
) -> None:
    jobs.make_hold("rejected")

    look(operator, job)

    assert "has to wait for the provider" in page(operator, job)
    assert provider.calls == []


def test_the_page_offers_to_look_and_to_store(operator: Client, job: VideoJob) -> None:
    text = page(operator, job)

    assert "Look at the file" in text
    assert "Store it unchecked" in text


def test_only_who_may_store_it_may_look_at_it(staff: Client, job: VideoJob) -> None:
    assert look(staff, job).status_code == 403
    assert "Look at the file" not in page(staff, job)


def test_a_job_without_such_a_file_has_nothing_to_look_at(operator: Client) -> None:
    job = jobs.make("mirror-failed")

    assert look(operator, job).status_code == 404
    assert "Look at the file" not in page(operator, job)


def test_a_video_that_is_stored_unchecked_says_so(operator: Client) -> None:
    text = page(operator, jobs.make_stored(unchecked=True))

    assert "The video was stored unchecked on request." in text
    assert "video/mp4 (unchecked)" in text

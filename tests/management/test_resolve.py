from __future__ import annotations

import pytest

from tests.management.run import run
from tests.support import jobs
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db


def test_the_providers_id_is_attached_and_the_job_is_tracked_on() -> None:
    job = jobs.make("unconfirmed")

    ended = run("videojobs_resolve", str(job.pk), "--task-id", "proj_77")

    job.refresh_from_db()
    assert (ended.out, ended.error) == (f"{job.pk} is queued.\n", "")
    assert (job.status, job.provider_task_id, job.step) == ("queued", "proj_77", "poll")
    assert [event.actor for event in job.events.all()] == ["command line"]


def test_a_request_that_was_not_created_is_sent_again() -> None:
    job = jobs.make("unconfirmed", key="order-42")

    ended = run("videojobs_resolve", "order-42", "--not-created")

    job.refresh_from_db()
    assert ended.out == f"{job.pk} is pending.\n"
    assert (job.status, job.step) == ("pending", "submit")


@pytest.mark.parametrize("state", ["pending", "queued", "stored", "failed"])
@pytest.mark.parametrize("answer", [["--not-created"], ["--task-id", "proj_77"]])
def test_a_job_that_is_not_unconfirmed_is_not_changed(state: str, answer: list[str]) -> None:
    job = jobs.make(state)
    before = VideoJob.objects.values().get()

    ended = run("videojobs_resolve", str(job.pk), *answer)

    reason = f"job {job.pk} is {job.status}."
    assert ended.error == f"Only unconfirmed jobs can be resolved; {reason}"
    assert VideoJob.objects.values().get() == before


def test_an_id_of_another_job_is_refused_by_name() -> None:
    other = jobs.make("queued", provider_task_id="proj_77")
    job = jobs.make("unconfirmed")

    ended = run("videojobs_resolve", str(job.pk), "--task-id", "proj_77")

    assert ended.error == f"task_id: This ID already belongs to job {other.pk}."
    assert VideoJob.objects.get(pk=job.pk).status == "unconfirmed"


@pytest.mark.parametrize("task_id", ["", " x", "a\nb", "..", "x" * 513])
def test_an_invalid_id_is_refused(task_id: str) -> None:
    job = jobs.make("unconfirmed")

    ended = run("videojobs_resolve", str(job.pk), f"--task-id={task_id}")

    assert "must be printable text" in ended.error


def test_it_needs_one_answer_and_not_two() -> None:
    job = jobs.make("unconfirmed")

    for answers in ([], ["--not-created", "--task-id", "proj_77"]):
        assert "not-created" in run("videojobs_resolve", str(job.pk), *answers).error


def test_without_an_answer_the_ids_in_the_providers_answers_are_listed() -> None:
    jobs.make("queued", provider_task_id="proj_2")
    job = jobs.with_answer(jobs.make("unconfirmed"), "{…}", "proj_1", "proj_2", "proj_3")

    ended = run("videojobs_resolve", str(job.pk))

    assert ended.out == "proj_1\nproj_3\n"
    assert ended.error.startswith("The provider's answers contain these IDs. Resolve the job with")
    assert VideoJob.objects.get(pk=job.pk).status == "unconfirmed"


def test_without_an_answer_and_an_id_it_says_so() -> None:
    job = jobs.make("unconfirmed")

    ended = run("videojobs_resolve", str(job.pk))

    assert (ended.out, ended.error[:28]) == ("", "No answer contains an ID. Re")


def test_before_it_is_sent_again_the_ids_that_were_found_are_named() -> None:
    job = jobs.with_answer(jobs.make("unconfirmed"), "{…}", "proj_1")

    ended = run("videojobs_resolve", str(job.pk), "--not-created")

    assert "proj_1" in ended.err
    assert VideoJob.objects.get(pk=job.pk).status == "pending"

"""Check now, stop, resume and regenerate, from the command line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.management.run import run
from tests.support import jobs
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db

#: Command → a state that it applies to, the status after it, a state that it doesn't apply to, and
#: the error message for that one.
CASES = {
    "videojobs_check_now": (
        "queued",
        "queued",
        "unconfirmed",
        "no scheduled step to bring forward",
    ),
    "videojobs_stop": ("processing", "stopped", "failed", "can't be stopped"),
    "videojobs_resume": ("expired", "queued", "queued", "can't be resumed"),
    "videojobs_regenerate": ("failed", "failed", "queued", "were not regenerated"),
}


@pytest.mark.parametrize("command", CASES)
def test_each_job_that_is_named_is_acted_on_once_by_the_command_line(command: str) -> None:
    state, after, *_ = CASES[command]
    job = jobs.make(state, key="order-42")

    ended = run(command, "order-42", str(job.pk))

    assert (ended.err, ended.error) == ("", "")
    [printed] = ended.out.split()
    job.refresh_from_db()
    assert job.status == after
    assert VideoJob.objects.get(pk=printed).events.get().actor == "command line"


@pytest.mark.parametrize("command", CASES)
def test_a_job_that_it_does_not_fit_is_named_and_left_and_the_others_are_done(command: str) -> None:
    state, _after, other, message = CASES[command]
    left, job = jobs.make(other), jobs.make(state)
    before = VideoJob.objects.values().get(pk=left.pk)

    ended = run(command, str(left.pk), str(job.pk))

    assert ended.err.startswith(f"{left.pk} skipped: ")
    assert len(ended.err.splitlines()) == 1
    assert ended.error.startswith("1 of 2 jobs ")
    assert message in ended.error
    assert len(ended.out.split()) == 1
    assert VideoJob.objects.values().get(pk=left.pk) == before


def test_a_job_that_waits_for_the_provider_is_skipped_and_the_next_try_is_shown() -> None:
    job = jobs.make("queued")
    jobs.make_hold("limited")

    ended = run("videojobs_check_now", str(job.pk))

    assert ended.out == ""
    assert (
        ended.err.strip() == f"{job.pk} skipped: Waiting for the provider. Next attempt: in 4 min."
    )
    assert "1 of 1 jobs have no scheduled step to bring forward" in ended.error
    assert "waits for the provider" in ended.error


@pytest.mark.parametrize("command", CASES)
def test_an_unknown_id_stops_a_command_before_it_acts(command: str) -> None:
    job = jobs.make(CASES[command][0])

    ended = run(command, str(job.pk), "nonsense")

    assert "No job matches 'nonsense'" in ended.error
    assert ended.out == ""
    job.refresh_from_db()
    assert (job.turn, VideoJob.objects.count()) == (0, 1)


@pytest.mark.parametrize("command", CASES)
def test_a_command_asks_for_an_id(command: str) -> None:
    assert "ID" in run(command).error


def test_a_request_is_regenerated_as_a_new_job_whose_id_is_printed() -> None:
    job = jobs.make("failed", prompt="A kitten", model="videos", duration=5)

    ended = run("videojobs_regenerate", str(job.pk))

    new = VideoJob.objects.get(pk=ended.out.strip())
    assert (new.regenerated_from, new.status, new.prompt) == (job, "pending", "A kitten")


def test_a_request_is_not_paid_twice_by_a_command_that_is_run_twice() -> None:
    job = jobs.make("failed")
    new = run("videojobs_regenerate", str(job.pk)).out.strip()

    again = run("videojobs_regenerate", str(job.pk))

    assert f"{job.pk} skipped: It was already regenerated as {new}. Use --once-more" in again.err
    assert again.error == "1 of 1 jobs were not regenerated."
    assert VideoJob.objects.count() == 2


def test_a_request_is_regenerated_once_more_if_the_option_says_so() -> None:
    job = jobs.make("failed")
    first = run("videojobs_regenerate", str(job.pk)).out

    second = run("videojobs_regenerate", "--once-more", str(job.pk))

    assert (second.error, second.out == first) == ("", False)
    assert VideoJob.objects.filter(regenerated_from=job).count() == 2


def test_a_limit_that_is_reached_is_named(settings: Any) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MAX_SUBMISSIONS_PER_DAY": 0}
    job = jobs.make("failed")

    ended = run("videojobs_regenerate", str(job.pk))

    assert "Too many submissions in 24 hours (limit: " in ended.err
    assert VideoJob.objects.count() == 1

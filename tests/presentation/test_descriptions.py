from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone, translation

from tests.support import jobs
from videojobs.models import VideoJob
from videojobs.presentation import descriptions, humanize
from videojobs.presentation.humanize import NOTHING

pytestmark = pytest.mark.django_db


def after(seconds: float) -> Any:
    return timezone.now() + timedelta(seconds=seconds)


def sentences(job: VideoJob) -> list[str]:
    return [humanize.plain(parts) for parts in descriptions.sentences(job)]


@pytest.mark.parametrize(
    ("state", "fields", "words"),
    [
        ("queued", {"due_at": 24.5}, "in 24 s"),
        ("queued", {"due_at": -200}, "3 min late"),
        ("queued", {"due_at": 0.2}, "now"),
        ("queued", {"due_at": -1, "claimed_until": 30}, "in progress"),
        ("submitting", {"due_at": -100, "claimed_until": -30}, "worker lost"),
        ("due", {"due_at": 90}, "in 1 min"),
        ("stored", {}, "—"),
        ("failed", {}, "—"),
        ("stopped", {}, "—"),
        ("unconfirmed", {}, "needs attention"),
        ("expired", {}, "needs attention"),
        ("mirror-failed", {}, "needs attention"),
    ],
)
def test_the_next_step_is_said_in_a_few_words(
    state: str, fields: dict[str, float], words: str
) -> None:
    job = jobs.make(state, **{name: after(seconds) for name, seconds in fields.items()})

    assert str(descriptions.next_step(job) or NOTHING) == words


@pytest.mark.parametrize(
    ("state", "fields", "sentence"),
    [
        ("pending", {}, "Send the create request: in 24 s."),
        ("queued", {}, "Poll the provider: in 24 s."),
        ("queued", {"error_count": 1}, "The last attempt failed."),
        ("queued", {"error_count": 3}, "The last 3 attempts failed."),
        ("overdue", {}, "Overdue: the job is polled less often, and expires in 23 h 28 min."),
        ("due", {"mirror_attempts": 1}, "Download the video, attempt 2 of 50: in 24 s."),
        ("stored", {}, "Finished. Nothing left to do."),
    ],
)
def test_the_outlook_says_what_comes_next(
    state: str, fields: dict[str, Any], sentence: str
) -> None:
    job = jobs.make(state, **fields)

    assert sentence in sentences(job)


@pytest.mark.parametrize(
    ("state", "fields", "way_out"),
    [
        ("unconfirmed", {}, "attach the provider ID or confirm that nothing was created"),
        ("expired", {}, "Resume tracking"),
        ("expired", {}, "before you regenerate the video, which is billed"),
        ("stopped", {}, "may still finish the video and bill you. Resume tracking"),
        ("stopped", {"provider_task_id": None}, "regenerate the video, which is billed"),
        ("failed", {}, "regenerate the video, which is billed"),
        ("cancelled", {}, "regenerate the video, which is billed"),
        ("cancelled", {"model": ""}, "Submit a new job"),
        ("mirror-failed", {}, "Download it again"),
        ("expired", {"model": ""}, "Resume tracking"),
    ],
)
def test_the_outlook_names_the_way_out(state: str, fields: dict[str, Any], way_out: str) -> None:
    assert way_out in " ".join(sentences(jobs.make(state, **fields)))


def test_no_job_whose_request_is_unknown_is_said_to_be_generated_again() -> None:
    for state in ("failed", "cancelled", "expired", "stopped"):
        tracked = jobs.make(state, model="", prompt="", duration=None)

        assert "regenerate" not in " ".join(sentences(tracked)), state


def test_a_step_that_comes_keeps_its_moment_as_a_value() -> None:
    soon = after(24.5)
    job = jobs.make(due_at=soon)

    step, moment, end = descriptions.sentences(job)[0]

    assert moment == humanize.Moment(soon, "in 24 s", "in")
    assert (step, end) == ("Poll the provider: ", ".")


def test_a_running_download_is_called_by_the_number_of_its_attempt() -> None:
    job = jobs.make("due", mirror_attempts=2, claimed_until=after(30))

    assert sentences(job)[0] == "Download the video, attempt 2 of 50: in progress."


@pytest.mark.parametrize(("late", "lost"), [(10, False), (61, True)])
def test_a_wake_up_counts_as_lost_when_the_sweep_says_so(
    settings: Any, late: float, lost: bool
) -> None:
    settings.VIDEOJOBS = {"SWEEP_INTERVAL": 60.0}
    job = jobs.make(due_at=after(-late))

    assert any("The task was lost" in sentence for sentence in sentences(job)) is lost


def test_a_lost_worker_is_named_as_the_reason() -> None:
    job = jobs.make("submitting", due_at=after(-100), claimed_until=after(-1))

    text = " ".join(sentences(job))
    assert "The worker was lost. If another worker is running, it takes over this step" in text


def test_every_state_has_an_outlook() -> None:
    for state in jobs.STATES:
        assert descriptions.sentences(jobs.make(state)), state


def test_the_words_are_made_when_they_are_shown_and_not_at_import() -> None:
    with translation.override("de"):
        assert descriptions.next_step(jobs.make())

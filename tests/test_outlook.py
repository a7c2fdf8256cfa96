from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone, translation

from tests import jobs
from videojobs import outlook
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db


def after(seconds: float) -> Any:
    return timezone.now() + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (24, "24 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d"),
        (300 * 86400, "300 d"),
    ],
)
def test_a_span_is_said_as_a_person_says_it(seconds: float, words: str) -> None:
    assert outlook.span(seconds) == words


@pytest.mark.parametrize(
    ("state", "fields", "words"),
    [
        ("queued", {"due_at": 24.5}, "in 24 s"),
        ("queued", {"due_at": -200}, "3 min late"),
        ("queued", {"due_at": 0.2}, "now"),
        ("queued", {"due_at": -1, "claimed_until": 30}, "under way"),
        ("submitting", {"due_at": -100, "claimed_until": -30}, "worker lost"),
        ("due", {"due_at": 90}, "in 1 min"),
        ("stored", {}, "—"),
        ("failed", {}, "—"),
        ("stopped", {}, "—"),
        ("unconfirmed", {}, "needs a person"),
        ("expired", {}, "needs a person"),
        ("mirror-failed", {}, "needs a person"),
    ],
)
def test_the_next_step_is_said_in_a_few_words(
    state: str, fields: dict[str, float], words: str
) -> None:
    job = jobs.make(state, **{name: after(seconds) for name, seconds in fields.items()})

    assert outlook.next_step(job) == words


@pytest.mark.parametrize(
    ("state", "fields", "sentence"),
    [
        ("pending", {}, "Send the create call: in 24 s."),
        ("queued", {}, "Ask the provider: in 24 s."),
        ("queued", {"error_count": 1}, "The last attempt failed."),
        ("queued", {"error_count": 3}, "The last 3 attempts failed."),
        ("overdue", {}, "It is overdue and asked for rarely; given up in 23 h 28 min."),
        ("due", {"mirror_attempts": 1}, "Download the video, attempt 2 of 10: in 24 s."),
        ("stored", {}, "Nothing: the job is finished."),
    ],
)
def test_the_outlook_says_what_comes_next(
    state: str, fields: dict[str, Any], sentence: str
) -> None:
    job = jobs.make(state, **fields)

    assert sentence in outlook.sentences(job)


@pytest.mark.parametrize(
    ("state", "fields", "way_out"),
    [
        ("unconfirmed", {}, "attach its id or confirm that it was not created"),
        ("expired", {}, "Take it up again"),
        ("expired", {}, "before you generate it again, which is billed"),
        ("stopped", {}, "the provider may still finish, and bill. Take it up again"),
        ("stopped", {"provider_task_id": None}, "generate it again, which is billed"),
        ("failed", {}, "generate it again, which is billed"),
        ("cancelled", {}, "generate it again, which is billed"),
        ("cancelled", {"model": ""}, "Submit a new one"),
        ("mirror-failed", {}, "fetch it again"),
        ("expired", {"model": ""}, "Take it up again"),
    ],
)
def test_the_outlook_names_the_way_out(state: str, fields: dict[str, Any], way_out: str) -> None:
    assert way_out in " ".join(outlook.sentences(jobs.make(state, **fields)))


@pytest.mark.parametrize(
    ("state", "fields", "act", "others"),
    [
        ("unconfirmed", {}, "attach", "the permission to resolve submissions"),
        ("expired", {}, "take_up", "the permission to take up jobs again"),
        ("stopped", {}, "take_up", "the permission to take up jobs again"),
        (
            "stopped",
            {"provider_task_id": None},
            "generate_again",
            "the permission to generate jobs again",
        ),
        ("failed", {}, "generate_again", "the permission to generate jobs again"),
        ("cancelled", {"model": ""}, "add", "the permission to add jobs"),
        ("mirror-failed", {}, "mirror_again", "the permission to mirror outputs again"),
    ],
)
def test_whoever_may_not_is_told_who_can(
    state: str, fields: dict[str, Any], act: str, others: str
) -> None:
    job = jobs.make(state, **fields)

    mine, theirs = (" ".join(outlook.sentences(job, may=may)) for may in ({act}, set()))

    assert "Somebody" not in mine
    assert f"Somebody with {others}" in theirs or f"somebody with {others}" in theirs
    assert not re.search("[Tt]ake it up|[Yy]ou |[Ff]etch it again|[Aa]ttach|Submit a", theirs)


def test_whoever_can_only_generate_again_is_told_what_comes_before_it() -> None:
    told = " ".join(outlook.sentences(jobs.make("expired"), may={"generate_again"}))

    assert "Somebody with the permission to take up jobs again can ask" in told
    assert "That comes before you generate it again" in told


def test_no_job_whose_request_is_unknown_is_said_to_be_generated_again() -> None:
    for state in ("failed", "cancelled", "expired", "stopped"):
        tracked = jobs.make(state, model="", prompt="", duration=None)

        assert "generate it again" not in " ".join(outlook.sentences(tracked)), state


def test_a_running_download_is_called_by_the_number_of_its_attempt() -> None:
    job = jobs.make("due", mirror_attempts=2, claimed_until=after(30))

    assert outlook.sentences(job)[0] == "Download the video, attempt 2 of 10: under way."


@pytest.mark.parametrize(("late", "lost"), [(10, False), (61, True)])
def test_a_wake_up_counts_as_lost_when_the_sweep_says_so(
    settings: Any, late: float, lost: bool
) -> None:
    settings.VIDEOJOBS = {"SWEEP_GRACE": 60.0}
    job = jobs.make(due_at=after(-late))

    assert any("wake-up is lost" in sentence for sentence in outlook.sentences(job)) is lost


def test_a_lost_worker_is_named_as_the_reason() -> None:
    job = jobs.make("submitting", due_at=after(-100), claimed_until=after(-1))

    told = " ".join(outlook.sentences(job))
    assert "Its worker did not come back. Where another worker and beat run, the sweep" in told


def test_every_state_has_an_outlook() -> None:
    for state in jobs.STATES:
        assert outlook.sentences(jobs.make(state)), state


def test_conditions_and_functions_agree_in_every_state() -> None:
    made = {state: jobs.make(state) for state in jobs.STATES}

    for state, job in made.items():
        row = VideoJob.objects.filter(pk=job.pk)
        assert row.filter(outlook.NEEDS_A_PERSON).exists() == outlook.needs_a_person(job), state
        assert row.filter(outlook.overdue(timezone.now())).exists() == job.is_overdue, state
        assert row.filter(outlook.UNFINISHED).exists() != job.is_finished, state


def test_what_needs_a_person_succeeds_and_rests() -> None:
    made = {state: jobs.make(state) for state in jobs.STATES}

    assert {s for s, job in made.items() if outlook.needs_a_person(job)} == {
        "unconfirmed",
        "expired",
        "mirror-failed",
    }
    assert {s for s, job in made.items() if outlook.succeeded(job)} == {"stored", "skipped"}
    assert {s for s, job in made.items() if not outlook.at_rest(job)} == {
        "pending",
        "submitting",
        "queued",
        "processing",
        "overdue",
        "due",
    }


@pytest.mark.parametrize("text", ["", "1234567", "proj_1234567890", "x" * 36, "1" * 33, "½" * 8])
def test_what_begins_no_id_has_no_range(text: str) -> None:
    assert outlook.id_range(text) is None


@pytest.mark.parametrize("text", ["1a2b3c4d", "1A2B3C4D", "1a2b-3c4d", " 1a2b3c4d "])
def test_the_beginning_of_an_id_is_a_range_of_ids(text: str) -> None:
    low, high = UUID("1a2b3c4d" + "0" * 24), UUID("1a2b3c4d" + "f" * 24)

    assert outlook.id_range(text) == (low, high)


def test_a_range_finds_exactly_the_ids_that_begin_so() -> None:
    first, last = UUID("1a2b3c4d" + "0" * 24), UUID("1a2b3c4d" + "f" * 24)
    before, behind = UUID("1a2b3c4c" + "f" * 24), UUID("1a2b3c4e" + "0" * 24)
    for number, pk in enumerate([first, last, before, behind]):
        jobs.make(pk=pk, provider_task_id=f"t{number}")

    found = VideoJob.objects.filter(pk__range=outlook.id_range("1a2b3c4d"))

    assert {job.pk for job in found} == {first, last}


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://user:secret@cdn.example.com:8443/v.mp4?sig=secret#x", "cdn.example.com"),
        ("", ""),
        ("not a url", ""),
        ("https://[::1", ""),
    ],
)
def test_no_more_than_the_host_of_a_url_is_told(url: str, host: str) -> None:
    assert outlook.host(url) == host


def test_the_words_are_made_when_they_are_shown_and_not_at_import() -> None:
    with translation.override("de"):
        assert outlook.next_step(jobs.make())

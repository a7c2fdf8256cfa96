"""How a job is checked, and when the next check is due."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from django.utils import timezone

from tests.support import jobs
from videojobs import operations, services, signals
from videojobs.models import VideoJob
from videojobs.states import MirrorStatus, Status
from videojobs.testing import (
    Answer,
    Drop,
    Hang,
    Reset,
    Script,
)

from .steps import (
    HTML,
    WAITING,
    MeddledProvider,
    before_the_record,
    changes,
    completed,
    last_reason,
    lose_the_worker,
    run,
    seconds_until,
    take_it,
    tracked,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_job_follows_the_provider_to_its_verdict(provider: MeddledProvider) -> None:
    job = tracked(provider, Script(["queued", "processing", "processing", "completed"]))

    job = run(job, times=4)

    assert changes(job) == [("", "queued"), ("queued", "processing"), ("processing", "completed")]
    assert (job.mirror_status, job.check_count) == (MirrorStatus.DUE, 4)
    assert seconds_until(job) <= 0
    assert job.finished_at is not None
    assert job.actual_duration is not None


def test_between_two_checks_lies_the_interval(provider: MeddledProvider) -> None:
    job = run(tracked(provider, WAITING))

    # Rounded up to a full slot.
    assert 25 < seconds_until(job) <= 31
    assert (job.claimed_until, job.claim_token) == (None, None)
    assert job.last_checked_at is not None


def test_a_message_that_is_delivered_five_times_checks_once(provider: MeddledProvider) -> None:
    job = tracked(provider, WAITING)

    for _ in range(5):
        services.poll(str(job.pk))

    assert provider.checks("proj_1") == 1


def test_a_step_back_is_tolerated_and_not_recorded(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script(["processing", "queued", "completed"])), times=2)

    assert (job.status, job.error_count) == (Status.PROCESSING, 0)
    assert changes(job) == [("", "queued"), ("queued", "processing")]
    assert job.events.count() == 2


TROUBLE = {
    "unknown status": Answer(200, {"id": "proj_1", "status": "dreaming"}),
    "no status": Answer(200, {"id": "proj_1"}),
    "another task": Answer(200, {"id": "proj_2", "status": "failed"}),
    "envelope": Answer(200, {"code": "500", "msg": "failed", "status": "failed"}),
    "401": Answer(401, {"code": "401", "status": "failed"}),
    "403": Answer(403, "Forbidden"),
    "404": Answer(404, {"code": "404", "msg": "no such task"}),
    "429": Answer(429, "Too fast."),
    "500": Answer(500, {"status": "failed"}),
    "html": HTML,
    "empty": Answer(200, b""),
    "drop": Drop(),
    "reset": Reset(),
    "hang": Hang(5),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_no_trouble_on_the_way_fails_a_job(
    trouble: Any, provider: MeddledProvider, settings: Any
) -> None:
    settings.VIDEOJOBS |= jobs.IMPATIENT
    job = run(tracked(provider, Script([trouble, "completed"])))

    assert (job.status, job.error_count, job.check_count) == (Status.QUEUED, 1, 1)
    assert (job.mirror_status, job.finished_at, job.error) == (MirrorStatus.NONE, None, "")
    assert seconds_until(job) > 25
    with time_machine.travel(timezone.now() + timedelta(seconds=301)):
        assert run(job).status == Status.COMPLETED


def test_a_provider_that_is_down_fails_no_job(provider: MeddledProvider) -> None:
    job = tracked(provider, WAITING)
    provider.stop()

    job = run(job)

    assert (job.status, job.error_count) == (Status.QUEUED, 1)


def test_a_mistake_of_ours_fails_no_job(provider: MeddledProvider) -> None:
    job = tracked(provider, WAITING)

    def trip() -> None:
        raise ZeroDivisionError("an unexpected error")

    # Neither the record of its portion nor its own one succeeds.
    with before_the_record(trip, nth=2, times=2):
        job = run(job)

    assert (job.status, job.error_count) == (Status.QUEUED, 1)
    assert "ZeroDivisionError" in job.events.get(kind="note").reason


def test_what_a_mistake_of_ours_says_is_written_down_without_secrets(
    provider: MeddledProvider,
) -> None:
    def trip() -> None:
        raise ValueError(f"{provider.api_key} at https://a.test/x?Signature=1")

    with before_the_record(trip, nth=2, times=2):
        job = run(tracked(provider, WAITING))

    assert "https://a.test/x" in last_reason(job)
    assert "Signature" not in last_reason(job)
    assert provider.api_key not in last_reason(job)


def test_what_a_mistake_of_ours_says_is_logged_with_its_traceback_and_without_secrets(
    provider: MeddledProvider, caplog: pytest.LogCaptureFixture
) -> None:
    def trip() -> None:
        raise ValueError(f"{provider.api_key} at https://a.test/x?Signature=1")

    with before_the_record(trip, nth=2):
        run(tracked(provider, WAITING))

    assert ", in trip\n" in caplog.text
    assert "ValueError: [key] at https://a.test/x?[redacted]" in caplog.text
    assert "Signature=" not in caplog.text
    assert provider.api_key not in caplog.text


def test_the_key_never_goes_to_another_provider(provider: MeddledProvider, settings: Any) -> None:
    job = tracked(provider, WAITING)
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "BASE_URL": "http://127.0.0.1:9/elsewhere"}

    job = run(job)

    assert (job.status, job.error_count, provider.calls) == (Status.QUEUED, 1, [])


def test_the_provider_is_left_alone_for_as_long_as_it_asks(provider: MeddledProvider) -> None:
    busy = Answer(429, "Too fast.", {"Retry-After": "300"})

    job = run(tracked(provider, Script([busy])))

    assert 295 < seconds_until(job) <= 330


def test_a_short_hold_does_not_shorten_the_interval_between_two_checks_of_a_job(
    provider: MeddledProvider,
) -> None:
    busy = Answer(429, "Too fast.", {"Retry-After": "1"})

    job = run(tracked(provider, Script([busy])))

    assert seconds_until(job) > 29


def test_an_outage_is_a_handful_of_events(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script([Answer(500)])), times=9)

    assert job.error_count == 9
    assert job.events.filter(kind="note").count() == 4


def test_a_task_that_is_not_known_right_after_its_creation_is_asked_for_as_usual(
    provider: MeddledProvider,
) -> None:
    job = run(tracked(provider, Script([Answer(404), "processing"])))
    wait = seconds_until(job)

    assert (job.status, 25 < wait <= 60) == (Status.QUEUED, True)
    assert run(job).status == Status.PROCESSING


def test_a_task_that_stays_unknown_is_asked_for_slowly_and_expires(
    provider: MeddledProvider,
) -> None:
    job = tracked(provider, Script([Answer(404)]))
    start = timezone.now()

    with time_machine.travel(start + timedelta(seconds=301)):
        job = run(job)
        wait = seconds_until(job)
    for seconds in (86401, 87001):
        with time_machine.travel(start + timedelta(seconds=seconds)):
            job = run(job)

    assert 595 < wait <= 600
    assert (job.status, last_reason(job)) == (Status.EXPIRED, "HTTP 404")


def test_an_outage_of_an_hour_ends_no_job(provider: MeddledProvider) -> None:
    job = tracked(provider, Script([Answer(503)]))
    start = timezone.now()

    with time_machine.travel(start, tick=False) as clock:
        while timezone.now() < start + timedelta(hours=1):
            job = run(job)
            clock.shift(timedelta(seconds=seconds_until(job)))
        provider.set_script("proj_1", Script(["completed"]))
        job = run(job)

    # Every minute until it is overdue, then every ten minutes.
    assert 30 < job.check_count < 40
    assert (job.status, job.error_count) == (Status.COMPLETED, 0)


def test_an_answer_ends_the_count_of_errors(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script([Answer(500), Answer(500), "queued"])), times=3)

    assert (job.error_count, job.check_count) == (0, 3)


def test_a_video_without_a_url_is_asked_for_again_by_the_download(
    provider: MeddledProvider,
) -> None:
    job = completed(provider, url_field=None)
    assert (job.status, job.mirror_status, job.video_url) == ("completed", "due", "")

    provider.set_script("proj_1", Script(["completed"]))
    job = run(job)

    assert job.mirror_status == MirrorStatus.STORED


@pytest.mark.parametrize(
    ("word", "reason", "error"),
    [
        ("failed", "The prompt was refused.", "The prompt was refused."),
        ("failed", "", "the provider reports failed without a reason"),
        ("cancelled", "Out of funds.", "Out of funds."),
        ("cancelled", None, "the provider reports cancelled without a reason"),
    ],
)
def test_a_bad_verdict_ends_the_job_with_its_reason(
    word: str, reason: str | None, error: str, provider: MeddledProvider
) -> None:
    job = run(tracked(provider, Script([word], error=reason)))

    assert (job.status, job.mirror_status, job.due_at) == (word, MirrorStatus.NONE, None)
    assert job.error == error == last_reason(job)
    assert job.finished_at is not None


def test_an_output_that_nobody_wants_is_not_fetched(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script(["completed"]), mirror=False))

    assert (job.status, job.mirror_status, job.due_at) == ("completed", "skipped", None)
    assert job.video_url


def test_a_job_becomes_overdue_once_and_is_polled_slowly(provider: MeddledProvider) -> None:
    job = run(tracked(provider, WAITING))
    received: list[VideoJob] = []
    signals.job_overdue.connect(note := lambda job, **_: received.append(job), weak=False)

    with time_machine.travel(timezone.now() + timedelta(seconds=1801)):
        job = run(job, times=3)
        wait = seconds_until(job)

    signals.job_overdue.disconnect(note)
    assert (job.status, received) == (Status.QUEUED, [job])
    assert 595 < wait <= 600
    assert [event.reason for event in job.events.filter(kind="overdue")] == ["past its deadline"]


def test_an_error_past_the_deadline_makes_a_job_overdue_too(provider: MeddledProvider) -> None:
    job = tracked(provider, Script([Answer(500)]))
    received: list[VideoJob] = []
    signals.job_overdue.connect(note := lambda job, **_: received.append(job), weak=False)

    with time_machine.travel(timezone.now() + timedelta(seconds=1801)):
        job = run(job, times=3)

    signals.job_overdue.disconnect(note)
    assert (job.status, received) == (Status.QUEUED, [job])


def test_a_late_success_is_stored_and_settles_once(provider: MeddledProvider) -> None:
    job = tracked(provider, Script(["queued", "completed"]))
    received: list[str] = []
    late = {"job_overdue", "job_completed", "output_stored"}
    notes = {name: (lambda name=name, **_: received.append(name)) for name in late}
    for name, note in notes.items():
        getattr(signals, name).connect(note, weak=False)

    with time_machine.travel(timezone.now() + timedelta(seconds=1801)):
        job = run(job, times=3)
        turn = job.turn
        operations.sweep()
        services.poll(job.pk)

    for name, note in notes.items():
        getattr(signals, name).disconnect(note)
    job.refresh_from_db()
    assert (job.status, job.mirror_status, job.turn) == ("completed", "stored", turn)
    assert received == ["job_overdue", "job_completed", "output_stored"]


@pytest.mark.parametrize("last", ["queued", Answer(500)])
def test_a_job_expires_after_a_last_check(last: Any, provider: MeddledProvider) -> None:
    job = tracked(provider, Script([last]))
    received: list[VideoJob] = []
    signals.job_overdue.connect(note := lambda job, **_: received.append(job), weak=False)

    for seconds in (86401, 87001):
        with time_machine.travel(timezone.now() + timedelta(seconds=seconds)):
            job = run(job)

    signals.job_overdue.disconnect(note)
    assert (job.status, job.due_at, received) == (Status.EXPIRED, None, [job])
    assert provider.checks("proj_1") == 2
    assert job.finished_at is not None
    assert last_reason(job) != ""


def test_a_verdict_at_the_last_check_is_the_verdict(provider: MeddledProvider) -> None:
    job = tracked(provider, Script(["completed"]))

    with time_machine.travel(timezone.now() + timedelta(days=30)):
        job = run(job)

    assert job.status == Status.COMPLETED


def test_a_job_without_a_deadline_is_given_one(provider: MeddledProvider) -> None:
    job = tracked(provider, WAITING)
    VideoJob.objects.update(deadline_at=None)

    job = run(job)

    assert job.deadline_at is not None
    assert 1790 < (job.deadline_at - timezone.now()).total_seconds() <= 1800


@pytest.mark.parametrize("answer", ["queued", "completed", "failed", Answer(500)])
def test_a_result_is_dropped_if_another_worker_took_over_after_the_lease(
    answer: Any, provider: MeddledProvider
) -> None:
    job, other = tracked(provider, Script([answer])), uuid4()

    def take_over() -> None:
        lose_the_worker()
        assert VideoJob.objects.claim_portion(9, token=other).jobs

    provider.meanwhile = take_over

    job = run(job)

    assert (job.status, job.check_count, job.error_count) == (Status.QUEUED, 0, 0)
    assert (job.turn, job.claim_token) == (2, other)
    assert changes(job) == [("", "queued")]


def test_a_result_that_comes_after_the_lease_is_kept_if_no_other_worker_took_over(
    provider: MeddledProvider,
) -> None:
    provider.meanwhile = lose_the_worker

    job = run(tracked(provider, Script(["completed"])))

    assert (job.status, job.check_count) == (Status.COMPLETED, 1)


def test_a_job_that_was_stopped_during_the_check_stays_stopped(provider: MeddledProvider) -> None:
    provider.meanwhile = take_it(status=Status.STOPPED, actor="ann")

    job = run(tracked(provider, Script(["completed"])))

    assert job.status == Status.STOPPED


def test_a_job_that_was_deleted_during_the_check_is_nobodys_trouble(
    provider: MeddledProvider,
) -> None:
    provider.meanwhile = lambda: VideoJob.objects.all().delete()

    run(tracked(provider, Script(["completed"])))

    assert not VideoJob.objects.exists()


def test_a_message_that_comes_after_the_end_does_nothing(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script(["failed"])))

    for named in (job.pk, None):
        for step in (services.submit, services.poll, services.mirror):
            step(named)

    assert len(provider.calls) == 1


@pytest.mark.parametrize(
    ("script", "name"),
    [
        (Script(["cancelled"], error="Out of funds."), "job_failed"),
        (Script(["failed"], error="Blocked."), "job_failed"),
        (Script(["processing"]), "job_expired"),
        (Script([Answer(404)]), "job_expired"),
    ],
)
def test_every_end_without_a_video_sends_its_signal(
    script: Script, name: str, provider: MeddledProvider
) -> None:
    received: list[UUID] = []
    job = tracked(provider, script)
    getattr(signals, name).connect(note := lambda job, **_: received.append(job.pk), weak=False)

    for seconds in (0, 86_401, 87_001):
        with time_machine.travel(timezone.now() + timedelta(seconds=seconds)):
            job = run(job) if job.step else job

    getattr(signals, name).disconnect(note)
    assert (job.step, received) == ("", [job.pk])

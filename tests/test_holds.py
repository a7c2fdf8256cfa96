"""An answer that is meant for the key holds all its jobs; one call finds out when it is over."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import OperationalError, connection
from django.utils import timezone

from videojobs import holds, services
from videojobs.models import JobEvent, ProviderHold, VideoJob
from videojobs.states import Status
from videojobs.testing import Answer, Drop, Script, SimulatedProvider

pytestmark = pytest.mark.django_db(transaction=True)

LIMITED = Answer(429, "Too fast.")
REJECTED = Answer(401, {"code": "401", "msg": "The key is not valid."})
FORBIDDEN = Answer(403, "Forbidden")


@pytest.fixture
def provider(settings: Any) -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        settings.VIDEOJOBS = {
            "BASE_URL": provider.base_url,
            "API_KEY": provider.api_key,
            "ALLOWED_PRIVATE_NETWORKS": ["127.0.0.0/8"],
            "POLL_INTERVAL": 30.0,
            "POLL_JITTER": 0.0,
            "CONNECT_TIMEOUT": 0.2,
            "READ_TIMEOUT": 0.6,
        }
        yield provider


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(timezone.now(), tick=False) as traveller:
        yield traveller


def tracked(provider: SimulatedProvider, name: str, *steps: Any) -> VideoJob:
    provider.add_task(name, Script(steps or ["queued"]))
    return VideoJob.objects.track(name)


def run(job: VideoJob) -> VideoJob:
    """Do a job's next step, as the wake-up that is valid now would."""
    job.refresh_from_db()
    getattr(services, job.step)(job.pk, job.turn)
    job.refresh_from_db()
    return job


def wait_of(job: VideoJob) -> float:
    assert job.due_at is not None
    return (job.due_at - timezone.now()).total_seconds()


def over(hold: ProviderHold) -> datetime:
    hold.refresh_from_db()
    return hold.until + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("answer", "kind", "seconds"),
    [
        (LIMITED, "limited", 30),
        (Answer(429, "Too fast.", {"Retry-After": "200"}), "limited", 200),
        (REJECTED, "rejected", 300),
        (FORBIDDEN, "rejected", 300),
    ],
)
def test_one_answer_about_the_key_holds_every_job_of_the_key(
    answer: Answer,
    kind: str,
    seconds: int,
    provider: SimulatedProvider,
    clock: time_machine.Traveller,
) -> None:
    first, second = tracked(provider, "proj_1", answer), tracked(provider, "proj_2")

    run(first)
    second = run(second)

    hold = ProviderHold.objects.get()
    assert (hold.kind, hold.until) == (kind, timezone.now() + timedelta(seconds=seconds))
    assert provider.checks("proj_2") == 0
    assert seconds <= wait_of(second) <= seconds + 30
    assert (second.check_count, second.error_count) == (0, 0)
    assert not second.events.exclude(new="queued").exists()


def test_the_job_that_met_it_waits_like_the_others_and_keeps_its_status(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = run(tracked(provider, "proj_1", REJECTED))

    assert (job.status, job.error_count) == (Status.QUEUED, 1)
    assert 300 <= wait_of(job) <= 330
    assert "The key is not valid." in job.events.get(kind="note").reason


def test_other_trouble_holds_nobody(provider: SimulatedProvider) -> None:
    for number, trouble in enumerate([Answer(500), Answer(404), Answer(200, "<html>"), Drop()]):
        run(tracked(provider, f"proj_{number}", trouble))

    assert not ProviderHold.objects.exists()


def test_when_a_hold_is_over_one_job_tries_and_the_others_go_on_waiting(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    first = run(tracked(provider, "proj_1", REJECTED))
    others = [tracked(provider, "proj_2"), tracked(provider, "proj_3")]
    clock.move_to(over(ProviderHold.objects.get()))
    meanwhile: list[VideoJob] = []
    fetch = services.client.fetch

    def slow_fetch(*args: Any) -> Any:
        # The answer has not come yet when the others want to ask.
        if not meanwhile:
            meanwhile.extend(others)
            for other in others:
                run(other)
        return fetch(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services.client, "fetch", slow_fetch)
        run(first)

    assert provider.checks("proj_1") == 2
    assert [provider.checks(f"proj_{n}") for n in (2, 3)] == [0, 0]


def test_an_answer_lifts_the_hold_for_all(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    first = run(tracked(provider, "proj_1", LIMITED, "processing"))
    second = tracked(provider, "proj_2", "processing")
    clock.move_to(over(ProviderHold.objects.get()))

    assert run(first).status == Status.PROCESSING
    assert run(second).status == Status.PROCESSING

    assert holds.current() is None


@pytest.mark.parametrize("answer", [Answer(404), Answer(500), Answer(200, "<html>")])
def test_whatever_else_it_answers_it_takes_calls_again(
    answer: Answer, provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = run(tracked(provider, "proj_1", LIMITED, answer))
    clock.move_to(over(ProviderHold.objects.get()))

    run(job)

    assert holds.current() is None


def test_a_try_that_gets_no_answer_leaves_the_hold_to_the_next_one(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = run(tracked(provider, "proj_1", LIMITED, Drop(), "processing"))
    clock.move_to(over(ProviderHold.objects.get()))

    run(job)
    still_held = holds.current() is not None
    clock.move_to(over(ProviderHold.objects.get()))
    job = run(job)

    assert (still_held, holds.current(), job.status) == (True, None, Status.PROCESSING)


def test_a_key_that_stays_rejected_is_tried_slowly_and_no_job_ends(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    jobs = [tracked(provider, f"proj_{n}", REJECTED) for n in range(5)]
    end = timezone.now() + timedelta(hours=30)  # longer than GIVE_UP_AFTER

    while timezone.now() < end:
        for job in VideoJob.objects.filter(due_at__lte=timezone.now()):
            run(job)
        clock.shift(30)

    assert set(VideoJob.objects.values_list("status", flat=True)) == {Status.QUEUED}
    checks = sum(provider.checks(job.provider_task_id or "") for job in jobs)
    # All five together, not each one.
    assert 200 < checks < 30 * 3600 / 300 + 5
    hold = ProviderHold.objects.get()
    assert hold.count == checks
    assert hold.since < end - timedelta(hours=29)


def test_another_key_is_not_held(
    provider: SimulatedProvider, clock: time_machine.Traveller, settings: Any
) -> None:
    run(tracked(provider, "proj_1", REJECTED))

    provider.api_key = "new-key"
    settings.VIDEOJOBS |= {"API_KEY": "new-key"}
    job = run(tracked(provider, "proj_2", "processing"))

    assert job.status == Status.PROCESSING


def test_a_hold_says_nothing_of_the_key(provider: SimulatedProvider) -> None:
    said = Answer(401, {"code": "401", "msg": f"The key {provider.api_key} is not valid."})
    run(tracked(provider, "proj_1", said))

    row = str(ProviderHold.objects.values().get())

    assert provider.api_key not in row


def test_a_job_that_alone_is_refused_again_and_again_holds_the_others_once(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    alone = run(tracked(provider, "proj_1", FORBIDDEN))
    other = tracked(provider, "proj_2")
    clock.move_to(over(ProviderHold.objects.get()))
    run(other)
    clock.shift(30)

    run(alone)

    assert holds.current() is None
    assert run(other).check_count == 2


# create calls


def submitted(prompt: str = "A kitten") -> VideoJob:
    return VideoJob.objects.submit(prompt, duration=5)


def test_a_held_create_call_waits_before_its_intent_is_recorded(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    run(tracked(provider, "proj_1", LIMITED))

    job = run(submitted())

    assert (job.status, provider.creates) == (Status.PENDING, [])
    assert [event.new for event in job.events.all()] == ["pending"]
    assert 30 <= wait_of(job) <= 60


def test_after_a_hold_a_create_call_goes_out_only_once_a_harmless_one_was_answered(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("first", Script(create=REJECTED))
    assert run(submitted("first")).status == Status.UNCONFIRMED
    job = run(submitted())
    key, provider.api_key = provider.api_key, "another"
    clock.move_to(over(ProviderHold.objects.get()))

    job = run(job)
    assert (job.status, len(provider.creates)) == (Status.PENDING, 1)

    provider.api_key = key
    clock.move_to(over(ProviderHold.objects.get()))
    job = run(job)
    assert (job.status, len(provider.creates)) == (Status.QUEUED, 2)


def test_of_many_submissions_under_a_rejected_key_one_is_left_to_a_person(
    provider: SimulatedProvider,
) -> None:
    jobs = [submitted(f"kitten {n}") for n in range(5)]
    provider.api_key = "another"

    statuses = [run(job).status for job in jobs]

    assert statuses == ["unconfirmed"] + ["pending"] * 4


def test_an_outage_writes_no_events_while_it_lasts(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    jobs = [submitted(f"kitten {n}") for n in range(3)]
    provider.stop()

    for _ in range(60):
        for job in VideoJob.objects.filter(due_at__lte=timezone.now()):
            run(job)
        clock.shift(60)

    assert {job.status for job in VideoJob.objects.all()} == {Status.PENDING}
    assert JobEvent.objects.filter(job__in=jobs).count() == 3 + 2


def test_after_an_outage_everything_is_sent_once(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    jobs = [submitted(f"kitten {n}") for n in range(3)]
    provider.stop()
    for job in jobs:
        run(job)
    provider.start()

    for _ in range(10):
        for job in VideoJob.objects.filter(status="pending", due_at__lte=timezone.now()):
            run(job)
        clock.shift(30)

    assert {job.status for job in VideoJob.objects.all()} == {Status.QUEUED}
    assert len(provider.creates) == 3


def test_checks_go_on_while_create_calls_wait_for_a_connection(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.stop()
    run(submitted())
    provider.start()

    job = run(tracked(provider, "proj_1", "processing"))

    assert (job.status, holds.current()) == (Status.PROCESSING, None)


def test_a_job_of_another_provider_holds_nobody(provider: SimulatedProvider) -> None:
    job = submitted()
    VideoJob.objects.update(endpoint="https://old.example.com/v1/videos/videos")

    job = run(job)

    assert (job.status, ProviderHold.objects.count()) == (Status.PENDING, 0)
    assert wait_of(job) > 500


def test_what_a_call_has_brought_is_kept_though_the_hold_can_not_be_recorded(
    provider: SimulatedProvider,
) -> None:
    def hook(execute: Any, sql: str, *args: Any) -> Any:
        if "videojobs_providerhold" in sql and not sql.startswith("SELECT"):
            raise OperationalError("the database is restarting")
        return execute(sql, *args)

    provider.stop()
    with connection.execute_wrapper(hook):
        job = run(submitted())

    assert job.status == Status.PENDING


def test_a_message_that_is_stale_does_not_use_up_the_try(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = run(tracked(provider, "proj_1", LIMITED, "processing"))
    clock.move_to(over(ProviderHold.objects.get()))

    services.poll(job.pk, job.turn - 1)
    services.submit(job.pk, job.turn - 1)

    assert run(job).status == Status.PROCESSING


# downloads


def completed(provider: SimulatedProvider, *steps: Any, **options: Any) -> VideoJob:
    provider.add_task("proj_1", Script(["completed", *steps], **options))
    return run(VideoJob.objects.track("proj_1"))


def test_a_download_whose_url_is_there_does_not_wait(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = completed(provider)
    run(tracked(provider, "proj_2", REJECTED))

    assert run(job).mirror_status == "stored"


def test_a_download_that_needs_a_fresh_url_waits(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = run(completed(provider, dead_urls=1))
    run(tracked(provider, "proj_2", LIMITED))

    job = run(job)

    assert (job.mirror_status, job.mirror_attempts) == ("due", 1)
    assert provider.checks("proj_1") == 1
    assert 30 <= wait_of(job) <= 60


def test_a_rejected_key_uses_up_no_attempt_of_a_download(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = run(completed(provider, *[REJECTED] * 8, "completed", dead_urls=1))

    for _ in range(9):
        clock.shift(3600)
        job = run(job)

    assert (job.mirror_status, job.mirror_attempts) == ("stored", 2)

"""The circuit breaker: which errors hold all jobs of a key, and how trial calls end a hold."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
import time_machine
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F, Min
from django.utils import timezone

from tests.support import jobs
from videojobs import holds, services
from videojobs.conf import conf
from videojobs.exceptions import KeyRejected, NotSent, ProviderError, RateLimited, Unavailable
from videojobs.managers import VideoJobQuerySet
from videojobs.models import JobEvent, ProviderHold, VideoJob
from videojobs.providers import client
from videojobs.services import breaker
from videojobs.states import Status
from videojobs.testing import Answer, Drop, Hang, Script, SimulatedProvider

from .steps import SOON_EXPIRED, run

pytestmark = pytest.mark.django_db(transaction=True)

LIMITED = Answer(429, "Too fast.")
FORBIDDEN = Answer(403, "Forbidden")


@pytest.fixture
def provider(settings: Any) -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        settings.VIDEOJOBS = jobs.asked_at(provider)
        yield provider


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(timezone.now(), tick=False) as traveller:
        yield traveller


def tracked(provider: SimulatedProvider, name: str, *steps: Any) -> VideoJob:
    provider.add_task(name, Script(steps or ["queued"]))
    return VideoJob.objects.track(name)


def wait_of(job: VideoJob) -> float:
    assert job.due_at is not None
    return (job.due_at - timezone.now()).total_seconds()


def held() -> ProviderHold | None:
    return ProviderHold.objects.filter(reset_at=None).first()


def over() -> datetime:
    """A second after the end of the hold, and of a trial call without an answer."""
    hold = held()
    assert hold
    return max(hold.until, hold.trial_until or hold.until) + timedelta(seconds=1)


def go_on_for(clock: time_machine.Traveller, seconds: float, *, step: float = 5) -> float:
    """Run all steps that become due; return the seconds during which everything was held."""
    waited, end = 0.0, timezone.now() + timedelta(seconds=seconds)
    while (now := timezone.now()) < end:
        services.poll()
        while services.submit() or services.mirror():
            pass
        due = VideoJob.objects.aggregate(first=Min("due_at"))["first"] or end
        passed = max(step, (min(due, end) - now).total_seconds())
        waited += passed * ProviderHold.objects.filter(reset_at=None, scope="everything").count()
        clock.shift(passed)
    return waited


@pytest.mark.parametrize(
    ("answer", "kind", "seconds"),
    [
        (LIMITED, "limited", 30),
        (Answer(429, "Too fast.", {"Retry-After": "200"}), "limited", 200),
        (Answer(200, {"code": "429", "msg": "Too fast.", "data": None}), "limited", 30),
        (None, "rejected", 300),
    ],
)
def test_one_answer_about_the_key_holds_every_job_of_the_key(
    answer: Answer | None,
    kind: str,
    seconds: int,
    provider: SimulatedProvider,
    clock: time_machine.Traveller,
) -> None:
    first, second = tracked(provider, "proj_1", answer or "queued"), tracked(provider, "proj_2")
    key, provider.api_key = provider.api_key, provider.api_key if answer else "another"

    run(first)
    provider.api_key = key
    second = run(second)

    hold = ProviderHold.objects.get()
    assert (hold.kind, hold.scope) == (kind, "everything")
    assert hold.until == timezone.now() + timedelta(seconds=seconds)
    assert provider.checks("proj_2") == 0
    assert seconds <= wait_of(second) <= seconds + 31
    assert (second.check_count, second.error_count) == (0, 0)
    assert not second.events.exclude(new="queued").exists()


def test_the_job_that_met_it_waits_like_the_others_and_keeps_its_status(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = tracked(provider, "proj_1")
    provider.api_key = "another"

    job = run(job)

    assert (job.status, job.error_count) == (Status.QUEUED, 1)
    assert 300 <= wait_of(job) <= 330
    assert "HTTP 401" in job.events.get(kind="note").reason


def test_other_trouble_holds_nobody(provider: SimulatedProvider) -> None:
    for number, trouble in enumerate([Answer(500), Answer(404), Answer(200, "<html>"), Drop()]):
        run(tracked(provider, f"proj_{number}", trouble))

    assert not ProviderHold.objects.exists()


def test_when_a_hold_is_over_one_job_tries_and_the_others_go_on_waiting(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    first = run(tracked(provider, "proj_1", LIMITED))
    others = [tracked(provider, "proj_2"), tracked(provider, "proj_3")]
    clock.move_to(over())
    meanwhile: list[VideoJob] = []
    fetch = client.fetch

    def slow_fetch(*args: Any) -> Any:
        # The others run before the answer arrives.
        if not meanwhile:
            meanwhile.extend(others)
            for other in others:
                run(other)
        return fetch(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "fetch", slow_fetch)
        run(first)

    assert provider.checks("proj_1") == 2
    assert [provider.checks(f"proj_{n}") for n in (2, 3)] == [0, 0]


def test_an_answer_lifts_the_hold_for_all(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    first = run(tracked(provider, "proj_1", LIMITED, "processing"))
    second = tracked(provider, "proj_2", "processing")
    clock.move_to(over())

    assert run(first).status == Status.PROCESSING
    assert run(second).status == Status.PROCESSING

    assert held() is None


@pytest.mark.parametrize("answer", [FORBIDDEN, Answer(404), Answer(500), Answer(200, "<html>")])
def test_whatever_else_it_answers_it_takes_calls_again(
    answer: Answer, provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = run(tracked(provider, "proj_1", LIMITED, answer))
    clock.move_to(over())

    run(job)

    assert held() is None


def test_a_try_that_gets_no_answer_leaves_the_hold_to_the_next_one(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = run(tracked(provider, "proj_1", LIMITED, Drop(), "processing"))
    clock.move_to(over())

    run(job)
    still_held = held() is not None
    clock.move_to(over())
    job = run(job)

    assert (still_held, held(), job.status) == (True, None, Status.PROCESSING)


def test_a_key_that_stays_rejected_is_tried_slowly_and_no_job_ends(
    provider: SimulatedProvider, clock: time_machine.Traveller, settings: Any
) -> None:
    settings.VIDEOJOBS |= SOON_EXPIRED
    for number in range(5):
        tracked(provider, f"proj_{number}")
    provider.api_key = "another"

    go_on_for(clock, 3 * 3600, step=60)  # longer than GIVE_UP_AFTER

    assert set(VideoJob.objects.values_list("status", flat=True)) == {Status.QUEUED}
    # For all five jobs together; each time, a second call checks the key.
    assert 40 < len(provider.calls) < 2 * 3 * 3600 / 300 + 5
    hold = ProviderHold.objects.get()
    assert hold.since < timezone.now() - timedelta(hours=2)


def test_time_under_a_hold_ends_no_job_when_the_key_is_right_again(
    provider: SimulatedProvider, clock: time_machine.Traveller, settings: Any
) -> None:
    settings.VIDEOJOBS |= SOON_EXPIRED
    job = tracked(provider, "proj_1", "processing")
    key, provider.api_key = provider.api_key, "another"
    go_on_for(clock, 3 * 3600, step=300)
    provider.api_key = key
    clock.move_to(over())

    job = run(job)

    assert (job.status, job.is_overdue) == (Status.PROCESSING, True)


def test_another_key_is_not_held(
    provider: SimulatedProvider, clock: time_machine.Traveller, settings: Any
) -> None:
    run(tracked(provider, "proj_1", LIMITED))

    provider.api_key = "new-key"
    settings.VIDEOJOBS |= {"API_KEY": "new-key"}
    job = run(tracked(provider, "proj_2", "processing"))

    assert job.status == Status.PROCESSING


def test_another_account_with_the_same_key_is_not_held(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    run(tracked(provider, "proj_1", LIMITED))
    ProviderHold.objects.update(account="studio")

    run(tracked(provider, "proj_2", LIMITED))

    assert provider.checks("proj_2") == 1
    assert {hold.account for hold in ProviderHold.objects.all()} == {"default", "studio"}


def test_a_hold_says_nothing_of_the_key(provider: SimulatedProvider) -> None:
    said = Answer(429, {"code": "429", "msg": f"The key {provider.api_key} is too fast."})
    run(tracked(provider, "proj_1", said))

    row = str(ProviderHold.objects.values().get())

    assert provider.api_key not in row


def test_a_task_that_alone_is_refused_holds_nobody(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    alone = tracked(provider, "proj_1", FORBIDDEN)
    others = [tracked(provider, f"good_{number}") for number in range(3)]

    waited = go_on_for(clock, 3600, step=30)

    assert waited == 0
    alone.refresh_from_db()
    assert (alone.status, alone.error_count > 10) == (Status.QUEUED, True)
    assert all(provider.checks(job.provider_task_id or "") > 30 for job in others)


def test_a_task_that_alone_is_refused_expires_like_any_other(
    provider: SimulatedProvider, clock: time_machine.Traveller, settings: Any
) -> None:
    settings.VIDEOJOBS |= SOON_EXPIRED
    job = tracked(provider, "proj_1", FORBIDDEN)

    go_on_for(clock, 3 * 3600, step=300)

    job.refresh_from_db()
    assert job.status == Status.EXPIRED


@pytest.mark.parametrize("second", [LIMITED, Drop()])
def test_a_longer_hold_is_not_replaced_by_a_shorter_one(
    second: Any, provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    first = tracked(provider, "proj_1", Answer(429, "", {"Retry-After": "1500"}))
    other = tracked(provider, "proj_2", second)
    fetch, meanwhile = client.fetch, [first]

    def slow_fetch(*args: Any) -> Any:
        if meanwhile:
            run(meanwhile.pop())
        return fetch(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "fetch", slow_fetch)
        other = run(other)

    assert ProviderHold.objects.get().until == timezone.now() + timedelta(seconds=1500)
    assert wait_of(other) >= (1500 if second is LIMITED else 30)


@pytest.mark.parametrize("wait_of_another", [20.0, 60.0])
def test_the_longest_wait_counts_if_another_request_is_limited_during_a_trial(
    wait_of_another: float, clock: time_machine.Traveller
) -> None:
    holds.trip(RateLimited("HTTP 429", retry_after=10.0), "creates", None)
    clock.move_to(over())
    probed = holds.active("submit")
    assert holds.take_trial(probed)
    holds.trip(RateLimited("HTTP 429", retry_after=wait_of_another), "creates", None)

    told = holds.trip(RateLimited("HTTP 429", retry_after=40.0), "creates", probed[0])

    longest = timezone.now() + timedelta(seconds=max(wait_of_another, 40.0))
    assert (ProviderHold.objects.get().until, told) == (longest, longest)


def test_the_longest_wait_counts_if_two_requests_trip_the_first_hold_of_a_key_at_a_time(
    clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = ProviderHold.objects.bulk_create

    def insert_second(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(ProviderHold.objects, "bulk_create", insert)
        holds.trip(RateLimited("HTTP 429", retry_after=3.0), "creates", None)
        return insert(*args, **options)

    monkeypatch.setattr(ProviderHold.objects, "bulk_create", insert_second)

    told = holds.trip(RateLimited("HTTP 429", retry_after=40.0), "creates", None)

    longest = timezone.now() + timedelta(seconds=40)
    assert (ProviderHold.objects.get().until, told) == (longest, longest)


def test_jobs_of_another_provider_neither_wait_nor_use_up_the_try(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    for number in range(5):
        tracked(provider, f"old_{number}")
    VideoJob.objects.update(endpoint="https://old.example.com/v1/")
    tracked(provider, "proj_1", LIMITED, "processing")

    waited = go_on_for(clock, 600)

    assert 0 < waited < 120


def test_a_job_becomes_overdue_also_while_it_meets_a_hold(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = run(tracked(provider, "proj_1", "processing", LIMITED))
    clock.shift(1801)

    job = run(job)

    assert [event.kind for event in job.events.all()][-1] == "overdue"


# create requests


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
    provider.expect("first", Script(create=Drop()))
    first, second = submitted("first"), submitted("second")
    assert run(first).status == Status.UNCONFIRMED
    key, provider.api_key = provider.api_key, "another"

    second = run(second)
    assert (second.status, held() is None) == (Status.PENDING, False)
    assert not [call for call in provider.calls if b"second" in call.body]

    provider.api_key = key
    clock.shift(3600)
    second = run(second)
    assert (second.status, held()) == (Status.QUEUED, None)


def test_the_id_is_in_the_log_before_a_hold_is_lifted_for_it(
    provider: SimulatedProvider,
    clock: time_machine.Traveller,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(hold: ProviderHold | None) -> None:
        if hold is not None:
            raise SystemExit

    caplog.set_level("INFO")
    jobs.make_hold("unreachable")
    job = submitted()
    clock.move_to(over())
    monkeypatch.setattr(holds, "reset", killed)

    with pytest.raises(SystemExit):
        run(job)

    [task_id] = provider.tasks
    assert f"was created as provider task {task_id}" in caplog.text


@pytest.mark.parametrize("nothing", [Drop(), Hang(5)])
def test_a_harmless_call_without_an_answer_lets_no_create_call_out(
    nothing: Any, provider: SimulatedProvider, clock: time_machine.Traveller, settings: Any
) -> None:
    settings.VIDEOJOBS |= jobs.IMPATIENT
    provider.expect("first", Script(create=Drop()))
    run(submitted("first"))
    provider.add_task("videojobs-probe", Script([nothing]))

    job = run(submitted("second"))

    assert (job.status, sent(provider, "second")) == (Status.PENDING, 0)


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        ("limited", ["create"]),
        ("rejected", ["check", "create"]),
        ("unreachable", ["check", "create"]),
    ],
)
def test_only_a_rate_limit_needs_no_harmless_call_before_the_next_create_call(
    kind: str, calls: list[str], provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    jobs.make_hold(kind)
    clock.move_to(over())

    job = run(submitted())

    assert (job.status, held()) == (Status.QUEUED, None)
    assert [call.kind for call in provider.calls] == calls


@pytest.mark.parametrize("status", [401, 402, 403, 429])
@pytest.mark.parametrize("where", ["status", "body"])
def test_a_create_call_that_was_clearly_not_taken_waits_under_a_hold_and_is_sent_again(
    status: int, where: str, provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    body = {"code": str(status), "msg": "Not now.", "data": None}
    answer = Answer(status if where == "status" else 200, body)
    provider.expect("kitten", Script(create=answer))

    job = run(submitted())
    hold = held()
    provider._expected.clear()
    clock.move_to(over())

    assert (job.status, job.error_count) == (Status.PENDING, 1)
    assert hold
    assert hold.scope == "creates"
    assert job.due_at
    assert hold.until <= job.due_at <= hold.until + timedelta(seconds=30)
    assert run(job).status == Status.QUEUED


@pytest.mark.parametrize(
    "answer",
    [
        LIMITED,
        Answer(402, {"code": "402", "msg": "Insufficient balance"}),
        Answer(403, {"code": "403", "msg": "insufficient balance"}),
    ],
)
def test_a_provider_that_takes_no_new_requests_is_still_asked_for_the_old_ones(
    answer: Answer, provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    running = [tracked(provider, f"proj_{number}") for number in range(3)]
    for number in range(10):
        provider.expect(f"kitten {number}.", Script(create=answer))
        submitted(f"kitten {number}.")

    waited = go_on_for(clock, 1800, step=30)

    statuses = list(VideoJob.objects.values_list("status", flat=True))
    assert waited == 0
    assert statuses.count(Status.PENDING) == 10
    assert all(provider.checks(job.provider_task_id or "") > 15 for job in running)


def test_a_create_call_that_meets_the_limit_leaves_the_trial_of_checks_to_others(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = tracked(provider, "proj_1")
    jobs.make_hold("limited")
    clock.move_to(over())
    provider.expect("kitten", Script(create=LIMITED))
    run(submitted())

    assert run(job).check_count == 1


def test_a_trial_of_two_holds_that_another_step_has_half_keeps_none_of_them(
    clock: time_machine.Traveller,
) -> None:
    for kind in ("limited", "failing"):
        jobs.make_hold(kind)
    ProviderHold.objects.update(until=timezone.now())
    mine, others = holds.active("submit"), holds.active("submit")
    holds.take_trial(others[1:])

    assert not holds.take_trial(mine)
    assert holds.take_trial(holds.active("submit")[:1])


def test_steps_that_meet_the_trial_of_another_one_wait_for_its_answer_only(
    clock: time_machine.Traveller,
) -> None:
    jobs.make_hold("limited")
    ProviderHold.objects.update(until=timezone.now())
    holds.take_trial(holds.active("poll"))

    others = holds.active("poll")

    assert not holds.take_trial(others)
    assert holds.waits_until(others) == timezone.now()


def test_a_trial_for_a_job_that_another_worker_claims_is_given_back(
    clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.make_hold("limited")
    ProviderHold.objects.update(until=timezone.now())
    submitted()

    def lose(self: Any, job: VideoJob) -> bool:
        VideoJob.objects.update(due_at=None, status="stopped", finished_at=timezone.now())
        return False

    monkeypatch.setattr(VideoJobQuerySet, "claim", lose)

    assert not services.submit()
    assert holds.take_trial(holds.active("submit"))


def test_a_trial_of_a_check_that_does_not_start_is_given_back(
    clock: time_machine.Traveller, provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(provider, "proj_1")
    jobs.make_hold("limited")
    ProviderHold.objects.update(until=timezone.now())
    take_trial = holds.take_trial

    def shut_down(held: Any) -> bool:
        monkeypatch.setattr(holds, "take_trial", take_trial)
        services.stopping.set()
        return take_trial(held)

    monkeypatch.setattr(holds, "take_trial", shut_down)
    try:
        services.poll()
    finally:
        services.stopping.clear()

    assert provider.calls == []
    assert holds.take_trial(holds.active("poll"))


def test_a_trial_of_a_download_that_makes_no_call_is_given_back(
    clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.make_hold("limited")
    ProviderHold.objects.update(until=timezone.now())
    jobs.make("due", mirror_attempts=1, due_at=timezone.now(), endpoint=conf.BASE_URL)
    monkeypatch.setattr("videojobs.services.mirroring._keep", Mock(side_effect=OSError))

    services.mirror()

    assert holds.take_trial(holds.active("mirror"))


def test_of_many_submissions_under_a_rejected_key_one_is_sent_and_all_stay_pending(
    provider: SimulatedProvider,
) -> None:
    jobs = [submitted(f"kitten {n}") for n in range(5)]
    provider.api_key = "another"

    statuses = [run(job).status for job in jobs]

    assert statuses == ["pending"] * 5
    assert [call.kind for call in provider.calls] == ["create"]


def test_a_message_that_comes_twice_does_not_end_a_hold(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    run(tracked(provider, "proj_1", Answer(429, "", {"Retry-After": "1500"})))
    job = submitted()
    put_off, twice = breaker._put_off, [job]

    def slow_put_off(*args: Any) -> None:
        if twice:
            services.submit(twice.pop().pk)
        put_off(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breaker, "_put_off", slow_put_off)
        services.submit(job.pk)

    assert (provider.creates, held() is None) == ([], False)


def test_nobody_is_called_inside_of_a_transaction(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    run(tracked(provider, "proj_1", LIMITED))
    job = submitted()
    clock.move_to(over())
    calls = len(provider.calls)

    with pytest.raises(RuntimeError), transaction.atomic():
        services.submit(job.pk)

    assert len(provider.calls) == calls


def test_in_an_outage_only_the_job_that_tries_writes_events(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    jobs = [submitted(f"kitten {n}") for n in range(3)]
    provider.stop()

    for _ in range(60):
        while services.submit():
            pass
        clock.shift(60)

    assert {job.status for job in VideoJob.objects.all()} == {Status.PENDING}
    # A try a minute: one event for its start, one for its end.
    assert JobEvent.objects.filter(job__in=jobs).count() <= 3 + 2 * 61


def test_after_an_outage_everything_is_sent_once(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    jobs = [submitted(f"kitten {n}") for n in range(3)]
    provider.stop()
    for job in jobs:
        run(job)
    provider.start()

    for _ in range(10):
        while services.submit():
            pass
        clock.shift(30)

    assert {job.status for job in VideoJob.objects.all()} == {Status.QUEUED}
    assert len(provider.creates) == 3


def test_checks_go_on_while_create_calls_wait_for_a_connection(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.stop()
    run(submitted())
    provider.start()

    assert run(tracked(provider, "proj_1", "processing")).status == Status.PROCESSING


def test_a_job_of_another_provider_holds_nobody(provider: SimulatedProvider) -> None:
    job = submitted()
    VideoJob.objects.update(endpoint="https://old.example.com/v1/videos/videos")

    job = run(job)

    assert (job.status, ProviderHold.objects.count()) == (Status.PENDING, 0)
    assert wait_of(job) > 500


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_what_a_call_has_brought_is_kept_though_the_hold_can_not_be_recorded(
    kind: type[Exception], provider: SimulatedProvider
) -> None:
    def hook(execute: Any, sql: str, *args: Any) -> Any:
        if "videojobs_providerhold" in sql and not sql.startswith("SELECT"):
            raise kind("the database is restarting")
        return execute(sql, *args)

    provider.stop()
    with connection.execute_wrapper(hook):
        job = run(submitted())

    assert job.status == Status.PENDING


def test_a_message_that_is_stale_does_not_use_up_the_try(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = run(tracked(provider, "proj_1", LIMITED, "processing"))
    clock.move_to(over())

    services.poll(job.pk)
    services.submit(job.pk)

    assert run(job).status == Status.PROCESSING


# downloads


def completed(provider: SimulatedProvider, *steps: Any, **options: Any) -> VideoJob:
    provider.add_task("proj_1", Script(["completed", *steps], **options))
    return run(VideoJob.objects.track("proj_1"))


def test_a_download_whose_url_is_there_does_not_wait(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    job = completed(provider)
    run(tracked(provider, "proj_2", LIMITED))

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
    job = run(completed(provider, dead_urls=1))
    key, provider.api_key = provider.api_key, "another"

    for _ in range(9):
        clock.shift(3600)
        job = run(job)
    provider.api_key = key
    clock.shift(3600)
    job = run(job)

    assert (job.mirror_status, job.mirror_attempts) == ("stored", 2)


@pytest.mark.usefixtures("provider")
def test_a_second_call_has_the_lease_of_a_call_of_its_own(
    clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, left = VideoJob.objects.track("proj_1"), []

    def reject_late(*_: Any) -> client.Answer:
        until = VideoJob.objects.get().claimed_until
        assert until
        left.append((until - timezone.now()).total_seconds())
        clock.shift(0.7)
        raise KeyRejected("HTTP 401")

    monkeypatch.setattr(client, "fetch", reject_late)
    run(job)

    first, second = left
    assert first == second


@pytest.mark.usefixtures("provider")
def test_a_job_that_was_taken_over_is_not_asked_for_a_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, calls = VideoJob.objects.track("proj_1"), []

    def reject_too_late(*_: Any) -> client.Answer:
        calls.append(1)
        VideoJob.objects.update(turn=F("turn") + 1, claimed_until=None, claim_token=None)
        raise KeyRejected("HTTP 401")

    monkeypatch.setattr(client, "fetch", reject_too_late)
    run(job)

    assert calls == [1]
    assert not ProviderHold.objects.exists()


# create requests without a clear answer

OPEN = {
    "503": Answer(503, "<html>Back soon</html>"),
    "500 in json": Answer(500, {"code": "500", "msg": "Internal error"}),
    "html": Answer(200, "<html>Back soon</html>"),
    "no id": Answer(200, {"code": "0", "data": {}}),
    "drop": Drop(),
    "hang": Hang(5),
}
PROBE = "videojobs-probe"


def in_maintenance(provider: SimulatedProvider, answer: Any) -> None:
    """Answer each create request and each preflight like this."""
    provider.expect("", Script(create=answer))
    provider.add_task(PROBE, Script([answer]))


def sent(provider: SimulatedProvider, prompt: str) -> int:
    return sum(prompt.encode() in call.body for call in provider.creates)


@pytest.mark.parametrize("answer", OPEN.values(), ids=OPEN)
def test_a_create_call_that_stays_open_costs_the_next_one_a_harmless_call(
    answer: Any, provider: SimulatedProvider, clock: time_machine.Traveller, settings: Any
) -> None:
    settings.VIDEOJOBS |= jobs.IMPATIENT
    provider.expect("first", Script(create=answer))
    provider.add_task(PROBE, Script([Answer(404)]))
    first, second, third = submitted("first"), submitted("second"), submitted("third")

    statuses = [run(job).status for job in (first, second, third)]

    assert statuses == [Status.UNCONFIRMED, Status.QUEUED, Status.QUEUED]
    assert (provider.checks(PROBE), held()) == (1, None)


@pytest.mark.parametrize("answer", [OPEN["503"], OPEN["html"], Drop(), Answer(302)])
def test_twenty_minutes_of_maintenance_leave_one_job_to_a_person(
    answer: Any, provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    for number in range(5):
        submitted(f"kitten {number}.")
    in_maintenance(provider, answer)

    go_on_for(clock, 1200, step=20)
    statuses = list(VideoJob.objects.values_list("status", flat=True))
    provider.set_script(PROBE, Script([Answer(404)]))
    provider._expected.clear()
    go_on_for(clock, 300, step=20)

    assert (statuses.count(Status.UNCONFIRMED), statuses.count(Status.PENDING)) == (1, 4)
    assert provider.checks(PROBE) < 1200 / 30 + 3
    assert not VideoJob.objects.filter(status=Status.PENDING).exists()
    assert [sent(provider, f"kitten {number}.") for number in range(5)] == [1] * 5


def test_a_second_create_call_that_stays_open_holds_the_others(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("", Script(create=Answer(500)))
    first, second, third = submitted("first"), submitted("second"), submitted("third")

    statuses = [run(job).status for job in (first, second, third)]

    hold = held()
    assert hold
    assert statuses == [Status.UNCONFIRMED, Status.UNCONFIRMED, Status.PENDING]
    assert (hold.kind, hold.scope, hold.count) == ("failing", "creates", 2)
    assert hold.until == timezone.now() + timedelta(seconds=60)


@pytest.mark.parametrize("answer", ["envelope", Answer(400, {"code": "1001", "msg": "No."})])
def test_a_create_call_with_an_answer_ends_the_doubt(
    answer: Any, provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("first", Script(create=Drop()))
    provider.expect("second", Script(create=answer))
    run(submitted("first"))
    suspect = held()

    run(submitted("second"))

    assert (suspect and suspect.kind, held()) == ("suspect", None)


@pytest.mark.parametrize("limit_comes_first", [True, False])
def test_a_rate_limit_of_another_create_request_does_not_replace_the_preflight(
    limit_comes_first: bool, clock: time_machine.Traveller
) -> None:
    limit, unclear = RateLimited("HTTP 429", retry_after=40.0), Unavailable("HTTP 502")

    for error in (limit, unclear) if limit_comes_first else (unclear, limit):
        holds.trip(error, "creates", None)

    hold = held()
    assert hold
    assert (hold.kind, hold.until) == ("failing", timezone.now() + timedelta(seconds=40))


def test_a_rate_limit_does_not_replace_a_preflight_that_found_no_connection(
    clock: time_machine.Traveller,
) -> None:
    holds.trip(Unavailable("HTTP 502"), "creates", None)
    holds.trip(NotSent("connection refused"), "creates", held(), is_preflight=True)

    holds.trip(RateLimited("HTTP 429", retry_after=40.0), "creates", None)

    hold = held()
    assert hold
    assert (hold.kind, hold.until) == ("failing", timezone.now() + timedelta(seconds=40))


@pytest.mark.parametrize("is_first_hold", [True, False])
@pytest.mark.parametrize("limit_is_interrupted", [True, False])
@pytest.mark.parametrize("statement", range(1, 7))
def test_a_preflight_stays_necessary_whatever_the_order_of_a_doubt_and_a_rate_limit(
    statement: int, limit_is_interrupted: bool, is_first_hold: bool, clock: time_machine.Traveller
) -> None:
    limit, unclear = RateLimited("HTTP 429", retry_after=40.0), Unavailable("HTTP 502")
    outer, inner = (limit, unclear) if limit_is_interrupted else (unclear, limit)
    if not is_first_hold:
        holds.trip(limit, "creates", None)
        ProviderHold.objects.update(reset_at=timezone.now())
    seen = 0

    def interrupt(execute: Any, sql: str, *args: Any) -> Any:
        nonlocal seen
        seen += "videojobs_providerhold" in sql
        if seen == statement:
            seen += 1000
            holds.trip(inner, "creates", None)
        return execute(sql, *args)

    with connection.execute_wrapper(interrupt):
        holds.trip(outer, "creates", None)
    if seen < 1000:  # it has fewer statements
        holds.trip(inner, "creates", None)

    hold = held()
    assert hold
    assert hold.kind in ("suspect", "failing")
    assert hold.until >= timezone.now() + timedelta(seconds=40)


@pytest.mark.parametrize(
    ("error", "scope"),
    [
        (RateLimited("HTTP 429", retry_after=40.0), "creates"),
        (RateLimited("HTTP 429", retry_after=40.0), "everything"),
        (Unavailable("HTTP 502"), "creates"),
    ],
    ids=["limit of create requests", "limit of all requests", "create request without an answer"],
)
def test_a_create_request_is_not_sent_if_another_call_trips_a_hold_during_its_preflight(
    error: ProviderError,
    scope: str,
    provider: SimulatedProvider,
    clock: time_machine.Traveller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider.expect("first", Script(create=Drop()))
    run(submitted("first"))
    fetch = client.fetch

    def fetch_while_another_call_fails(*args: Any) -> Any:
        clock.shift(1)
        holds.trip(error, scope, None)
        return fetch(*args)

    monkeypatch.setattr(client, "fetch", fetch_while_another_call_fails)

    job = run(submitted("second"))

    assert (job.status, sent(provider, "second")) == (Status.PENDING, 0)


def test_a_provider_that_names_the_end_of_its_maintenance_is_left_alone_until_then(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("first", Script(create=Answer(503, "", {"Retry-After": "600"})))
    run(submitted("first"))

    job = run(submitted("second"))

    assert (job.status, provider.checks(PROBE)) == (Status.PENDING, 0)
    assert 600 <= wait_of(job) <= 630


def test_checks_go_on_while_create_calls_stay_open(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("", Script(create=Answer(500)))
    for prompt in ("first", "second"):
        run(submitted(prompt))

    assert run(tracked(provider, "proj_1", "processing")).status == Status.PROCESSING


def test_whoever_meets_the_harmless_call_under_way_looks_again_soon(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("first", Script(create=Drop()))
    run(submitted("first"))
    second, others = submitted("second"), [submitted("third")]
    fetch = client.fetch

    def slow_fetch(*args: Any) -> Any:
        run(others[0])
        return fetch(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "fetch", slow_fetch)
        run(second)

    others[0].refresh_from_db()
    assert (others[0].status, sent(provider, "third")) == (Status.PENDING, 0)
    assert wait_of(others[0]) <= 30
    assert not others[0].events.exclude(new="pending").exists()


def test_a_worker_that_dies_with_the_harmless_call_delays_the_others_by_its_lease(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("first", Script(create=Drop()))
    run(submitted("first"))
    second = submitted("second")

    def die(*_: Any) -> None:
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "fetch", die)
        with pytest.raises(SystemExit):
            run(second)
    third = submitted("third")
    began = timezone.now()
    while (third := run(third)).status == Status.PENDING:
        clock.move_to(third.due_at)

    assert third.status == Status.QUEUED
    assert (timezone.now() - began).total_seconds() < conf.lease + 30


def test_a_provider_that_never_answers_the_harmless_call_well_gets_a_create_call_each_hour(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.add_task(PROBE, Script([Answer(500, {"code": "500", "msg": "no such task"})]))
    for number in range(10):
        provider.expect(f"kitten {number}.", Script(create=Answer(500)))
        submitted(f"kitten {number}.")
    go_on_for(clock, 3 * 3600 + 300, step=180)
    waited = VideoJob.objects.filter(status=Status.UNCONFIRMED).count()
    provider._expected.clear()

    go_on_for(clock, 3600 + 300, step=180)

    assert waited == 1 + 3
    assert VideoJob.objects.filter(provider_task_id__isnull=False).count() == 6


def test_an_outage_that_follows_on_errors_is_told_as_one(
    provider: SimulatedProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("first", Script(create=Answer(500)))
    run(submitted("first"))
    provider.stop()
    job = run(submitted("second"))

    hold = held()
    assert hold
    assert (hold.kind, job.status) == ("unreachable", Status.PENDING)

"""Checks in portions: claimed, asked side by side, recorded and rescheduled together."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.support import jobs
from tests.support.record import Wakeup, a_job, statements
from videojobs import holds, operations, queue, services, signals
from videojobs.conf import conf
from videojobs.exceptions import KeyRejected, RateLimited, TransportError
from videojobs.managers import VideoJobQuerySet
from videojobs.models import ProviderHold, VideoJob
from videojobs.providers import client
from videojobs.services import calls, polling, portions
from videojobs.states import Status

from .steps import before_the_record, run

pytestmark = pytest.mark.django_db(transaction=True)

#: Long enough for a busy machine.
LONG = 30.0
QUEUED = client.Answer(Status.QUEUED)
PROBE = "videojobs-probe"


class Provider:
    """Stands in for the client: task ID → answer, error or function; "queued" for all others."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.says: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, endpoint: str, task_id: str) -> client.Answer:
        with self._lock:
            self.asked.append(task_id)
            said = self.says.get(task_id, self.says.get("*", QUEUED))
        if callable(said):
            try:
                said = said()
            finally:
                if threading.current_thread() is not threading.main_thread():
                    connection.close()
        if isinstance(said, BaseException):
            raise said
        answer: client.Answer = said
        return answer

    @property
    def tasks(self) -> list[str]:
        """The tasks that were asked for, without the preflight's."""
        return sorted(task for task in self.asked if task != PROBE)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Provider:
    settings.VIDEOJOBS = {
        "BASE_URL": "http://127.0.0.1:9",
        "API_KEY": "sim-portions-5e21",
        "POLL_JITTER": 0.0,
        "POLL_CONCURRENCY": 4,
    }
    monkeypatch.setattr(calls, "_helpers", calls._Helpers())
    provider = Provider()
    monkeypatch.setattr(client, "fetch", provider)
    return provider


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Requests that wait for it end at the latest with the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(timezone.now(), tick=False) as traveller:
        yield traveller


def tracked(count: int, **fields: Any) -> list[VideoJob]:
    """Jobs that are due, named "a", "b", "c" … in this order."""
    now = timezone.now()
    return [
        VideoJob.objects.create(
            provider_task_id=chr(97 + number) if count <= 26 else f"t{number}",
            due_at=now - timedelta(seconds=100 - number),
            **{
                "status": Status.QUEUED,
                "endpoint": "http://127.0.0.1:9/v1/",
                "deadline_at": now + timedelta(hours=1),
                **fields,
            },
        )
        for number in range(count)
    ]


def named(task_id: str) -> VideoJob:
    return VideoJob.objects.get(provider_task_id=task_id)


def checked() -> list[str | None]:
    rows = VideoJob.objects.filter(check_count__gt=0)
    return sorted(rows.values_list("provider_task_id", flat=True), key=str)


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait for another thread."""
    ended = threading.Event()
    for _ in range(int(LONG / 0.01)):
        if condition():
            return
        ended.wait(0.01)
    raise TimeoutError


# A portion


def test_jobs_that_are_due_are_asked_for_side_by_side(provider: Provider) -> None:
    tracked(4)
    barrier = threading.Barrier(4)

    def answer() -> client.Answer:
        barrier.wait(LONG)
        return QUEUED

    provider.says["*"] = answer
    assert services.poll() is False

    assert checked() == ["a", "b", "c", "d"]
    assert not barrier.broken


def count_of(settings: Any, count: int) -> int:
    VideoJob.objects.all().delete()
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "POLL_CONCURRENCY": 200}
    tracked(count)
    with (
        time_machine.travel(timezone.now(), tick=False),
        CaptureQueriesContext(connection) as captured,
    ):
        services.poll()
    assert VideoJob.objects.filter(check_count=1, claimed_until=None).count() == count
    return len(statements(captured))


def test_a_portion_of_unchanged_jobs_costs_a_constant_number_of_statements(
    provider: Provider, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_GATHERING", 0.5)

    costs = [count_of(settings, count) for count in (2, 50)]

    # Holds, due jobs, the claim, the record. Elsewhere, the jobs are chosen before they are locked,
    # or read again after the claim.
    cost = 4 if connection.vendor == "postgresql" else 5
    assert costs == [cost, cost]


def test_unchanged_jobs_of_a_portion_share_a_slot_and_a_message(
    provider: Provider, wakeups: list[Wakeup], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(calls, "_GATHERING", 0.5)
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "POLL_JITTER": 1.0}
    tracked(4)

    with time_machine.travel(timezone.now(), tick=False):
        services.poll()
        [due_at] = set(VideoJob.objects.values_list("due_at", flat=True))
        assert due_at is not None
        seconds = (due_at - timezone.now()).total_seconds()
        assert 30 <= seconds <= 61

    assert wakeups == [Wakeup("poll", None, due_at)]
    assert set(VideoJob.objects.values_list("claim_token", "claimed_until")) == {(None, None)}


def test_more_jobs_than_places_are_all_checked_in_one_poll(
    provider: Provider, wakeups: list[Wakeup], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(30)
    monkeypatch.setattr(portions, "_SHARING_PAUSE", LONG)

    services.poll()

    assert VideoJob.objects.filter(check_count=1).count() == len(provider.asked) == 30
    assert all(wakeup.at for wakeup in wakeups)


def test_a_poll_of_one_job_that_finds_no_place_is_sent_again(
    provider: Provider, wakeups: list[Wakeup], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(1)
    job = named("a")
    monkeypatch.setattr(portions, "room", lambda: 0)

    with time_machine.travel(timezone.now(), tick=False):
        services.poll(str(job.pk))
        soon = queue.slot(timezone.now())

    assert provider.asked == []
    assert wakeups == [Wakeup("poll", job.pk, soon)]


def test_jobs_that_become_due_meanwhile_are_checked_too(provider: Provider) -> None:
    tracked(2)
    arrived = threading.Event()

    def arrive() -> client.Answer:
        wait_for(lambda: "c" in provider.asked)
        return QUEUED

    provider.says["b"] = arrive
    record = VideoJobQuerySet.record_portion

    def add_one(self: VideoJobQuerySet, *args: Any, **changes: Any) -> int:
        if not arrived.is_set():
            arrived.set()
            job = named("a")
            VideoJob.objects.create(
                provider_task_id="c",
                due_at=timezone.now(),
                status=Status.QUEUED,
                endpoint=job.endpoint,
            )
        return record(self, *args, **changes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoJobQuerySet, "record_portion", add_one)
        services.poll()

    assert provider.tasks == ["a", "b", "c"]


def test_a_poll_that_claims_nothing_publishes_nothing(
    provider: Provider, wakeups: list[Wakeup]
) -> None:
    later = timezone.now() + timedelta(seconds=30)
    for job in tracked(2):
        VideoJob.objects.filter(pk=job.pk).update(due_at=later)

    services.poll()
    services.poll(job.pk)

    assert (provider.asked, wakeups) == ([], [])


def test_a_poll_of_a_named_job_touches_no_other(provider: Provider, wakeups: list[Wakeup]) -> None:
    first, second = tracked(2)

    services.poll(second.pk)

    assert provider.asked == ["b"]
    first.refresh_from_db()
    assert (first.turn, first.check_count) == (0, 0)
    assert [wakeup.job_id for wakeup in wakeups] == [second.pk]


def test_a_poll_of_a_named_job_under_a_hold_puts_off_no_other(provider: Provider) -> None:
    first, second = tracked(2)
    hold = jobs.make_hold("limited")

    services.poll(second.pk)

    first.refresh_from_db()
    assert (first.turn, provider.asked) == (0, [])
    due_at = named("b").due_at
    assert due_at is not None
    assert due_at >= hold.until


def test_a_poll_inside_a_transaction_is_refused_before_anything_is_sent(
    provider: Provider,
) -> None:
    tracked(2)

    for job_id in (None, named("a").pk):
        with pytest.raises(RuntimeError), transaction.atomic():
            services.poll(job_id)

    assert provider.asked == []
    services.poll()
    assert provider.tasks == ["a", "b"]


def test_a_portion_belongs_to_one_account(provider: Provider) -> None:
    first = tracked(3)
    VideoJob.objects.filter(pk=first[1].pk).update(account="studio")

    portion = VideoJob.objects.claim_portion(9, token=uuid4())

    assert ([job.provider_task_id for job in portion.jobs], portion.more) == (["a", "c"], True)
    services.poll()
    assert provider.asked == ["b"]


# Hung and late requests


def test_one_hung_request_keeps_no_other_from_being_recorded_and_rescheduled(
    provider: Provider, gate: threading.Event, wakeups: list[Wakeup]
) -> None:
    tracked(3)
    seen: list[Any] = []

    def hang() -> client.Answer:
        # In the helper's thread: it looks through the eyes of the poll's thread only.
        assert gate.wait(LONG)
        return QUEUED

    wait = calls.Batch.wait

    def look(self: Any, seconds: float) -> Any:
        ended = wait(self, seconds)
        if checked() == ["b", "c"] and wakeups:
            seen.append(True)
            gate.set()
        return ended

    provider.says["a"] = hang
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls.Batch, "wait", look)
        services.poll()

    assert seen
    assert checked() == ["a", "b", "c"]


def test_a_request_that_waited_longer_than_the_margin_is_not_sent_and_its_job_released(
    provider: Provider, wakeups: list[Wakeup], monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = tracked(1)
    start = calls.Batch.start

    def late(self: Any, items: Any, since: float) -> None:
        monkeypatch.setattr(calls.Batch, "start", start)
        monkeypatch.setattr(portions, "_CLAIMING_TIME", 0.0)
        start(self, items, since - conf.LEASE_MARGIN - 1)

    claims, claim = [0], VideoJobQuerySet.claim_portion

    def once(self: Any, *args: Any, **kwargs: Any) -> Any:
        claims[0] += 1
        if claims[0] > 1:
            return portions.Portion([], False)
        return claim(self, *args, **kwargs)

    monkeypatch.setattr(calls.Batch, "start", late)
    monkeypatch.setattr(VideoJobQuerySet, "claim_portion", once)
    services.poll()

    now = VideoJob.objects.get()
    assert provider.asked == []
    assert (now.due_at, now.claimed_until, now.claim_token) == (job.due_at, None, None)
    assert (now.check_count, now.error_count) == (0, 0)
    assert wakeups == [Wakeup("poll", None, None)]


def test_the_time_that_claims_take_counts_as_waiting(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(1)
    times: list[float] = []
    start = calls.Batch.start

    def watched(self: Any, items: Any, since: float) -> None:
        times.append(since)
        start(self, items, since)

    before = portions.time.monotonic()
    claim = VideoJobQuerySet.claim_portion

    def slow(self: Any, *args: Any, **kwargs: Any) -> Any:
        times.append(portions.time.monotonic())
        return claim(self, *args, **kwargs)

    monkeypatch.setattr(calls.Batch, "start", watched)
    monkeypatch.setattr(VideoJobQuerySet, "claim_portion", slow)
    services.poll()

    claimed_at, since = times[:2]
    assert before <= since <= claimed_at


def stopped(job: VideoJob) -> None:
    assert operations.stop(VideoJob.objects.get(pk=job.pk), actor="ann")


def deleted(job: VideoJob) -> None:
    job.delete()


def taken_over(job: VideoJob) -> None:
    ended = timezone.now() - timedelta(seconds=conf.CLOCK_SKEW + 1)
    VideoJob.objects.filter(pk=job.pk).update(claimed_until=ended)
    assert VideoJob.objects.claim_portion(9, token=uuid4(), job_id=job.pk).jobs


@pytest.mark.parametrize("lose", [stopped, deleted, taken_over])
@pytest.mark.parametrize(
    "answer", [QUEUED, client.Answer(Status.COMPLETED), TransportError("the connection broke")]
)
def test_a_job_whose_claim_was_lost_meanwhile_is_not_recorded(
    provider: Provider, lose: Callable[[VideoJob], None], answer: Any
) -> None:
    lost, kept = tracked(2)
    provider.says = {"a": answer, "b": answer}
    wait = calls.Batch.wait
    left: list[Any] = []

    def lose_one(self: Any, seconds: float) -> Any:
        if not left:
            lose(VideoJob.objects.get(pk=lost.pk))
            left.append(VideoJob.objects.filter(pk=lost.pk).values().first())
        return wait(self, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls.Batch, "wait", lose_one)
        services.poll()

    assert VideoJob.objects.filter(pk=lost.pk).values().first() == left[0]
    kept.refresh_from_db()
    assert (kept.check_count, kept.claimed_until) == (1, None)


# Errors


@pytest.mark.parametrize(
    "error",
    [
        TransportError("the connection broke"),
        ZeroDivisionError("a bug"),
        RecursionError(),
        MemoryError(),
        OSError(24, "Too many open files"),
    ],
    ids=repr,
)
def test_an_error_of_any_kind_is_recorded_on_its_job_only(
    provider: Provider, error: Exception
) -> None:
    tracked(4)
    provider.says["b"] = error

    services.poll()

    errors = dict(VideoJob.objects.values_list("provider_task_id", "error_count"))
    assert errors == {"a": 0, "b": 1, "c": 0, "d": 0}
    assert checked() == ["a", "b", "c", "d"]
    assert not VideoJob.objects.exclude(claimed_until=None).exists()


def test_a_result_that_can_t_be_recorded_is_an_error_of_its_job_only(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(4, error_count=1)
    answered = polling._poll_answered

    def trip(job: VideoJob, *args: Any) -> None:
        if job.provider_task_id == "b":
            raise ZeroDivisionError
        answered(job, *args)

    monkeypatch.setattr(polling, "_poll_answered", trip)
    services.poll()

    errors = dict(VideoJob.objects.values_list("provider_task_id", "error_count"))
    assert errors == {"a": 0, "b": 2, "c": 0, "d": 0}


def test_a_portion_that_can_t_be_recorded_together_is_recorded_one_by_one(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(4)
    monkeypatch.setattr(calls, "_GATHERING", 0.5)

    def trip() -> None:
        raise ValueError("a constraint")

    with before_the_record(trip, nth=2):
        services.poll()

    assert checked() == ["a", "b", "c", "d"]
    assert not VideoJob.objects.filter(error_count__gt=0).exists()


def test_answers_are_recorded_though_the_database_was_away_meanwhile(
    provider: Provider, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(2)
    provider.says["*"] = lambda: gate.wait(LONG) and QUEUED
    choose, choices = VideoJobQuerySet._choose, [0]

    def away(self: Any, *args: Any) -> Any:
        choices[0] += 1
        if choices[0] > 1:
            gate.set()
            raise OperationalError("the database is restarting")
        return choose(self, *args)

    monkeypatch.setattr(VideoJobQuerySet, "_choose", away)
    monkeypatch.setattr(queue, "slot_length", lambda: 0.01)
    services.poll()

    assert choices[0] > 1
    assert checked() == ["a", "b"]


# Holds


def test_after_a_refusal_no_further_request_starts_and_the_rest_is_put_off(
    provider: Provider, wakeups: list[Wakeup], gate: threading.Event
) -> None:
    tracked(12)
    provider.says["*"] = RateLimited("HTTP 429", retry_after=100)

    services.poll()

    # Only those that ran at the time.
    assert 1 <= len(provider.asked) <= 4
    hold = ProviderHold.objects.get()
    assert not VideoJob.objects.filter(due_at__lt=hold.until).exists()
    assert not VideoJob.objects.filter(due_at__gt=hold.until + timedelta(seconds=31)).exists()
    assert not VideoJob.objects.exclude(claimed_until=None).exists()
    assert VideoJob.objects.filter(check_count=1).count() == len(provider.asked)
    served = {wakeup.at for wakeup in wakeups}
    for due_at in VideoJob.objects.values_list("due_at", flat=True):
        assert due_at is not None
        assert queue.slot(due_at) in served


@pytest.mark.parametrize(
    ("passed", "retry_after", "at_least"),
    [
        (0.0, 100.0, 90.0),
        pytest.param(1.0, 3.0, 2.5, id="a second after the first one"),
        pytest.param(3.0, None, 20.0, id="after the end of the first one"),
    ],
)
def test_the_longest_wait_that_a_portion_is_asked_for_holds(
    passed: float,
    retry_after: float | None,
    at_least: float,
    provider: Provider,
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracked(2)
    trip = holds.trip

    def tripped(*given: Any) -> datetime:
        monkeypatch.setattr(holds, "trip", trip)
        until = trip(*given) - timedelta(seconds=passed)
        ProviderHold.objects.update(until=until)
        gate.set()
        return until

    def refuse_soon() -> Exception:
        wait_for(lambda: len(provider.asked) == 2)
        return RateLimited("HTTP 429", retry_after=3.0)

    def refuse_later() -> Exception:
        gate.wait(LONG)
        return RateLimited("HTTP 429", retry_after=retry_after)

    monkeypatch.setattr(holds, "trip", tripped)
    provider.says = {"a": refuse_soon, "b": refuse_later}
    services.poll()

    hold = ProviderHold.objects.get()
    assert hold.until > timezone.now() + timedelta(seconds=at_least)
    b = VideoJob.objects.get(provider_task_id="b")
    assert b.due_at is not None
    assert b.due_at >= hold.until


def test_a_portion_of_rejections_sends_one_preflight(provider: Provider) -> None:
    tracked(4)
    provider.says["*"] = KeyRejected("HTTP 401")

    services.poll()

    assert provider.asked.count(PROBE) == 1
    assert ProviderHold.objects.get().kind == "rejected"
    assert not VideoJob.objects.filter(due_at__lt=ProviderHold.objects.get().until).exists()


def test_tasks_that_alone_are_refused_cost_one_preflight_and_hold_no_other(
    provider: Provider,
) -> None:
    tracked(12)
    provider.says = {name: KeyRejected("HTTP 403") for name in "abcdef"} | {PROBE: QUEUED}

    services.poll()

    assert provider.asked.count(PROBE) == 1
    assert not ProviderHold.objects.exists()
    assert len(checked()) == 12
    assert VideoJob.objects.filter(error_count=1).count() == 6


def test_the_preflight_of_a_rejection_holds_up_no_record(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(4)
    monkeypatch.setattr(calls, "_GATHERING", 0.5)
    recorded: list[Any] = []

    def look() -> client.Answer:
        recorded.extend(checked())
        return QUEUED

    def reject() -> Exception:
        wait_for(lambda: len(provider.asked) == 4)
        return KeyRejected("HTTP 403")

    provider.says = {"a": reject, PROBE: look}
    services.poll()

    assert recorded == ["b", "c", "d"]


def test_the_rest_is_put_off_once(
    provider: Provider, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(3)
    put_off, count = VideoJobQuerySet.put_off, [0]

    def counted(self: Any, *args: Any) -> int:
        count[0] += 1
        gate.set()
        return put_off(self, *args)

    def refuse() -> Exception:
        wait_for(lambda: len(provider.asked) == 3)
        return RateLimited("HTTP 429", retry_after=0.0)

    provider.says = {
        "a": refuse,
        "b": lambda: gate.wait(LONG) and QUEUED,
    }
    monkeypatch.setattr(VideoJobQuerySet, "put_off", counted)
    monkeypatch.setattr(queue, "slot_length", lambda: 0.01)
    services.poll()

    assert count == [1]
    assert checked() == ["a", "b", "c"]


def test_putting_off_ends_lost_claims(provider: Provider) -> None:
    (job,) = tracked(1)
    token = uuid4()
    portion = VideoJob.objects.claim_portion(1, token=token)
    ended = timezone.now() - timedelta(seconds=conf.CLOCK_SKEW + 1)
    VideoJob.objects.update(claimed_until=ended)
    later = timezone.now() + timedelta(seconds=60)

    assert VideoJob.objects.put_off("poll", [later]) == 1

    assert VideoJob.objects.record_portion(portion.jobs, due_at=timezone.now()) == 0
    job.refresh_from_db()
    assert (job.due_at, job.claimed_until, job.claim_token) == (later, None, None)


def test_a_trial_after_a_hold_is_one_request_and_portions_grow_afterwards(
    provider: Provider, clock: time_machine.Traveller, wakeups: list[Wakeup]
) -> None:
    tracked(20)
    jobs.make_hold("limited")
    ProviderHold.objects.update(until=timezone.now())
    sizes = []

    for _ in range(4):
        before = len(provider.asked)
        services.poll()
        sizes.append(len(provider.asked) - before)
        assert wakeups[-1].at is not None or len(checked()) == 20
        clock.shift(1)

    # The first one is the trial.
    assert sizes == [1, 2, 4, 8]
    assert holds.limits("poll").held == []


@pytest.mark.parametrize("reset_ago", [None, timedelta(seconds=5)])
def test_checks_give_way_to_create_requests_that_wait_for_a_rate_limit(
    reset_ago: timedelta | None,
    provider: Provider,
    clock: time_machine.Traveller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracked(3)
    a_job(due_at=timezone.now() + timedelta(seconds=8))
    jobs.make_hold("limited")
    reset_at = reset_ago and timezone.now() - reset_ago
    ProviderHold.objects.update(until=timezone.now(), reset_at=reset_at)

    monkeypatch.setattr(holds, "_CREATES_FIRST", 1.0)
    services.poll()
    first = list(provider.asked)
    clock.shift(60)
    ProviderHold.objects.update(reset_at=reset_at and timezone.now())
    monkeypatch.setattr(holds, "_CREATES_FIRST", 0.0)
    services.poll()

    assert (first, len(provider.asked)) == ([], 1)  # of jobs that are due at the same time


@pytest.mark.parametrize(("kind", "pending"), [("limited", False), ("rejected", True)])
def test_checks_do_not_give_way_under_other_holds_or_without_create_requests(
    kind: str,
    pending: bool,
    provider: Provider,
    clock: time_machine.Traveller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracked(1)
    a_job(due_at=timezone.now() + timedelta(seconds=8 if pending else 80))
    jobs.make_hold(kind)
    ProviderHold.objects.update(until=timezone.now())
    monkeypatch.setattr(holds, "_CREATES_FIRST", 1.0)

    services.poll()

    assert provider.asked == ["a"]


def test_a_poll_whose_places_are_all_taken_wakes_another_process(
    provider: Provider,
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    wakeups: list[Wakeup],
) -> None:
    tracked(8)
    monkeypatch.setattr(portions, "_SHARING_PAUSE", 0.05)
    monkeypatch.setattr(portions, "_CLAIMING_TIME", 2 * LONG)
    monkeypatch.setattr(queue, "slot_length", lambda: 0.02)

    def wait() -> client.Answer:
        wait_for(lambda: any(one.at is None for one in wakeups))
        return QUEUED

    provider.says["*"] = wait
    services.poll()

    assert set(VideoJob.objects.values_list("error_count", flat=True)) == {0}  # none waited in vain


def test_without_an_answer_to_the_trial_all_others_wait(
    provider: Provider, clock: time_machine.Traveller
) -> None:
    tracked(5)
    jobs.make_hold("limited")
    ProviderHold.objects.update(until=timezone.now())
    provider.says["*"] = TransportError("the connection broke")

    services.poll()

    assert provider.asked == ["a"]
    assert not VideoJob.objects.filter(due_at__lte=timezone.now()).exists()


def test_an_answer_to_an_earlier_request_is_no_answer_to_the_trial(
    provider: Provider, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(3)
    on_trial: list[str | None] = []
    asking = portions.breaker.asking

    def watched(job: VideoJob, trial: Any, *args: Any, **kwargs: Any) -> Any:
        if trial:
            on_trial.append(job.provider_task_id)
        return asking(job, trial, *args, **kwargs)

    monkeypatch.setattr(portions.breaker, "asking", watched)
    monkeypatch.setattr(queue, "slot_length", lambda: 0.01)
    last = VideoJob.objects.filter(provider_task_id="c")
    last.update(due_at=timezone.now() + timedelta(days=1))
    provider.says = dict.fromkeys("ab", lambda: gate.wait(LONG) and QUEUED)

    def answer_last() -> client.Answer:
        gate.set()
        wait_for(lambda: len(checked()) == 2)
        return QUEUED

    provider.says["c"] = answer_last
    wait, rounds = calls.Batch.wait, [0]

    def meanwhile(self: Any, seconds: float) -> Any:
        rounds[0] += 1
        if rounds[0] == 1:
            jobs.make_hold("limited")
            ProviderHold.objects.update(until=timezone.now())
            last.update(due_at=timezone.now())
        return wait(self, seconds)

    monkeypatch.setattr(calls.Batch, "wait", meanwhile)
    services.poll()

    assert on_trial == ["c"]
    assert not ProviderHold.objects.filter(reset_at=None).exists()


# Signals


def test_signals_are_sent_after_all_of_a_portion_was_recorded(
    provider: Provider, wakeups: list[Wakeup]
) -> None:
    tracked(4)
    provider.says = {name: client.Answer(Status.FAILED, error="no") for name in "ab"}
    seen: list[tuple[int, int]] = []

    def receive(**_: Any) -> None:
        seen.append((len(checked()), len(wakeups)))
        raise ValueError("a receiver")

    signals.job_failed.connect(receive)
    try:
        services.poll()
    finally:
        signals.job_failed.disconnect(receive)

    # The next checks of "c" and "d" share a message, or have one each.
    assert [count for count, _ in seen] == [4, 4]
    assert all(published >= 1 for _, published in seen)
    assert VideoJob.objects.filter(status=Status.FAILED).count() == 2
    assert not VideoJob.objects.exclude(claimed_until=None).exists()


# Shutdown


def test_a_shutdown_starts_no_new_request_and_releases_what_was_not_asked_for(
    provider: Provider, wakeups: list[Wakeup]
) -> None:
    before = {job.provider_task_id: job.due_at for job in tracked(12)}

    def stop() -> client.Answer:
        services.stopping.set()
        return QUEUED

    provider.says["*"] = stop
    services.poll()

    asked = set(provider.asked)
    assert 1 <= len(asked) <= 4
    assert set(checked()) == asked
    rest = VideoJob.objects.exclude(provider_task_id__in=asked)
    assert not rest.exclude(claimed_until=None).exists()
    assert all(job.due_at == before[job.provider_task_id] for job in rest)
    assert Wakeup("poll", None, None) in wakeups


def test_a_shutdown_releases_what_waits_behind_hung_requests(
    provider: Provider, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(8)
    running = threading.Semaphore(0)

    def hang() -> client.Answer:
        running.release()
        assert gate.wait(LONG)
        return QUEUED

    wait = calls.Batch.wait

    def stop(self: Any, seconds: float) -> Any:
        if not services.stopping.is_set():
            for _ in range(4):
                assert running.acquire(timeout=LONG)
            services.stopping.set()
        elif VideoJob.objects.filter(claimed_until=None).count() == 4:
            gate.set()
        return wait(self, seconds)

    provider.says["*"] = hang
    monkeypatch.setattr(calls.Batch, "wait", stop)
    monkeypatch.setattr(queue, "slot_length", lambda: 0.01)
    services.poll()

    assert gate.is_set()
    assert len(checked()) == len(provider.asked) == 4
    assert VideoJob.objects.filter(claimed_until=None).count() == 8


# Two polls in one process


@pytest.mark.usefixtures("shared_database")
def test_two_polls_at_the_same_time_check_each_job_once_and_lose_none(
    provider: Provider,
) -> None:
    tracked(40)

    def poll(_: int) -> None:
        try:
            services.poll()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(poll, range(4)))

    assert len(provider.asked) == len(set(provider.asked)) == 40
    assert VideoJob.objects.filter(check_count=1, claimed_until=None).count() == 40


def test_a_poll_that_comes_while_another_one_claims_is_done_by_that_one(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = tracked(1)
    VideoJob.objects.update(due_at=timezone.now() + timedelta(days=1))
    claim, claims = VideoJobQuerySet.claim_portion, [0]

    def claimed(self: Any, *args: Any, **kwargs: Any) -> Any:
        claims[0] += 1
        portion = claim(self, *args, **kwargs)
        if claims[0] == 1:
            # A job becomes due after the claim, and its poll comes before the first one has left.
            VideoJob.objects.filter(pk=job.pk).update(due_at=timezone.now())
            services.poll()
            assert provider.asked == []
        return portion

    monkeypatch.setattr(VideoJobQuerySet, "claim_portion", claimed)
    services.poll()

    assert provider.asked == ["a"]


def test_a_poll_that_claims_for_too_long_hands_over_by_a_message(
    provider: Provider, wakeups: list[Wakeup], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(12)
    first = portions._Run(None, None)
    claim = VideoJobQuerySet.claim_portion

    def slow(self: Any, *args: Any, **kwargs: Any) -> Any:
        first._claims_until = 0.0
        return claim(self, *args, **kwargs)

    monkeypatch.setattr(VideoJobQuerySet, "claim_portion", slow)
    first.run()

    assert len(provider.asked) == 7
    assert wakeups.count(Wakeup("poll", None, None)) == 1
    services.poll()
    assert len(set(provider.asked)) == 12


def test_an_error_while_claiming_leaves_the_way_free_for_the_next_poll(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(2)

    def away(*_: Any, **__: Any) -> Any:
        raise OperationalError("the database is restarting")

    with monkeypatch.context() as patch:
        patch.setattr(VideoJobQuerySet, "_choose", away)
        with pytest.raises(OperationalError):
            services.poll()
    services.poll()

    assert provider.tasks == ["a", "b"]


def test_a_changed_row_is_chosen_again(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked(2)
    assert run(named("a")).check_count == 1
    VideoJob.objects.update(due_at=timezone.now(), turn=F("turn") + 1)

    services.poll()

    assert provider.tasks == ["a", "a", "b"]

"""The sweep finds lost wake-ups, workers and signals, and changes no other jobs."""

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.support.races import meanwhile
from videojobs import operations, signals
from videojobs.models import JobEvent, VideoJob
from videojobs.operations import Swept
from videojobs.states import TERMINAL, Status

from .rows import MIRROR_DUE, a_job

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def defaults(settings: Any) -> None:
    settings.VIDEOJOBS = {}


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def late(now: datetime) -> datetime:
    return now - timedelta(seconds=61)


def rows() -> list[dict[str, Any]]:
    return [dict(row) for row in VideoJob.objects.order_by("pk").values()]


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({"status": Status.PENDING}, "videojobs.submit"),
        ({"status": Status.QUEUED}, "videojobs.poll"),
        ({"status": Status.PROCESSING}, "videojobs.poll"),
        (MIRROR_DUE, "videojobs.mirror"),
    ],
)
@pytest.mark.parametrize("lost", ["wake-up", "worker"])
def test_a_job_that_lost_its_wake_up_or_its_worker_is_woken_up_again(
    fields: dict[str, Any], task: str, lost: str, now: datetime, late: datetime, woken: list[Any]
) -> None:
    lease = {"claimed_until": late, "due_at": now} if lost == "worker" else {"due_at": late}
    job = a_job(turn=3, **lease, **fields)

    swept = operations.sweep()

    job.refresh_from_db()
    assert swept == Swept(woken=1, unconfirmed=0)
    assert woken == [(task, str(job.pk), 4)]
    assert (job.status, job.turn, job.claimed_until) == (fields["status"], 4, None)
    assert job.due_at is not None
    assert job.due_at >= now
    assert VideoJob.objects.claim(task.removeprefix("videojobs."), job.pk, 3) is None


def test_whatever_is_on_its_way_is_left_alone(
    now: datetime, late: datetime, woken: list[Any]
) -> None:
    soon = now + timedelta(seconds=9)
    a_job(status=Status.PENDING, due_at=now - timedelta(seconds=50))
    a_job(status=Status.QUEUED, due_at=soon)
    a_job(status=Status.QUEUED, due_at=late, claimed_until=soon)
    a_job(status=Status.SUBMITTING, due_at=late, claimed_until=soon)
    a_job(status=Status.UNCONFIRMED)
    for status in sorted(TERMINAL):
        a_job(status=status)
    before = rows()

    swept = operations.sweep()

    assert swept == Swept(woken=0, unconfirmed=0)
    assert (rows(), woken, JobEvent.objects.count()) == (before, [], 0)


def test_a_create_call_that_was_lost_with_its_worker_is_never_sent_again(
    now: datetime, late: datetime, woken: list[Any]
) -> None:
    job = a_job(status=Status.SUBMITTING, due_at=now, claimed_until=late)

    assert operations.sweep() == Swept(woken=0, unconfirmed=1)
    assert operations.sweep(grace=-DAY.total_seconds()) == Swept(woken=0, unconfirmed=0)

    job.refresh_from_db()
    assert (job.status, job.due_at, woken) == (Status.UNCONFIRMED, None, [])
    assert [event.new for event in job.events.all()] == ["unconfirmed"]


def test_waking_up_again_is_no_event(late: datetime) -> None:
    a_job(status=Status.QUEUED, due_at=late)

    operations.sweep()

    assert not JobEvent.objects.exists()


def test_a_job_that_was_just_woken_up_is_not_woken_up_again(
    late: datetime, woken: list[Any]
) -> None:
    a_job(status=Status.QUEUED, due_at=late)

    for _ in range(3):
        operations.sweep()

    assert len(woken) == 1


def test_a_sweep_is_bounded_and_begins_with_the_latest_jobs(late: datetime) -> None:
    for minutes in range(6):
        a_job(due_at=late - timedelta(minutes=minutes), prompt=str(minutes))

    swept = operations.sweep(limit=2)

    assert swept.woken == 2
    assert set(VideoJob.objects.filter(turn=1).values_list("prompt", flat=True)) == {"4", "5"}


def test_the_bound_and_the_grace_come_from_the_settings(settings: Any, now: datetime) -> None:
    settings.VIDEOJOBS = {"SWEEP_BATCH": 2, "SWEEP_INTERVAL": 5}
    for seconds in (3, 6, 7, 8):
        a_job(due_at=now - timedelta(seconds=seconds))

    assert [operations.sweep().woken for _ in range(3)] == [2, 1, 0]


def test_two_sweeps_side_by_side_do_each_job_once(
    now: datetime, late: datetime, woken: list[Any]
) -> None:
    for _ in range(3):
        a_job(status=Status.QUEUED, due_at=late)
        a_job(status=Status.QUEUED, due_at=now, claimed_until=late)
        a_job(status=Status.SUBMITTING, due_at=now, claimed_until=late)
    other: list[Swept] = []

    with meanwhile("videojobs_videojob", "UPDATE", lambda: other.append(operations.sweep())):
        mine = operations.sweep()

    total = Swept(mine.woken + other[0].woken, mine.unconfirmed + other[0].unconfirmed)
    assert total == Swept(woken=6, unconfirmed=3)
    assert len(woken) == len({job_id for _, job_id, _ in woken}) == 6
    assert set(VideoJob.objects.values_list("turn", flat=True)) == {1}
    assert JobEvent.objects.count() == 3


def test_a_worker_that_is_quicker_than_the_sweep_keeps_its_job(
    late: datetime, woken: list[Any]
) -> None:
    job = a_job(status=Status.QUEUED, due_at=late)

    def claim() -> None:
        VideoJob.objects.filter(pk=job.pk).update(turn=1, claimed_until=timezone.now() + DAY)

    with meanwhile("videojobs_videojob", "UPDATE", claim):
        swept = operations.sweep()

    job.refresh_from_db()
    assert (swept.woken, woken, job.turn) == (0, [], 1)
    assert job.claimed_until is not None


def test_a_sweep_with_nothing_to_do_costs_three_statements(now: datetime) -> None:
    for _ in range(20):
        a_job(due_at=now)

    with CaptureQueriesContext(connection) as captured:
        operations.sweep()

    assert [query["sql"].split()[0] for query in captured] == ["SELECT"] * 3


def test_each_job_that_is_woken_up_costs_one_statement(late: datetime) -> None:
    for _ in range(5):
        a_job(due_at=late)

    with CaptureQueriesContext(connection) as captured:
        operations.sweep()

    verbs = [query["sql"].split()[0] for query in captured]
    assert [v for v in verbs if v not in {"BEGIN", "COMMIT"}].count("UPDATE") == 5
    assert verbs.count("SELECT") == 3


def test_a_full_batch_is_spread_over_half_the_grace(late: datetime, now: datetime) -> None:
    for _ in range(10):
        a_job(due_at=late)

    operations.sweep(limit=10)

    times = VideoJob.objects.values_list("due_at", flat=True)
    waits = sorted((due_at - now).total_seconds() for due_at in times if due_at)
    assert waits[0] < 3
    assert 26 < waits[-1] < 32
    assert all(later - earlier < 6 for earlier, later in itertools.pairwise(waits))


def test_a_few_jobs_are_not_put_off(late: datetime, now: datetime) -> None:
    for _ in range(5):
        a_job(due_at=late)

    operations.sweep()

    assert not VideoJob.objects.filter(due_at__gt=now + timedelta(seconds=3)).exists()


def test_with_nobody_at_work_sweeping_for_a_day_sends_a_message_an_hour(
    now: datetime, woken: list[Any]
) -> None:
    for _ in range(3):
        a_job(status=Status.QUEUED, due_at=now)

    for minute in range(24 * 60):
        with time_machine.travel(now + timedelta(minutes=minute), tick=False):
            operations.sweep()

    assert len(woken) / 3 < 30


# signals of lost workers


@pytest.fixture
def received() -> Iterator[list[tuple[str, str]]]:
    """The signals received, each with the job's status."""
    seen: list[tuple[str, str]] = []

    def stored(job: VideoJob, **_: Any) -> None:
        seen.append(("output_stored", job.status))

    def changed(job: VideoJob, new: str, **_: Any) -> None:
        seen.append((new, job.status))

    signals.output_stored.connect(stored)
    signals.status_changed.connect(changed)
    yield seen
    signals.output_stored.disconnect(stored)
    signals.status_changed.disconnect(changed)


def an_event(signal_due_at: datetime | None, **fields: Any) -> JobEvent:
    fields = {"kind": "status", "old": "queued", "new": "completed", **fields}
    job = a_job(status=Status.COMPLETED)
    return JobEvent.objects.create(job=job, signal_due_at=signal_due_at, **fields)


def test_a_sweep_sends_the_signals_whose_worker_was_lost(
    now: datetime, received: list[Any]
) -> None:
    event = an_event(now - timedelta(seconds=1))

    operations.sweep()
    operations.sweep()

    event.refresh_from_db()
    assert (received, event.signal_due_at) == ([("completed", "completed")], None)


def test_a_sweep_leaves_signals_alone_whose_sender_may_be_at_it(
    now: datetime, received: list[Any]
) -> None:
    an_event(now + timedelta(seconds=5))
    an_event(None)

    operations.sweep()

    assert received == []


def test_signals_that_nobody_survives_are_not_tried_for_ever(
    now: datetime, received: list[Any]
) -> None:
    an_event(now - timedelta(minutes=10), created_at=now - timedelta(hours=25))

    operations.sweep()

    assert received == []


def test_two_sweeps_side_by_side_send_a_lost_signal_once(
    now: datetime, received: list[Any]
) -> None:
    an_event(now - timedelta(seconds=1))

    with meanwhile("videojobs_jobevent", "UPDATE", operations.sweep):
        operations.sweep()

    assert received == [("completed", "completed")]


def test_the_signals_of_lost_workers_go_out_in_their_order(
    now: datetime, received: list[Any]
) -> None:
    an_event(now - timedelta(seconds=2))
    an_event(now - timedelta(seconds=1), kind="mirror", old="due", new="stored")

    operations.sweep()

    assert [name for name, _ in received] == ["completed", "output_stored"]

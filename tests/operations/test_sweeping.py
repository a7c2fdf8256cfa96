"""The sweep finds lost wake-ups, workers and signals, and changes no other jobs."""

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
def test_a_step_that_lost_its_wake_up_or_its_worker_is_woken_up_again(
    fields: dict[str, Any], task: str, lost: str, now: datetime, late: datetime, woken: list[Any]
) -> None:
    job = a_job(turn=3, claimed_until=late if lost == "worker" else None, due_at=now, **fields)
    before = rows()

    swept = operations.sweep()

    assert swept == Swept(woken=1, unconfirmed=0)
    assert woken == [(task, None)]
    assert rows() == before
    assert VideoJob.objects.next_ready(task.removeprefix("videojobs.")) == job


def test_whatever_is_on_its_way_is_left_alone(
    now: datetime, late: datetime, woken: list[Any]
) -> None:
    soon = now + timedelta(seconds=9)
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


@pytest.mark.parametrize("status", [Status.QUEUED, Status.SUBMITTING])
def test_a_worker_counts_as_lost_when_the_clocks_of_hosts_can_t_be_the_reason(
    status: Status, now: datetime, settings: Any
) -> None:
    settings.VIDEOJOBS = {"CLOCK_SKEW": 10}
    a_job(status=status, due_at=now, claimed_until=now)

    with time_machine.travel(now + timedelta(seconds=9), tick=False):
        early = operations.sweep()
    with time_machine.travel(now + timedelta(seconds=11), tick=False):
        swept = operations.sweep()

    assert early == Swept(woken=0, unconfirmed=0)
    is_lost = status == Status.SUBMITTING
    assert swept == Swept(woken=not is_lost, unconfirmed=is_lost)


def test_a_create_call_that_was_lost_with_its_worker_is_never_sent_again(
    now: datetime, late: datetime, woken: list[Any]
) -> None:
    job = a_job(status=Status.SUBMITTING, due_at=now, claimed_until=late)

    assert operations.sweep() == Swept(woken=0, unconfirmed=1)
    with time_machine.travel(now + DAY):
        assert operations.sweep() == Swept(woken=0, unconfirmed=0)

    job.refresh_from_db()
    assert (job.status, job.due_at, woken) == (Status.UNCONFIRMED, None, [])
    assert [event.new for event in job.events.all()] == ["unconfirmed"]


def test_a_create_request_whose_worker_renews_its_claim_meanwhile_is_not_given_up(
    now: datetime, late: datetime
) -> None:
    job = a_job(status=Status.SUBMITTING, due_at=now, claimed_until=late)

    with meanwhile("videojobs_videojob", "UPDATE", lambda: VideoJob.objects.renew(job)):
        swept = operations.sweep()

    assert swept == Swept(woken=0, unconfirmed=0)
    assert VideoJob.objects.get().status == Status.SUBMITTING


def test_waking_up_again_is_no_event(late: datetime) -> None:
    a_job(status=Status.QUEUED, due_at=late)

    operations.sweep()

    assert not JobEvent.objects.exists()


def test_a_sweep_sends_one_poll_and_a_handful_of_other_messages(
    late: datetime, woken: list[Any]
) -> None:
    for _ in range(20):
        a_job(due_at=late)
        a_job(status=Status.QUEUED, due_at=late)
        a_job(due_at=late, **MIRROR_DUE)

    swept = operations.sweep()

    tasks = [task.removeprefix("videojobs.") for task, _ in woken]
    assert tasks == ["poll"] + ["submit"] * 8 + ["mirror"] * 8
    assert swept.woken == 17


def test_the_number_of_lost_create_calls_of_a_sweep_is_bounded(
    settings: Any, late: datetime
) -> None:
    settings.VIDEOJOBS = {"SWEEP_BATCH": 2}
    for minutes in range(5):
        lost = late - timedelta(minutes=minutes)
        a_job(status=Status.SUBMITTING, due_at=lost, claimed_until=late, prompt=str(minutes))

    first = operations.sweep().unconfirmed
    found = set(VideoJob.objects.filter(turn=1).values_list("prompt", flat=True))

    assert (first, found) == (2, {"3", "4"})
    assert [operations.sweep().unconfirmed for _ in range(3)] == [2, 1, 0]


def test_two_sweeps_side_by_side_settle_each_lost_create_call_once(
    now: datetime, late: datetime
) -> None:
    for _ in range(3):
        a_job(status=Status.SUBMITTING, due_at=now, claimed_until=late)
    other: list[Swept] = []

    with meanwhile("videojobs_videojob", "UPDATE", lambda: other.append(operations.sweep())):
        mine = operations.sweep()

    assert mine.unconfirmed + other[0].unconfirmed == 3
    assert set(VideoJob.objects.values_list("turn", flat=True)) == {1}
    assert JobEvent.objects.count() == 3


def test_an_answer_that_is_quicker_than_the_sweep_is_kept(now: datetime, late: datetime) -> None:
    job = a_job(status=Status.SUBMITTING, due_at=now, claimed_until=late)

    def answer() -> None:
        mine = VideoJob.objects.get()
        VideoJob.objects.transition(mine, status="queued", provider_task_id="proj_1", due_at=now)

    with meanwhile("videojobs_videojob", "UPDATE", answer):
        swept = operations.sweep()

    job.refresh_from_db()
    assert (swept.unconfirmed, job.status) == (0, Status.QUEUED)


@pytest.mark.parametrize("count", [0, 1, 20])
def test_a_sweep_costs_five_statements_however_much_is_due(count: int, late: datetime) -> None:
    for _ in range(count):
        a_job(due_at=late)
        a_job(status=Status.QUEUED, due_at=late)
        a_job(due_at=late, **MIRROR_DUE)

    with CaptureQueriesContext(connection) as captured:
        operations.sweep()

    assert [query["sql"].split()[0] for query in captured] == ["SELECT"] * 5


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

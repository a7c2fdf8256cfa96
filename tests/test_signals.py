"""Each signal is sent once, after the commit, even if receivers fail."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
import time_machine
from celery.signals import before_task_publish
from django.db import connection, transaction
from django.utils import timezone

from videojobs import operations, outbox, signals
from videojobs.conf import conf
from videojobs.models import JobEvent, VideoJob
from videojobs.states import TERMINAL, MirrorStatus, Status

pytestmark = pytest.mark.django_db(transaction=True)

ALL = {
    name: getattr(signals, name)
    for name in (
        "status_changed",
        "job_completed",
        "job_failed",
        "job_expired",
        "job_overdue",
        "output_stored",
        "mirror_failed",
        "submission_unconfirmed",
    )
}
FILE = {"output": "a.mp4", "output_size": 8, "output_sha256": "f" * 64}


class Received(NamedTuple):
    name: str
    arguments: dict[str, Any]
    status: str
    mirror_status: str
    in_transaction: bool


@pytest.fixture
def received() -> Iterator[list[Received]]:
    """Every signal sent, with the job as its receivers saw it."""
    seen: list[Received] = []
    receivers = {}
    for name, signal in ALL.items():

        def receive(
            sender: type, signal: Any, job: VideoJob, name: str = name, **arguments: Any
        ) -> None:
            assert sender is VideoJob
            seen.append(
                Received(name, arguments, job.status, job.mirror_status, connection.in_atomic_block)
            )

        receivers[name] = receive
        signal.connect(receive)
    yield seen
    for name, signal in ALL.items():
        signal.disconnect(receivers[name])


@pytest.fixture
def order(received: list[Received]) -> Iterator[list[str]]:
    """The names of signals and wake-ups, in the order of sending."""
    names: list[str] = []

    def changed(**_: Any) -> None:
        names.append("status_changed")

    def woken(sender: str, **_: Any) -> None:
        names.append(sender)

    signals.status_changed.connect(changed)
    before_task_publish.connect(woken, weak=False)
    yield names
    signals.status_changed.disconnect(changed)
    before_task_publish.disconnect(woken)


def a_job(status: Status, **fields: Any) -> VideoJob:
    now = timezone.now()
    due_at = None if status in {*TERMINAL, Status.UNCONFIRMED} else now
    if fields.get("mirror_status") == MirrorStatus.DUE:
        due_at = now
    return VideoJob.objects.create(
        endpoint="e", status=status, provider_task_id="proj_1", due_at=due_at, **fields
    )


@pytest.mark.parametrize(
    ("old", "changes", "expected"),
    [
        (Status.PENDING, {"status": Status.SUBMITTING}, {"status_changed": {}}),
        (
            Status.QUEUED,
            {"status": Status.COMPLETED, "due_at": None},
            {"status_changed": {}, "job_completed": {}},
        ),
        (
            Status.QUEUED,
            {"status": Status.COMPLETED, "mirror_status": MirrorStatus.DUE},
            {"status_changed": {}, "job_completed": {}},
        ),
        (
            Status.PROCESSING,
            {"status": Status.FAILED, "due_at": None},
            {"status_changed": {}, "job_failed": {}},
        ),
        (
            Status.PROCESSING,
            {"status": Status.CANCELLED, "due_at": None},
            {"status_changed": {}, "job_failed": {}},
        ),
        (
            Status.PROCESSING,
            {"status": Status.EXPIRED, "due_at": None, "reason": "why"},
            {"status_changed": {}, "job_expired": {"reason": "why"}},
        ),
        # An operator's decision, which needs no signal of its own.
        (
            Status.QUEUED,
            {"status": Status.STOPPED, "due_at": None, "actor": "ann"},
            {"status_changed": {}},
        ),
        (
            Status.SUBMITTING,
            {"status": Status.UNCONFIRMED, "due_at": None, "reason": "why"},
            {"status_changed": {}, "submission_unconfirmed": {"reason": "why"}},
        ),
        (Status.QUEUED, {"became_overdue": True}, {"job_overdue": {}}),
        (Status.QUEUED, {"noteworthy": True}, {}),
        (Status.QUEUED, {}, {}),
    ],
)
def test_a_change_sends_its_signals_once_with_their_arguments(
    old: Status, changes: dict[str, Any], expected: dict[str, Any], received: list[Received]
) -> None:
    job = a_job(old)

    VideoJob.objects.transition(job, **{"due_at": timezone.now(), **changes})

    if "status_changed" in expected:
        expected = {**expected, "status_changed": {"old": old, "new": changes["status"]}}
    assert [(signal.name, signal.arguments) for signal in received] == list(expected.items())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mirror_status": MirrorStatus.STORED, "due_at": None, **FILE}, [("output_stored", {})]),
        (
            {"mirror_status": MirrorStatus.FAILED, "due_at": None, "reason": "why"},
            [("mirror_failed", {"reason": "why"})],
        ),
        ({"mirror_status": MirrorStatus.DUE, "noteworthy": True}, []),
    ],
)
def test_the_end_of_a_download_sends_its_signal_once(
    changes: dict[str, Any], expected: list[Any], received: list[Received]
) -> None:
    job = a_job(Status.COMPLETED, mirror_status=MirrorStatus.DUE)

    VideoJob.objects.transition(job, **{"due_at": timezone.now(), **changes})

    assert [(signal.name, signal.arguments) for signal in received] == expected


def test_receivers_run_after_the_commit_and_outside_of_any_transaction(
    received: list[Received],
) -> None:
    job = a_job(Status.QUEUED)

    with transaction.atomic():
        VideoJob.objects.transition(job, status=Status.FAILED, due_at=None)
        before_the_commit = list(received)

    assert before_the_commit == []
    assert [signal.in_transaction for signal in received] == [False, False]


def test_a_rolled_back_change_is_told_to_nobody(received: list[Received]) -> None:
    job = a_job(Status.QUEUED)

    with transaction.atomic():
        VideoJob.objects.transition(job, status=Status.FAILED, due_at=None)
        transaction.set_rollback(True)

    assert received == []


def test_a_change_that_was_lost_to_somebody_else_is_told_to_nobody(
    received: list[Received],
) -> None:
    job = a_job(Status.QUEUED)
    VideoJob.objects.filter(pk=job.pk).update(turn=1)

    VideoJob.objects.transition(job, status=Status.FAILED, due_at=None, became_overdue=True)

    assert received == []


def test_two_changes_in_one_transaction_are_told_one_by_one(received: list[Received]) -> None:
    job = a_job(Status.QUEUED)

    with transaction.atomic():
        VideoJob.objects.transition(job, status=Status.PROCESSING, due_at=timezone.now())
        VideoJob.objects.transition(job, status=Status.COMPLETED, due_at=None)

    assert [(signal.name, signal.arguments, signal.status) for signal in received] == [
        ("status_changed", {"old": "queued", "new": "processing"}, "processing"),
        ("status_changed", {"old": "processing", "new": "completed"}, "completed"),
        ("job_completed", {}, "completed"),
    ]


@pytest.fixture
def a_raising_receiver() -> Iterator[None]:
    """A receiver that raises, connected before the recording ones."""

    def raises(**_: Any) -> None:
        raise RuntimeError("an error in a receiver")

    for signal in ALL.values():
        signal.connect(raises)
    yield
    for signal in ALL.values():
        signal.disconnect(raises)


def test_a_raising_receiver_changes_nothing_for_anybody_else(
    a_raising_receiver: None, received: list[Received], order: list[str]
) -> None:
    job = a_job(Status.PROCESSING)

    recorded = VideoJob.objects.transition(
        job, status=Status.COMPLETED, mirror_status=MirrorStatus.DUE, due_at=timezone.now()
    )

    assert recorded
    assert [signal.name for signal in received] == ["status_changed", "job_completed"]
    assert order == ["status_changed", "videojobs.mirror"]
    assert VideoJob.objects.get().status == Status.COMPLETED


def test_a_change_is_told_before_the_next_step_can_overtake_it(order: list[str]) -> None:
    job = a_job(Status.PROCESSING)

    VideoJob.objects.transition(
        job, status=Status.COMPLETED, mirror_status=MirrorStatus.DUE, due_at=timezone.now()
    )

    assert order == ["status_changed", "videojobs.mirror"]


def test_what_a_receiver_does_to_its_object_is_not_the_workers_business() -> None:
    job = a_job(Status.PROCESSING)

    def meddles(job: VideoJob, **_: Any) -> None:
        job.turn, job.status = 99, Status.STOPPED

    signals.status_changed.connect(meddles)
    try:
        VideoJob.objects.transition(
            job, status=Status.COMPLETED, mirror_status=MirrorStatus.DUE, due_at=timezone.now()
        )
    finally:
        signals.status_changed.disconnect(meddles)

    assert (job.turn, job.status) == (1, Status.COMPLETED)


def test_what_is_sent_is_ticked_off(received: list[Received]) -> None:
    job = a_job(Status.QUEUED)

    VideoJob.objects.transition(job, status=Status.PROCESSING, due_at=timezone.now())

    assert received
    assert JobEvent.objects.get().signal_due_at is None


@pytest.mark.parametrize(
    ("old", "changes", "expected"),
    [
        (Status.QUEUED, {"status": Status.PROCESSING}, ["status_changed"]),
        (
            Status.QUEUED,
            {"status": Status.PROCESSING, "became_overdue": True},
            ["status_changed", "job_overdue"],
        ),
        (Status.QUEUED, {"became_overdue": True, "reason": "why"}, ["job_overdue"]),
        (
            Status.COMPLETED,
            {"mirror_status": MirrorStatus.FAILED, "due_at": None},
            ["mirror_failed"],
        ),
    ],
)
def test_signals_whose_worker_died_before_it_sent_them_are_sent_by_a_sweep(
    old: Status,
    changes: dict[str, Any],
    expected: list[str],
    received: list[Received],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = a_job(old, **({"mirror_status": MirrorStatus.DUE} if old == Status.COMPLETED else {}))
    with monkeypatch.context() as lost:
        lost.setattr(outbox, "deliver", lambda *_: None)
        VideoJob.objects.transition(job, **{"due_at": timezone.now(), **changes})
    assert received == []

    with time_machine.travel(timezone.now() + timedelta(seconds=conf.RECEIVER_TIMEOUT + 1)):
        operations.sweep()
        operations.sweep()

    assert [signal.name for signal in received] == expected


def test_a_change_without_receivers_is_not_kept_for_any() -> None:
    with transaction.atomic():
        VideoJob.objects.transition(
            a_job(Status.QUEUED), status=Status.PROCESSING, due_at=timezone.now()
        )
        before_the_commit = JobEvent.objects.get().signal_due_at

    assert before_the_commit is None


def test_a_change_with_receivers_is_kept_until_they_were_called(received: list[Received]) -> None:
    with transaction.atomic():
        VideoJob.objects.transition(
            a_job(Status.QUEUED), status=Status.PROCESSING, due_at=timezone.now()
        )
        before_the_commit = JobEvent.objects.get().signal_due_at

    assert before_the_commit is not None
    assert JobEvent.objects.get().signal_due_at is None
    assert [signal.name for signal in received] == ["status_changed"]


def test_an_error_that_is_no_change_has_no_signal_to_be_sent() -> None:
    VideoJob.objects.transition(a_job(Status.QUEUED), due_at=timezone.now(), noteworthy=True)

    assert JobEvent.objects.get().signal_due_at is None


def test_a_sender_that_comes_late_leaves_the_signals_to_who_took_them_over(
    received: list[Received],
) -> None:
    job = a_job(Status.QUEUED)

    with transaction.atomic():
        VideoJob.objects.transition(job, status=Status.PROCESSING, due_at=timezone.now())
        # As if the caller's transaction lasted longer than RECEIVER_TIMEOUT.
        JobEvent.objects.update(signal_due_at=timezone.now() + timedelta(seconds=30))
        traveller = time_machine.travel(
            timezone.now() + timedelta(seconds=conf.RECEIVER_TIMEOUT + 1)
        )
        traveller.start()
    traveller.stop()

    assert received == []


def test_receivers_that_take_their_time_are_not_run_again_by_every_sweep(
    received: list[Received],
) -> None:
    job = a_job(Status.QUEUED)
    with time_machine.travel(timezone.now(), tick=False) as clock:

        def slow(**_: Any) -> None:
            if len(received) < 10:
                clock.shift(conf.RECEIVER_TIMEOUT + 10)
                operations.sweep()

        signals.job_failed.connect(slow)
        try:
            VideoJob.objects.transition(job, status=Status.FAILED, due_at=None)
            clock.shift(conf.RECEIVER_TIMEOUT + 10)
            operations.sweep()
        finally:
            signals.job_failed.disconnect(slow)

    assert JobEvent.objects.get().signal_due_at is None


def test_a_slow_receiver_s_sender_ticks_off_what_another_one_took_over() -> None:
    job = a_job(Status.QUEUED)
    due = timezone.now() + timedelta(seconds=9)
    event = JobEvent.objects.create(
        job=job, kind="status", old="queued", new="failed", signal_due_at=due
    )
    JobEvent.objects.update(signal_due_at=due + timedelta(seconds=60))

    outbox.mark_sent(event)

    assert JobEvent.objects.get().signal_due_at is None


def test_a_new_job_is_no_change_of_a_status(received: list[Received]) -> None:
    VideoJob.objects.submit("A kitten", duration=5)
    VideoJob.objects.track("proj_2")

    assert received == []

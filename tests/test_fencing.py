"""Only the holder of a claim can write. Races use real connections, or explicit interleaving."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.support.record import (
    MIRROR_ROW,
    POLLED_ROW,
    Wakeup,
    a_job,
    meanwhile,
    race,
    row,
    statements,
)
from videojobs.conf import conf
from videojobs.exceptions import InvalidTransition
from videojobs.models import JobEvent, VideoJob
from videojobs.states import TERMINAL, TRANSITIONS, MirrorStatus, Status

pytestmark = pytest.mark.django_db(transaction=True)


# claim


@pytest.mark.parametrize(
    ("step", "fields"), [("submit", {}), ("poll", POLLED_ROW), ("mirror", MIRROR_ROW)]
)
def test_the_right_wake_up_takes_the_job_with_a_lease(step: str, fields: dict[str, Any]) -> None:
    job = a_job(turn=7, **fields)

    claimed = VideoJob.objects.claim(step, str(job.pk), 7)

    kept = VideoJob.objects.get()
    assert claimed is not None
    assert (claimed.turn, kept.turn, kept.due_at) == (8, 8, job.due_at)
    assert kept.claimed_until is not None
    assert 0 < conf.lease - (kept.claimed_until - timezone.now()).total_seconds() < 5


@pytest.mark.parametrize(
    ("step", "fields", "turn"),
    [
        ("poll", POLLED_ROW, 6),
        ("poll", POLLED_ROW, 8),
        ("submit", POLLED_ROW, 7),
        ("mirror", POLLED_ROW, 7),
        ("poll", {}, 7),
        ("poll", MIRROR_ROW, 7),
        ("submit", {"status": Status.SUBMITTING}, 7),
        ("submit", {"status": Status.UNCONFIRMED}, 7),
        ("poll", {"status": Status.COMPLETED}, 7),
        ("mirror", {"status": Status.COMPLETED, "mirror_status": "failed"}, 7),
    ],
)
def test_any_other_wake_up_is_stale_and_changes_nothing(
    step: str, fields: dict[str, Any], turn: int
) -> None:
    job = a_job(turn=7, **fields)
    before = row(job)

    assert VideoJob.objects.claim(step, job.pk, turn) is None

    assert row(job) == before


def test_a_claimed_job_is_not_claimed_again_even_with_its_new_turn() -> None:
    job = a_job(**POLLED_ROW)
    VideoJob.objects.claim("poll", job.pk, 0)

    assert VideoJob.objects.claim("poll", job.pk, 1) is None


def test_a_job_that_was_deleted_is_nobodys() -> None:
    assert VideoJob.objects.claim("poll", uuid4(), 0) is None


def test_the_intent_to_send_the_create_call_is_recorded_with_its_claim() -> None:
    job = a_job()

    VideoJob.objects.claim("submit", job.pk, 0)

    kept = VideoJob.objects.get()
    assert kept.status == Status.SUBMITTING
    assert [(event.old, event.new) for event in kept.events.all()] == [("pending", "submitting")]


def test_a_download_is_counted_with_its_claim() -> None:
    job = a_job(mirror_attempts=2, **MIRROR_ROW)

    VideoJob.objects.claim("mirror", job.pk, 0)

    assert VideoJob.objects.get().mirror_attempts == 3


def test_a_claim_wakes_nobody_up(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)

    VideoJob.objects.claim("poll", job.pk, 0)

    assert wakeups == []


def test_a_claim_that_could_be_rolled_back_is_refused() -> None:
    job = a_job()

    with pytest.raises(RuntimeError), transaction.atomic():
        VideoJob.objects.claim("submit", job.pk, 0)

    assert VideoJob.objects.get().status == Status.PENDING


def test_of_two_workers_that_read_the_same_row_one_gets_it() -> None:
    job = a_job(**POLLED_ROW)
    other: list[Any] = []

    def claim_first() -> None:
        other.append(VideoJob.objects.filter(pk=job.pk, turn=0).update(turn=1))

    with meanwhile("UPDATE", claim_first):
        mine = VideoJob.objects.claim("poll", job.pk, 0)

    assert (mine, other) == (None, [1])


@pytest.mark.parametrize(
    ("step", "fields"), [("submit", {}), ("poll", POLLED_ROW), ("mirror", MIRROR_ROW)]
)
def test_of_eight_workers_with_the_same_wake_up_exactly_one_gets_the_job(
    step: str, fields: dict[str, Any], shared_database: None
) -> None:
    ids = [
        a_job(**(fields | ({"provider_task_id": f"proj_{n}"} if step == "poll" else {}))).pk
        for n in range(25)
    ]

    results = race(lambda n: VideoJob.objects.claim(step, ids[n], 0), rounds=25)

    assert [sum(claimed is not None for claimed in claims) for claims in results] == [1] * 25
    assert set(VideoJob.objects.values_list("turn", flat=True)) == {1}


@pytest.mark.parametrize("garbage", [("garbage", 0), (None, 0), (7, 0), (uuid4(), "x")])
def test_a_malformed_message_touches_no_row_and_fails_at_most_once(
    garbage: tuple[Any, Any],
) -> None:
    job = a_job()
    before = row(job)

    try:
        claimed = VideoJob.objects.claim("submit", *garbage)
    except (ValidationError, ValueError):
        claimed = None

    assert claimed is None
    assert row(job) == before


@pytest.mark.parametrize("turn", [10**30, -1, None])
def test_a_turn_that_no_row_can_have_is_stale(turn: Any) -> None:
    job = a_job()

    assert VideoJob.objects.claim("submit", job.pk, turn) is None


# renew


def test_a_lease_can_be_renewed_by_its_holder() -> None:
    job = a_job(**MIRROR_ROW)
    claimed = VideoJob.objects.claim("mirror", job.pk, 0)
    assert claimed is not None

    VideoJob.objects.update(claimed_until=timezone.now() + timedelta(seconds=1))

    assert VideoJob.objects.renew(claimed)

    kept = VideoJob.objects.get()
    assert kept.turn == claimed.turn
    assert kept.claimed_until is not None
    assert kept.claimed_until > timezone.now() + timedelta(seconds=conf.lease - 5)


def test_a_lost_lease_can_not_be_renewed() -> None:
    job = a_job(**MIRROR_ROW)
    claimed = VideoJob.objects.claim("mirror", job.pk, 0)
    assert claimed is not None
    VideoJob.objects.rearm(VideoJob.objects.get())

    assert not VideoJob.objects.renew(claimed)

    assert VideoJob.objects.get().claimed_until is None


# transition


def test_a_transition_is_recorded_with_one_event_and_frees_the_job() -> None:
    job = a_job(turn=3, claimed_until=timezone.now(), **POLLED_ROW)
    due_at = timezone.now() + timedelta(seconds=30)

    recorded = VideoJob.objects.transition(
        job, status=Status.PROCESSING, due_at=due_at, reason="why", actor="ann", check_count=9
    )

    kept, event = VideoJob.objects.get(), JobEvent.objects.get()
    assert recorded is True
    assert (kept.status, kept.turn, kept.due_at) == (Status.PROCESSING, 4, due_at)
    assert (kept.claimed_until, kept.check_count) == (None, 9)
    assert (event.kind, event.old, event.new) == ("status", "queued", "processing")
    assert (event.reason, event.actor) == ("why", "ann")
    assert (job.status, job.turn, job.due_at) == (Status.PROCESSING, 4, due_at)


def test_who_lost_the_job_changes_nothing(wakeups: list[Wakeup]) -> None:
    mine = a_job(**POLLED_ROW)
    VideoJob.objects.filter(pk=mine.pk).update(turn=1)
    before = row(mine)

    recorded = VideoJob.objects.transition(mine, status=Status.FAILED, due_at=None, noteworthy=True)

    assert recorded is False
    assert row(mine) == before
    assert (mine.status, mine.turn) == (Status.QUEUED, 0)
    assert not JobEvent.objects.exists()
    assert wakeups == []


def test_who_lost_the_job_between_his_reading_and_his_writing_changes_nothing() -> None:
    mine = a_job(**POLLED_ROW)

    def take_it() -> None:
        VideoJob.objects.filter(pk=mine.pk).update(turn=1)

    with meanwhile("UPDATE", take_it):
        recorded = VideoJob.objects.transition(mine, status=Status.FAILED, due_at=None)

    assert recorded is False


@pytest.mark.parametrize("old", Status)
def test_only_the_transitions_of_the_table_are_made(old: Status) -> None:
    made = set()

    for number, new in enumerate(Status):
        job = a_job(status=old, provider_task_id=f"proj_{number}")
        before = row(job)
        is_over = new in TERMINAL or new == Status.UNCONFIRMED
        due_at = None if is_over else timezone.now()
        try:
            VideoJob.objects.transition(job, status=new, due_at=due_at, actor="ann")
        except InvalidTransition:
            assert row(job) == before
            assert not job.events.exists()
        else:
            assert row(job)["status"] == new
            made.add(new)

    assert made - {old} == TRANSITIONS[old]


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_a_terminal_status_is_left_by_a_person_only(status: Status) -> None:
    job = a_job(status=status, provider_task_id="proj_1")
    before = row(job)

    for new in Status:
        if new != status:
            with pytest.raises(InvalidTransition):
                VideoJob.objects.transition(job, status=new, due_at=timezone.now())

    assert row(job) == before


def test_a_mirror_that_nobody_waits_for_stores_nothing() -> None:
    job = a_job(status=Status.COMPLETED, mirror_status=MirrorStatus.SKIPPED)

    with pytest.raises(InvalidTransition):
        VideoJob.objects.transition(job, mirror_status=MirrorStatus.STORED, due_at=None)

    assert VideoJob.objects.get().mirror_status == MirrorStatus.SKIPPED


def test_a_routine_record_writes_no_event() -> None:
    job = a_job(**POLLED_ROW)

    VideoJob.objects.transition(job, status=Status.QUEUED, due_at=timezone.now(), check_count=1)

    assert not JobEvent.objects.exists()


def test_a_noteworthy_record_writes_a_note() -> None:
    job = a_job(**POLLED_ROW)

    VideoJob.objects.transition(job, due_at=timezone.now(), noteworthy=True, reason="HTTP 500")

    event = JobEvent.objects.get()
    assert (event.kind, event.old, event.new) == ("note", "queued", "queued")
    assert event.reason == "HTTP 500"


def test_an_attempt_to_download_that_failed_is_an_event_of_its_own_kind() -> None:
    job = a_job(**MIRROR_ROW)

    VideoJob.objects.transition(job, due_at=timezone.now(), noteworthy=True, reason="HTTP 403")

    event = job.events.get()
    assert (event.kind, event.reason) == ("download", "HTTP 403")


def test_a_change_of_the_mirror_is_an_event_of_its_own_kind() -> None:
    job = a_job(**MIRROR_ROW)

    VideoJob.objects.transition(job, mirror_status=MirrorStatus.FAILED, due_at=None)

    event = JobEvent.objects.get()
    assert (event.kind, event.old, event.new) == ("mirror", "due", "failed")


def test_a_verdict_that_makes_the_download_due_is_one_event() -> None:
    job = a_job(**POLLED_ROW)

    VideoJob.objects.transition(job, due_at=timezone.now(), **MIRROR_ROW)

    event = JobEvent.objects.get()
    assert (event.kind, event.old, event.new) == ("status", "queued", "completed")


def test_a_transition_and_its_event_stand_or_fall_together(
    monkeypatch: pytest.MonkeyPatch, wakeups: list[Wakeup]
) -> None:
    job = a_job(**POLLED_ROW)
    before = row(job)

    with meanwhile("INSERT", lambda: 1 / 0), pytest.raises(ZeroDivisionError):
        VideoJob.objects.transition(job, status=Status.PROCESSING, due_at=timezone.now())

    assert row(job) == before
    assert (job.status, job.turn) == (Status.QUEUED, 0)
    assert wakeups == []


def test_the_next_step_is_woken_up_when_it_is_due(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)
    due_at = timezone.now() + timedelta(seconds=45)

    VideoJob.objects.transition(job, due_at=due_at)

    [wakeup] = wakeups
    assert wakeup[:3] == ("poll", job.pk, 1)
    assert wakeup.eta is not None
    assert abs((wakeup.eta - due_at).total_seconds()) < 2


def test_the_countdown_is_counted_from_the_commit(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)
    due_at = timezone.now() + timedelta(seconds=45)

    with time_machine.travel(timezone.now()) as clock:
        with transaction.atomic():
            VideoJob.objects.transition(job, due_at=due_at)
            clock.shift(40)
        [wakeup] = wakeups

    assert wakeup.eta is not None
    assert abs((wakeup.eta - due_at).total_seconds()) < 2


@pytest.mark.parametrize(
    "changes",
    [
        {"status": Status.UNCONFIRMED, "due_at": None},
        {"status": Status.FAILED, "due_at": None},
    ],
)
def test_nobody_is_woken_up_when_nothing_is_due(
    changes: dict[str, Any], wakeups: list[Wakeup]
) -> None:
    job = a_job(status=Status.SUBMITTING)

    VideoJob.objects.transition(job, **changes)

    assert wakeups == []


def test_a_rolled_back_transition_wakes_nobody_up(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)

    with transaction.atomic():
        VideoJob.objects.transition(job, due_at=timezone.now())
        transaction.set_rollback(True)

    assert wakeups == []


def test_a_record_is_one_statement_and_one_more_for_its_event() -> None:
    job = a_job(**POLLED_ROW)

    with CaptureQueriesContext(connection) as routine:
        VideoJob.objects.transition(job, due_at=timezone.now())
    with CaptureQueriesContext(connection) as change:
        VideoJob.objects.transition(job, status=Status.PROCESSING, due_at=timezone.now())

    assert statements(routine) == ["UPDATE"]
    # The last one marks the signals as sent, after the commit.
    assert statements(change) == ["UPDATE", "INSERT", "UPDATE"]


def test_rearming_makes_every_earlier_message_stale(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)

    assert VideoJob.objects.rearm(job)

    assert wakeups == [("poll", job.pk, 1, None)]
    assert VideoJob.objects.claim("poll", job.pk, 0) is None
    assert VideoJob.objects.claim("poll", job.pk, 1) is not None


def test_rearming_can_be_put_off(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)
    expected = timezone.now() + timedelta(seconds=20)

    VideoJob.objects.rearm(job, delay=20.0)

    [wakeup] = wakeups
    assert wakeup.eta is not None
    assert abs((wakeup.eta - expected).total_seconds()) < 2


def test_a_claim_ends_the_count_of_wake_ups_in_vain() -> None:
    job = a_job(**POLLED_ROW)
    VideoJob.objects.rearm(job)
    assert VideoJob.objects.get().wake_count == 1

    VideoJob.objects.claim("poll", job.pk, job.turn)

    assert VideoJob.objects.get().wake_count == 0


def test_wake_ups_in_vain_are_counted_up_to_a_bound() -> None:
    job = a_job(**POLLED_ROW)

    for _ in range(10):
        VideoJob.objects.rearm(job)

    assert VideoJob.objects.get().wake_count == 6

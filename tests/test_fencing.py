"""Only the holder of a claim can write. Races use real connections, or explicit interleaving."""

from datetime import timedelta
from threading import Thread
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
    NOWHERE,
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
from videojobs.signals import status_changed
from videojobs.states import TERMINAL, TRANSITIONS, MirrorStatus, Status

pytestmark = pytest.mark.django_db(transaction=True)


# claim


@pytest.mark.parametrize(
    ("step", "fields"), [("submit", {}), ("poll", POLLED_ROW), ("mirror", MIRROR_ROW)]
)
def test_a_claim_takes_the_job_with_a_lease(step: str, fields: dict[str, Any]) -> None:
    job = a_job(turn=7, **fields)
    claimed = VideoJob.objects.next_ready(step)
    assert claimed is not None

    assert VideoJob.objects.claim(claimed)

    kept = VideoJob.objects.get()
    assert (claimed.turn, kept.turn, kept.due_at) == (8, 8, job.due_at)
    assert kept.claimed_until is not None
    assert 0 < conf.lease - (kept.claimed_until - timezone.now()).total_seconds() < 5


@pytest.mark.parametrize(
    ("step", "fields"),
    [
        ("submit", POLLED_ROW),
        ("mirror", POLLED_ROW),
        ("poll", {}),
        ("poll", MIRROR_ROW),
        ("submit", {"status": Status.SUBMITTING}),
        ("submit", {"status": Status.UNCONFIRMED}),
        ("poll", {"status": Status.COMPLETED}),
        ("mirror", {"status": Status.COMPLETED, "mirror_status": "failed"}),
    ],
)
def test_a_job_is_not_ready_for_another_step_even_if_it_is_named(
    step: str, fields: dict[str, Any]
) -> None:
    job = a_job(**fields)

    assert VideoJob.objects.next_ready(step) is None
    assert VideoJob.objects.next_ready(step, job.pk) is None


@pytest.mark.parametrize("seconds", [0.0, 5.0, 29.0])
def test_a_claim_is_not_taken_over_before_the_clocks_of_all_hosts_agree(seconds: float) -> None:
    a_job(**POLLED_ROW, claimed_until=timezone.now() - timedelta(seconds=seconds))

    assert VideoJob.objects.next_ready("poll") is None


def test_a_lost_claim_is_taken_over() -> None:
    job = a_job(**POLLED_ROW, claimed_until=timezone.now() - timedelta(seconds=31))

    assert VideoJob.objects.next_ready("poll") == job


@pytest.mark.parametrize("step", ["submit", "mirror"])
def test_a_claim_that_was_renewed_in_the_meantime_is_not_taken_over(step: str) -> None:
    lost = timezone.now() - timedelta(seconds=31)
    job = a_job(claimed_until=lost, **(MIRROR_ROW if step == "mirror" else {}))
    late_worker = VideoJob.objects.get()
    found = VideoJob.objects.next_ready(step)
    assert found is not None
    assert VideoJob.objects.renew(late_worker)

    assert not VideoJob.objects.claim(found)

    assert VideoJob.objects.get().turn == job.turn


def test_a_name_never_widens_a_claim() -> None:
    now = timezone.now()
    later = a_job(**POLLED_ROW, due_at=now + timedelta(seconds=9))
    a_job(status=Status.QUEUED, provider_task_id="proj_2")

    assert VideoJob.objects.next_ready("poll", later.pk) is None
    assert VideoJob.objects.next_ready("poll", uuid4()) is None


def test_the_job_that_has_been_due_for_the_longest_is_next() -> None:
    now = timezone.now()
    a_job(due_at=now - timedelta(seconds=1))
    oldest = a_job(due_at=now - timedelta(seconds=9))

    assert VideoJob.objects.next_ready("submit") == oldest


def test_the_intent_to_send_the_create_request_is_recorded_with_its_claim() -> None:
    VideoJob.objects.claim(a_job())

    kept = VideoJob.objects.get()
    assert kept.status == Status.SUBMITTING
    assert [(event.old, event.new) for event in kept.events.all()] == [("pending", "submitting")]


def test_a_download_is_counted_with_its_claim() -> None:
    VideoJob.objects.claim(a_job(mirror_attempts=2, **MIRROR_ROW))

    assert VideoJob.objects.get().mirror_attempts == 3


def test_a_claim_sends_no_wake_up(wakeups: list[Wakeup]) -> None:
    VideoJob.objects.claim(a_job(**MIRROR_ROW))

    assert wakeups == []


def test_a_claim_that_could_be_rolled_back_is_refused() -> None:
    job = a_job()

    with pytest.raises(RuntimeError), transaction.atomic():
        VideoJob.objects.claim(job)

    assert VideoJob.objects.get().status == Status.PENDING


def test_of_two_workers_that_read_the_same_row_one_gets_it() -> None:
    job = a_job(**MIRROR_ROW)
    other: list[Any] = []

    def claim_first() -> None:
        other.append(VideoJob.objects.filter(pk=job.pk, turn=0).update(turn=1))

    with meanwhile("UPDATE", claim_first):
        mine = VideoJob.objects.claim(job)

    assert (mine, other) == (False, [1])


@pytest.mark.parametrize(("step", "fields"), [("submit", {}), ("mirror", MIRROR_ROW)])
def test_of_eight_workers_that_want_the_same_job_exactly_one_gets_it(
    step: str, fields: dict[str, Any], shared_database: None
) -> None:
    ids = [a_job(**fields).pk for _ in range(25)]

    def claim(number: int) -> bool:
        job = VideoJob.objects.next_ready(step, ids[number])
        return job is not None and VideoJob.objects.claim(job)

    results = race(claim, rounds=25)

    assert [sum(claims) for claims in results] == [1] * 25
    assert set(VideoJob.objects.values_list("turn", flat=True)) == {1}


@pytest.mark.parametrize("garbage", ["garbage", {}])
def test_a_malformed_name_touches_no_row(garbage: Any) -> None:
    job = a_job()
    before = row(job)

    with pytest.raises((ValidationError, ValueError, TypeError)):
        VideoJob.objects.next_ready("submit", garbage)

    assert row(job) == before


# portions


def due(number: int, **fields: Any) -> VideoJob:
    return a_job(status=Status.QUEUED, provider_task_id=f"proj_{number}", **fields)


def test_a_portion_has_the_oldest_jobs_and_one_token_and_lease() -> None:
    now, token = timezone.now(), uuid4()
    jobs = [due(number, due_at=now - timedelta(seconds=number)) for number in range(5)]

    portion = VideoJob.objects.claim_portion(3, token=token)

    assert (list(portion.jobs), portion.more) == (jobs[:1:-1], True)
    assert {(job.claim_token, job.turn) for job in portion.jobs} == {(token, 1)}
    assert all(job.claimed_until is not None for job in portion.jobs)
    assert VideoJob.objects.filter(claim_token=token).count() == 3


def test_a_portion_belongs_to_one_account() -> None:
    now = timezone.now()
    first = due(1, account="studio", due_at=now - timedelta(seconds=9))
    due(2)

    portion = VideoJob.objects.claim_portion(9, token=uuid4())

    assert (list(portion.jobs), portion.more) == ([first], True)


def test_a_portion_of_a_name_has_that_job_alone() -> None:
    jobs = [due(number) for number in range(2)]

    assert list(VideoJob.objects.claim_portion(9, token=uuid4(), job_id=jobs[1].pk).jobs) == [
        jobs[1]
    ]


def test_a_portion_that_could_be_rolled_back_is_refused() -> None:
    due(1)

    with pytest.raises(RuntimeError), transaction.atomic():
        VideoJob.objects.claim_portion(9, token=uuid4())

    assert VideoJob.objects.get().turn == 0


def test_of_eight_workers_each_job_has_one(shared_database: None) -> None:
    for number in range(40):
        due(number)

    def claim(_round: int) -> list[Any]:
        return [job.pk for job in VideoJob.objects.claim_portion(7, token=uuid4()).jobs]

    [portions] = race(claim, rounds=1)

    claimed = [pk for portion in portions for pk in portion]
    assert len(claimed) == len(set(claimed)) > 0
    assert set(VideoJob.objects.values_list("turn", flat=True)) <= {0, 1}


def test_a_worker_that_chooses_a_job_leaves_the_others_to_other_workers(
    shared_database: None,
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("it has one writer at a time")
    jobs, now = [due(number) for number in range(3)], timezone.now()
    # With these, MariaDB finds the polls by their status, and sorts them.
    downloads = (VideoJob(**MIRROR_ROW, endpoint=NOWHERE, due_at=now) for _ in range(300))
    VideoJob.objects.bulk_create(downloads)
    rest: list[Any] = []

    def claim_the_rest() -> None:
        rest.extend(VideoJob.objects.claim_portion(9, token=uuid4()).jobs)
        connection.close()

    def act() -> None:
        thread = Thread(target=claim_the_rest)
        thread.start()
        thread.join(30)

    with meanwhile("UPDATE", act):
        first = VideoJob.objects.claim_portion(1, token=uuid4()).jobs

    assert {*first, *rest} == set(jobs)
    assert len(first) + len(rest) == len(jobs)


def test_a_job_whose_row_is_locked_by_a_transaction_of_the_site_delays_no_other(
    shared_database: None,
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("it has one writer at a time")
    jobs = [due(number) for number in range(3)]
    claimed: list[Any] = []

    def claim() -> None:
        portion = VideoJob.objects.claim_portion(2, token=uuid4())
        claimed.extend(portion.jobs)
        connection.close()

    thread = Thread(target=claim)
    with transaction.atomic():
        VideoJob.objects.filter(pk=jobs[0].pk).update(metadata={"order": 42})
        thread.start()
        thread.join(10)
        assert not thread.is_alive()

    assert set(claimed) == {*jobs[1:]}


def test_a_job_that_another_worker_claims_between_choice_and_claim_is_left_to_it() -> None:
    if connection.features.has_select_for_update_skip_locked:
        pytest.skip("the rows are locked")
    jobs = [due(number) for number in range(2)]
    theirs = [VideoJob.objects.filter(pk=jobs[0].pk)]

    def claim_first(execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.startswith("UPDATE") and theirs:
            ends_at = timezone.now() + timedelta(seconds=60)
            theirs.pop().update(claim_token=uuid4(), claimed_until=ends_at, turn=1)
        return execute(sql, *arguments)

    with connection.execute_wrapper(claim_first):
        portion = VideoJob.objects.claim_portion(9, token=uuid4())

    assert list(portion.jobs) == [jobs[1]]


def test_a_portion_is_recorded_in_one_statement_that_frees_its_jobs() -> None:
    due(1)
    due(2)
    jobs = VideoJob.objects.claim_portion(9, token=uuid4()).jobs
    later = timezone.now() + timedelta(seconds=30)

    with CaptureQueriesContext(connection) as captured:
        assert VideoJob.objects.record_portion(jobs, due_at=later) == 2

    assert statements(captured) == ["UPDATE"]
    kept = VideoJob.objects.values_list("turn", "due_at", "claimed_until", "claim_token")
    assert set(kept) == {(2, later, None, None)}


def test_a_record_of_a_portion_leaves_a_job_that_was_taken_from_it() -> None:
    due(1)
    due(2)
    jobs = VideoJob.objects.claim_portion(9, token=uuid4()).jobs
    taken = VideoJob.objects.get(pk=jobs[0].pk)
    VideoJob.objects.transition(taken, status=Status.STOPPED, due_at=None, actor="ann")

    assert VideoJob.objects.record_portion(jobs, due_at=timezone.now()) == 1

    assert row(taken)["due_at"] is None


def test_every_single_write_clears_the_token() -> None:
    due(1)
    [job] = VideoJob.objects.claim_portion(9, token=uuid4()).jobs

    VideoJob.objects.transition(job, due_at=timezone.now())

    assert row(job)["claim_token"] is None


def test_jobs_that_are_put_off_are_spread_with_one_wake_up_for_each_time(
    wakeups: list[Wakeup],
) -> None:
    for number in range(5):
        due(number)
    now = timezone.now()
    times = [now + timedelta(seconds=seconds) for seconds in (30, 40)]

    assert VideoJob.objects.put_off("poll", times) == 5

    found = VideoJob.objects.order_by("due_at").values_list("due_at", flat=True)
    assert list(found) == [times[0]] * 3 + [times[1]] * 2
    assert [(w.step, w.job_id) for w in wakeups] == [("poll", None)] * 2


# renew


def a_claimed_job() -> VideoJob:
    job = a_job(**MIRROR_ROW)
    assert VideoJob.objects.claim(job)
    return job


def test_a_lease_can_be_renewed_by_its_holder() -> None:
    claimed = a_claimed_job()
    VideoJob.objects.update(claimed_until=timezone.now() + timedelta(seconds=1))

    assert VideoJob.objects.renew(claimed)

    kept = VideoJob.objects.get()
    assert kept.turn == claimed.turn
    assert kept.claimed_until is not None
    assert kept.claimed_until > timezone.now() + timedelta(seconds=conf.lease - 5)


def test_a_lost_lease_can_not_be_renewed() -> None:
    claimed = a_claimed_job()
    VideoJob.objects.transition(VideoJob.objects.get(), due_at=timezone.now())

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
    assert (wakeup.step, wakeup.job_id) == ("poll", None)
    assert wakeup.at is not None
    assert 0 <= (wakeup.at - due_at).total_seconds() < 2


def test_a_named_change_wakes_up_this_job_alone(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)
    due_at = timezone.now() + timedelta(seconds=45)

    VideoJob.objects.transition(job, due_at=due_at, named=True)

    assert wakeups == [("poll", job.pk, due_at)]


@pytest.mark.parametrize(("step", "fields"), [("submit", {}), ("mirror", MIRROR_ROW)])
def test_an_attempt_that_may_cost_or_take_long_has_a_wake_up_of_its_own(
    step: str, fields: dict[str, Any], wakeups: list[Wakeup]
) -> None:
    job = a_job(**fields)

    VideoJob.objects.transition(job, due_at=timezone.now())

    assert wakeups == [(step, job.pk, job.due_at)]


def test_the_moment_of_a_wake_up_does_not_move_with_its_commit(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)
    due_at = timezone.now() + timedelta(seconds=45)

    with time_machine.travel(timezone.now()) as clock:
        with transaction.atomic():
            VideoJob.objects.transition(job, due_at=due_at)
            clock.shift(40)
        [wakeup] = wakeups

    assert wakeup.at is not None
    assert 0 <= (wakeup.at - due_at).total_seconds() < 2


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
    assert statements(change) == ["UPDATE", "INSERT"]


def test_a_change_with_receivers_costs_a_third_statement_that_marks_it_as_sent() -> None:
    job = a_job(**POLLED_ROW)

    def receive(**_: Any) -> None:
        pass

    status_changed.connect(receive)
    try:
        with CaptureQueriesContext(connection) as change:
            VideoJob.objects.transition(job, status=Status.PROCESSING, due_at=timezone.now())
    finally:
        status_changed.disconnect(receive)

    assert statements(change) == ["UPDATE", "INSERT", "UPDATE"]

"""Manual operations: their conditions, effects and events, also when run concurrently."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.support import jobs
from tests.support.races import meanwhile
from videojobs import conditions, operations, services
from videojobs.exceptions import SpendLimitReached
from videojobs.models import JobEvent, ProviderHold, VideoJob
from videojobs.providers import validation
from videojobs.states import MirrorStatus, Status
from videojobs.testing import Script

pytestmark = pytest.mark.django_db(transaction=True)

JOBS = "videojobs_videojob"
MIRROR_DUE = {"status": Status.COMPLETED, "mirror_status": MirrorStatus.DUE}

#: Operation → how it is called, and the states of `jobs.STATES` in which it is possible.
OPERATIONS: dict[str, tuple[Callable[[VideoJob], Any], set[str]]] = {
    "check_now": (
        lambda job: operations.check_now(job, actor="ann"),
        {"pending", "queued", "processing", "overdue", "due"},
    ),
    "stop": (
        lambda job: operations.stop(job, actor="ann"),
        {"pending", "unconfirmed", "queued", "processing", "overdue"},
    ),
    "resume": (lambda job: operations.resume(job, actor="ann"), {"expired", "stopped"}),
    "store_unchecked": (lambda job: operations.store_unchecked(job, actor="ann"), {"doubted"}),
}


@pytest.fixture(autouse=True)
def defaults(settings: Any) -> None:
    settings.VIDEOJOBS = {}


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def a_job(**fields: Any) -> VideoJob:
    if fields.get("status") in {Status.QUEUED, Status.PROCESSING}:
        fields = {"provider_task_id": f"proj_{VideoJob.objects.count()}", **fields}
    return VideoJob.objects.create(**{"endpoint": "e", **fields})


def history(job: VideoJob) -> list[tuple[str, str, str, str]]:
    return [(e.kind, e.new, e.reason, e.actor) for e in job.events.all()]


# all operations that change a job


@pytest.mark.parametrize("act", OPERATIONS)
@pytest.mark.parametrize("state", [*jobs.STATES, "doubted"])
def test_an_act_is_done_where_it_is_possible_and_nothing_else_changes(state: str, act: str) -> None:
    job = jobs.make(state)
    before = VideoJob.objects.values().get()
    does, possible = OPERATIONS[act]

    done = does(job)

    assert done is (state in possible)
    assert (VideoJob.objects.values().get() == before) is not done
    assert [event.actor for event in JobEvent.objects.all()] == (["ann"] if done else [])


@pytest.mark.parametrize("act", OPERATIONS)
def test_of_two_people_who_act_at_once_one_does(act: str) -> None:
    does, possible = OPERATIONS[act]
    job = jobs.make(sorted(possible)[0])
    other = VideoJob.objects.get()

    with meanwhile(JOBS, "UPDATE", lambda: does(other)):
        done = does(job)

    assert done is False
    assert JobEvent.objects.count() == 1


@pytest.mark.parametrize("act", OPERATIONS)
def test_who_acts_on_what_a_worker_has_just_claimed_or_recorded_is_too_late(act: str) -> None:
    does, possible = OPERATIONS[act]
    job = jobs.make(sorted(possible)[0])

    with meanwhile(JOBS, "UPDATE", lambda: VideoJob.objects.update(turn=job.turn + 1)):
        done = does(job)

    assert done is False
    assert not JobEvent.objects.exists()


@pytest.mark.parametrize("act", OPERATIONS)
def test_the_acts_of_a_person_take_three_statements_and_perhaps_a_look_for_a_hold(act: str) -> None:
    does, possible = OPERATIONS[act]
    job = jobs.make(sorted(possible)[0])

    with CaptureQueriesContext(connection) as captured:
        does(job)

    asked = [query["sql"] for query in captured]
    verbs = [sql.split()[0] for sql in asked if "videojobs_providerhold" not in sql]
    assert [v for v in verbs if v in ("SELECT", "UPDATE", "INSERT")][:2] == ["UPDATE", "INSERT"]
    assert len([v for v in verbs if v in ("SELECT", "UPDATE", "INSERT")]) <= 3
    assert len(asked) - len(verbs) == (act == "check_now")


# check now


def test_the_next_step_comes_at_once_and_wakes_a_worker(woken: list[Any], now: datetime) -> None:
    job = jobs.make("overdue", due_at=now + timedelta(seconds=590))

    assert operations.check_now(job, actor="ann")

    job = VideoJob.objects.get()
    assert job.due_at is not None
    assert now <= job.due_at <= now + timedelta(seconds=5)
    assert woken == [("videojobs.poll", str(job.pk))]
    assert history(job) == [("note", "processing", "the next step was brought forward", "ann")]


@pytest.mark.parametrize("state", ["queued", "overdue", "due"])
def test_a_person_has_the_provider_asked_no_sooner_than_its_interval_allows(
    state: str, now: datetime
) -> None:
    last = now - timedelta(seconds=5)
    later = now + timedelta(seconds=600)
    job = jobs.make(state, last_checked_at=last, due_at=later)

    assert operations.check_now(job, actor="ann")

    assert VideoJob.objects.get().due_at == last + timedelta(seconds=30)
    assert not operations.check_now(job, actor="bob")


@pytest.mark.parametrize("seconds", [-100, -1, 24])
def test_a_step_that_is_due_by_then_is_not_put_off(seconds: float, now: datetime) -> None:
    due_at = now + timedelta(seconds=seconds)
    job = jobs.make("queued", last_checked_at=now - timedelta(seconds=5), due_at=due_at)

    assert not operations.check_now(job, actor="ann")

    assert VideoJob.objects.get().due_at == due_at


def test_a_worker_that_is_at_a_job_is_left_alone(now: datetime) -> None:
    later = now + timedelta(seconds=30)
    job = jobs.make("due", claimed_until=later, due_at=later)

    assert not operations.check_now(job, actor="ann")

    assert VideoJob.objects.get().claimed_until == later


def test_a_hold_of_the_provider_is_respected(
    simulated_provider: Any, settings: Any, now: datetime
) -> None:
    settings.VIDEOJOBS = jobs.asked_at(simulated_provider)
    simulated_provider.add_task("proj_0")
    job = jobs.make("queued", endpoint=f"{simulated_provider.base_url}/v1/")
    hold = jobs.make_hold("limited")

    assert not operations.check_now(job, actor="ann")
    VideoJob.objects.update(due_at=now)
    services.poll(job.pk)

    job.refresh_from_db()
    assert (job.check_count, simulated_provider.checks("proj_0")) == (0, 0)
    assert job.due_at is not None
    assert job.due_at >= hold.until


@pytest.mark.parametrize("asked", [None, -31, -29, -5])
@pytest.mark.parametrize("due", [-5, 10, 27, 100])
@pytest.mark.parametrize("state", ["pending", "queued", "due", "failed", "submitting"])
@pytest.mark.parametrize("claimed", [False, True])
@pytest.mark.parametrize("held", ["", "unreachable", "limited"])
def test_whose_step_can_be_brought_forward_is_found_as_it_is_done(
    state: str, due: float, asked: float | None, claimed: bool, held: str
) -> None:
    if held:
        with time_machine.travel("2026-05-04 11:59:00+00:00", tick=False):
            jobs.make_hold(held)
    with time_machine.travel("2026-05-04 12:00:00+00:00", tick=False):
        now = timezone.now()
        times: dict[str, Any] = {} if state == "failed" else {"due_at": now + _s(due)}
        times["last_checked_at"] = None if asked is None else now + _s(asked)
        times["claimed_until"] = now + _s(30) if claimed else None
        job = jobs.make(state, **times)

        possible = conditions.can_be_checked(job)
        finds = VideoJob.objects.filter(conditions.checkable()).exists()

        assert possible == finds == operations.check_now(job, actor="ann")


@pytest.mark.parametrize(
    ("kind", "state", "possible"),
    [
        *(("limited", state, False) for state in ("pending", "queued", "due")),
        *(("unreachable", state, state != "pending") for state in ("pending", "queued", "due")),
    ],
)
def test_what_waits_for_the_provider_is_not_said_to_be_brought_forward(
    kind: str, state: str, possible: bool
) -> None:
    jobs.make_hold(kind)
    job = jobs.make(state)

    assert operations.check_now(job, actor="ann") is possible


@pytest.mark.parametrize("over", [{"until": -1}, {"reset_at": 0}])
def test_a_hold_that_is_over_stands_in_nobodys_way(over: dict[str, float]) -> None:
    jobs.make_hold("limited")
    ProviderHold.objects.update(**{name: jobs.from_now(at) for name, at in over.items()})

    assert operations.check_now(jobs.make("queued"), actor="ann")


def _s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


# stop


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("pending", "no request was sent"),
        ("unconfirmed", "the provider may still finish and bill it"),
        ("processing", "the provider may still finish and bill it"),
    ],
)
def test_a_stopped_job_rests_and_says_what_may_still_be_billed(
    state: str, reason: str, woken: list[Any]
) -> None:
    job = jobs.make(state)

    assert operations.stop(job, actor="ann")

    job = VideoJob.objects.get()
    assert (job.status, job.due_at, job.finished_at is None) == (Status.STOPPED, None, False)
    assert history(job) == [("status", "stopped", reason, "ann")]
    assert woken == []


def test_what_a_worker_learns_of_a_job_that_was_stopped_meanwhile_changes_nothing(
    simulated_provider: Any, settings: Any
) -> None:
    settings.VIDEOJOBS = jobs.asked_at(simulated_provider)
    simulated_provider.add_task("proj_1")
    job = VideoJob.objects.track("proj_1")

    def stop() -> None:
        operations.stop(VideoJob.objects.get(), actor="ann")

    assert VideoJob.objects.claim(job)
    stop()
    recorded = VideoJob.objects.transition(job, status=Status.PROCESSING, due_at=timezone.now())

    assert (recorded, VideoJob.objects.get().status) == (False, Status.STOPPED)


# resume


@pytest.mark.parametrize("state", ["expired", "stopped"])
def test_a_job_that_is_taken_up_is_asked_for_at_once_with_a_new_deadline(
    state: str, woken: list[Any], now: datetime
) -> None:
    old = now - timedelta(days=3)
    times = dict.fromkeys(("deadline_at", "last_checked_at", "finished_at"), old)
    job = jobs.make(state, error="HTTP 500", error_count=7, **times)

    assert operations.resume(job, actor="ann")

    job = VideoJob.objects.get()
    assert (job.status, job.finished_at, job.error, job.error_count) == ("queued", None, "", 0)
    assert job.due_at is not None
    assert job.deadline_at is not None
    assert job.due_at < now + timedelta(seconds=5)
    assert job.deadline_at > now + timedelta(seconds=1700)
    assert history(job) == [("status", "queued", "tracking resumed", "ann")]
    assert woken == [("videojobs.poll", str(job.pk))]


def test_a_job_that_was_asked_for_just_now_is_taken_up_an_interval_later(now: datetime) -> None:
    last = now - timedelta(seconds=5)
    job = jobs.make("stopped", last_checked_at=last, finished_at=last)

    operations.resume(job, actor="ann")

    assert VideoJob.objects.get().due_at == last + timedelta(seconds=30)


@pytest.mark.parametrize("checks_now", [False, True])
def test_a_job_that_was_stopped_during_a_check_is_checked_an_interval_later(
    checks_now: bool, now: datetime
) -> None:
    job = jobs.make("queued", claimed_until=now + timedelta(seconds=50))
    with time_machine.travel(now, tick=False):
        operations.stop(job, actor="ann")

    with time_machine.travel(now + timedelta(seconds=5), tick=False):
        operations.resume(job, actor="ann")
        if checks_now:
            operations.check_now(VideoJob.objects.get(), actor="ann")

    assert VideoJob.objects.get().due_at == now + timedelta(seconds=30)


def test_a_job_that_was_stopped_between_checks_is_checked_as_soon_as_it_may(now: datetime) -> None:
    last = now - timedelta(seconds=20)
    job = jobs.make("queued", last_checked_at=last)
    operations.stop(job, actor="ann")

    operations.resume(job, actor="ann")

    assert VideoJob.objects.get().due_at == last + timedelta(seconds=30)


@pytest.mark.parametrize("state", ["expired", "stopped"])
def test_without_an_id_of_the_provider_there_is_nothing_to_take_up(state: str) -> None:
    job = jobs.make(state, provider_task_id=None)

    assert not operations.resume(job, actor="ann")

    assert not VideoJob.objects.filter(conditions.CAN_BE_RESUMED).exists()


def test_a_job_that_expired_and_is_taken_up_gets_its_verdict(
    simulated_provider: Any, settings: Any, now: datetime
) -> None:
    settings.VIDEOJOBS = jobs.asked_at(simulated_provider)
    simulated_provider.add_task("proj_1", Script(["completed"]))
    job = VideoJob.objects.track("proj_1")
    VideoJob.objects.transition(
        job, status=Status.EXPIRED, due_at=None, deadline_at=now - timedelta(days=9)
    )

    operations.resume(job, actor="ann")
    services.poll(job.pk)

    assert VideoJob.objects.get().status == Status.COMPLETED


# regenerate

FINISHED = {
    *("failed", "cancelled", "expired", "stopped"),
    *("due", "stored", "mirror-failed", "skipped"),
}


def again(job: VideoJob, key: str = "k") -> VideoJob:
    return operations.regenerate(job, actor="ann", key=key)


@pytest.mark.parametrize("state", jobs.STATES)
def test_the_request_of_a_finished_job_can_be_sent_again(state: str) -> None:
    job = jobs.make(state)

    if state in FINISHED:
        assert again(job).pk != job.pk
    else:
        with pytest.raises(ValidationError, match="Only finished jobs"):
            again(job)

    assert VideoJob.objects.count() == 1 + (state in FINISHED)


def test_a_new_job_has_the_frozen_request_of_the_old_one(woken: list[Any]) -> None:
    job = jobs.make(
        "skipped",
        key="order-42",
        model="videos_stable",
        duration=7,
        params={"ratio": "9:16", "referenceImages": ["https://cdn.example.com/a.png"]},
        metadata={"order": 42},
    )

    new = VideoJob.objects.get(pk=again(job).pk)

    same = ("prompt", "model", "duration", "params", "metadata", "mirror_status")
    assert [getattr(new, name) for name in same] == [getattr(job, name) for name in same]
    assert (new.status, new.key, new.provider_task_id) == ("pending", "k", None)
    assert new.regenerated_from == job
    assert list(job.regenerated_as.all()) == [new]
    assert woken == [("videojobs.submit", str(new.pk))]


def test_both_histories_tell_who_generated_what_again() -> None:
    job = jobs.make("failed")

    new = again(job)

    assert history(new) == [("status", "pending", f"regenerated from {job.pk}", "ann")]
    assert history(job) == [("regenerated", "failed", f"regenerated as {new.pk}", "ann")]


def test_who_clicks_twice_pays_once() -> None:
    job = jobs.make("failed")

    assert again(job) == again(VideoJob.objects.get(pk=job.pk))

    assert (VideoJob.objects.count(), JobEvent.objects.count()) == (2, 2)


def test_of_two_clicks_at_once_one_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.make("failed")
    first: list[VideoJob] = []

    def check(**asked: Any) -> validation.Request:
        # No job has the key yet.
        monkeypatch.undo()
        first.append(again(job))
        return validation.check_request(**asked)

    monkeypatch.setattr(validation, "check_request", check)
    second = again(job)

    assert [second] == first
    assert (VideoJob.objects.count(), JobEvent.objects.count()) == (2, 2)


def test_another_key_is_another_order() -> None:
    job = jobs.make("failed")

    assert again(job, "a") != again(job, "b")


def test_a_key_of_another_job_generates_nothing() -> None:
    jobs.make("failed", key="k")
    job = jobs.make("failed")

    with pytest.raises(ValidationError, match="already belongs to another job"):
        again(job)

    assert VideoJob.objects.count() == 2


def test_the_worker_that_fetches_the_old_video_keeps_its_claim(now: datetime) -> None:
    job = jobs.make("due", claimed_until=now + timedelta(seconds=30), turn=4)

    again(job)

    old = VideoJob.objects.get(pk=job.pk)
    assert (old.turn, old.claimed_until) == (4, now + timedelta(seconds=30))


def test_a_request_that_is_not_allowed_any_more_is_refused(settings: Any) -> None:
    job = jobs.make("failed", duration=60)

    with pytest.raises(ValidationError, match="from 4 to 15"):
        again(job)

    assert (VideoJob.objects.count(), JobEvent.objects.count()) == (1, 0)


def test_the_spend_limit_holds_for_it(settings: Any) -> None:
    settings.VIDEOJOBS = {"MAX_ACTIVE_JOBS": 1}
    jobs.make("queued")
    job = jobs.make("failed")

    with pytest.raises(SpendLimitReached):
        again(job)

    assert (VideoJob.objects.count(), JobEvent.objects.count()) == (2, 0)


def test_the_request_of_a_tracked_job_is_not_known() -> None:
    job = jobs.make("failed", model="", prompt="", duration=None)

    with pytest.raises(ValidationError, match="whose request is known"):
        again(job)

    assert not VideoJob.objects.filter(conditions.CAN_BE_REGENERATED).exists()


def test_a_job_that_is_deleted_in_this_moment_is_not_generated_again() -> None:
    job = jobs.make("failed")

    with (
        meanwhile(JOBS, "SELECT", lambda: VideoJob.objects.all().delete()),
        pytest.raises(ValidationError, match="deleted in the meantime"),
    ):
        again(job)

    assert not VideoJob.objects.exists()


def test_a_new_job_outlives_the_one_that_it_repeats() -> None:
    job = jobs.make("failed")
    new = again(job)

    job.delete()

    assert VideoJob.objects.get() == new
    assert VideoJob.objects.get().regenerated_from is None


def test_all_of_it_is_written_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.make("failed")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("videojobs.fencing.FencedQuerySet._write_event", fail)
        with pytest.raises(RuntimeError):
            again(job)

    assert (VideoJob.objects.count(), JobEvent.objects.count()) == (1, 0)


# resolve


def an_unconfirmed_job(**fields: Any) -> VideoJob:
    return a_job(status=Status.UNCONFIRMED, error_count=3, **fields)


def test_an_attached_id_is_tracked_from_now_on(now: datetime, woken: list[Any]) -> None:
    job = an_unconfirmed_job()

    assert operations.attach(job, "proj_7", actor="ann")

    job = VideoJob.objects.get()
    assert (job.status, job.provider_task_id, job.error_count) == (Status.QUEUED, "proj_7", 0)
    assert woken == [("videojobs.poll", None)]
    assert job.deadline_at is not None
    assert job.deadline_at >= now + timedelta(seconds=1800)


def test_a_submission_that_was_not_created_is_sent_again(woken: list[Any]) -> None:
    job = an_unconfirmed_job()

    assert operations.not_created(job, actor="ann")

    job = VideoJob.objects.get()
    assert (job.status, job.error_count) == (Status.PENDING, 0)
    assert woken == [("videojobs.submit", str(job.pk))]


@pytest.mark.parametrize(
    "act",
    [
        lambda job: operations.attach(job, "proj_7", actor="ann"),
        lambda job: operations.not_created(job, actor="ann"),
    ],
)
def test_of_two_people_who_resolve_at_once_one_does(act: Callable[[VideoJob], bool]) -> None:
    job = an_unconfirmed_job()
    same = VideoJob.objects.get()

    assert [act(job), act(same)] == [True, False]

    assert [(event.new, event.actor) for event in JobEvent.objects.all()] == [(job.status, "ann")]


def test_an_id_that_another_job_has_is_refused(now: datetime) -> None:
    owner = a_job(status=Status.QUEUED, due_at=now, provider_task_id="proj_7")
    a_job(status=Status.QUEUED, due_at=now, provider_task_id="proj_7", account="studio")
    job = an_unconfirmed_job()

    with pytest.raises(ValidationError, match=f"belongs to job {owner.pk}"):
        operations.attach(job, "proj_7", actor="ann")

    assert VideoJob.objects.get(pk=job.pk).status == Status.UNCONFIRMED


def test_an_id_that_a_job_of_another_account_has_is_attached(now: datetime) -> None:
    a_job(status=Status.QUEUED, due_at=now, provider_task_id="proj_7", account="studio")
    job = an_unconfirmed_job()

    assert operations.attach(job, "proj_7", actor="ann")

    assert VideoJob.objects.get(pk=job.pk).status == Status.QUEUED


# remirror


@pytest.mark.parametrize("mirror", [MirrorStatus.FAILED, MirrorStatus.SKIPPED])
def test_an_output_is_fetched_again_from_the_first_attempt_with_a_fresh_url(
    mirror: MirrorStatus, woken: list[Any]
) -> None:
    job = a_job(
        status=Status.COMPLETED, mirror_status=mirror, mirror_attempts=9, video_url="https://old"
    )

    assert operations.remirror(job, actor="ann")

    job = VideoJob.objects.get()
    assert (job.mirror_status, job.mirror_attempts, job.video_url) == (MirrorStatus.DUE, 0, "")
    assert woken == [("videojobs.mirror", str(job.pk))]
    assert [(event.new, event.actor) for event in job.events.all()] == [("due", "ann")]


def test_a_stored_output_can_be_fetched_again(now: datetime) -> None:
    job = jobs.make("stored")

    assert operations.remirror(job, actor="ann")

    assert VideoJob.objects.get().mirror_status == MirrorStatus.DUE


@pytest.mark.parametrize(
    "fields",
    [
        {"status": Status.FAILED},
        {"status": Status.UNCONFIRMED},
        {"status": Status.QUEUED, "due_at": True},
        {**MIRROR_DUE, "due_at": True},
    ],
)
def test_without_an_output_there_is_nothing_to_fetch(fields: dict[str, Any], now: datetime) -> None:
    if "due_at" in fields:
        fields = {**fields, "due_at": now}
    job = a_job(**fields)

    assert not operations.remirror(job, actor="ann")

    assert not JobEvent.objects.exists()


def test_a_download_that_asks_for_a_fresh_url_has_asked_the_provider(
    simulated_provider: Any, settings: Any, now: datetime
) -> None:
    settings.VIDEOJOBS = jobs.asked_at(simulated_provider)
    simulated_provider.add_task("proj_1")  # still queued: there is no URL
    job = jobs.make(
        "due",
        provider_task_id="proj_1",
        endpoint=f"{simulated_provider.base_url}/v1/",
        video_url="",
        due_at=now,
    )

    services.mirror(job.pk)

    job.refresh_from_db()
    assert job.last_checked_at is not None
    assert job.last_checked_at >= now
    assert simulated_provider.checks("proj_1") == 1


def test_a_fresh_url_is_asked_for_no_sooner_than_the_providers_interval_allows(
    now: datetime,
) -> None:
    last = now - timedelta(seconds=5)
    job = jobs.make("mirror-failed", last_checked_at=last)

    assert operations.remirror(job, actor="ann")

    assert VideoJob.objects.get().due_at == last + timedelta(seconds=30)


# store unchecked


@pytest.mark.parametrize("mirror", [MirrorStatus.FAILED, MirrorStatus.DUE])
def test_a_file_that_failed_a_check_is_fetched_once_more_to_be_stored(
    mirror: MirrorStatus, woken: list[Any], now: datetime
) -> None:
    due_at = now if mirror == MirrorStatus.DUE else None
    job = jobs.make("doubted", mirror_status=mirror, mirror_attempts=50, due_at=due_at)

    assert operations.store_unchecked(job, actor="ann")

    job = VideoJob.objects.get()
    assert (job.mirror_status, job.mirror_attempts, job.unchecked) == (MirrorStatus.DUE, 0, True)
    assert woken == [("videojobs.mirror", str(job.pk))]
    event = job.events.get()
    assert (event.reason, event.actor) == (
        "storing it without the media check on request",
        "ann",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"objection": ""},
        {"objection": "too large"},
        {"mirror_status": "due", "claimed_until": "now"},
        {"mirror_status": "due", "unchecked": True},
        {"mirror_status": "skipped"},
    ],
    ids=["no complete download", "too large", "a worker has it", "decided", "never asked for"],
)
def test_what_failed_no_check_is_not_stored_unchecked(
    fields: dict[str, Any], now: datetime
) -> None:
    fields |= {"due_at": now} if fields.get("mirror_status") == "due" else {}
    fields |= {"claimed_until": now} if "claimed_until" in fields else {}
    job = jobs.make("doubted", **fields)

    assert not operations.store_unchecked(job, actor="ann")

    assert not conditions.can_be_stored_unchecked(job)
    assert not VideoJob.objects.filter(conditions.CAN_BE_STORED_UNCHECKED).exists()
    assert not JobEvent.objects.exists()


def test_a_download_on_request_is_checked_again() -> None:
    job = jobs.make("doubted", unchecked=True)

    assert operations.remirror(job, actor="ann")

    job = VideoJob.objects.get()
    assert (job.unchecked, job.objection) == (False, "")

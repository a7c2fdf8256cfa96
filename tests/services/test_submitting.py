"""How a create request is sent, and the effect of each answer."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import InterfaceError, OperationalError
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
    MeddledProvider,
    before_the_record,
    changes,
    give_it_up,
    last_reason,
    lose_the_worker,
    run,
    seconds_until,
    submitted,
    tracked,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("shape", ["envelope", "envelope_int", "flat"])
def test_an_accepted_request_is_queued_under_the_providers_id(
    shape: Any, provider: MeddledProvider
) -> None:
    provider.expect("kitten", Script(create=shape))

    job = run(submitted())

    assert job.status == Status.QUEUED
    assert [job.provider_task_id] == list(provider.tasks)
    assert 25 < seconds_until(job) <= 30
    assert job.submitted_at is not None
    assert job.deadline_at == job.submitted_at + timedelta(seconds=1800)
    assert job.claimed_until is None
    assert changes(job) == [("", "pending"), ("pending", "submitting"), ("submitting", "queued")]


def test_what_was_asked_for_is_what_is_sent(provider: MeddledProvider) -> None:
    run(submitted(prompt="A kitten", duration=5, model="videos_fast", ratio="16:9"))

    [call] = provider.creates
    assert json.loads(call.body) == {
        "model": "videos_fast",
        "prompt": "A kitten",
        "duration": 5,
        "ratio": "16:9",
    }


def test_a_refusal_fails_the_job_with_its_reason(provider: MeddledProvider) -> None:
    refusal = Answer(200, {"code": "1001", "msg": "The prompt was refused.", "data": None})
    provider.expect("kitten", Script(create=refusal))

    job = run(submitted())

    assert (job.status, job.due_at) == (Status.FAILED, None)
    assert "The prompt was refused." in job.error
    assert job.finished_at is not None


def test_a_call_that_never_left_is_made_again_later_and_once(provider: MeddledProvider) -> None:
    provider.stop()
    job = run(submitted())
    assert (job.status, job.error_count) == (Status.PENDING, 1)
    assert 25 < seconds_until(job) <= 30

    provider.start()
    with time_machine.travel(timezone.now() + timedelta(seconds=61)):
        job = run(job)
    assert (job.status, job.error_count) == (Status.QUEUED, 0)
    assert len(provider.creates) == 1


AMBIGUOUS = {
    "drop": Drop(),
    "hang": Hang(5),
    "reset": Reset(),
    "500": Answer(500, "Internal Server Error"),
    "502 in html": Answer(502, "<html>Bad Gateway</html>"),
    "401 with an id": Answer(401, {"code": "401", "data": {"projectId": "proj_9"}}),
    "429 with an id": Answer(429, {"code": "429", "id": "proj_9"}),
    "408": Answer(408, "Request Timeout"),
    "409": Answer(409, "Conflict"),
    "busy": Answer(500, {"code": "429", "msg": "System busy"}),
    "garbage": HTML,
    "empty": Answer(200, {}),
    "no id": Answer(200, {"code": "0", "data": {}}),
    "contradiction": Answer(200, {"code": "1", "msg": "no", "data": {"projectId": "proj_9"}}),
}


@pytest.mark.parametrize("create", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_after_an_answer_that_leaves_it_open_nothing_is_ever_sent_again(
    create: Any, provider: MeddledProvider, settings: Any
) -> None:
    settings.VIDEOJOBS |= jobs.IMPATIENT
    provider.expect("kitten", Script(create=create))
    job = run(submitted())
    assert (job.status, job.due_at) == (Status.UNCONFIRMED, None)

    with time_machine.travel(timezone.now() + timedelta(days=2)):
        for named in (job.pk, None):
            for step in (services.submit, services.poll, services.mirror):
                step(named)
            operations.sweep()

    assert len(provider.creates) == 1
    assert VideoJob.objects.get().status == Status.UNCONFIRMED


def test_a_message_that_is_delivered_again_during_the_call_sends_nothing(
    provider: MeddledProvider,
) -> None:
    job = submitted()

    def deliver_again() -> None:
        for named in (job.pk, None):
            services.submit(named)

    provider.meanwhile = deliver_again
    run(job)

    assert len(provider.creates) == 1


@pytest.mark.parametrize(
    ("lose_it", "status"),
    [
        (lose_the_worker, Status.UNCONFIRMED),
        (give_it_up, Status.STOPPED),
        (lambda: VideoJob.objects.all().delete(), None),
    ],
)
def test_a_worker_that_lost_the_job_before_its_call_sends_nothing(
    lose_it: Callable[[], Any], status: Status | None, provider: MeddledProvider
) -> None:
    # As if a receiver took longer than the lease.
    def receive(job: VideoJob, new: str, **_: Any) -> None:
        if new == Status.SUBMITTING:
            lose_it()

    signals.status_changed.connect(receive)
    try:
        run(submitted())
    finally:
        signals.status_changed.disconnect(receive)

    assert provider.creates == []
    assert VideoJob.objects.values_list("status", flat=True).first() == status


def test_a_worker_lost_during_the_call_leaves_the_job_unconfirmed(
    provider: MeddledProvider,
) -> None:
    job = submitted()
    assert VideoJob.objects.claim(job)

    lose_the_worker()
    for named in (job.pk, None):
        services.submit(named)

    assert VideoJob.objects.get().status == Status.UNCONFIRMED
    assert provider.creates == []


def test_an_id_that_another_job_has_leaves_the_job_unconfirmed(provider: MeddledProvider) -> None:
    other = VideoJob.objects.track("proj_1")
    answer = Answer(200, {"code": "0", "data": {"projectId": "proj_1"}})
    provider.expect("kitten", Script(create=answer))

    job = run(submitted())

    assert (job.status, job.provider_task_id, job.due_at) == (Status.UNCONFIRMED, None, None)
    other.refresh_from_db()
    assert (other.provider_task_id, other.turn) == ("proj_1", 0)


def test_an_id_that_a_job_of_another_account_has_is_recorded(provider: MeddledProvider) -> None:
    other = VideoJob.objects.track("proj_1")
    VideoJob.objects.filter(pk=other.pk).update(account="studio")
    answer = Answer(200, {"code": "0", "data": {"projectId": "proj_1"}})
    provider.expect("kitten", Script(create=answer))

    job = run(submitted())

    assert (job.account, job.status, job.provider_task_id) == ("default", Status.QUEUED, "proj_1")


def test_an_answer_that_came_after_the_lease_is_attached(provider: MeddledProvider) -> None:
    provider.meanwhile = lose_the_worker

    job = run(submitted())

    assert (job.status, [job.provider_task_id]) == (Status.QUEUED, list(provider.tasks))
    assert changes(job)[-2:] == [("submitting", "unconfirmed"), ("unconfirmed", "queued")]
    assert last_reason(job) == "the answer arrived late"
    assert job.deadline_at is not None


def test_an_answer_for_a_job_that_was_stopped_meanwhile_is_kept_for_whoever_takes_it_up(
    provider: MeddledProvider,
) -> None:
    provider.meanwhile = give_it_up

    job = run(submitted())

    assert (job.status, [job.provider_task_id]) == (Status.STOPPED, list(provider.tasks))
    assert (job.due_at, job.submitted_at is None) == (None, False)
    assert last_reason(job) == "the answer arrived late"
    assert operations.resume(job, actor="ann")
    assert run(job).check_count == 1


def test_a_stopped_job_tells_of_a_refusal_that_came_late(provider: MeddledProvider) -> None:
    provider.expect("kitten", Script(create=Answer(200, {"code": "1001", "msg": "no"})))
    provider.meanwhile = give_it_up

    job = run(submitted())

    assert (job.status, job.provider_task_id) == (Status.STOPPED, None)
    assert last_reason(job).startswith("the answer arrived late; the provider refused the request")


def test_an_answer_that_comes_late_for_a_job_that_a_person_has_sent_again_and_stopped_is_kept(
    provider: MeddledProvider,
) -> None:
    def send_again_and_stop() -> None:
        lose_the_worker()
        operations.not_created(VideoJob.objects.get(), actor="ann")
        operations.stop(VideoJob.objects.get(), actor="ann")

    provider.meanwhile = send_again_and_stop

    job = run(submitted())

    assert (job.status, [job.provider_task_id]) == (Status.STOPPED, list(provider.tasks))


def test_an_id_that_a_stopped_job_has_already_stays(
    provider: MeddledProvider, caplog: pytest.LogCaptureFixture
) -> None:
    def stop_with_an_id() -> None:
        lose_the_worker()
        operations.attach(VideoJob.objects.get(), "proj_mine", actor="ann")
        operations.stop(VideoJob.objects.get(), actor="ann")

    provider.meanwhile = stop_with_an_id

    job = run(submitted())

    [task_id] = provider.tasks
    assert job.provider_task_id == "proj_mine"
    assert f"the provider task {task_id} was created but is not tracked" in caplog.text


def test_an_answer_for_a_job_that_was_deleted_meanwhile_is_logged(
    provider: MeddledProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.meanwhile = lambda: VideoJob.objects.all().delete()

    run(submitted())

    [task_id] = provider.tasks
    assert not VideoJob.objects.exists()
    assert f"the provider task {task_id} was created but is not tracked" in caplog.text


def test_a_late_answer_whose_task_a_person_tracked_meanwhile_changes_nothing(
    provider: MeddledProvider,
) -> None:
    job = submitted()

    def track_it() -> None:
        lose_the_worker()
        VideoJob.objects.track(next(iter(provider.tasks)))

    provider.meanwhile = track_it
    job = run(job)

    assert (job.status, job.provider_task_id) == (Status.UNCONFIRMED, None)


def test_an_id_that_could_not_be_recorded_is_in_the_log(
    provider: MeddledProvider, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    def go_away() -> None:
        raise OperationalError("the database is restarting")

    caplog.set_level("INFO")

    settings.VIDEOJOBS |= {**jobs.IMPATIENT, "LEASE_MARGIN": 0.1}
    with before_the_record(go_away, nth=3, times=10**6), pytest.raises(OperationalError):
        run(submitted())

    [task_id] = provider.tasks
    assert task_id in caplog.text


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_an_answer_is_recorded_though_the_database_was_away(
    kind: type[Exception], provider: MeddledProvider
) -> None:
    def go_away() -> None:
        raise kind("the database is restarting")

    with before_the_record(go_away, nth=3, times=3):
        job = run(submitted())

    assert job.status == Status.QUEUED
    assert [job.provider_task_id] == list(provider.tasks)
    assert changes(job) == [("", "pending"), ("pending", "submitting"), ("submitting", "queued")]


def test_a_verdict_is_recorded_though_the_database_was_away(provider: MeddledProvider) -> None:
    job = tracked(provider, Script(["completed"]))

    def go_away() -> None:
        raise OperationalError("deadlock detected")

    with before_the_record(go_away, nth=2, times=2):
        job = run(job)

    assert (job.status, job.check_count, job.error_count) == (Status.COMPLETED, 1, 0)


def test_a_create_call_is_sent_though_the_database_was_away_after_the_claim(
    provider: MeddledProvider,
) -> None:
    def go_away() -> None:
        raise OperationalError("could not serialize access due to concurrent update")

    with before_the_record(go_away, nth=2, times=2):
        job = run(submitted())

    assert (job.status, len(provider.creates)) == (Status.QUEUED, 1)


def test_a_file_is_stored_though_the_database_was_away_after_its_download(
    provider: MeddledProvider,
) -> None:
    job = run(tracked(provider, Script(["completed"])))

    def go_away() -> None:
        raise OperationalError("the database is restarting")

    with before_the_record(go_away, nth=2, times=2):
        job = run(job)

    assert (job.mirror_status, job.mirror_attempts) == (MirrorStatus.STORED, 1)
    assert provider.downloads(str(job.provider_task_id)) == 1


def test_a_refusal_that_came_after_the_lease_is_recorded(provider: MeddledProvider) -> None:
    provider.expect("kitten", Script(create=Answer(200, {"code": "1001", "msg": "no"})))
    provider.meanwhile = lose_the_worker

    job = run(submitted())

    assert job.status == Status.FAILED
    assert "arrived late" in last_reason(job)


def test_a_late_answer_changes_nothing_once_a_person_has_decided(
    provider: MeddledProvider,
) -> None:
    provider.expect("kitten", Script(create=Answer(200, {"code": "1001", "msg": "no"})))

    def decide() -> None:
        lose_the_worker()
        job = VideoJob.objects.get()
        VideoJob.objects.transition(job, status="pending", due_at=timezone.now(), actor="ann")

    provider.meanwhile = decide

    assert run(submitted()).status == Status.PENDING

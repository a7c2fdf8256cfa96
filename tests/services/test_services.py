"""The three steps against a provider over real HTTP, with everything that can come between."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from celery.exceptions import SoftTimeLimitExceeded
from django.core.files.storage import FileSystemStorage
from django.db import InterfaceError, OperationalError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests import jobs
from videojobs import operations, services, signals
from videojobs.mirror import pipeline as mirroring
from videojobs.models import VideoJob
from videojobs.services.heartbeat import KeptClaim
from videojobs.states import MirrorStatus, Status
from videojobs.testing import (
    SAMPLE,
    Answer,
    Drop,
    Hang,
    Reset,
    Script,
    SimulatedProvider,
    Truncate,
)

pytestmark = pytest.mark.django_db(transaction=True)

HTML = Answer(200, "<html>Under maintenance</html>")
WAITING = Script(["queued"])


class MeddledProvider(SimulatedProvider):
    """Lets somebody act after a request came in and before it is answered.

    `meanwhile` runs in the server's thread with a connection of its own. `in_transactions` says
    of each request whether the worker that sent it was inside a transaction.
    """

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], Any] | None = None
        self.in_transactions: list[bool] = []
        self.worker = connections["default"]

    def receive(self, request: Any) -> Any:
        received = super().receive(request)
        self.in_transactions.append(self.worker.in_atomic_block)
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            try:
                act()
            finally:
                # Django itself leaves connections to a database in memory open.
                BaseDatabaseWrapper.close(connections["default"])
        return received


class WatchedStorage(FileSystemStorage):
    """Remembers whether files were written inside a transaction."""

    in_transactions: list[bool] = []

    def save(self, *args: Any, **kwargs: Any) -> str:
        self.in_transactions.append(connection.in_atomic_block)
        return super().save(*args, **kwargs)


@pytest.fixture
def provider(transactional_db: None, settings: Any) -> Iterator[MeddledProvider]:
    with MeddledProvider() as provider:
        settings.VIDEOJOBS = jobs.asked_at(provider)
        yield provider


def submitted(**kwargs: Any) -> VideoJob:
    return VideoJob.objects.submit(**{"prompt": "A kitten", "duration": 5, **kwargs})


def tracked(provider: SimulatedProvider, script: Script, **kwargs: Any) -> VideoJob:
    provider.add_task("proj_1", script)
    return VideoJob.objects.track("proj_1", **kwargs)


def completed(provider: SimulatedProvider, **options: Any) -> VideoJob:
    return run(tracked(provider, Script(["completed"], **options)))


def run(job: VideoJob, times: int = 1) -> VideoJob:
    """Do a job's next step, as the wake-up that is valid now would."""
    for _ in range(times):
        job.refresh_from_db()
        getattr(services, job.step)(str(job.pk), job.turn)
        job = VideoJob.objects.filter(pk=job.pk).first() or job
    return job


def lose_the_worker() -> None:
    """As if the worker had not come back: its lease ends, and the sweep finds out."""
    VideoJob.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    operations.sweep()


def give_it_up() -> None:
    """As if the worker had not come back, and a person had stopped the job then."""
    lose_the_worker()
    assert operations.stop(VideoJob.objects.get(), actor="ann")


def take_it(**changes: Any) -> Callable[[], Any]:
    """Somebody else changes the job, and thereby takes it over."""

    def act() -> None:
        VideoJob.objects.transition(VideoJob.objects.get(), **{"due_at": None, **changes})

    return act


def record_it(job: VideoJob, sha256: str) -> Callable[[], Any]:
    """Another worker takes the job over and records a file with this hash."""
    values = {"output_size": len(SAMPLE), "output_sha256": sha256}
    return take_it(mirror_status="stored", output=f"{job.output_stem}.mp4", **values)


def before_the_record(act: Callable[[], Any], *, nth: int, times: int = 1) -> Any:
    """A hook that acts just before a worker's nth UPDATE of a job: the first one is its claim."""
    seen = 0

    def hook(execute: Any, sql: str, *args: Any) -> Any:
        nonlocal seen
        if sql.startswith('UPDATE "videojobs_videojob"'):
            seen += 1
            if nth <= seen < nth + times:
                act()
        return execute(sql, *args)

    return connection.execute_wrapper(hook)


def seconds_until(job: VideoJob) -> float:
    assert job.due_at is not None
    return (job.due_at - timezone.now()).total_seconds()


def changes(job: VideoJob, kind: str = "status") -> list[tuple[str, str]]:
    return [(event.old, event.new) for event in job.events.filter(kind=kind)]


def last_reason(job: VideoJob) -> str:
    return job.events.values_list("reason", flat=True).reverse()[0]


def files(media: Any) -> list[Path]:
    return [path for path in Path(media).rglob("*") if path.is_file()]


# submit


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
    "401": Answer(401, {"code": "401", "msg": "The key is not valid."}),
    "402": Answer(402, {"code": "402", "msg": "Insufficient balance"}),
    "429": Answer(429, {"code": "429", "msg": "Too fast."}, {"Retry-After": "1"}),
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
        for turn in range(5):
            for step in (services.submit, services.poll, services.mirror):
                step(job.pk, turn)
            operations.sweep()

    assert len(provider.creates) == 1
    assert VideoJob.objects.get().status == Status.UNCONFIRMED


def test_a_message_that_is_delivered_again_during_the_call_sends_nothing(
    provider: MeddledProvider,
) -> None:
    job = submitted()

    def deliver_again() -> None:
        for turn in (0, 1, 2):
            services.submit(job.pk, turn)

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
    # A receiver may take any time, and a machine may sleep.
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
    VideoJob.objects.claim("submit", job.pk, 0)

    lose_the_worker()
    for turn in range(5):
        services.submit(job.pk, turn)

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


def test_an_answer_that_came_after_the_lease_is_attached(provider: MeddledProvider) -> None:
    provider.meanwhile = lose_the_worker

    job = run(submitted())

    assert (job.status, [job.provider_task_id]) == (Status.QUEUED, list(provider.tasks))
    assert changes(job)[-2:] == [("submitting", "unconfirmed"), ("unconfirmed", "queued")]
    assert last_reason(job) == "the answer came late"
    assert job.deadline_at is not None


def test_an_answer_for_a_job_that_was_stopped_meanwhile_is_kept_for_whoever_takes_it_up(
    provider: MeddledProvider,
) -> None:
    provider.meanwhile = give_it_up

    job = run(submitted())

    assert (job.status, [job.provider_task_id]) == (Status.STOPPED, list(provider.tasks))
    assert (job.due_at, job.submitted_at is None) == (None, False)
    assert last_reason(job) == "the answer came late"
    assert operations.take_up(job, actor="ann")
    assert run(job).check_count == 1


def test_a_stopped_job_tells_of_a_refusal_that_came_late(provider: MeddledProvider) -> None:
    provider.expect("kitten", Script(create=Answer(200, {"code": "1001", "msg": "no"})))
    provider.meanwhile = give_it_up

    job = run(submitted())

    assert (job.status, job.provider_task_id) == (Status.STOPPED, None)
    assert last_reason(job).startswith("the answer came late; the provider refused the request")


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
    assert f"nobody tracks the task {task_id}" in caplog.text


def test_an_answer_for_a_job_that_was_deleted_meanwhile_is_logged(
    provider: MeddledProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.meanwhile = lambda: VideoJob.objects.all().delete()

    run(submitted())

    [task_id] = provider.tasks
    assert not VideoJob.objects.exists()
    assert f"nobody tracks the task {task_id}" in caplog.text


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
    assert "came late" in last_reason(job)


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


# poll


def test_a_job_follows_the_provider_to_its_verdict(provider: MeddledProvider) -> None:
    job = tracked(provider, Script(["queued", "processing", "processing", "completed"]))

    job = run(job, times=4)

    assert changes(job) == [("", "queued"), ("queued", "processing"), ("processing", "completed")]
    assert (job.mirror_status, job.check_count) == (MirrorStatus.DUE, 4)
    assert seconds_until(job) <= 0
    assert job.finished_at is not None
    assert job.actual_duration is not None


def test_between_two_checks_lies_the_interval(provider: MeddledProvider) -> None:
    job = run(tracked(provider, WAITING))

    assert 25 < seconds_until(job) <= 30
    assert job.claimed_until is None
    assert job.last_checked_at is not None


def test_a_message_that_is_delivered_five_times_checks_once(provider: MeddledProvider) -> None:
    job = tracked(provider, WAITING)

    for _ in range(5):
        services.poll(str(job.pk), 0)

    assert provider.checks("proj_1") == 1


def test_a_step_back_is_tolerated_and_not_recorded(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script(["processing", "queued", "completed"])), times=2)

    assert (job.status, job.error_count) == (Status.PROCESSING, 0)
    assert changes(job) == [("", "queued"), ("queued", "processing")]
    assert job.events.count() == 2


TROUBLE = {
    "unknown status": Answer(200, {"id": "proj_1", "status": "dreaming"}),
    "no status": Answer(200, {"id": "proj_1"}),
    "another task": Answer(200, {"id": "proj_2", "status": "failed"}),
    "envelope": Answer(200, {"code": "500", "msg": "failed", "status": "failed"}),
    "401": Answer(401, {"code": "401", "status": "failed"}),
    "403": Answer(403, "Forbidden"),
    "404": Answer(404, {"code": "404", "msg": "no such task"}),
    "429": Answer(429, "Too fast."),
    "500": Answer(500, {"status": "failed"}),
    "html": HTML,
    "empty": Answer(200, b""),
    "drop": Drop(),
    "reset": Reset(),
    "hang": Hang(5),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_no_trouble_on_the_way_fails_a_job(
    trouble: Any, provider: MeddledProvider, settings: Any
) -> None:
    settings.VIDEOJOBS |= jobs.IMPATIENT
    job = run(tracked(provider, Script([trouble, "completed"])))

    assert (job.status, job.error_count, job.check_count) == (Status.QUEUED, 1, 1)
    assert (job.mirror_status, job.finished_at, job.error) == (MirrorStatus.NONE, None, "")
    assert seconds_until(job) > 25
    with time_machine.travel(timezone.now() + timedelta(seconds=301)):
        assert run(job).status == Status.COMPLETED


def test_a_provider_that_is_down_fails_no_job(provider: MeddledProvider) -> None:
    job = tracked(provider, WAITING)
    provider.stop()

    job = run(job)

    assert (job.status, job.error_count) == (Status.QUEUED, 1)


def test_a_mistake_of_ours_fails_no_job(provider: MeddledProvider) -> None:
    job = tracked(provider, WAITING)

    def trip() -> None:
        raise ZeroDivisionError("a mistake of ours")

    with before_the_record(trip, nth=2):
        job = run(job)

    assert (job.status, job.error_count) == (Status.QUEUED, 1)
    assert "ZeroDivisionError" in job.events.get(kind="note").reason


def test_what_a_mistake_of_ours_says_is_written_down_without_secrets(
    provider: MeddledProvider,
) -> None:
    def trip() -> None:
        raise ValueError(f"{provider.api_key} at https://a.test/x?Signature=1")

    with before_the_record(trip, nth=2):
        job = run(tracked(provider, WAITING))

    assert "https://a.test/x" in last_reason(job)
    assert "Signature" not in last_reason(job)
    assert provider.api_key not in last_reason(job)


def test_what_a_mistake_of_ours_says_is_logged_with_its_traceback_and_without_secrets(
    provider: MeddledProvider, caplog: pytest.LogCaptureFixture
) -> None:
    def trip() -> None:
        raise ValueError(f"{provider.api_key} at https://a.test/x?Signature=1")

    with before_the_record(trip, nth=2):
        run(tracked(provider, WAITING))

    assert ", in trip\n" in caplog.text
    assert "ValueError: [key] at https://a.test/x?[redacted]" in caplog.text
    assert "Signature=" not in caplog.text
    assert provider.api_key not in caplog.text


def test_the_key_never_goes_to_another_provider(provider: MeddledProvider, settings: Any) -> None:
    job = tracked(provider, WAITING)
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "BASE_URL": "http://127.0.0.1:9/elsewhere"}

    job = run(job)

    assert (job.status, job.error_count, provider.calls) == (Status.QUEUED, 1, [])


def test_the_provider_is_left_alone_for_as_long_as_it_asks(provider: MeddledProvider) -> None:
    busy = Answer(429, "Too fast.", {"Retry-After": "300"})

    job = run(tracked(provider, Script([busy])))

    assert 295 < seconds_until(job) <= 330


def test_an_outage_is_a_handful_of_events(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script([Answer(500)])), times=9)

    assert job.error_count == 9
    assert job.events.filter(kind="note").count() == 4


def test_a_task_that_is_not_known_right_after_its_creation_is_asked_for_as_usual(
    provider: MeddledProvider,
) -> None:
    job = run(tracked(provider, Script([Answer(404), "processing"])))
    wait = seconds_until(job)

    assert (job.status, 25 < wait <= 60) == (Status.QUEUED, True)
    assert run(job).status == Status.PROCESSING


def test_a_task_that_stays_unknown_is_asked_for_slowly_and_expires(
    provider: MeddledProvider,
) -> None:
    job = tracked(provider, Script([Answer(404)]))
    start = timezone.now()

    with time_machine.travel(start + timedelta(seconds=301)):
        job = run(job)
        wait = seconds_until(job)
    for seconds in (86401, 87001):
        with time_machine.travel(start + timedelta(seconds=seconds)):
            job = run(job)

    assert 595 < wait <= 600
    assert (job.status, last_reason(job)) == (Status.EXPIRED, "HTTP 404")


def test_an_outage_of_an_hour_ends_no_job(provider: MeddledProvider) -> None:
    job = tracked(provider, Script([Answer(503)]))
    start = timezone.now()

    with time_machine.travel(start, tick=False) as clock:
        while timezone.now() < start + timedelta(hours=1):
            job = run(job)
            clock.shift(timedelta(seconds=seconds_until(job)))
        provider.set_script("proj_1", Script(["completed"]))
        job = run(job)

    # Every minute until it is overdue, and then every ten.
    assert 30 < job.check_count < 40
    assert (job.status, job.error_count) == (Status.COMPLETED, 0)


def test_an_answer_ends_the_count_of_errors(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script([Answer(500), Answer(500), "queued"])), times=3)

    assert (job.error_count, job.check_count) == (0, 3)


def test_a_video_without_a_url_is_asked_for_again_by_the_download(
    provider: MeddledProvider,
) -> None:
    job = completed(provider, url_field=None)
    assert (job.status, job.mirror_status, job.video_url) == ("completed", "due", "")

    provider.set_script("proj_1", Script(["completed"]))
    job = run(job)

    assert job.mirror_status == MirrorStatus.STORED


@pytest.mark.parametrize(
    ("word", "reason", "error"),
    [
        ("failed", "The prompt was refused.", "The prompt was refused."),
        ("failed", "", "the provider says failed and gives no reason"),
        ("cancelled", "Out of funds.", "Out of funds."),
        ("cancelled", None, "the provider says cancelled and gives no reason"),
    ],
)
def test_a_bad_verdict_ends_the_job_with_its_reason(
    word: str, reason: str | None, error: str, provider: MeddledProvider
) -> None:
    job = run(tracked(provider, Script([word], error=reason)))

    assert (job.status, job.mirror_status, job.due_at) == (word, MirrorStatus.NONE, None)
    assert job.error == error == last_reason(job)
    assert job.finished_at is not None


def test_an_output_that_nobody_wants_is_not_fetched(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script(["completed"]), mirror=False))

    assert (job.status, job.mirror_status, job.due_at) == ("completed", "skipped", None)
    assert job.video_url


def test_a_job_becomes_overdue_once_and_is_polled_slowly(provider: MeddledProvider) -> None:
    job = run(tracked(provider, WAITING))
    told: list[VideoJob] = []
    signals.job_overdue.connect(note := lambda job, **_: told.append(job), weak=False)

    with time_machine.travel(timezone.now() + timedelta(seconds=1801)):
        job = run(job, times=3)
        wait = seconds_until(job)

    signals.job_overdue.disconnect(note)
    assert (job.status, told) == (Status.QUEUED, [job])
    assert 595 < wait <= 600
    assert [event.reason for event in job.events.filter(kind="overdue")] == ["past its deadline"]


def test_an_error_past_the_deadline_makes_a_job_overdue_too(provider: MeddledProvider) -> None:
    job = tracked(provider, Script([Answer(500)]))
    told: list[VideoJob] = []
    signals.job_overdue.connect(note := lambda job, **_: told.append(job), weak=False)

    with time_machine.travel(timezone.now() + timedelta(seconds=1801)):
        job = run(job, times=3)

    signals.job_overdue.disconnect(note)
    assert (job.status, told) == (Status.QUEUED, [job])


def test_a_late_success_is_stored_and_settles_once(provider: MeddledProvider) -> None:
    job = tracked(provider, Script(["queued", "completed"]))
    told: list[str] = []
    late = {"job_overdue", "job_completed", "output_stored"}
    notes = {name: (lambda name=name, **_: told.append(name)) for name in late}
    for name, note in notes.items():
        getattr(signals, name).connect(note, weak=False)

    with time_machine.travel(timezone.now() + timedelta(seconds=1801)):
        job = run(job, times=3)
        turn = job.turn
        operations.sweep(grace=0)
        services.poll(job.pk, turn)

    for name, note in notes.items():
        getattr(signals, name).disconnect(note)
    job.refresh_from_db()
    assert (job.status, job.mirror_status, job.turn) == ("completed", "stored", turn)
    assert told == ["job_overdue", "job_completed", "output_stored"]


@pytest.mark.parametrize("last", ["queued", Answer(500)])
def test_a_job_expires_after_a_last_check(last: Any, provider: MeddledProvider) -> None:
    job = tracked(provider, Script([last]))
    told: list[VideoJob] = []
    signals.job_overdue.connect(note := lambda job, **_: told.append(job), weak=False)

    for seconds in (86401, 87001):
        with time_machine.travel(timezone.now() + timedelta(seconds=seconds)):
            job = run(job)

    signals.job_overdue.disconnect(note)
    assert (job.status, job.due_at, told) == (Status.EXPIRED, None, [job])
    assert provider.checks("proj_1") == 2
    assert job.finished_at is not None
    assert last_reason(job) != ""


def test_a_verdict_at_the_last_check_is_the_verdict(provider: MeddledProvider) -> None:
    job = tracked(provider, Script(["completed"]))

    with time_machine.travel(timezone.now() + timedelta(days=30)):
        job = run(job)

    assert job.status == Status.COMPLETED


def test_a_job_without_a_deadline_is_given_one(provider: MeddledProvider) -> None:
    job = tracked(provider, WAITING)
    VideoJob.objects.update(deadline_at=None)

    job = run(job)

    assert job.deadline_at is not None
    assert 1790 < (job.deadline_at - timezone.now()).total_seconds() <= 1800


@pytest.mark.parametrize("answer", ["completed", "failed", Answer(500)])
def test_a_result_that_comes_after_the_lease_is_dropped(
    answer: Any, provider: MeddledProvider
) -> None:
    job = tracked(provider, Script([answer]))
    provider.meanwhile = lose_the_worker

    job = run(job)

    assert (job.status, job.check_count, job.error_count) == (Status.QUEUED, 0, 0)
    assert (job.turn, job.claimed_until) == (2, None)
    assert changes(job) == [("", "queued")]


def test_a_job_that_was_stopped_during_the_check_stays_stopped(provider: MeddledProvider) -> None:
    provider.meanwhile = take_it(status=Status.STOPPED, actor="ann")

    job = run(tracked(provider, Script(["completed"])))

    assert job.status == Status.STOPPED


def test_a_job_that_was_deleted_during_the_check_is_nobodys_trouble(
    provider: MeddledProvider,
) -> None:
    provider.meanwhile = lambda: VideoJob.objects.all().delete()

    run(tracked(provider, Script(["completed"])))

    assert not VideoJob.objects.exists()


def test_a_message_that_comes_after_the_end_does_nothing(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script(["failed"])))

    for turn in range(job.turn + 2):
        for step in (services.submit, services.poll, services.mirror):
            step(job.pk, turn)

    assert len(provider.calls) == 1


# mirror


def test_a_video_is_stored_as_the_provider_served_it(
    provider: MeddledProvider, media_root: Path
) -> None:
    job = run(completed(provider))

    assert (job.status, job.mirror_status, job.due_at) == ("completed", "stored", None)
    assert (job.output_size, job.output_sha256) == (len(SAMPLE), provider.sha256("proj_1"))
    assert (media_root / str(job.output.name)).read_bytes() == SAMPLE
    assert job.output.name == f"{job.output_stem}.mp4"
    assert job.content_type == "video/mp4"
    assert job.mirrored_at is not None
    assert changes(job, "mirror") == [("due", "stored")]
    assert len(files(media_root)) == 1


def test_the_url_of_the_verdict_is_used_without_asking_again(provider: MeddledProvider) -> None:
    run(completed(provider))

    assert (provider.checks("proj_1"), provider.downloads("proj_1")) == (1, 1)
    assert provider.leaks == []


BROKEN = {
    "drop": Drop(),
    "reset": Reset(),
    "broken off": Truncate(0),
    "500": Answer(500),
    "503": Answer(503, "busy", {"Retry-After": "20"}),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_failed_download_is_repaired_with_a_fresh_url_and_without_generating(
    broken: Any, provider: MeddledProvider, media_root: Path
) -> None:
    job = run(completed(provider, downloads=[broken]))
    assert (job.status, job.mirror_status, job.error_count) == ("completed", "due", 1)
    assert 25 < seconds_until(job) <= 30
    assert files(media_root) == []
    assert last_reason(job) != ""

    job = run(job)

    assert (job.mirror_status, job.error_count) == ("stored", 0)
    assert job.output_sha256 == provider.sha256("proj_1")
    assert (provider.checks("proj_1"), provider.creates) == (2, [])


def test_a_dead_url_is_replaced_by_a_fresh_one(provider: MeddledProvider) -> None:
    job = run(completed(provider, dead_urls=1))
    assert (job.mirror_status, provider.downloads("proj_1")) == ("due", 0)

    job = run(job)

    assert (job.mirror_status, provider.downloads("proj_1")) == ("stored", 1)


def test_a_host_that_asks_to_wait_is_left_alone(provider: MeddledProvider) -> None:
    job = run(completed(provider, downloads=[Answer(503, "busy", {"Retry-After": "300"})]))

    assert 295 < seconds_until(job) <= 300


@pytest.mark.parametrize("word", ["failed", "processing", "completed"])
def test_a_provider_that_names_no_output_any_more_changes_no_verdict(
    word: str, provider: MeddledProvider
) -> None:
    job = run(completed(provider, dead_urls=1))
    url = "http://127.0.0.1:9/a.mp4" if word != "completed" else None
    answer = Answer(200, {"id": "proj_1", "status": word, "video_url": url, "error": "gone"})
    provider.set_script("proj_1", Script([answer]))

    job = run(job)

    assert (job.status, job.mirror_status, job.error) == ("completed", "due", "")
    assert last_reason(job) == "the provider names no URL for the output"


def test_attempts_that_are_used_up_fail_the_download_and_not_the_job(
    provider: MeddledProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 3}
    told: list[str] = []
    signals.mirror_failed.connect(note := lambda reason, **_: told.append(reason), weak=False)

    job = run(completed(provider, downloads=[Reset()] * 9), times=3)

    signals.mirror_failed.disconnect(note)
    assert (job.status, job.mirror_status, job.due_at) == ("completed", "failed", None)
    assert (provider.downloads("proj_1"), len(told)) == (3, 1)
    assert told[0] == last_reason(job)
    assert files(media_root) == []


@pytest.mark.parametrize("output", [b"<html>Not found</html>", SAMPLE * 200])
def test_what_is_no_video_or_too_large_is_refused_at_once(
    output: bytes, provider: MeddledProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MAX_OUTPUT_BYTES": len(SAMPLE) * 100}

    job = run(completed(provider, output=output))

    assert (job.status, job.mirror_status, job.mirror_attempts) == ("completed", "failed", 1)
    assert files(media_root) == []


def test_an_address_that_is_not_allowed_is_refused_at_once(
    provider: MeddledProvider, settings: Any
) -> None:
    job = completed(provider)
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "ALLOWED_PRIVATE_NETWORKS": []}

    job = run(job)

    assert (job.mirror_status, provider.downloads("proj_1")) == ("failed", 0)


def test_a_job_that_was_deleted_during_its_download_leaves_no_file(
    provider: MeddledProvider, media_root: Path
) -> None:
    job = completed(provider)
    provider.meanwhile = lambda: VideoJob.objects.all().delete()

    run(job)

    assert files(media_root) == []


def test_a_job_that_was_deleted_while_its_file_was_stored_leaves_none(
    provider: MeddledProvider, media_root: Path
) -> None:
    job = completed(provider)

    with before_the_record(lambda: VideoJob.objects.all().delete(), nth=3):
        run(job)

    assert not VideoJob.objects.exists()
    assert files(media_root) == []


def test_a_download_that_was_taken_over_is_dropped_and_done_by_the_other(
    provider: MeddledProvider, media_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "videojobs")
    job = completed(provider)
    provider.meanwhile = lose_the_worker

    job = run(job)
    assert (job.mirror_status, job.claimed_until, files(media_root)) == ("due", None, [])
    assert "was taken over during its download" in caplog.text
    job = run(job)

    assert (job.mirror_status, len(files(media_root))) == ("stored", 1)
    assert changes(job, "mirror") == [("due", "stored")]


def test_a_worker_killed_between_storing_and_recording_leaves_one_file(
    provider: MeddledProvider, media_root: Path
) -> None:
    def killed() -> None:
        raise SystemExit

    job = completed(provider)
    with before_the_record(killed, nth=3), suppress(SystemExit):
        run(job)
    assert len(files(media_root)) == 1
    lose_the_worker()

    job = run(job)

    assert (job.mirror_status, job.output_sha256) == ("stored", provider.sha256("proj_1"))
    assert [path.name for path in files(media_root)] == [f"{job.pk}.mp4"]


@pytest.mark.parametrize(
    ("verdict", "left"), [({"mirror_status": "failed"}, 0), ({"due_at": timezone.now()}, 1)]
)
def test_a_file_that_came_too_late_stays_only_if_somebody_will_find_it(
    verdict: dict[str, Any], left: int, provider: MeddledProvider, media_root: Path
) -> None:
    job = completed(provider)

    with before_the_record(take_it(**verdict), nth=3):
        job = run(job)

    assert job.mirror_status != MirrorStatus.STORED
    assert len(files(media_root)) == left


def test_a_file_that_came_too_late_stays_if_another_worker_recorded_it(
    provider: MeddledProvider, media_root: Path
) -> None:
    job = completed(provider)
    record = record_it(job, provider.sha256("proj_1"))

    with before_the_record(record, nth=3):
        job = run(job)

    assert job.mirror_status == MirrorStatus.STORED
    assert len(files(media_root)) == 1


def test_a_file_that_came_too_late_over_one_with_other_bytes_is_fetched_again(
    provider: MeddledProvider, media_root: Path
) -> None:
    job = completed(provider)
    record = record_it(job, "f" * 64)
    with before_the_record(record, nth=3):
        job = run(job)
    assert (job.mirror_status, job.mirror_attempts) == ("due", 0)
    assert "different bytes" in job.events.get(kind="mirror", new="due").reason

    job = run(job)

    assert (job.mirror_status, job.output_sha256) == ("stored", provider.sha256("proj_1"))
    assert len(files(media_root)) == 1


def test_a_late_worker_that_fails_to_store_has_other_bytes_fetched_again(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(provider)
    record = record_it(job, "f" * 64)

    def fail_late(*_: Any) -> str:
        record()
        # To have a name for its own bytes, it has taken away the other ones.
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mirroring, "store", fail_late)
    job = run(job)

    assert (job.mirror_status, job.mirror_attempts) == ("due", 0)
    assert "different bytes" in job.events.get(kind="mirror", new="due").reason


def test_a_late_worker_that_fails_to_store_leaves_the_same_bytes_alone(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, store = completed(provider), mirroring.store
    record = record_it(job, provider.sha256("proj_1"))

    def fail_late(*args: Any) -> str:
        store(*args)
        record()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mirroring, "store", fail_late)

    assert run(job).mirror_status == "stored"


def test_a_late_worker_leaves_a_file_alone_while_storage_can_not_be_asked(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(provider)
    record = record_it(job, provider.sha256("proj_1"))

    def fail_late(*_: Any) -> str:
        record()
        raise OSError(5, "Input/output error")

    def fail(*_: Any) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(mirroring, "store", fail_late)
    monkeypatch.setattr(FileSystemStorage, "exists", fail)

    assert run(job).mirror_status == "stored"


def test_a_late_worker_that_ends_after_it_has_stored_has_other_bytes_fetched_again(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(provider)
    record, end = record_it(job, "f" * 64), KeptClaim.__exit__

    def end_late(*args: Any) -> None:
        end(*args)
        record()
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(KeptClaim, "__exit__", end_late)
    job = run(job)

    assert (job.mirror_status, job.mirror_attempts) == ("due", 0)
    assert "different bytes" in job.events.get(kind="mirror", new="due").reason


def test_a_worker_that_ends_after_it_has_stored_leaves_no_file_of_a_deleted_job(
    provider: MeddledProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, end = completed(provider), KeptClaim.__exit__

    def end_late(*args: Any) -> None:
        end(*args)
        VideoJob.objects.all().delete()
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(KeptClaim, "__exit__", end_late)
    run(job)

    assert files(media_root) == []


def test_a_file_that_came_too_late_is_looked_at_again_by_who_is_at_it(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, store = completed(provider), mirroring.store
    claims: list[VideoJob | None] = []

    def stored_late(*args: Any) -> str:
        name = store(*args)
        # Another worker has the job, has stored its own bytes, and is about to record them.
        lose_the_worker()
        claims.append(VideoJob.objects.claim("mirror", job.pk, VideoJob.objects.get().turn))
        return name

    with monkeypatch.context() as patch:
        patch.setattr(mirroring, "store", stored_late)
        run(job)

    (other,) = claims
    assert other is not None
    assert not VideoJob.objects.transition(other, due_at=None, mirror_status="failed")
    assert run(job).output_sha256 == provider.sha256("proj_1")


def test_a_file_that_came_too_late_is_looked_at_again_though_the_other_was_just_quicker(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, store = completed(provider), mirroring.store
    name = f"{job.output_stem}.mp4"

    def stored_late(*args: Any) -> str:
        saved = store(*args)
        # Another worker has the job, has stored its own bytes, and records them while we look.
        lose_the_worker()
        other = VideoJob.objects.claim("mirror", job.pk, VideoJob.objects.get().turn)
        assert other is not None
        recorded: dict[str, Any] = {
            "output": name,
            "output_size": len(SAMPLE),
            "output_sha256": "f" * 64,
        }
        stack.enter_context(
            before_the_record(
                lambda: VideoJob.objects.transition(
                    other, due_at=None, mirror_status="stored", **recorded
                ),
                nth=2,
            )
        )
        return saved

    with monkeypatch.context() as patch, ExitStack() as stack:
        patch.setattr(mirroring, "store", stored_late)
        job = run(job)

    assert (job.mirror_status, job.mirror_attempts) == ("due", 0)
    assert run(job).output_sha256 == provider.sha256("proj_1")


def test_a_file_that_came_too_late_is_not_taken_away_from_who_has_just_recorded_it(
    provider: MeddledProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, delete = completed(provider), FileSystemStorage.delete
    pending = [True]

    def delete_late(storage: FileSystemStorage, name: str) -> None:
        if pending and pending.pop():
            # A person has it fetched again, and another worker finds the file, and records it.
            assert operations.mirror_again(VideoJob.objects.get(), actor="ann")
            assert run(job).mirror_status == "stored"
        delete(storage, name)

    with monkeypatch.context() as patch, before_the_record(take_it(mirror_status="failed"), nth=3):
        patch.setattr(FileSystemStorage, "delete", delete_late)
        job = run(job)
    assert (job.mirror_status, job.mirror_attempts) == ("due", 0)

    assert run(job).mirror_status == "stored"
    assert len(files(media_root)) == 1


def test_a_late_worker_that_has_taken_the_same_bytes_away_has_them_fetched_again(
    provider: MeddledProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = run(completed(provider))
    stored = files(media_root)[0]
    stored.write_bytes(b"an older one")
    assert operations.mirror_again(job, actor="ann")
    delete = FileSystemStorage.delete

    def delete_late(storage: FileSystemStorage, name: str) -> None:
        # Frozen just before it replaces the old file: another worker does so meanwhile.
        stored.write_bytes(SAMPLE)
        record_it(job, provider.sha256("proj_1"))()
        delete(storage, name)

    def fail(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "delete", delete_late)
        patch.setattr(FileSystemStorage, "_save", fail)
        job = run(job)
    assert job.mirror_status == "due"

    assert run(job).mirror_status == "stored"
    assert len(files(media_root)) == 1


def test_attempts_that_are_lost_with_their_workers_are_bounded(
    provider: MeddledProvider,
) -> None:
    job = completed(provider)
    for _ in range(10):
        job.refresh_from_db()
        assert VideoJob.objects.claim("mirror", job.pk, job.turn)
        lose_the_worker()

    job = run(job)

    assert (job.status, job.mirror_status, job.due_at) == ("completed", "failed", None)
    assert provider.downloads("proj_1") == 0


def test_a_job_that_is_completed_without_a_url_is_not_asked_about_again_at_once(
    provider: MeddledProvider,
) -> None:
    job = completed(provider, url_field=None)

    assert job.mirror_status == MirrorStatus.DUE
    assert job.due_at is not None
    assert job.due_at - timezone.now() > timedelta(seconds=25)


def test_an_error_in_talking_to_the_provider_leaves_a_log_line(
    provider: MeddledProvider, caplog: pytest.LogCaptureFixture
) -> None:
    job = run(tracked(provider, Script([Answer(401)])))

    assert f"job={job.pk} HTTP 401" in caplog.text


# all of them


def test_no_call_and_no_file_copy_happens_inside_a_transaction(
    provider: MeddledProvider, settings: Any
) -> None:
    storage = {"BACKEND": f"{__name__}.WatchedStorage"}
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    WatchedStorage.in_transactions = []
    provider.expect("kitten", Script(["queued", "completed"], downloads=[Reset()]))

    job = run(submitted(), times=5)

    assert job.mirror_status == MirrorStatus.STORED
    assert provider.in_transactions == [False] * 6
    assert WatchedStorage.in_transactions == [False]


def test_no_secret_is_written_down(
    provider: MeddledProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "videojobs")
    said = Answer(500, {"code": "1", "msg": f"{provider.api_key} at https://a.test/x?Signature=1"})
    provider.expect("kitten", Script([said, "completed"], downloads=[Reset(), Answer(500)]))

    job = run(submitted(), times=6)

    assert job.mirror_status == MirrorStatus.STORED
    written = caplog.text + job.error + "".join(event.reason for event in job.events.all())
    assert "Signature=" not in written
    assert provider.api_key not in written


def test_a_check_costs_four_statements(provider: MeddledProvider) -> None:
    job = tracked(provider, WAITING)

    with CaptureQueriesContext(connection) as captured:
        services.poll(str(job.pk), 0)

    verbs = [query["sql"].split()[0] for query in captured]
    assert [verb for verb in verbs if verb in {"SELECT", "INSERT", "UPDATE"}] == [
        "SELECT",  # Is there a hold?
        "SELECT",  # The claim reads,
        "UPDATE",  # and takes,
        "UPDATE",  # and the answer is recorded.
    ]

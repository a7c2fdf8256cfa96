"""How an output is stored, also by workers that are lost or late."""

from contextlib import ExitStack, suppress
from copy import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from celery.exceptions import SoftTimeLimitExceeded
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError
from django.utils import timezone

from tests.support import jobs
from videojobs import operations, signals
from videojobs.managers import VideoJobQuerySet
from videojobs.mirror import pipeline as mirroring
from videojobs.models import VideoJob
from videojobs.services.heartbeat import Heartbeat
from videojobs.states import MirrorStatus
from videojobs.testing import (
    SAMPLE,
    Answer,
    Drop,
    Reset,
    Script,
    Truncate,
)

from .steps import (
    QUICKTIME,
    MeddledProvider,
    before_the_record,
    changes,
    completed,
    files,
    last_reason,
    lose_the_worker,
    record_it,
    run,
    seconds_until,
    take_it,
    tracked,
)

pytestmark = pytest.mark.django_db(transaction=True)


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


def test_a_time_limit_during_a_download_is_recorded_as_such(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch, media_root: Path
) -> None:
    def interrupted(*_: Any, **__: Any) -> bytes:
        raise SoftTimeLimitExceeded(60)

    job = completed(provider)
    monkeypatch.setattr("urllib3.response.HTTPResponse.read", interrupted)

    job = run(job)

    assert (job.mirror_status, job.error_count) == ("due", 1)
    assert last_reason(job).startswith("unexpected error: SoftTimeLimitExceeded")
    assert files(media_root) == []


def test_a_dead_url_is_replaced_by_a_fresh_one(provider: MeddledProvider) -> None:
    job = run(completed(provider, dead_urls=1))
    assert (job.mirror_status, provider.downloads("proj_1")) == ("due", 0)

    job = run(job)

    assert (job.mirror_status, provider.downloads("proj_1")) == ("stored", 1)


def test_a_host_that_asks_to_wait_is_left_alone(provider: MeddledProvider) -> None:
    job = run(completed(provider, downloads=[Answer(503, "busy", {"Retry-After": "300"})]))

    assert 295 < seconds_until(job) <= 300


def test_a_short_hold_does_not_shorten_the_interval_between_two_requests_for_a_url(
    provider: MeddledProvider,
) -> None:
    busy = Answer(429, "Too fast.", {"Retry-After": "1"})
    job = run(tracked(provider, Script(["completed", busy], dead_urls=1)), times=2)

    job = run(job)

    assert seconds_until(job) > 29


def test_the_time_of_a_request_for_a_url_is_that_of_its_response(provider: MeddledProvider) -> None:
    job = run(completed(provider, dead_urls=1))
    answered_at = []
    provider.meanwhile = lambda: answered_at.append(timezone.now())

    job = run(job)

    assert job.last_checked_at is not None
    assert job.last_checked_at > answered_at[0]


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
    assert last_reason(job) == "the provider returned no URL for the output"


NO_FRESH_URL = {
    "an outage": Answer(503),
    "no answer": Drop(),
    "a task that is gone": Answer(404),
    "a word about the key": Answer(401),
    "no URL any more": Answer(200, {"id": "proj_1", "status": "completed", "video_url": None}),
}


@pytest.mark.parametrize("answer", NO_FRESH_URL.values(), ids=NO_FRESH_URL)
def test_without_a_fresh_url_the_known_one_is_tried(answer: Any, provider: MeddledProvider) -> None:
    job = run(completed(provider, downloads=[Reset()]))
    provider.set_script("proj_1", Script([answer]))

    job = run(job)

    assert (job.mirror_status, job.output_sha256) == ("stored", provider.sha256("proj_1"))
    assert provider.checks("proj_1") == 2


@pytest.mark.parametrize("answer", NO_FRESH_URL.values(), ids=NO_FRESH_URL)
def test_without_a_fresh_url_the_reason_is_the_provider_s(
    answer: Any, provider: MeddledProvider
) -> None:
    job = run(completed(provider, dead_urls=1))
    provider.set_script("proj_1", Script([answer]))

    job = run(job)

    assert job.mirror_status == "due"
    assert "HTTP 403" not in last_reason(job)


def test_attempts_that_are_used_up_fail_the_download_and_not_the_job(
    provider: MeddledProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 3}
    received: list[str] = []
    signals.mirror_failed.connect(note := lambda reason, **_: received.append(reason), weak=False)

    job = run(completed(provider, downloads=[Reset()] * 9), times=3)

    signals.mirror_failed.disconnect(note)
    assert (job.status, job.mirror_status, job.due_at) == ("completed", "failed", None)
    assert (provider.downloads("proj_1"), len(received)) == (3, 1)
    assert received[0] == last_reason(job)
    assert files(media_root) == []


ODD_ANSWERS = {
    "an error page": Answer(200, "<html>Not found</html>"),
    "JSON": Answer(200, {"error": "expired"}),
    "no content": Answer(204),
    "a part that nobody asked for": Answer(206, SAMPLE),
    "a redirect into the network": Answer(302, "", {"Location": "http://10.0.0.1/v.mp4"}),
    "too large": Answer(200, SAMPLE * 200),
    "not found": Answer(404),
}


@pytest.mark.parametrize("odd", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_one_odd_answer_is_no_verdict_on_a_video(
    odd: Answer, provider: MeddledProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MAX_OUTPUT_BYTES": len(SAMPLE) * 100}

    job = run(completed(provider, downloads=[odd]))

    assert (job.status, job.mirror_status, job.mirror_attempts) == ("completed", "due", 1)
    assert files(media_root) == []
    assert run(job).output_sha256 == provider.sha256("proj_1")
    assert provider.checks("proj_1") == 2, "the second attempt has a fresh URL"


def test_an_output_that_is_too_large_is_given_up_after_the_second_such_answer(
    provider: MeddledProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MAX_OUTPUT_BYTES": len(SAMPLE) * 100}
    large = Answer(200, SAMPLE * 200)

    job = run(completed(provider, downloads=[Reset(), large, Answer(503), large]), times=3)
    assert job.mirror_status == "due"
    job = run(job)

    assert (job.mirror_status, job.mirror_attempts) == ("failed", 4)
    assert "MAX_OUTPUT_BYTES" in last_reason(job)
    assert files(media_root) == []


def test_an_output_that_was_too_large_is_measured_anew_after_an_operator_s_decision(
    provider: MeddledProvider, settings: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MAX_OUTPUT_BYTES": len(SAMPLE) - 1}
    job = run(completed(provider), times=2)
    assert job.mirror_status == "failed"

    operations.remirror(job, actor="ann")

    assert run(job).mirror_status == "due"


def test_an_address_that_is_not_allowed_gets_nothing_and_is_tried_again(
    provider: MeddledProvider, settings: Any
) -> None:
    job, usual = completed(provider), settings.VIDEOJOBS
    settings.VIDEOJOBS = {**usual, "ALLOWED_PRIVATE_NETWORKS": []}

    job = run(job)

    assert (job.mirror_status, provider.downloads("proj_1")) == ("due", 0)
    assert "resolves to 127.0.0.1" in last_reason(job)
    assert "ALLOWED_PRIVATE_NETWORKS" in last_reason(job)
    settings.VIDEOJOBS = usual
    assert run(job).mirror_status == "stored"


class Unwell(FileSystemStorage):
    """A storage with an outage."""

    def _save(self, name: str, content: Any) -> str:
        raise ConnectionError("the storage is down")


def test_the_site_s_own_trouble_uses_up_no_attempts(
    provider: MeddledProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 3}
    usual = settings.STORAGES
    unwell = {"BACKEND": f"{__name__}.Unwell", "OPTIONS": {"location": str(media_root)}}
    settings.STORAGES = {**usual, "default": unwell}

    job = run(completed(provider), times=6)

    assert (job.mirror_status, job.mirror_attempts, job.error_count) == ("due", 0, 6)
    assert "the storage is down" in last_reason(job)
    assert 900 < seconds_until(job) <= 1000, "but the waits grow"
    settings.STORAGES = usual
    assert run(job).mirror_status == "stored"


@pytest.mark.parametrize("wrong", [{"BASE_URL": "http://127.0.0.2:9/api"}, {"API_KEY": ""}])
def test_a_wrong_setting_uses_up_no_attempts(
    wrong: dict[str, str], provider: MeddledProvider, settings: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 2}
    usual = settings.VIDEOJOBS
    job = run(completed(provider, dead_urls=1))
    settings.VIDEOJOBS = {**usual, **wrong}

    job = run(job, times=3)

    assert (job.mirror_status, job.mirror_attempts) == ("due", 1)
    settings.VIDEOJOBS = usual
    assert run(job).mirror_status == "stored"


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
    provider.meanwhile = take_it(due_at=timezone.now())

    job = run(job)
    assert (job.mirror_status, job.claimed_until, files(media_root)) == ("due", None, [])
    assert "was taken over by another worker during its download" in caplog.text
    job = run(job)

    assert (job.mirror_status, len(files(media_root))) == ("stored", 1)
    assert changes(job, "mirror") == [("due", "stored")]


def killed_before_it_recorded(provider: MeddledProvider, media_root: Path) -> VideoJob:
    """A job whose worker stored the file, and was killed before it recorded that."""

    def killed() -> None:
        raise SystemExit

    job = completed(provider)
    with before_the_record(killed, nth=3), suppress(SystemExit):
        run(job)
    assert len(files(media_root)) == 1
    lose_the_worker()
    return job


def test_a_worker_killed_between_storing_and_recording_leaves_one_file(
    provider: MeddledProvider, media_root: Path
) -> None:
    job = killed_before_it_recorded(provider, media_root)

    job = run(job)

    assert (job.mirror_status, job.output_sha256) == ("stored", provider.sha256("proj_1"))
    assert [path.name for path in files(media_root)] == [f"{job.pk}.mp4"]


def test_the_last_attempt_leaves_no_file_of_a_worker_that_was_lost(
    provider: MeddledProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 1}

    job = killed_before_it_recorded(provider, media_root)

    job = run(job)

    assert (job.mirror_status, files(media_root)) == ("failed", [])


def test_a_last_attempt_deletes_files_only_after_its_failure_is_recorded(
    provider: MeddledProvider, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 1}
    seen: set[str] = set()
    monkeypatch.setattr(
        FileSystemStorage,
        "delete",
        lambda *_: seen.add(VideoJob.objects.get().mirror_status),
    )

    run(completed(provider, downloads=[Reset()]))

    assert seen == {"failed"}


def test_a_last_attempt_deletes_no_file_that_another_worker_has_recorded_meanwhile(
    provider: MeddledProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 1}
    job = completed(provider, downloads=[Reset()])
    record = record_it(job, provider.sha256("proj_1"))

    def store_and_record() -> None:
        stored = media_root / f"{job.output_stem}.mp4"
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(SAMPLE)
        record()

    with before_the_record(store_and_record, nth=2):
        job = run(job)

    assert (job.mirror_status, len(files(media_root))) == ("stored", 1)


def test_a_last_attempt_deletes_a_file_that_a_late_worker_stores_just_before_the_record(
    provider: MeddledProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 1}
    job = completed(provider, downloads=[Reset()])

    def store_late() -> None:
        late = media_root / f"{job.output_stem}.mp4"
        late.parent.mkdir(parents=True, exist_ok=True)
        late.write_bytes(SAMPLE)

    with before_the_record(store_late, nth=2):
        job = run(job)

    assert (job.mirror_status, files(media_root)) == ("failed", [])


def test_a_last_attempt_that_deletes_the_file_of_another_one_has_it_fetched_again(
    provider: MeddledProvider, settings: Any, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 1}
    job = completed(provider, downloads=[Reset()])
    stored = media_root / f"{job.output_stem}.mp4"
    record = record_it(job, provider.sha256("proj_1"))
    delete = FileSystemStorage.delete

    def delete_late(storage: FileSystemStorage, name: str) -> None:
        if not stored.exists() and name.endswith(".mp4"):  # another worker has the job meanwhile
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_bytes(SAMPLE)
            assert operations.remirror(VideoJob.objects.get(), actor="ann")
            record()
        delete(storage, name)

    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "delete", delete_late)
        job = run(job)

    assert (job.mirror_status, files(media_root)) == ("due", [])
    assert run(job).mirror_status == "stored"


@pytest.mark.parametrize(
    ("change", "left"), [({"mirror_status": "failed"}, 0), ({"due_at": timezone.now()}, 1)]
)
def test_a_file_that_came_too_late_stays_only_if_somebody_will_find_it(
    change: dict[str, Any], left: int, provider: MeddledProvider, media_root: Path
) -> None:
    job = completed(provider)

    with before_the_record(take_it(**change), nth=3):
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


@pytest.mark.parametrize(
    ("state", "values", "since"),
    [
        ("stored", {"last_checked_at": -5}, -5),
        # The worker that has it may be requesting a URL at this moment.
        ("due", {"last_checked_at": -20, "claimed_until": 50}, 0),
    ],
)
def test_a_download_is_repeated_an_interval_after_the_last_request_at_the_earliest(
    state: str, values: dict[str, float], since: float
) -> None:
    now = timezone.now()
    job = jobs.make(
        state, **{name: now + timedelta(seconds=value) for name, value in values.items()}
    )

    with time_machine.travel(now, tick=False):
        VideoJob.objects.remirror_if(job.pk, lambda job: "two workers stored different bytes")

    job.refresh_from_db()
    interval = timedelta(seconds=30)
    assert (job.claimed_until, job.due_at) == (None, now + timedelta(seconds=since) + interval)
    assert job.last_checked_at == now + timedelta(seconds=since)


def test_a_late_worker_that_fails_to_store_has_other_bytes_fetched_again(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(provider)
    record = record_it(job, "f" * 64)

    def fail_late(*_: Any) -> str:
        record()
        # It has deleted the other worker's file to store its own.
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

    def fail(*_: Any) -> bool:
        raise OSError(5, "Input/output error")

    def fail_late(*_: Any) -> str:
        record()
        monkeypatch.setattr(FileSystemStorage, "exists", fail)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(mirroring, "store", fail_late)

    assert run(job).mirror_status == "stored"


def test_a_late_worker_that_ends_after_it_has_stored_has_other_bytes_fetched_again(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(provider)
    record, end = record_it(job, "f" * 64), Heartbeat.__exit__

    def end_late(*args: Any) -> None:
        end(*args)
        record()
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(Heartbeat, "__exit__", end_late)
    job = run(job)

    assert (job.mirror_status, job.mirror_attempts) == ("due", 0)
    assert "different bytes" in job.events.get(kind="mirror", new="due").reason


def test_a_worker_that_ends_after_it_has_stored_leaves_no_file_of_a_deleted_job(
    provider: MeddledProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, end = completed(provider), Heartbeat.__exit__

    def end_late(*args: Any) -> None:
        end(*args)
        VideoJob.objects.all().delete()
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(Heartbeat, "__exit__", end_late)
    run(job)

    assert files(media_root) == []


def test_a_file_that_came_too_late_is_looked_at_again_by_who_is_at_it(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, store = completed(provider), mirroring.store
    claims: list[VideoJob] = []

    def stored_late(*args: Any) -> str:
        name = store(*args)
        # Another worker has stored its own bytes and is about to record them.
        lose_the_worker()
        other = VideoJob.objects.get()
        assert VideoJob.objects.claim(other)
        claims.append(other)
        return name

    with monkeypatch.context() as patch:
        patch.setattr(mirroring, "store", stored_late)
        run(job)

    (other,) = claims
    assert not VideoJob.objects.transition(other, due_at=None, mirror_status="failed")
    assert run(job).output_sha256 == provider.sha256("proj_1")


def test_a_file_that_came_too_late_is_looked_at_again_though_the_other_was_just_quicker(
    provider: MeddledProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, store = completed(provider), mirroring.store
    name = f"{job.output_stem}.mp4"

    def stored_late(*args: Any) -> str:
        saved = store(*args)
        # Another worker has stored its own bytes and records them during the check.
        lose_the_worker()
        other = VideoJob.objects.get()
        assert VideoJob.objects.claim(other)
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
            # The output is downloaded again, and another worker finds and records the file.
            assert operations.remirror(VideoJob.objects.get(), actor="ann")
            assert run(job).mirror_status == "stored"
        delete(storage, name)

    with monkeypatch.context() as patch, before_the_record(take_it(mirror_status="failed"), nth=3):
        patch.setattr(FileSystemStorage, "delete", delete_late)
        job = run(job)
    assert (job.mirror_status, job.mirror_attempts) == ("due", 0)

    assert run(job).mirror_status == "stored"
    assert len(files(media_root)) == 1


def test_a_file_that_is_taken_away_late_after_another_kind_was_stored_is_fetched_again(
    provider: MeddledProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, delete = run(completed(provider)), FileSystemStorage.delete
    pending = [True]

    def delete_late(storage: FileSystemStorage, name: str) -> None:
        if name.endswith(".mp4") and pending and pending.pop():
            # Paused after its record: another worker stores the first kind again meanwhile.
            provider.set_script("proj_1", Script(["completed"]))
            assert operations.remirror(VideoJob.objects.get(), actor="ann")
            assert run(job).output.name == name
        delete(storage, name)

    provider.set_script("proj_1", Script(["completed"], output=QUICKTIME))
    assert operations.remirror(job, actor="ann")
    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "delete", delete_late)
        job = run(job)
    assert job.mirror_status == "due"

    assert run(job).mirror_status == "stored"
    assert [path.name for path in files(media_root)] == [f"{job.pk}.mp4"]


def test_a_late_worker_that_has_taken_the_same_bytes_away_has_them_fetched_again(
    provider: MeddledProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = run(completed(provider))
    stored = files(media_root)[0]
    stored.write_bytes(b"an older one")
    assert operations.remirror(job, actor="ann")
    delete = FileSystemStorage.delete

    def delete_late(storage: FileSystemStorage, name: str) -> None:
        # Paused just before it replaces the old file, which another worker does meanwhile.
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


def test_a_storage_that_fails_after_it_has_saved_has_one_file_after_the_next_attempt(
    provider: MeddledProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(provider)
    save = FileSystemStorage._save  # type: ignore[attr-defined]

    def save_and_fail(*arguments: Any) -> str:
        save(*arguments)
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "_save", save_and_fail)
        assert run(job).mirror_status == "due"

    assert run(job).mirror_status == "stored"
    assert len(files(media_root)) == 1


def test_a_storage_that_fails_after_it_has_saved_leaves_no_file_of_another_kind(
    provider: MeddledProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(provider)

    def save_another_and_fail(storage: FileSystemStorage, name: str, content: Any) -> str:
        path = Path(storage.path(name)).with_suffix(".webm")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half a video")
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "_save", save_another_and_fail)
        run(job)
    job = run(job)

    assert (job.mirror_status, job.mirror_attempts) == ("stored", 1)
    assert [path.name for path in files(media_root)] == [f"{job.pk}.mp4"]


def test_a_record_whose_answer_is_lost_leaves_no_file_of_another_kind(
    provider: MeddledProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = run(completed(provider))
    provider.set_script("proj_1", Script(["completed"], output=QUICKTIME))
    assert operations.remirror(job, actor="ann")
    transition = VideoJobQuerySet.transition

    def without_an_answer(rows: VideoJobQuerySet, job: VideoJob, **changes: Any) -> bool:
        if changes.get("mirror_status") != "stored":
            return transition(rows, job, **changes)
        if transition(rows, copy(job), **changes):
            raise OperationalError("server closed the connection unexpectedly")
        return False

    with monkeypatch.context() as patch:
        patch.setattr(VideoJobQuerySet, "transition", without_an_answer)
        job = run(job)

    assert job.mirror_status == "stored"
    assert [path.name for path in files(media_root)] == [f"{job.pk}.mov"]


def test_a_repeated_download_leaves_one_file_whatever_an_earlier_attempt_has_stored(
    provider: MeddledProvider, media_root: Path
) -> None:
    job = killed_before_it_recorded(provider, media_root)
    (earlier,) = files(media_root)
    earlier.rename(earlier.with_suffix(".webm"))

    job = run(job)

    assert [path.name for path in files(media_root)] == [f"{job.pk}.mp4"]


def test_a_file_that_a_receiver_has_taken_away_is_not_downloaded_again(
    provider: MeddledProvider, media_root: Path
) -> None:
    job = run(completed(provider, downloads=[Reset()]))

    def take_away(job: VideoJob, **_: Any) -> None:
        job.output.storage.delete(str(job.output.name))

    signals.output_stored.connect(take_away)
    job = run(job)
    signals.output_stored.disconnect(take_away)

    assert (job.mirror_status, job.mirror_attempts, files(media_root)) == ("stored", 2, [])


def test_attempts_that_are_lost_with_their_workers_are_bounded(
    provider: MeddledProvider, settings: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 3}
    job = completed(provider)
    for _ in range(3):
        job.refresh_from_db()
        assert VideoJob.objects.claim(job)
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

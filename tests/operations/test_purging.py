"""The purge deletes finished jobs with their files, and touches nothing else."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import models, transaction
from django.utils import timezone

from tests.support.races import meanwhile
from videojobs import operations
from videojobs.models import JobEvent, VideoJob
from videojobs.states import TERMINAL, MirrorStatus, Status

from .rows import MIRROR_DUE, a_job

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def defaults(settings: Any) -> None:
    settings.VIDEOJOBS = {}


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def rows() -> list[dict[str, Any]]:
    return [dict(row) for row in VideoJob.objects.order_by("pk").values()]


def a_finished_job(now: datetime, *, days: float, **fields: Any) -> VideoJob:
    defaults = {"status": Status.FAILED, "finished_at": now - days * DAY}
    return a_job(**{**defaults, **fields})


def a_stored_job(now: datetime, *, days: float) -> VideoJob:
    job = a_finished_job(now, days=days, status=Status.COMPLETED)
    job.output.save(f"{job.pk}.mp4", ContentFile(b"video"), save=False)
    job.poster.save(f"{job.pk}.jpg", ContentFile(b"poster"), save=False)
    job.output_size, job.output_sha256, job.mirror_status = 5, "f" * 64, MirrorStatus.STORED
    job.save(update_fields=["output", "poster", "output_size", "output_sha256", "mirror_status"])
    return job


def files(media: Any) -> set[str]:
    return {path.name for path in Path(media).rglob("*.*") if path.is_file()}


def test_only_what_finished_long_ago_is_deleted_with_its_events(now: datetime) -> None:
    old = a_finished_job(now, days=31)
    JobEvent.objects.create(job=old, kind="note", new="failed")
    young = a_finished_job(now, days=29)

    assert operations.purge(older_than=30 * DAY) == 1

    assert list(VideoJob.objects.all()) == [young]
    assert not JobEvent.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"status": Status.PENDING, "due_at": True},
        {"status": Status.SUBMITTING, "due_at": True},
        {"status": Status.QUEUED, "due_at": True},
        {"status": Status.PROCESSING, "due_at": True},
        {"status": Status.UNCONFIRMED},
        {**MIRROR_DUE, "due_at": True},
        {"status": Status.STOPPED, "finished_at": None},
    ],
)
def test_what_is_not_finished_is_never_deleted(fields: dict[str, Any], now: datetime) -> None:
    if "due_at" in fields:
        fields = {**fields, "due_at": now}
    a_finished_job(now, days=999, **{"created_at": now - 999 * DAY, **fields})

    assert operations.purge(older_than=DAY) == 0

    assert VideoJob.objects.count() == 1


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_every_terminal_status_is_purged(status: Status, now: datetime) -> None:
    a_finished_job(now, days=2, status=status)

    assert operations.purge(older_than=DAY) == 1


def test_the_files_go_with_their_job_and_no_others(now: datetime, media_root: Path) -> None:
    a_stored_job(now, days=31)
    young = a_stored_job(now, days=1)

    operations.purge(older_than=30 * DAY)

    assert files(media_root) == {f"{young.pk}.mp4", f"{young.pk}.jpg"}


def test_files_stay_as_long_as_the_deletion_can_be_rolled_back(
    now: datetime, media_root: Path
) -> None:
    a_stored_job(now, days=31)

    with transaction.atomic():
        operations.purge(older_than=30 * DAY)
        transaction.set_rollback(True)

    assert VideoJob.objects.count() == 1
    assert len(files(media_root)) == 2


def test_a_storage_that_refuses_to_delete_stops_neither_the_purge_nor_its_caller(
    now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(FileSystemStorage, "delete", refuse)
    a_stored_job(now, days=31)
    a_stored_job(now, days=32)

    assert operations.purge(older_than=30 * DAY) == 2


def test_a_dry_run_counts_and_deletes_nothing(now: datetime, media_root: Path) -> None:
    a_stored_job(now, days=31)
    a_stored_job(now, days=1)
    before = rows()

    assert operations.purge(older_than=30 * DAY, dry_run=True) == 1

    assert rows() == before
    assert len(files(media_root)) == 4


def test_without_an_age_nothing_is_deleted(now: datetime, settings: Any) -> None:
    a_finished_job(now, days=999)
    settings.VIDEOJOBS = {"PURGE_AFTER": None}

    assert operations.purge() == 0

    assert VideoJob.objects.count() == 1


def test_the_age_comes_from_the_settings_in_days(now: datetime, settings: Any) -> None:
    a_finished_job(now, days=3)
    a_finished_job(now, days=1)
    settings.VIDEOJOBS = {"PURGE_AFTER": 2}

    assert operations.purge() == 1


def test_an_age_of_nothing_is_an_age(now: datetime, settings: Any) -> None:
    a_finished_job(now, days=1)
    settings.VIDEOJOBS = {"PURGE_AFTER": 2}

    assert operations.purge(older_than=timedelta(0)) == 1


def test_more_jobs_than_fit_into_one_batch_are_deleted(now: datetime, settings: Any) -> None:
    settings.VIDEOJOBS = {"SWEEP_BATCH": 2}
    for _ in range(5):
        a_finished_job(now, days=31)

    assert operations.purge(older_than=DAY) == 5

    assert not VideoJob.objects.exists()


def test_a_job_that_is_generated_again_in_this_moment_stops_no_purge(now: datetime) -> None:
    for _ in range(2):
        a_stored_job(now, days=31)
    first, second = VideoJob.objects.order_by("pk")  # MariaDB sorts UUIDs in another way.

    def regenerate() -> None:
        VideoJob.objects.create(due_at=now, regenerated_from_id=first.pk)

    with meanwhile("videojobs_videojob", "DELETE", regenerate):
        deleted = operations.purge(older_than=DAY)

    assert deleted == 1
    assert not VideoJob.objects.filter(pk=second.pk).exists()


def test_a_job_that_a_person_takes_up_again_in_this_moment_is_kept(
    now: datetime, media_root: Path
) -> None:
    job = a_stored_job(now, days=31)

    def retry() -> None:
        VideoJob.objects.filter(pk=job.pk).update(
            turn=1, mirror_status=MirrorStatus.DUE, due_at=timezone.now()
        )

    with meanwhile("videojobs_videojob", "UPDATE", retry):
        deleted = operations.purge(older_than=DAY)

    assert (deleted, VideoJob.objects.count(), len(files(media_root))) == (0, 1, 2)


def test_a_job_that_somebodys_row_protects_does_not_hold_up_the_others(
    now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        a_finished_job(now, days=31)
    kept = VideoJob.objects.order_by("pk")[1]
    JobEvent.objects.create(job=kept, kind="note", new="failed")
    # Like a site's own model with ForeignKey(VideoJob, on_delete=PROTECT).
    relation = JobEvent._meta.get_field("job").remote_field
    monkeypatch.setattr(relation, "on_delete", models.PROTECT)

    assert operations.purge(older_than=DAY) == 2

    assert VideoJob.objects.get() == kept


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_a_purge_of_one_status_leaves_the_others(status: Status, now: datetime) -> None:
    for each in sorted(TERMINAL):
        a_finished_job(now, days=2, status=each)

    assert operations.purge(older_than=DAY, statuses=[status]) == 1

    assert not VideoJob.objects.filter(status=status).exists()


def test_a_purge_of_a_status_that_is_not_the_end_deletes_nothing(now: datetime) -> None:
    a_finished_job(now, days=2)
    a_job(status=Status.QUEUED, due_at=now, created_at=now - 9 * DAY)

    assert operations.purge(older_than=DAY, statuses=[Status.QUEUED]) == 0

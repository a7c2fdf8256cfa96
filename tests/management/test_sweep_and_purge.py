from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.files.storage import FileSystemStorage, Storage
from django.utils import timezone

from tests.management.run import run
from tests.support import jobs
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db


def ago(seconds: float) -> Any:
    return timezone.now() - timedelta(seconds=seconds)


def test_sweep_reports_the_number_of_jobs() -> None:
    jobs.make(due_at=ago(1000))
    jobs.make("submitting", due_at=ago(1000), claimed_until=ago(900))
    jobs.make()

    ended = run("videojobs_sweep")

    assert "1 wake-ups sent, 1 unconfirmed." in ended.out
    assert "run videojobs_resolve" in ended.out
    assert VideoJob.objects.filter(status="unconfirmed").count() == 1


def test_a_sweep_without_anything_to_do_says_so() -> None:
    assert run("videojobs_sweep").out == "0 wake-ups sent, 0 unconfirmed.\n"


@pytest.mark.django_db(transaction=True)
def test_a_sweep_returns_when_its_wake_ups_are_on_the_broker(make_app: Any) -> None:
    app = make_app("memory://")
    jobs.make(due_at=ago(20))

    run("videojobs_sweep")

    with app.connection_for_read() as connection:
        bound = app.amqp.queues["videojobs"](connection.default_channel)
        names = [m.headers["task"] for m in iter(lambda: bound.get(no_ack=True), None)]
    assert "videojobs.poll" in names


def test_purge_asks_how_old(settings: Any) -> None:
    settings.VIDEOJOBS = {}
    jobs.make("failed", finished_at=ago(1e7))

    ended = run("videojobs_purge")

    assert "--older-than" in ended.error
    assert "PURGE_AFTER" in ended.error
    assert ended.code == 1
    assert VideoJob.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_purge_deletes_old_jobs_with_their_files() -> None:
    old = jobs.make_stored(finished_at=ago(3 * 86400))
    young = jobs.make("failed")

    planned = run("videojobs_purge", "--older-than=2", "--dry-run")
    assert planned.out == "Jobs to delete: 1.\n"
    assert VideoJob.objects.count() == 2

    assert run("videojobs_purge", "--older-than=2").out == "Jobs deleted: 1.\n"
    assert VideoJob.objects.get() == young
    assert not old.output.storage.exists("2026/sample.mp4")


def test_purge_takes_the_setting_and_the_option_goes_before_it(settings: Any) -> None:
    settings.VIDEOJOBS = {"PURGE_AFTER": 1}
    jobs.make("failed", finished_at=ago(2 * 86400))

    assert run("videojobs_purge", "--dry-run", "--older-than=3").out == "Jobs to delete: 0.\n"
    assert run("videojobs_purge", "--dry-run").out == "Jobs to delete: 1.\n"


def test_purge_takes_no_days_for_a_number_of_days() -> None:
    jobs.make("failed", finished_at=ago(5))

    assert run("videojobs_purge", "--older-than=0").out == "Jobs deleted: 1.\n"


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "1e9", "x"])
def test_a_senseless_age_is_an_error(days: str) -> None:
    assert "is not a number of days" in run("videojobs_purge", f"--older-than={days}").error


@pytest.fixture
def orphans(media_root: Path) -> list[Path]:
    """An old video and an old partial file without jobs."""
    directory = media_root / "videojobs" / "2030" / "01"
    directory.mkdir(parents=True)
    names = [f"{uuid4()}.mp4", f".{uuid4()}.x1.part"]
    for name in names:
        (directory / name).write_bytes(b"left")
        os.utime(directory / name, (ago(3 * 86400).timestamp(),) * 2)
    return [directory / name for name in names]


def a_known_file(directory: Path) -> VideoJob:
    """An old job with a video at the path that a worker would have used."""
    pk = uuid4()
    (directory / f"{pk}.mp4").write_bytes(b"known")
    return jobs.make("stored", pk=pk, output=f"videojobs/2030/01/{pk}.mp4", finished_at=ago(3e5))


def test_orphans_are_shown_before_they_are_removed(orphans: list[Path]) -> None:
    a_known_file(orphans[0].parent)

    planned = run("videojobs_purge", "--orphans", "--dry-run")

    assert planned.out.splitlines()[-1] == "Orphans to remove: 2."
    assert {line.split()[0] for line in planned.out.splitlines()[:-1]} == {"file", "part"}
    assert all(f"videojobs/2030/01/{path.name}" in planned.out for path in orphans)
    assert all(path.exists() for path in orphans)


def test_orphans_are_removed_and_jobs_stay(orphans: list[Path]) -> None:
    old = a_known_file(orphans[0].parent)

    assert run("videojobs_purge", "--orphans").out.splitlines()[-1] == "Orphans removed: 2."

    assert not any(path.exists() for path in orphans)
    assert VideoJob.objects.get() == old
    assert Path(old.output.path).exists()


def test_orphans_that_are_younger_than_was_asked_stay(orphans: list[Path]) -> None:
    assert run("videojobs_purge", "--orphans", "--older-than=4").out == "Orphans removed: 0.\n"


def test_nothing_is_removed_from_what_looks_like_another_site_s_storage(
    media_root: Path, orphans: list[Path]
) -> None:
    for _ in range(10):
        path = orphans[0].with_name(f"{uuid4()}.mp4")
        path.write_bytes(b"theirs")
        os.utime(path, (ago(3 * 86400).timestamp(),) * 2)

    ended = run("videojobs_purge", "--orphans")

    assert "Files without a job: 11" in ended.error
    assert "this is the right database" in ended.error
    assert all(path.exists() for path in orphans)
    assert run("videojobs_purge", "--orphans", "--force").out.endswith("Orphans removed: 12.\n")


class Stubborn(FileSystemStorage):
    def delete(self, name: str) -> None:
        if name.endswith(".mp4"):
            raise PermissionError(13, "Permission denied")
        super().delete(name)


def test_an_orphan_that_can_t_be_removed_keeps_no_other_one(
    orphans: list[Path], settings: Any
) -> None:
    entry = {"BACKEND": f"{__name__}.Stubborn"}
    settings.STORAGES = {**settings.STORAGES, "default": entry}
    a_known_file(orphans[0].parent)

    ended = run("videojobs_purge", "--orphans")

    assert ended.error.startswith("Orphans that could not be removed: 1.")
    assert "Permission denied" in ended.err
    assert [path.exists() for path in orphans] == [True, False]


def test_an_orphan_has_no_status() -> None:
    assert "--status" in run("videojobs_purge", "--orphans", "--status=failed").error


class Unlisted(FileSystemStorage):
    listdir = Storage.listdir


def test_a_storage_that_can_t_be_listed_is_an_error(settings: Any) -> None:
    entry = {"BACKEND": f"{__name__}.Unlisted"}
    settings.STORAGES = {**settings.STORAGES, "default": entry}

    assert "can't list its files" in run("videojobs_purge", "--orphans").error

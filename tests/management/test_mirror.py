from __future__ import annotations

import pytest

from tests.management.run import run
from tests.support import jobs
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db


def test_a_failed_download_is_tried_again_by_id() -> None:
    job = jobs.make("mirror-failed")

    ended = run("videojobs_mirror", str(job.pk))

    assert (ended.out, ended.error) == (f"{job.pk}\n", "")
    assert VideoJob.objects.get().mirror_status == "due"
    assert job.events.get().actor == "command line"


def test_all_failed_downloads_are_tried_again() -> None:
    failed = {jobs.make("mirror-failed").pk for _ in range(3)}
    jobs.make("stored")

    ended = run("videojobs_mirror", "--failed")

    assert len(ended.out.split()) == 3
    assert set(VideoJob.objects.filter(mirror_status="due").values_list("pk", flat=True)) == failed


def test_a_job_without_output_is_named_and_the_others_are_mirrored() -> None:
    waiting, failed = jobs.make("queued"), jobs.make("mirror-failed")

    ended = run("videojobs_mirror", str(waiting.pk), str(failed.pk))

    reason = "Its status is queued, its mirror status is none."
    assert f"{waiting.pk} skipped: {reason}" in ended.err
    assert ended.error == "1 of 2 jobs have no output to download."
    assert ended.out == f"{failed.pk}\n"


@pytest.mark.parametrize("arguments", [[], ["--failed", "x"]])
def test_it_asks_which_ones_are_meant(arguments: list[str]) -> None:
    assert "either job IDs or --failed" in run("videojobs_mirror", *arguments).error


def test_failed_without_any_is_fine() -> None:
    assert run("videojobs_mirror", "--failed").error == ""


def test_a_file_that_failed_a_check_is_stored_unchecked_by_id() -> None:
    job = jobs.make("doubted")

    ended = run("videojobs_mirror", "--unchecked", str(job.pk))

    assert (ended.out, ended.error) == (f"{job.pk}\n", "")
    assert VideoJob.objects.get().unchecked
    assert job.events.get().actor == "command line"


def test_only_a_file_that_failed_a_check_is_stored_unchecked() -> None:
    job = jobs.make("mirror-failed")

    ended = run("videojobs_mirror", "--unchecked", str(job.pk))

    assert f"{job.pk} skipped: No complete download of it failed the media check." in ended.err
    assert VideoJob.objects.get().mirror_status == "failed"


def test_files_are_stored_unchecked_one_by_one() -> None:
    assert "give the IDs" in run("videojobs_mirror", "--unchecked", "--failed").error

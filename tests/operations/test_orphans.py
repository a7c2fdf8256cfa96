"""Orphans are found and removed; files that may be in use are not."""

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, storages
from django.utils import timezone

from tests.support import jobs
from tests.support.object_store import Bucket
from videojobs import operations
from videojobs.models import VideoJob
from videojobs.operations import orphans

pytestmark = pytest.mark.django_db

DAY = 86400.0
MONTH = "videojobs/2030/01"
LONG_AGO = timezone.now() - timedelta(days=400)


@pytest.fixture
def later() -> Iterator[time_machine.Traveller]:
    """A clock; `found` moves it by two days, past the grace."""
    with time_machine.travel(time.time(), tick=True) as clock:
        yield clock


@pytest.fixture(params=["on a disk", "in S3"])
def place(request: pytest.FixtureRequest, settings: Any, tmp_path: Path, monkeypatch: Any) -> str:
    """The storage of the videos; for S3, partial files are in the temporary directory."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    if request.param == "in S3":
        entry = request.getfixturevalue("bucket").entry
        settings.STORAGES = {**settings.STORAGES, "default": entry}
    return str(request.param)


def put(name: str, body: bytes = b"video") -> str:
    saved: str = storages["default"].save(name, ContentFile(body))
    return saved


def a_name(job: VideoJob | uuid.UUID, extension: str = ".mp4", directory: str = MONTH) -> str:
    return f"{directory}/{job.pk if isinstance(job, VideoJob) else job}{extension}"


def a_job(status: str = "completed", **fields: Any) -> VideoJob:
    return jobs.make(status, **{"finished_at": LONG_AGO, **fields})


def stored(**fields: Any) -> VideoJob:
    """A job with a stored video and poster."""
    pk = uuid.uuid4()
    names = {"output": put(a_name(pk)), "poster": put(a_name(pk, ".jpg"))}
    values = {"mirror_status": "stored", "output_size": 5, "output_sha256": "f" * 64}
    return a_job(pk=pk, **{**values, **names, **fields})


def found(clock: time_machine.Traveller, **options: Any) -> list[tuple[str, str]]:
    clock.shift(2 * DAY)
    return sorted((orphan.kind, orphan.name) for orphan in orphans.search(**options).orphans)


@pytest.mark.usefixtures("place")
def test_files_without_a_job_are_found_and_removed(later: time_machine.Traveller) -> None:
    gone = uuid.uuid4()
    names = [put(a_name(gone, extension)) for extension in (".jpg", ".mp4", ".webm")]
    later.shift(2 * DAY)

    search = orphans.search()

    assert sorted(orphan.name for orphan in search.orphans) == names
    assert [orphan.remove() for orphan in search.orphans] == [True] * 3
    assert orphans.search().orphans == []


@pytest.mark.usefixtures("place")
def test_files_that_a_job_names_stay(later: time_machine.Traveller) -> None:
    stored()
    stored(mirror_status="failed")

    assert found(later) == []
    assert orphans.search().known == 4


def test_a_file_that_its_job_does_not_name_is_found(later: time_machine.Traveller) -> None:
    job = a_job(mirror_status="failed")
    name = put(a_name(job))

    assert found(later) == [("file", name)]


def test_a_file_under_another_directory_than_its_job_names_is_found(
    later: time_machine.Traveller,
) -> None:
    job = stored()
    elsewhere = put(a_name(job, directory="videojobs/2031/02"))

    assert found(later) == [("file", elsewhere)]


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "completed", "mirror_status": "due", "due_at": timezone.now()},
        {"status": "processing", "provider_task_id": "t", "due_at": timezone.now()},
        {"status": "unconfirmed"},
        {"status": "pending", "due_at": timezone.now()},
    ],
    ids=lambda fields: fields["status"],
)
def test_what_the_next_step_of_a_job_could_find_stays(
    later: time_machine.Traveller, fields: dict[str, Any]
) -> None:
    job = a_job(**{"finished_at": None, **fields})
    put(a_name(job))
    put(f"{MONTH}/.{job.pk}.x1.part")

    assert found(later) == []


def test_what_is_young_stays(later: time_machine.Traveller) -> None:
    put(a_name(uuid.uuid4()))
    later.shift(0.9 * DAY)

    assert orphans.search().orphans == []


def test_nothing_is_old_that_a_step_under_way_could_have_made(
    later: time_machine.Traveller, settings: Any
) -> None:
    settings.VIDEOJOBS = {"DOWNLOAD_TIMEOUT": 600.0}
    put(a_name(uuid.uuid4()))
    later.shift(1000)
    assert orphans.search(older_than=timedelta(0)).orphans == []

    later.shift(1000)

    assert len(orphans.search(older_than=timedelta(0)).orphans) == 1


@pytest.mark.parametrize(
    "name",
    [
        f"{MONTH}/holiday.mp4",
        f"{MONTH}/{uuid.uuid4()}.txt",
        f"{MONTH}/{uuid.uuid4()}",
        f"{MONTH}/{uuid.uuid4().hex}.mp4",
        f"{MONTH}/{uuid.uuid4()}_x1Y2z.mp4".replace("-", "_"),
        f"{MONTH}/.hidden.x1.part",
        f"uploads/{uuid.uuid4()}.mp4",
        f"videojobs/{uuid.uuid4()}.mp4",
        f"videojobs/2030/{uuid.uuid4()}.mp4",
        f"{MONTH}/avatars/{uuid.uuid4()}.jpg",
        f"{uuid.uuid4()}.mp4",
    ],
)
def test_what_is_not_ours_by_its_name_or_place_stays(
    later: time_machine.Traveller, name: str
) -> None:
    put(name)

    assert found(later) == []


@pytest.mark.parametrize(
    "upload_to", ["%Y/%m", "%Y", "", "/a/b/%Y/", "a/x%Y/c", "a.b/%-d", "100%%/%Y", "a/b"]
)
def test_files_are_looked_for_below_what_never_changes_in_their_directory(
    later: time_machine.Traveller, settings: Any, upload_to: str
) -> None:
    settings.VIDEOJOBS = {"UPLOAD_TO": upload_to}
    directory = LONG_AGO.strftime(upload_to).strip("/")
    name = put(f"{directory}/{uuid.uuid4()}.mp4".lstrip("/"))

    assert found(later) == [("file", name)]


def test_a_storage_without_a_file_yet_has_no_orphans(place: str) -> None:
    assert orphans.search().orphans == []


def test_a_stored_file_is_not_found_again_behind_a_link(
    later: time_machine.Traveller, media_root: Path
) -> None:
    stored()
    (media_root / "videojobs" / "2031").mkdir()
    (media_root / "videojobs" / "2031" / "02").symlink_to(media_root / MONTH)
    (media_root / MONTH / "above").symlink_to(media_root)

    assert found(later) == []


def test_all_that_one_job_left_is_removed_in_one_go(later: time_machine.Traveller) -> None:
    job = a_job(mirror_status="failed")
    for extension in (".jpg", ".mp4", ".webm"):
        put(a_name(job, extension))
    later.shift(2 * DAY)

    assert [orphan.remove() for orphan in orphans.search().orphans] == [True] * 3


def test_a_file_that_goes_in_this_moment_is_no_orphan(
    later: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(a_name(uuid.uuid4()))
    storage = type(storages["default"])

    def gone(*_: object) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(storage, "get_modified_time", gone)

    assert found(later) == []


# Partial files


@pytest.fixture
def temporary(tmp_path: Path, place: str, media_root: Path) -> Path:
    """The directory of partial files."""
    directory = media_root / MONTH if place == "on a disk" else tmp_path / "temporary"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def a_part(directory: Path, owner: object, *, days: float) -> Path:
    path = directory / f".{owner}.x1.part"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


@pytest.mark.parametrize("job", [None, "stored", "failed"])
def test_a_part_that_nobody_will_finish_is_found_and_removed(
    temporary: Path, job: str | None
) -> None:
    owner = uuid.uuid4() if job is None else stored(mirror_status=job).pk
    part = a_part(temporary, owner, days=2)

    (orphan,) = orphans.search().orphans

    assert (orphan.kind, orphan.is_jobless) == ("part", job is None)
    assert orphan.remove()
    assert not part.exists()


@pytest.mark.parametrize(
    ("owner", "days"),
    [(lambda: uuid.uuid4(), 0.5), (lambda: "tmpx1", 2), (lambda: a_job("processing").pk, 2)],
    ids=["young", "of another program", "of an unfinished job"],
)
def test_any_other_part_stays(temporary: Path, owner: Callable[[], Any], days: float) -> None:
    a_part(temporary, owner(), days=days)

    assert orphans.search().orphans == []


def test_a_part_that_is_stored_in_this_moment_is_no_orphan(
    bucket: Bucket, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": bucket.entry}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    part, changed_at = a_part(tmp_path, uuid.uuid4(), days=2), orphans._modified_at

    def gone(path: Path) -> Any:
        part.unlink()
        return changed_at(path)

    monkeypatch.setattr(orphans, "_modified_at", gone)
    assert orphans.search().orphans == []


# Uploads


def test_an_upload_that_nobody_will_finish_is_found_and_aborted(
    bucket: Bucket, settings: Any, later: time_machine.Traveller
) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": bucket.entry}
    name, in_use = a_name(uuid.uuid4()), a_name(a_job(mirror_status="due", due_at=LONG_AGO))
    for key in (name, in_use, "uploads/somebody-else.mp4"):
        bucket.begin_upload(key, b"half")
    assert found(later) == [("upload", name)]

    orphans.search().orphans[0].remove()

    assert sorted(bucket.pending()) == sorted([in_use, "uploads/somebody-else.mp4"])


# Races


def test_a_job_that_is_taken_up_again_in_this_moment_keeps_its_file(
    later: time_machine.Traveller,
) -> None:
    job = a_job(mirror_status="failed")
    name = put(a_name(job))
    later.shift(2 * DAY)
    (orphan,) = orphans.search().orphans
    operations.remirror(job, actor="eve")

    assert not orphan.remove()

    assert storages["default"].exists(name)


def test_a_person_who_is_too_late_has_to_look_again(later: time_machine.Traveller) -> None:
    job = a_job(mirror_status="failed")
    put(a_name(job))
    later.shift(2 * DAY)
    (orphan,) = orphans.search().orphans

    assert orphan.remove()

    assert not operations.remirror(job, actor="eve")


@pytest.mark.parametrize("is_recorded", [True, False], ids=["recorded", "about to be recorded"])
def test_a_file_that_is_stored_while_it_is_removed_is_fetched_again(
    later: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, is_recorded: bool
) -> None:
    job, delete = a_job(mirror_status="failed"), FileSystemStorage.delete
    name = put(a_name(job))
    workers: list[VideoJob] = []

    def finds_it(storage: FileSystemStorage, removed: str) -> None:
        now = VideoJob.objects.get()
        assert operations.remirror(now, actor="eve")
        worker = VideoJob.objects.get()
        assert VideoJob.objects.claim(worker)
        workers.append(worker)
        if is_recorded:
            assert records_it()
        delete(storage, removed)

    def records_it() -> bool:
        return VideoJob.objects.transition(
            workers[0],
            due_at=None,
            mirror_status="stored",
            output=name,
            output_size=5,
            output_sha256="f" * 64,
        )

    monkeypatch.setattr(FileSystemStorage, "delete", finds_it)
    later.shift(2 * DAY)
    (orphan,) = orphans.search().orphans

    assert orphan.remove()

    assert is_recorded or not records_it()
    job.refresh_from_db()
    assert (job.mirror_status, job.claimed_until) == ("due", None)


# A wrong database


def test_a_storage_whose_files_mostly_have_no_job_looks_like_somebody_else_s(
    later: time_machine.Traveller, settings: Any
) -> None:
    stored()
    for _ in range(11):
        put(a_name(uuid.uuid4()))
    later.shift(2 * DAY)

    assert orphans.search().is_suspicious


def test_a_file_without_a_job_where_none_is_known_looks_like_a_wrong_database(
    later: time_machine.Traveller,
) -> None:
    put(a_name(uuid.uuid4()))
    later.shift(2 * DAY)

    assert orphans.search().is_suspicious


def test_files_of_jobs_that_name_others_look_suspicious_too(
    later: time_machine.Traveller,
) -> None:
    for _ in range(11):
        put(a_name(a_job(mirror_status="failed")))
    later.shift(2 * DAY)

    assert orphans.search().is_suspicious


def test_a_few_files_without_a_job_look_like_nothing(later: time_machine.Traveller) -> None:
    stored()
    for _ in range(10):
        put(a_name(uuid.uuid4()))
    later.shift(2 * DAY)

    assert not orphans.search().is_suspicious


def test_a_batch_of_files_costs_one_query(
    later: time_machine.Traveller, settings: Any, django_assert_num_queries: Any
) -> None:
    settings.VIDEOJOBS = {"SWEEP_BATCH": 4}
    for _ in range(3):
        stored()
    later.shift(2 * DAY)

    with django_assert_num_queries(2):
        orphans.search()

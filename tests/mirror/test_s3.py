"""The mirror on S3, through django-storages and real HTTP."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.base import ContentFile

from tests.support import jobs
from tests.support.object_store import Bucket, ObjectStore
from tests.support.raw_server import RawServer, answer
from videojobs.mirror import partial_files, pipeline, s3
from videojobs.mirror.destination import Destination
from videojobs.mirror.pipeline import Download
from videojobs.testing import SAMPLE, sample

STEM = "videojobs/2030/01/6f9619ff"
NAME = STEM + ".mp4"
# Several parts of a multipart upload, which have 8 MiB by default.
LONG = sample("." * 20_000_000)


@pytest.fixture(autouse=True)
def configured(settings: Any) -> None:
    settings.VIDEOJOBS = jobs.fetched_from_here(MAX_OUTPUT_BYTES=2**30, DOWNLOAD_TIMEOUT=60.0)


@pytest.fixture(autouse=True)
def temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def finished(path: Path, body: bytes = SAMPLE) -> Download:
    path.write_bytes(body)
    return Download(path, len(body), hashlib.sha256(body).hexdigest(), "video/mp4", ".mp4")


def kept(bucket: Bucket, body: bytes) -> Download:
    with (
        RawServer(answer(body)) as server,
        pipeline.download(
            server.url, Destination.of(bucket.storage), STEM, progress=lambda *_: None
        ) as done,
    ):
        pipeline.verify(done)
        assert pipeline.store(done, Destination.of(bucket.storage), NAME) == NAME
        return done


@pytest.mark.parametrize("body", [SAMPLE, LONG], ids=["in one request", "in several parts"])
def test_a_video_is_stored_once_under_its_name(bucket: Bucket, body: bytes) -> None:
    done = kept(bucket, body)

    assert bucket.keys() == [NAME]
    assert bucket.sha256(NAME) == done.sha256 == hashlib.sha256(body).hexdigest()
    assert bucket.pending() == []


def test_a_retry_leaves_one_object(bucket: Bucket) -> None:
    for body in (SAMPLE, SAMPLE, LONG, sample("other")):
        kept(bucket, body)

    assert bucket.keys() == [NAME]
    assert bucket.body(NAME) == sample("other")


def test_the_type_is_the_sniffed_one(bucket: Bucket) -> None:
    body = b"\0\0\0\x14ftypqt  \0\0\0\0qt  \0\0\0\x08moov"
    with (
        RawServer(answer(body, "Content-Type: text/html")) as server,
        pipeline.download(
            server.url, Destination.of(bucket.storage), STEM, progress=lambda *_: None
        ) as done,
    ):
        pipeline.store(done, Destination.of(bucket.storage), STEM + done.extension)

    assert bucket.storage.bucket.Object(STEM + ".mov").content_type == "video/quicktime"


def test_the_download_is_a_local_file_that_is_gone_afterwards(
    bucket: Bucket, temporary_directory: Path
) -> None:
    kept(bucket, SAMPLE)

    assert list(temporary_directory.iterdir()) == []


def test_an_identical_object_is_used_and_not_sent_again(bucket: Bucket, tmp_path: Path) -> None:
    done = finished(tmp_path / "done.part")
    pipeline.store(done, Destination.of(bucket.storage), NAME)
    bucket.store.requests.clear()

    pipeline.store(done, Destination.of(bucket.storage), NAME)

    assert {method for method, _ in bucket.store.requests} == {"HEAD", "GET"}


def test_an_object_of_another_size_is_not_even_read(bucket: Bucket, tmp_path: Path) -> None:
    bucket.storage.save(NAME, ContentFile(b"half"))
    bucket.store.requests.clear()

    pipeline.store(finished(tmp_path / "done.part"), Destination.of(bucket.storage), NAME)

    assert f"/{bucket.name}/{NAME}?" not in [p for m, p in bucket.store.requests if m == "GET"]
    assert bucket.body(NAME) == SAMPLE


def test_an_object_is_replaced_at_once_and_never_missing(bucket: Bucket, tmp_path: Path) -> None:
    bucket.storage.save(NAME, ContentFile(b"what was there before"))

    pipeline.store(finished(tmp_path / "done.part"), Destination.of(bucket.storage), NAME)

    assert "DELETE" not in {method for method, _ in bucket.store.requests}


def test_a_storage_that_overwrites_nothing_keeps_one_object_too(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    bucket = Bucket(object_store, file_overwrite=False)
    for body in (SAMPLE, sample("other"), sample("other")):
        done = finished(tmp_path / "done.part", body)
        assert pipeline.store(done, Destination.of(bucket.storage), NAME) == NAME

    assert (bucket.keys(), bucket.body(NAME)) == ([NAME], sample("other"))


def test_a_location_inside_the_bucket_is_kept_to(object_store: ObjectStore, tmp_path: Path) -> None:
    bucket = Bucket(object_store, location="site/media")
    bucket.begin_upload(f"site/media/{NAME}", b"half")
    done = finished(tmp_path / "done.part")
    for _ in range(2):
        assert pipeline.store(done, Destination.of(bucket.storage), NAME) == NAME

    assert bucket.keys() == [f"site/media/{NAME}"]
    assert bucket.pending() == []
    assert s3.name_of(bucket.storage, f"site/media/{NAME}") == NAME


def is_part(number: int) -> Any:
    return lambda method, path: method == "PUT" and f"partNumber={number}" in path


def is_post(what: str) -> Any:
    return lambda method, path: method == "POST" and what in path


FAILURES = {
    "the only request": (SAMPLE, lambda method, path: method == "PUT"),
    "the beginning of an upload": (
        LONG,
        lambda method, path: "uploads" in path and method == "POST",
    ),
    "the first part": (LONG, is_part(1)),
    "the second part": (LONG, is_part(2)),
    "the last part": (LONG, is_part(3)),
    "the end of an upload": (LONG, is_post("uploadId")),
}


@pytest.mark.parametrize(("body", "fails"), FAILURES.values(), ids=FAILURES)
def test_an_upload_that_fails_leaves_nothing_and_a_retry_makes_it_whole(
    bucket: Bucket, tmp_path: Path, body: bytes, fails: Any
) -> None:
    done = finished(tmp_path / "done.part", body)
    bucket.store.fails = fails
    with pytest.raises((ClientError, BotoCoreError)):
        pipeline.store(done, Destination.of(bucket.storage), NAME)
    bucket.store.fails = lambda *_: False
    assert (bucket.keys(), bucket.pending()) == ([], [])

    pipeline.store(done, Destination.of(bucket.storage), NAME)

    assert (bucket.keys(), bucket.sha256(NAME)) == ([NAME], done.sha256)


def test_an_upload_that_fails_leaves_the_object_that_was_there(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.storage.save(NAME, ContentFile(SAMPLE))
    bucket.store.fails = is_part(2)
    with pytest.raises((ClientError, BotoCoreError)):
        pipeline.store(finished(tmp_path / "done.part", LONG), Destination.of(bucket.storage), NAME)
    bucket.store.fails = lambda *_: False

    assert bucket.body(NAME) == SAMPLE


def test_what_a_killed_worker_has_uploaded_is_removed_by_the_next_one(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.begin_upload(NAME, b"half a video")
    bucket.begin_upload(STEM.replace("6f", "7a") + ".mp4", b"another one's")

    pipeline.store(finished(tmp_path / "done.part"), Destination.of(bucket.storage), NAME)

    assert bucket.pending() == [STEM.replace("6f", "7a") + ".mp4"]


def test_what_a_killed_worker_has_uploaded_is_removed_though_the_object_is_there_already(
    bucket: Bucket, tmp_path: Path
) -> None:
    done = finished(tmp_path / "done.part")
    pipeline.store(done, Destination.of(bucket.storage), NAME)
    bucket.begin_upload(NAME, b"half of what its host sent in between")

    pipeline.store(done, Destination.of(bucket.storage), NAME)

    assert (bucket.keys(), bucket.pending()) == ([NAME], [])


def test_without_permission_to_list_uploads_videos_are_stored(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.store.fails = lambda method, path: method == "GET" and "uploads" in path

    pipeline.store(finished(tmp_path / "done.part"), Destination.of(bucket.storage), NAME)

    assert bucket.keys() == [NAME]
    assert "incomplete uploads" in caplog.text


def test_a_list_of_uploads_that_can_t_be_read_does_not_matter(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.parsers import ResponseParserError

    def fail(*_: Any) -> None:
        raise ResponseParserError("not XML")

    monkeypatch.setattr(s3, "uploads", fail)

    pipeline.store(finished(tmp_path / "done.part"), Destination.of(bucket.storage), NAME)

    assert bucket.keys() == [NAME]


def test_no_upload_begins_after_a_time_limit_of_its_task(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise SoftTimeLimitExceeded(60)

    monkeypatch.setattr(s3, "uploads", interrupted)

    with pytest.raises(SoftTimeLimitExceeded):
        pipeline.store(finished(tmp_path / "done.part"), Destination.of(bucket.storage), NAME)
    assert bucket.keys() == []


def test_a_storage_without_buckets_has_no_uploads(tmp_path: Path) -> None:
    from django.core.files.storage import FileSystemStorage

    storage = FileSystemStorage(tmp_path)

    assert not s3.is_s3(storage)
    partial_files.remove_uploads(Destination.of(storage), NAME)


def test_a_poster_lies_beside_its_video(bucket: Bucket) -> None:
    picture = b"\xff\xd8\xff\xe0 a picture"

    assert pipeline.store_poster(picture, Destination.of(bucket.storage), STEM) == STEM + ".jpg"

    assert bucket.body(STEM + ".jpg") == picture
    assert bucket.storage.bucket.Object(STEM + ".jpg").content_type == "image/jpeg"


MEMORY = """
import json, resource, sys, django
from django.conf import settings
settings.configure()
django.setup()
from pathlib import Path
from django.core.files.storage import storages
from videojobs.mirror import pipeline, s3
from videojobs.mirror.destination import Destination
options, name, size = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
storage = storages.create_storage({"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options})
storage.size("small")
for _ in s3.pieces(storage, "small", 1024): pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pipeline._sha256(Destination.of(storage), name)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_an_object_of_any_size_is_compared_in_little_memory(bucket: Bucket) -> None:
    import json

    size = 96 * 1024 * 1024
    bucket.storage.save("small", ContentFile(b"small"))
    bucket.storage.save(NAME, ContentFile(bytes(size)))
    options = {key: value for key, value in bucket.options.items() if key != "client_config"}

    command = [sys.executable, "-c", MEMORY, json.dumps(options), NAME, str(size)]
    grown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    assert int(grown) < 24 * 1024  # KiB

import contextlib
import errno
import gzip
import hashlib
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, InMemoryStorage, Storage

from tests.support import jobs
from tests.support.raw_server import CHUNKED, RawServer, answer, drip, redirect, reset
from videojobs.exceptions import (
    DownloadError,
    NotSent,
    OutputExpired,
    OutputRefused,
    OutputTooLarge,
    StorageError,
    TransportError,
    VideoJobsError,
)
from videojobs.mirror import pipeline
from videojobs.mirror.destination import Destination
from videojobs.mirror.pipeline import Download
from videojobs.providers import client
from videojobs.testing import SAMPLE, Script, SimulatedProvider, Slow, Truncate, sample

STEM = "videojobs/2030/01/6f9619ff"
NAME = STEM + ".mp4"
SHA256 = hashlib.sha256(SAMPLE).hexdigest()
VIDEO = answer(SAMPLE)
FTYP = b"\0\0\0\x10ftypisom\0\0\0\0"


@pytest.fixture(autouse=True)
def configured(settings: Any) -> None:
    settings.VIDEOJOBS = jobs.fetched_from_here()


@pytest.fixture
def storage(tmp_path: Path) -> FileSystemStorage:
    return FileSystemStorage(tmp_path / "outputs")


def files(storage: FileSystemStorage) -> list[str]:
    root = Path(storage.location)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def quiet(*_: int | None) -> None:
    pass


def kept(url: str, storage: Storage, name: str = NAME) -> tuple[Download, str]:
    with pipeline.download(url, Destination.of(storage), STEM, progress=quiet) as done:
        pipeline.verify(done)
        return done, pipeline.store(done, Destination.of(storage), name)


def refused_by(storage: Storage, reply: Any, kind: type[VideoJobsError]) -> VideoJobsError:
    with RawServer(reply) as server, pytest.raises(VideoJobsError) as caught:
        kept(server.url + "/v.mp4?Signature=s3cr3t", storage)
    assert type(caught.value) is kind
    assert "s3cr3t" not in str(caught.value)
    return caught.value


# Stored files


def test_a_video_is_stored_with_size_and_hash_of_its_bytes(storage: FileSystemStorage) -> None:
    with RawServer(VIDEO) as server:
        done, name = kept(server.url, storage)
    assert (done.size, done.sha256) == (len(SAMPLE), SHA256)
    assert (done.content_type, done.extension) == ("video/mp4", ".mp4")
    assert name == NAME
    assert Path(storage.path(NAME)).read_bytes() == SAMPLE
    assert files(storage) == [NAME]


def test_the_simulated_provider_s_video_is_stored_and_sees_no_key(
    simulated_provider: SimulatedProvider, storage: FileSystemStorage
) -> None:
    simulated_provider.add_task("t1", Script(["completed"]))
    found = client.fetch(f"{simulated_provider.base_url}/v1/", "t1")
    done, _ = kept(found.video_url, storage)
    assert done.sha256 == simulated_provider.sha256("t1")
    assert simulated_provider.leaks == []


def test_a_stored_file_is_readable_for_the_web_server(storage: FileSystemStorage) -> None:
    with RawServer(VIDEO) as server:
        kept(server.url, storage)
    assert stat.S_IMODE(os.stat(storage.path(NAME)).st_mode) == 0o644


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_without_file_permissions_a_stored_file_has_those_of_any_new_file(
    storage: FileSystemStorage, settings: Any, umask: int, mode: int
) -> None:
    settings.FILE_UPLOAD_PERMISSIONS = None
    before = os.umask(umask)
    try:
        with RawServer(VIDEO) as server:
            kept(server.url, storage)
    finally:
        os.umask(before)

    assert stat.S_IMODE(os.stat(storage.path(NAME)).st_mode) == mode
    assert files(storage) == [NAME]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES])
def test_a_file_is_stored_in_a_directory_that_can_t_be_flushed(
    storage: FileSystemStorage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fail_to_flush(monkeypatch, stat.S_ISDIR, number)
    with RawServer(VIDEO) as server:
        assert kept(server.url, storage)[1] == NAME


@pytest.mark.parametrize("kind", [stat.S_ISDIR, stat.S_ISREG], ids=["directory", "file"])
def test_a_disk_that_fails_is_an_error(
    storage: FileSystemStorage, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    fail_to_flush(monkeypatch, kind, errno.EIO)
    with RawServer(VIDEO) as server, pytest.raises(OSError, match="Input/output error"):
        kept(server.url, storage)


def test_a_file_that_can_t_be_flushed_is_not_stored(
    storage: FileSystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_flush(monkeypatch, stat.S_ISREG, errno.EINVAL)
    with RawServer(VIDEO) as server, pytest.raises(OSError, match="Invalid argument"):
        kept(server.url, storage)
    assert files(storage) == []


def fail_to_flush(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[[int], bool], number: int
) -> None:
    """Let fsync fail for directories or for files."""
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if kind(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


def test_a_directory_that_is_made_is_open_for_the_web_server(tmp_path: Path) -> None:
    storage = FileSystemStorage(tmp_path / "outputs", directory_permissions_mode=0o2755)
    before = os.umask(0o077)
    try:
        with RawServer(VIDEO) as server:
            kept(server.url, storage)
    finally:
        os.umask(before)

    made = [path for path in (tmp_path / "outputs").rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o2755}


@pytest.mark.parametrize("number", [errno.EISDIR, errno.EROFS, errno.EACCES])
def test_directories_that_exist_are_not_made_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For `/`, macOS says EISDIR; automounted and read-only parents have other errors."""
    mkdir = os.mkdir

    def refuse(path: Any, *args: Any, **kwargs: Any) -> None:
        if os.path.exists(path):
            raise OSError(number, os.strerror(number), str(path))
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", refuse)

    with RawServer(VIDEO) as server:
        _, name = kept(server.url, FileSystemStorage(tmp_path / "a" / "b"))

    assert (tmp_path / "a" / "b" / name).exists()


def test_a_directory_that_another_worker_makes_meanwhile_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def make_twice(*args: Any, **kwargs: Any) -> None:
        mkdir(*args, **kwargs)
        mkdir(*args, **kwargs)

    monkeypatch.setattr(os, "mkdir", make_twice)

    with RawServer(VIDEO) as server:
        _, name = kept(server.url, FileSystemStorage(tmp_path / "a" / "b"))

    assert (tmp_path / "a" / "b" / name).exists()


def test_progress_gets_the_bytes_so_far(storage: FileSystemStorage, settings: Any) -> None:
    body = SAMPLE + bytes(600_000)
    seen: list[tuple[int, int | None]] = []
    with (
        RawServer(answer(body)) as server,
        pipeline.download(
            server.url, Destination.of(storage), STEM, progress=lambda *so_far: seen.append(so_far)
        ),
    ):
        pass
    assert seen == [(size, len(body)) for size in (262_144, 524_288, len(body))]


def test_an_output_s_host_must_lie_in_the_domains_that_are_allowed(
    storage: FileSystemStorage, settings: Any
) -> None:
    settings.VIDEOJOBS |= {"ALLOWED_OUTPUT_HOSTS": ["cdn.example.com"]}
    with RawServer(answer(SAMPLE)) as server:
        with pytest.raises(OutputRefused, match="ALLOWED_OUTPUT_HOSTS"):
            kept(server.url, storage)
        assert server.requests == []


def test_storage_gets_the_sniffed_type_and_not_the_server_s(tmp_path: Path) -> None:
    class Noting(FileSystemStorage):
        content_type = ""

        def _save(self, name: str, content: Any) -> str:
            self.content_type = content.content_type
            return super()._save(name, content)  # type: ignore[misc]

    storage = Noting(tmp_path)
    with RawServer(answer(SAMPLE, "Content-Type: text/html")) as server:
        kept(server.url, storage)
    assert storage.content_type == "video/mp4"


# Network failures


def test_chunks_without_a_length_are_a_whole_file(storage: FileSystemStorage) -> None:
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SAMPLE), SAMPLE)
    with RawServer(CHUNKED + body) as server:
        assert kept(server.url, storage)[0].sha256 == SHA256


def test_a_body_that_ends_with_its_connection_is_taken_as_it_is(storage: FileSystemStorage) -> None:
    with RawServer(b"HTTP/1.1 200 OK\r\n\r\n" + SAMPLE) as server:
        assert kept(server.url, storage)[0].size == len(SAMPLE)


@pytest.mark.parametrize(
    "header",
    [
        *("Content-Encoding: identity ", "Content-Encoding: ", "Content-Encoding: aws-chunked"),
        *("Content-Encoding: utf-8", "Content-Encoding: gzip", "Content-Encoding: identity, br"),
        *("Content-Type: text/html", "Content-Disposition: attachment; filename=v.exe"),
    ],
)
def test_the_bytes_decide_what_a_file_is_and_not_a_header(
    storage: FileSystemStorage, header: str
) -> None:
    with RawServer(answer(SAMPLE, header)) as server:
        done, _ = kept(server.url, storage)
    assert (done.sha256, done.content_type) == (SHA256, "video/mp4")


WHOLE = {
    "a box that reaches to the end": SAMPLE + b"\0\0\0\0free and what not",
    "a box with a long length": FTYP + b"\0\0\0\1moov" + (20).to_bytes(8) + b"....",
}


@pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE.keys())
def test_a_file_whose_boxes_end_with_it_is_whole(body: bytes, storage: FileSystemStorage) -> None:
    with RawServer(answer(body)) as server:
        assert kept(server.url, storage)[0].size == len(body)


DAMAGED = {
    "half": SAMPLE[: len(SAMPLE) // 2],
    "the last byte is gone": SAMPLE[:-1],
    "the last thousand bytes are gone": SAMPLE[:-1000],
    "no index": FTYP + b"\0\0\0\x08mdat",
    "a box that is shorter than its head": FTYP + b"\0\0\0\x07moov",
    "nothing but boxes": FTYP + b"\0\0\0\x08free" * 120_000 + b"\0\0\0\x08moov",
}


@pytest.mark.parametrize("body", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_cut_or_damaged_file_is_not_kept_though_its_answer_looked_whole(
    body: bytes, storage: FileSystemStorage
) -> None:
    # Without a Content-Length, the body ends with the connection.
    with (
        RawServer(b"HTTP/1.1 200 OK\r\n\r\n" + body) as server,
        pytest.raises(DownloadError, match="truncated or damaged"),
    ):
        kept(server.url, storage)

    assert not [path for path in Path(storage.location).rglob("*") if path.is_file()]


def with_length(length: str, body: bytes = SAMPLE, *more: str) -> bytes:
    head = "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {length}", *more, "", ""])
    return head.encode() + body


BOTH_KINDS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SAMPLE), SAMPLE)
ODD_LENGTHS = {
    "blanks around it": with_length(f" {len(SAMPLE)} "),
    "a list of equal ones": with_length(f"{len(SAMPLE)}, {len(SAMPLE)}"),
    "two equal ones": with_length(str(len(SAMPLE)), SAMPLE, f"Content-Length: {len(SAMPLE)}"),
    "words": with_length("abc"),
    "a negative one": with_length("-5"),
    "an empty one": with_length(""),
    "odd digits": with_length("²"),
    "a length beside chunks": with_length("5", BOTH_KINDS, "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("reply", ODD_LENGTHS.values(), ids=ODD_LENGTHS)
def test_an_odd_length_is_no_reason_against_a_whole_file(
    reply: bytes, storage: FileSystemStorage
) -> None:
    with RawServer(reply) as server:
        assert kept(server.url, storage)[0].sha256 == SHA256


def test_two_lengths_that_differ_are_no_whole_file(storage: FileSystemStorage) -> None:
    reply = with_length(str(len(SAMPLE)), SAMPLE, "Content-Length: 5")
    assert refused_by(storage, reply, TransportError).transient
    assert files(storage) == []


BROKEN_OFF = {
    "a short body": with_length(str(len(SAMPLE) + 1)),
    "half a body": with_length(str(len(SAMPLE)), SAMPLE[:700]),
    "a cut chunk": CHUNKED + b"%x\r\n%b" % (len(SAMPLE), SAMPLE[:700]),
    "no last chunk": CHUNKED + b"%x\r\n%b\r\n" % (len(SAMPLE), SAMPLE),
    "no HTTP": b"220 mail.example ESMTP\r\n",
    "nothing": b"",
    "a reset": reset,
}


@pytest.mark.parametrize("reply", BROKEN_OFF.values(), ids=BROKEN_OFF)
def test_a_download_that_broke_off_is_transient_and_leaves_nothing(
    storage: FileSystemStorage, reply: Any
) -> None:
    assert refused_by(storage, reply, TransportError).transient
    assert files(storage) == []


def test_an_empty_file_is_transient(storage: FileSystemStorage) -> None:
    assert refused_by(storage, answer(b""), DownloadError).transient
    assert files(storage) == []


def test_a_download_that_drips_ends_at_its_deadline(
    storage: FileSystemStorage, settings: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "DOWNLOAD_TIMEOUT": 0.2}
    dripping = drip(with_length("9000", SAMPLE[:100]), b"\0")
    assert refused_by(storage, dripping, TransportError).transient
    assert files(storage) == []


def test_a_host_that_refuses_is_transient(storage: FileSystemStorage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(NotSent) as caught:
            kept(f"http://127.0.0.1:{taken.getsockname()[1]}/", storage)
    assert caught.value.transient
    assert files(storage) == []


NOT_AN_OUTPUT = {
    "HTML": (answer(b"<html>expired</html>", "Content-Type: text/html"), "Content-Type: text/html"),
    "JSON": (answer(b'{"error": 1}', "Content-Type: video/mp4"), "Content-Type: video/mp4"),
    "XML": (answer(b"<?xml version='1.0'?><Error/>"), "no Content-Type"),
    "a playlist": (answer(b"#EXTM3U\nfile:///etc/passwd"), "not a video"),
    "audio": (answer(b"\x00\x00\x00\x18ftypM4A ...."), "not a video"),
    "compressed": (
        answer(gzip.compress(SAMPLE), "Content-Encoding: gzip"),
        "Content-Encoding: gzip",
    ),
    "a redirect into the network": (
        redirect("http://10.0.0.1/v.mp4"),
        "10.0.0.1, which is neither public nor in ALLOWED_PRIVATE_NETWORKS",
    ),
    "a redirect to a file": (redirect("file:///etc/passwd"), "'file'"),
    "a redirect to a mail server": (redirect("http://127.0.0.1:25/"), "port 25"),
    "redirects without end": (redirect("/again"), "more than 3 redirects"),
}


@pytest.mark.parametrize(("reply", "reason"), NOT_AN_OUTPUT.values(), ids=NOT_AN_OUTPUT)
def test_an_answer_that_is_no_output_says_why_and_leaves_nothing(
    storage: FileSystemStorage, reply: Any, reason: str
) -> None:
    error = refused_by(storage, reply, OutputRefused)

    assert reason in str(error)
    assert error.transient
    assert not error.is_ours
    assert files(storage) == []


TOO_LARGE = {
    "announced": with_length(str(1024 * 1024 + 1)),
    "announced with 5000 digits": with_length("9" * 5000),
    "real": b"HTTP/1.1 200 OK\r\n\r\n" + SAMPLE + bytes(1024 * 1024),
}


@pytest.mark.parametrize("reply", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_size_over_the_limit_names_the_setting_and_leaves_nothing(
    storage: FileSystemStorage, reply: Any
) -> None:
    error = refused_by(storage, reply, OutputTooLarge)

    assert "see MAX_OUTPUT_BYTES" in str(error)
    assert not error.transient
    assert files(storage) == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2:{}/", "http://localhost:{}/", "file:///etc/passwd", "", "http://["]
)
def test_an_address_that_may_not_be_asked_is_refused(
    storage: FileSystemStorage, settings: Any, url: str
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "ALLOWED_PRIVATE_NETWORKS": ["10.0.0.0/8"]}
    with RawServer() as server, pytest.raises(OutputRefused):
        kept(url.format(server.port), storage)
    assert server.connections == 0


def test_a_file_of_just_the_limit_is_kept(storage: FileSystemStorage, settings: Any) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MAX_OUTPUT_BYTES": len(SAMPLE)}
    with RawServer(VIDEO) as server:
        assert kept(server.url, storage)[0].size == len(SAMPLE)


def test_a_page_that_is_no_video_is_given_up_at_its_first_piece(storage: FileSystemStorage) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"<html>" * 10_000)

    refused_by(storage, endless, OutputRefused)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_dead_url_is_expired(storage: FileSystemStorage, code: int) -> None:
    error = refused_by(storage, answer(SAMPLE, status=f"{code} X"), OutputExpired)
    assert str(error) == f"127.0.0.1: HTTP {code}"
    assert error.transient


@pytest.mark.parametrize("code", [201, 204, 206, 304, 400, 408, 416, 429, 451, 500, 502, 503])
def test_any_other_answer_is_transient_and_tells_when_to_come_back(
    storage: FileSystemStorage, code: int
) -> None:
    reply = answer(SAMPLE, "Retry-After: 77", status=f"{code} X")
    error = refused_by(storage, reply, DownloadError)
    assert (str(error), error.transient) == (f"127.0.0.1: HTTP {code}", True)
    assert error.retry_after == 77
    assert files(storage) == []


def test_an_expired_url_of_the_simulated_provider_is_expired(
    simulated_provider: SimulatedProvider, storage: FileSystemStorage
) -> None:
    simulated_provider.add_task("t1", Script(["completed"], dead_urls=1))
    found = client.fetch(f"{simulated_provider.base_url}/v1/", "t1")
    with pytest.raises(OutputExpired):
        kept(found.video_url, storage)


@pytest.mark.parametrize("fault", [Truncate(0), Slow(1000)], ids=str)
def test_a_disturbed_download_of_the_simulated_provider_is_transient(
    simulated_provider: SimulatedProvider,
    storage: FileSystemStorage,
    settings: Any,
    fault: Any,
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "DOWNLOAD_TIMEOUT": 0.3}
    simulated_provider.add_task("t1", Script(["completed"], downloads=[fault]))
    found = client.fetch(f"{simulated_provider.base_url}/v1/", "t1")
    with pytest.raises(TransportError):
        kept(found.video_url, storage)
    assert files(storage) == []


MEMORY = """
import sys, django
from django.conf import settings
settings.configure(VIDEOJOBS={"BASE_URL": "http://x", "ALLOWED_PRIVATE_NETWORKS": ["127.0.0.1/32"]})
django.setup()
from django.core.files.storage import FileSystemStorage
from videojobs.mirror import pipeline
from videojobs.mirror.destination import Destination
from videojobs.providers import client
import tracemalloc
tracemalloc.start()
storage = FileSystemStorage(sys.argv[2])
with pipeline.download(sys.argv[1], Destination.of(storage), "v", progress=lambda *_: None) as done:
    pipeline.store(done, Destination.of(storage), "v.mp4")
print(done.size, tracemalloc.get_traced_memory()[1])
"""


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    size, zeros = 64 * 1024 * 1024, bytes(1024 * 1024)

    def large(connection: socket.socket) -> None:
        connection.sendall(with_length(str(size)))
        for _ in range(size // len(zeros) - 1):
            connection.sendall(zeros)
        connection.sendall(zeros[len(SAMPLE) :])

    with RawServer(large) as server:
        command = [sys.executable, "-c", MEMORY, server.url, str(tmp_path)]
        out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    stored, peak = map(int, out.split())
    assert stored == (tmp_path / "v.mp4").stat().st_size == size
    assert peak < 16 * 1024 * 1024


# Verification


@pytest.fixture
def looked_at(settings: Any) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MEDIA_CHECK": True}


@pytest.mark.usefixtures("looked_at")
@pytest.mark.parametrize("seconds", [None, 0.0, 2.0, 3.0, 3.9, 4.0])
def test_a_video_about_as_long_as_the_provider_said_is_kept(
    done: Download, seconds: float | None
) -> None:
    found = pipeline.verify(done, seconds=seconds)

    assert found is not None
    assert found.duration == pytest.approx(3.0, abs=0.1)


@pytest.mark.usefixtures("looked_at")
@pytest.mark.parametrize("seconds", [4.3, 15.0, 5000.0])
def test_a_video_that_is_shorter_than_the_provider_said_is_not_kept(
    done: Download, seconds: float
) -> None:
    with pytest.raises(DownloadError, match=f"expected {seconds:.1f} s") as caught:
        pipeline.verify(done, seconds=seconds)

    assert caught.value.transient


def test_without_a_look_nothing_is_known_of_a_video(done: Download) -> None:
    assert pipeline.verify(done, seconds=15.0) is None


# Storing


@pytest.fixture
def done(tmp_path: Path) -> Download:
    path = tmp_path / "finished.part"
    path.write_bytes(SAMPLE)
    return Download(path, len(SAMPLE), SHA256, "video/mp4", ".mp4")


def test_storing_twice_leaves_one_file(storage: FileSystemStorage) -> None:
    with RawServer(VIDEO) as server:
        assert [kept(server.url, storage)[1] for _ in range(2)] == [NAME, NAME]
    assert files(storage) == [NAME]


def test_a_file_that_is_there_already_is_not_written_again(
    storage: FileSystemStorage, done: Download
) -> None:
    storage.save(NAME, ContentFile(SAMPLE))
    before = os.stat(storage.path(NAME)).st_ino
    assert pipeline.store(done, Destination.of(storage), NAME) == NAME
    assert os.stat(storage.path(NAME)).st_ino == before


@pytest.mark.parametrize("other", [b"", b"other", SAMPLE[:-1], SAMPLE + b"\0", bytes(len(SAMPLE))])
def test_other_content_under_the_name_is_replaced(
    storage: FileSystemStorage, done: Download, other: bytes
) -> None:
    storage.save(NAME, ContentFile(other))
    assert pipeline.store(done, Destination.of(storage), NAME) == NAME
    assert Path(storage.path(NAME)).read_bytes() == SAMPLE
    assert files(storage) == [NAME]


class Remote(InMemoryStorage):
    """A storage without local files, like an object store."""

    path = Storage.path

    def _relative_path(self, name: str) -> str:
        return name


@pytest.mark.parametrize("storage", [InMemoryStorage(), Remote()], ids=["in memory", "remote"])
def test_a_storage_without_files_works(storage: Any) -> None:
    with RawServer(VIDEO) as server:
        assert [kept(server.url, storage)[1] for _ in range(2)] == [NAME, NAME]
    with storage.open(NAME) as file:
        assert file.read() == SAMPLE
    assert storage.listdir("videojobs/2030/01")[1] == [Path(NAME).name]


def test_a_file_that_is_smaller_than_any_buffer_is_stored_whole() -> None:
    storage, tiny = Remote(), FTYP + b"\0\0\0\x08moov"
    with RawServer(answer(tiny)) as server:
        kept(server.url, storage)
    with storage.open(NAME) as file:
        assert file.read() == tiny


@pytest.mark.parametrize("bodies", [[SAMPLE] * 2, [SAMPLE, sample("other")]], ids=["same", "other"])
def test_two_workers_that_store_at_once_leave_one_whole_file(
    storage: FileSystemStorage, tmp_path: Path, bodies: list[bytes]
) -> None:
    both_are_here = threading.Barrier(2)

    def worker(number: int) -> str:
        path, body = tmp_path / f"{number}.part", bodies[number]
        path.write_bytes(body)
        mine = Download(path, len(body), hashlib.sha256(body).hexdigest(), "video/mp4", ".mp4")
        both_are_here.wait(5)
        try:
            return pipeline.store(mine, Destination.of(storage), NAME)
        except (StorageError, OSError):  # the other worker was faster; a job has more attempts
            return "too late"

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(worker, range(2)))

    assert NAME in ended
    assert files(storage) == [NAME]
    assert Path(storage.path(NAME)).read_bytes() in bodies


class Renaming(Remote):
    """A storage that changes the name of each file."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return f"{name}.renamed"


class Losing(Remote):
    """A storage that silently loses the last byte of each file."""

    def _save(self, name: str, content: Any) -> str:
        return super()._save(name, ContentFile(content.read()[:-1]))  # type: ignore[misc]


class Breaking(Remote):
    """A storage that fails in the middle of a file, and leaves a partial file with its name."""

    def _save(self, name: str, content: Any) -> str:
        super()._save(name, ContentFile(content.read(700)))  # type: ignore[misc]
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (Renaming, f"{NAME}.renamed", f"saves {NAME} as {NAME}.renamed"),
        (Losing, NAME, f"did not save the {len(SAMPLE)} bytes of {NAME} unchanged"),
    ],
)
def test_a_storage_that_changes_what_it_gets_is_an_error_and_keeps_nothing(
    done: Download, kind: type[Storage], name: str, message: str
) -> None:
    storage = kind()
    with pytest.raises(StorageError, match=message) as caught:
        pipeline.store(done, Destination.of(storage), NAME)
    assert caught.value.is_ours
    assert not storage.exists(name)


def test_a_storage_that_renames_is_noticed_before_anything_is_downloaded() -> None:
    with RawServer(VIDEO) as server:
        with pytest.raises(StorageError, match="it must keep names") as caught:
            kept(server.url, Renaming())
        assert server.connections == 0
    assert caught.value.is_ours


def test_without_a_directory_nothing_is_downloaded(settings: Any) -> None:
    settings.MEDIA_ROOT = ""
    with RawServer(VIDEO) as server:
        with pytest.raises(StorageError, match="MEDIA_ROOT is not set") as caught:
            kept(server.url, FileSystemStorage())
        assert server.connections == 0
    assert caught.value.is_ours


def test_a_storage_in_memory_needs_no_directory(settings: Any) -> None:
    settings.MEDIA_ROOT = ""
    with RawServer(VIDEO) as server:
        assert kept(server.url, InMemoryStorage())[1] == NAME


def test_a_storage_that_fails_midway_keeps_no_part(done: Download) -> None:
    storage = Breaking()
    with pytest.raises(OSError, match="No space left"):
        pipeline.store(done, Destination.of(storage), NAME)
    assert not storage.exists(NAME)


def test_a_late_failure_takes_away_nothing_that_another_worker_has_finished(done: Download) -> None:
    class Overtaken(Remote):
        def _save(self, name: str, content: Any) -> str:
            super()._save(name, ContentFile(SAMPLE))  # type: ignore[misc]
            raise OSError("the connection broke off")

    storage = Overtaken()
    with pytest.raises(OSError, match="broke off"):
        pipeline.store(done, Destination.of(storage), NAME)
    assert storage.size(NAME) == len(SAMPLE)


def test_a_file_that_another_worker_put_in_place_of_ours_stays(
    storage: FileSystemStorage, done: Download
) -> None:
    other = sample("other")

    class Overtaken(FileSystemStorage):
        def _save(self, name: str, content: Any) -> str:
            saved: str = super()._save(name, content)  # type: ignore[misc]
            Path(self.path(saved)).write_bytes(other)
            return saved

    with pytest.raises(StorageError, match="unchanged"):
        pipeline.store(done, Destination.of(Overtaken(storage.location)), NAME)
    assert Path(storage.path(NAME)).read_bytes() == other


def test_no_part_is_left_when_progress_raises(storage: FileSystemStorage) -> None:
    class Stop(Exception):
        pass

    def stop(*_: int | None) -> None:
        assert len(files(storage)) == 1
        raise Stop

    with (
        RawServer(VIDEO) as server,
        pytest.raises(Stop),
        pipeline.download(server.url, Destination.of(storage), STEM, progress=stop),
    ):
        pass
    assert files(storage) == []


def test_no_part_is_left_of_a_download_that_is_not_stored(storage: FileSystemStorage) -> None:
    with RawServer(VIDEO) as server:
        with pipeline.download(server.url, Destination.of(storage), STEM, progress=quiet) as done:
            assert done.path.read_bytes() == SAMPLE
        assert not done.path.exists()
    assert files(storage) == []


def test_the_part_lies_beside_its_target_so_that_storing_is_a_rename(
    storage: FileSystemStorage,
) -> None:
    with (
        RawServer(VIDEO) as server,
        pipeline.download(server.url, Destination.of(storage), STEM, progress=quiet) as done,
    ):
        inode = done.path.stat().st_ino
        assert done.path.parent == Path(storage.path(NAME)).parent
        pipeline.store(done, Destination.of(storage), NAME)
    assert os.stat(storage.path(NAME)).st_ino == inode


@pytest.fixture(params=["beside the target", "in the temporary directory"])
def home(request: Any, storage: FileSystemStorage, tmp_path: Path, monkeypatch: Any) -> Any:
    """A storage, and the directory of its partial files."""
    if request.param == "beside the target":
        return storage, Path(storage.path(NAME)).parent
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return Remote(), tmp_path / "temporary"


def test_parts_of_a_killed_attempt_are_removed_and_those_of_others_stay(home: Any) -> None:
    storage, directory = home
    directory.mkdir(parents=True)
    mine, other = directory / ".6f9619ff.x1.part", directory / ".7a7a7a7a.x1.part"
    mine.touch()
    other.touch()
    with RawServer(VIDEO) as server:
        kept(server.url, storage)
    assert [path.name for path in directory.glob(".*")] == [other.name]


KILLED = """
import os, signal, sys, django
from django.conf import settings
settings.configure(VIDEOJOBS={"BASE_URL": "http://x", "ALLOWED_PRIVATE_NETWORKS": ["127.0.0.1/32"]})
django.setup()
from django.core.files.storage import FileSystemStorage
from videojobs.mirror import pipeline
from videojobs.mirror.destination import Destination
with pipeline.download(sys.argv[1], Destination.of(FileSystemStorage(sys.argv[2])), sys.argv[3],
                       progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL)):
    pass
"""


def test_a_retry_after_a_kill_leaves_one_file_and_no_part(storage: FileSystemStorage) -> None:
    with RawServer(VIDEO) as server:
        command = [sys.executable, "-c", KILLED, server.url, str(storage.location), STEM]
        assert subprocess.run(command, timeout=30).returncode == -signal.SIGKILL
        assert [Path(name).suffix for name in files(storage)] == [".part"]
        kept(server.url, storage)
    assert files(storage) == [NAME]


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the size of files, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 700, len(SAMPLE) - 1])
def test_a_full_disk_is_an_error_and_leaves_nothing(storage: FileSystemStorage, size: int) -> None:
    with RawServer(VIDEO) as server, file_size_limit(size), pytest.raises(OSError):  # noqa: PT011
        kept(server.url, storage)
    assert files(storage) == []
    with RawServer(VIDEO) as server:
        assert kept(server.url, storage)[1] == NAME

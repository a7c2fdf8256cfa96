"""Resumed downloads: no byte is fetched twice, and bytes of different files are not mixed."""

import hashlib
import io
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import jobs
from tests.support.raw_server import (
    CHUNKED,
    RawServer,
    answer,
    drip,
    redirect,
    reset,
    silence,
    within,
)
from videojobs.exceptions import (
    DownloadError,
    NotSent,
    OutputExpired,
    OutputRefused,
    OutputTooLarge,
    TransportError,
    VideoJobsError,
)
from videojobs.mirror import download
from videojobs.mirror.download import Fetched
from videojobs.testing import SAMPLE, sample

ETAG = '"5d41402a"'
SHA256 = hashlib.sha256(SAMPLE).hexdigest()
OTHER = sample("another video")
HALF = len(SAMPLE) // 2
TOTAL = len(SAMPLE)
# The size of one read, and a file that needs several reads.
PIECE = download._PIECE
LONG = sample("." * (PIECE // 2 * 3))


@pytest.fixture(autouse=True)
def configured(settings: Any) -> None:
    settings.VIDEOJOBS = jobs.fetched_from_here()


def cut(
    body: bytes = SAMPLE, at: int = HALF, *, headers: tuple[str, ...] = (f"ETag: {ETAG}",)
) -> bytes:
    """A response that ends after `at` bytes of its body."""
    return answer(body, *headers)[: at - len(body)]


def chunks(body: bytes) -> bytes:
    """A response of unknown length that ends after one chunk."""
    head = CHUNKED.replace(b"\r\n\r\n", f"\r\nETag: {ETAG}\r\n\r\n".encode())
    return head + b"%x\r\n%b\r\n" % (len(body), body)


def rest(
    start: int = HALF, body: bytes = SAMPLE, *, headers: tuple[str, ...] = (f"ETag: {ETAG}",)
) -> bytes:
    """The response to a request for the rest of a body."""
    span = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
    return answer(body[start:], span, *headers, status="206 Partial Content")


def fetched(
    server: RawServer, *, noted: Callable[..., None] | None = None
) -> tuple[Fetched, bytes]:
    file = io.BytesIO()
    url = f"{server.url}/v.mp4?Signature=s3cr3t"
    found = download.fetch(url, file, progress=noted or (lambda *_: None))
    return found, file.getvalue()


def failure(server: RawServer) -> VideoJobsError:
    with pytest.raises(VideoJobsError) as caught:
        fetched(server)
    assert "s3cr3t" not in str(caught.value)
    return caught.value


def header(request: bytes, name: str) -> str | None:
    lines = request.decode("latin-1").split("\r\n")[1:]
    pairs = dict(line.split(": ", 1) for line in lines if ": " in line)
    return {key.lower(): value for key, value in pairs.items()}.get(name.lower())


def asked_for(server: RawServer) -> list[tuple[str | None, str | None]]:
    """The Range and If-Range headers of each request."""
    return [(header(r, "Range"), header(r, "If-Range")) for r in server.requests]


FIRST = (None, None)
REST = (f"bytes={HALF}-", ETAG)


def test_a_download_that_broke_off_is_resumed_where_it_was() -> None:
    with RawServer(cut(), rest()) as server:
        found, kept = fetched(server)

    assert (found.size, found.sha256, kept) == (TOTAL, SHA256, SAMPLE)
    assert asked_for(server) == [FIRST, REST]


def test_after_a_reset_the_rest_is_fetched() -> None:
    arrived = threading.Event()

    def first(connection: socket.socket) -> None:
        connection.sendall(cut(LONG, at=PIECE))
        assert arrived.wait(5)  # a reset discards bytes that were not read yet
        reset(connection)

    with RawServer(first, rest(PIECE, LONG)) as server:
        found, kept = fetched(server, noted=lambda *_: arrived.set())

    assert (found.size, kept) == (len(LONG), LONG)


def test_after_chunks_without_an_end_the_rest_is_fetched_and_tells_the_length() -> None:
    seen: list[tuple[int, int | None]] = []
    with RawServer(chunks(LONG[: PIECE + 1000]), rest(PIECE, LONG)) as server:
        found, kept = fetched(server, noted=lambda *so_far: seen.append(so_far))

    assert (found.size, kept) == (len(LONG), LONG)
    assert seen == [(PIECE, None), (len(LONG), len(LONG))]


def test_progress_goes_on_where_it_was() -> None:
    seen: list[tuple[int, int | None]] = []
    with RawServer(cut(), rest()) as server:
        fetched(server, noted=lambda *so_far: seen.append(so_far))

    assert seen == [(HALF, TOTAL), (TOTAL, TOTAL)]


def test_a_download_is_resumed_several_times_and_not_for_ever() -> None:
    pieces = [cut(at=100), *(rest(100 * n)[: 100 * (n + 1) - TOTAL] for n in (1, 2, 3, 4, 5))]
    with RawServer(*pieces) as server:
        error = failure(server)

    assert (type(error), error.transient, len(server.requests)) == (TransportError, True, 5)


def test_a_rest_that_brings_nothing_is_not_asked_for_again() -> None:
    with RawServer(cut(), rest()[: HALF - TOTAL]) as server:
        error = failure(server)

    assert (type(error), len(server.requests)) == (TransportError, 2)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (f"ETag: W/{ETAG}",),
        ("ETag: 5d41402a",),
        ('ETag: ""',),
        ('ETag: "a b"',),
        ('ETag: "ü"',),
        (f'ETag: "{"x" * 300}"',),
        (f"ETag: {ETAG}, {ETAG}",),
        ("Last-Modified: Sat, 28 Nov 2026 01:00:00 GMT", "Accept-Ranges: bytes"),
    ],
)
def test_without_a_strong_etag_a_download_is_not_resumed(
    headers: tuple[str, ...],
) -> None:
    with RawServer(cut(headers=headers), rest()) as server:
        error = failure(server)

    assert (error.transient, asked_for(server)) == (True, [FIRST])


WRONG_RESTS = {
    "a later start": rest().replace(f"bytes {HALF}-".encode(), f"bytes {HALF + 1}-".encode()),
    "an earlier start": rest(HALF - 1),
    "the whole as a part": rest(0),
    "another end": rest().replace(f"-{TOTAL - 1}/".encode(), f"-{TOTAL - 2}/".encode()),
    "another total": rest(body=OTHER),
    "an unknown total": rest().replace(f"/{TOTAL}".encode(), b"/*"),
    "a total over the limit": rest().replace(f"/{TOTAL}".encode(), b"/99999999"),
    "no range": answer(SAMPLE[HALF:], f"ETag: {ETAG}", status="206 Partial Content"),
    "another unit": rest().replace(b"bytes", b"seconds"),
    "nonsense": rest().replace(b"bytes ", b"bytes -"),
    "another etag": rest(headers=('ETag: "other"',)),
    "a weak etag": rest(headers=(f"ETag: W/{ETAG}",)),
    "an encoding": rest(headers=(f"ETag: {ETAG}", "Content-Encoding: gzip")),
    "another length": rest().replace(
        f"Content-Length: {TOTAL - HALF}".encode(), f"Content-Length: {TOTAL}".encode()
    ),
    "several parts": rest().replace(
        b"Content-Range", b"Content-Type: multipart/byteranges; boundary=x\r\nX-Range"
    ),
    "nothing that could be sent": answer(b"", status="416 Range Not Satisfiable"),
}


@pytest.mark.parametrize("wrong", WRONG_RESTS.values(), ids=WRONG_RESTS)
def test_after_a_wrong_rest_the_download_begins_anew(wrong: bytes) -> None:
    with RawServer(cut(), wrong, answer(SAMPLE, f"ETag: {ETAG}")) as server:
        found, kept = fetched(server)

    assert (found.sha256, kept) == (SHA256, SAMPLE)
    assert asked_for(server) == [FIRST, REST, FIRST]


def test_a_host_that_never_sends_the_right_rest_is_left_for_another_attempt() -> None:
    with RawServer(*[cut(), WRONG_RESTS["a later start"]] * 6) as server:
        error = failure(server)

    assert (error.transient, len(server.requests)) == (True, 5)


def test_a_whole_answer_to_a_request_for_the_rest_is_a_new_beginning() -> None:
    with RawServer(cut(), answer(OTHER, 'ETag: "other"')) as server:
        found, kept = fetched(server)

    assert (found.sha256, kept) == (hashlib.sha256(OTHER).hexdigest(), OTHER)
    assert asked_for(server) == [FIRST, REST]


def test_a_new_beginning_is_resumed_by_its_own_etag() -> None:
    with RawServer(
        cut(),
        cut(OTHER, at=300, headers=('ETag: "other"',)),
        rest(300, OTHER, headers=('ETag: "other"',)),
    ) as server:
        _found, kept = fetched(server)

    assert kept == OTHER
    assert asked_for(server)[2] == ("bytes=300-", '"other"')


def test_a_shorter_new_beginning_leaves_nothing_of_the_old_one() -> None:
    longer = sample("x" * 5000)
    with RawServer(cut(longer, at=TOTAL + 4000), answer(SAMPLE)) as server:
        found, kept = fetched(server)

    assert (kept, found.sha256) == (SAMPLE, SHA256)


def test_a_rest_whose_url_is_dead_meanwhile_needs_a_fresh_one() -> None:
    with RawServer(cut(), answer(b"<Error/>", status="403 Forbidden")) as server:
        assert type(failure(server)) is OutputExpired


def test_a_host_that_is_busy_meanwhile_is_left_alone_for_as_long_as_it_asks() -> None:
    with RawServer(cut(), answer(b"", "Retry-After: 77", status="503 Busy")) as server:
        error = failure(server)

    assert (type(error), error.retry_after) == (DownloadError, 77)


def test_a_host_that_is_gone_meanwhile_is_an_error_of_the_attempt() -> None:
    server = RawServer()

    def last_words(connection: Any) -> None:
        connection.sendall(cut())
        server._listener.close()

    server.answers = (last_words,)
    with server:
        error = failure(server)

    assert isinstance(error, (NotSent, TransportError))


def test_the_address_of_a_rest_is_checked() -> None:
    with RawServer(cut(), redirect("http://10.0.0.1/v.mp4")) as server:
        assert type(failure(server)) is OutputRefused


def test_a_rest_is_as_bounded_as_a_beginning(settings: Any) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MAX_OUTPUT_BYTES": len(LONG) - 1}
    endless = chunks(LONG) + b"0\r\n\r\n"
    with RawServer(chunks(LONG[: PIECE + 1000]), rest(PIECE, LONG), endless) as server:
        assert type(failure(server)) is OutputTooLarge


def test_one_deadline_covers_the_beginning_and_the_rest(settings: Any) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "DOWNLOAD_TIMEOUT": 0.5}
    head, _, body = rest().partition(b"\r\n\r\n")
    dripping = drip(head + b"\r\n\r\n", body[:1])
    with RawServer(cut(), dripping) as server, within(5):
        error = failure(server)

    assert (type(error), len(server.requests)) == (TransportError, 2)


def test_a_host_that_stalls_is_left_long_before_the_deadline(settings: Any) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "READ_TIMEOUT": 0.2, "DOWNLOAD_TIMEOUT": 60.0}

    def stall(connection: socket.socket) -> None:
        connection.sendall(cut(headers=()))
        silence(connection)

    with RawServer(stall) as server, within(5):
        error = failure(server)

    assert (type(error), error.transient) == (TransportError, True)


def test_what_progress_raises_ends_the_download_at_once() -> None:
    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    with RawServer(cut(), rest()) as server:
        with pytest.raises(Stop):
            fetched(server, noted=stop)

        assert len(server.requests) == 1

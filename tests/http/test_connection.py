"""Connections that the threads of a process share."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.forks import in_a_child
from tests.support.raw_server import OK, RawServer, drip, make_certificate, within
from videojobs.exceptions import TransportError
from videojobs.http import connection, transport

TIMEOUT = 20.0


def get(url: str, timeout: float = TIMEOUT) -> bytes:
    reply = transport.request("GET", url, connect_timeout=5.0, timeout=timeout, max_bytes=1000)
    return reply.body


def in_a_thread(target: Callable[..., Any], *args: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(target, *args).result(TIMEOUT)


@pytest.fixture(autouse=True)
def no_pooled_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_pooled", None)


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    if not request.param:
        return None
    certificate = make_certificate(tmp_path / "localhost.pem")
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificate))
    return certificate


@pytest.fixture
def echo() -> Iterator[tuple[str, set[int]]]:
    """A server that answers with the path after some milliseconds, and its clients' ports."""
    ports: set[int] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            ports.add(self.client_address[1])
            time.sleep(0.002)
            body = self.path.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", ports
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_thread_uses_the_connection_of_another_one(tls: Path | None) -> None:
    with RawServer(keep=True, tls=tls) as server:
        assert in_a_thread(get, server.url) == b"ok"
        assert get(server.url) == b"ok"
        assert in_a_thread(get, server.url) == b"ok"
        assert server.connections == 1


def test_a_connection_of_another_thread_has_the_deadline_of_its_new_call(
    tls: Path | None,
) -> None:
    dripping = drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", every=0.02)
    with RawServer(OK, dripping, keep=True, tls=tls) as server:
        in_a_thread(get, server.url)
        with within(5), pytest.raises(TransportError, match="in time"):
            get(server.url, 0.3)
        assert server.connections == 1


def test_each_of_many_calls_at_once_gets_its_own_answer(echo: tuple[str, set[int]]) -> None:
    url, ports = echo
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(lambda n: get(f"{url}/{n}"), range(400)))

    assert bodies == [f"/{n}".encode() for n in range(400)]
    assert len(ports) <= 8


def test_the_deadlines_of_calls_at_once_are_their_own() -> None:
    def slow(server_side: socket.socket) -> None:
        time.sleep(1.0)
        server_side.sendall(OK)

    with RawServer(slow) as server, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(get, server.url, 0.3 if n % 2 else TIMEOUT) for n in range(8)]
        failed = [isinstance(call.exception(), TransportError) for call in calls]

    assert failed == [False, True] * 4


def test_a_call_that_ends_at_its_deadline_does_not_end_the_next_call_of_its_connection(
    monkeypatch: pytest.MonkeyPatch, tls: Path | None
) -> None:
    received, expired = threading.Event(), threading.Event()
    check, expire = connection.Exchange.check, connection.Exchange._expire

    def slow_check(exchange: connection.Exchange) -> None:
        if threading.current_thread() is not threading.main_thread():
            received.set()
            assert expired.wait(TIMEOUT)
        check(exchange)

    def noted_expire(exchange: connection.Exchange) -> None:
        expire(exchange)
        expired.set()

    def after_the_deadline(server_side: socket.socket) -> None:
        assert expired.wait(TIMEOUT)
        server_side.sendall(OK)

    monkeypatch.setattr(connection.Exchange, "check", slow_check)
    monkeypatch.setattr(connection.Exchange, "_expire", noted_expire)
    with RawServer(OK, after_the_deadline, keep=True, tls=tls) as server:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(get, server.url, 0.5)
            assert received.wait(TIMEOUT)
            assert get(server.url) == b"ok"
            assert isinstance(first.exception(TIMEOUT), TransportError)
        assert server.connections == 1


def test_no_more_connections_stay_open_than_checks_are_sent_at_once(settings: Any) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "POLL_CONCURRENCY": 2}
    together = threading.Barrier(3)

    def meet(server_side: socket.socket) -> None:
        together.wait(TIMEOUT)
        server_side.sendall(OK)

    with RawServer(meet, keep=True) as server:
        for connections in (3, 4):  # one of the first three was closed
            with ThreadPoolExecutor(3) as pool:
                assert list(pool.map(get, [server.url] * 3)) == [b"ok"] * 3
            assert server.connections == connections


def test_threads_that_begin_at_once_share_their_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(connection.Connections):
        def __init__(self, **kwargs: Any) -> None:
            time.sleep(0.1)
            super().__init__(**kwargs)

    monkeypatch.setattr(connection, "Connections", Slow)
    with ThreadPoolExecutor(4) as pool:
        found = {id(made) for made in pool.map(lambda _: connection.pooled(), range(4))}

    assert len(found) == 1


def locks_of_the_pool() -> list[Any]:
    pools = connection.pooled().poolmanager.pools
    idle = [pool.pool for pool in pools._container.values()]
    return [connection._lock, pools.lock, *(queue.mutex for queue in idle)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_what_threads_of_its_parent_have_locked() -> None:
    held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in locks_of_the_pool():
                stack.enter_context(lock)
            held.set()
            may_go.wait(TIMEOUT)

    with RawServer(keep=True) as server:
        get(server.url)
        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(TIMEOUT)
        answered = in_a_child(lambda: get(server.url) == b"ok")
        may_go.set()
        thread.join()
        assert answered
        assert server.connections == 2


# Interim responses, and connections whose state is unknown

EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
OTHER_INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n",
    EARLY,
    b"HTTP/1.1 104 Upload Resumption Supported\r\n\r\n",
    b"HTTP/1.1 199 Miscellaneous\r\n\r\n",
]


@pytest.mark.parametrize("interim", [*OTHER_INTERIM, b"".join(OTHER_INTERIM), EARLY * 50])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("fresh", [False, True])
def test_interim_responses_are_read_past(interim: bytes, method: str, fresh: bool) -> None:
    with RawServer(interim + OK, keep=True) as server:
        for _ in range(3):
            reply = transport.request(
                *(method, server.url),
                connect_timeout=5.0,
                timeout=TIMEOUT,
                max_bytes=1000,
                fresh=fresh,
            )
            assert (reply.status, reply.body) == (200, b"ok")
        assert server.connections == (3 if fresh else 1)


def test_an_interim_response_that_comes_before_a_pause_is_read_past(tls: Path | None) -> None:
    def hint_and_answer(server_side: socket.socket) -> None:
        server_side.sendall(EARLY)
        time.sleep(0.1)
        server_side.sendall(OK)

    with RawServer(hint_and_answer, keep=True, tls=tls) as server:
        assert [get(server.url), get(server.url)] == [b"ok", b"ok"]
        assert server.connections == 1


def test_interim_responses_of_a_stream_are_read_past() -> None:
    with (
        RawServer(EARLY + OK) as server,
        transport.stream(
            server.url,
            connect_timeout=5.0,
            read_timeout=5.0,
            timeout=TIMEOUT,
            allowed=["127.0.0.0/8"],
            insecure=True,
        ) as stream,
    ):
        assert (stream.status, stream.read(10)) == (200, b"ok")


def test_interim_responses_without_end_end_at_the_deadline() -> None:
    with (
        RawServer(drip(EARLY, EARLY, every=0.02)) as server,
        within(5),
        pytest.raises(TransportError, match="in time"),
    ):
        get(server.url, 0.3)


def test_a_switch_of_protocols_is_an_error_and_its_connection_is_not_used_again() -> None:
    with RawServer(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", OK, keep=True) as server:
        with pytest.raises(TransportError):
            get(server.url)
        assert get(server.url) == b"ok"
        assert server.connections == 2


@pytest.mark.parametrize("status", [b"204 No Content", b"302 Found", b"400 Bad", b"500 Oops"])
def test_after_a_status_without_a_result_the_connection_is_not_used_again(status: bytes) -> None:
    with RawServer(OK.replace(b"200 OK", status), OK, keep=True) as server:
        get(server.url)
        get(server.url)
        assert server.connections == 2


def test_a_late_response_on_a_used_connection_is_doubted_and_not_believed() -> None:
    late = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"
    with RawServer(OK, late, OK, keep=True) as server:
        get(server.url)
        reply = transport.request(
            *("GET", server.url),
            connect_timeout=5.0,
            timeout=TIMEOUT,
            max_bytes=1000,
            doubts=lambda reply: reply.body == b"late",
        )
        assert (reply.body, server.connections) == (b"ok", 2)
        get(server.url)
        # Neither the doubtful connection nor the fresh one is used again.
        assert server.connections == 3


def test_a_doubtful_response_on_a_new_connection_is_not_asked_for_again() -> None:
    with RawServer(OK, keep=True) as server:
        transport.request(
            *("GET", server.url),
            connect_timeout=5.0,
            timeout=TIMEOUT,
            max_bytes=1000,
            doubts=lambda reply: True,
        )
        assert len(server.requests) == 1
        # But its connection is not used again.
        get(server.url)
        assert server.connections == 2


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n5\r\n",
    ],
)
def test_an_error_has_the_part_of_the_body_that_arrived(cut: bytes) -> None:
    with RawServer(cut) as server, pytest.raises(TransportError) as caught:
        get(server.url)
    assert caught.value.received == b"half"


def test_a_body_that_is_too_long_is_kept_up_to_the_limit() -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000
    with RawServer(body) as server, pytest.raises(TransportError, match="than 1000") as caught:
        get(server.url)
    assert caught.value.received == b"x" * 1000

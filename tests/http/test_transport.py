import contextlib
import gc
import gzip
import logging
import os
import signal
import socket
import threading
import time
import traceback
import tracemalloc
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from billiard.exceptions import SoftTimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

from tests.support.forks import in_a_child
from tests.support.raw_server import (
    CHUNKED,
    OK,
    Answers,
    RawServer,
    answer,
    drip,
    flood,
    make_certificate,
    redirect,
    reset,
    silence,
    within,
)
from videojobs.exceptions import ForbiddenAddress, NotSent, TransportError, VideoJobsError
from videojobs.http import addresses, connection, transport

LOCAL = ["127.0.0.1/32"]


def get(url: str, **kwargs: Any) -> transport.Reply:
    options = {"connect_timeout": 2.0, "timeout": 5.0, "max_bytes": 1000, **kwargs}
    return transport.request("GET", url, **options)


def post(url: str, **kwargs: Any) -> transport.Reply:
    options = {"connect_timeout": 2.0, "timeout": 5.0, "max_bytes": 1000, **kwargs}
    return transport.request("POST", url, json={"a": 1}, fresh=True, **options)


def stream(url: str, **kwargs: Any) -> tuple[int, bytes]:
    options = {"connect_timeout": 2.0, "read_timeout": 2.0, "timeout": 5.0, "insecure": True}
    with transport.stream(url, **{"allowed": LOCAL, **options, **kwargs}) as opened:
        return opened.status, b"".join(iter(lambda: opened.read(65536), b""))


BOTH = pytest.mark.parametrize("ask", [get, stream])
ALL = pytest.mark.parametrize("ask", [get, post, stream])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "localhost.pem")


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate that the client trusts."""
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificate))
    return certificate


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Fake DNS: each lookup returns the next list of addresses; the last one is repeated."""
    known: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return real(host, port, *args, **kwargs)
        found = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [entry for ip in found for entry in real(ip, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


# A whole answer


def test_a_reply_has_status_headers_and_body() -> None:
    with RawServer(answer(b'{"a": 1}', "X-Odd:  value", status="418 Teapot")) as server:
        reply = get(server.url)
    assert (reply.status, reply.body, reply.headers["x-odd"]) == (418, b'{"a": 1}', "value")


def test_a_post_sends_its_json_and_headers() -> None:
    with RawServer() as server:
        post(f"{server.url}/v1/x", headers={"Authorization": "Bearer k"})
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer k" in head
    assert body == b'{"a": 1}'


def test_a_stream_gives_the_body_as_it_came() -> None:
    body = gzip.compress(b"x" * 5000)
    with RawServer(answer(body, "Content-Encoding: gzip")) as server:
        assert stream(server.url) == (200, body)


def test_a_stream_asks_for_an_identity_encoding_and_shows_no_credentials() -> None:
    with RawServer() as server:
        stream(f"{server.url}/v.mp4?Sig=a%20b")
    head = server.requests[0].lower()
    assert head.startswith(b"get /v.mp4?sig=a%20b http/1.1\r\n")
    assert b"\r\naccept-encoding: identity\r\n" in head
    assert not any(name in head for name in (b"authorization", b"cookie", b"referer"))


def test_chunks_are_put_together() -> None:
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    with RawServer(body) as server:
        assert (get(server.url).body, stream(server.url)) == (b"abcde", (200, b"abcde"))


CUT = {
    "a short body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    "no body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
    "a cut chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "an unknown version": b"HTTP/9.9 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 abc OK\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a long line": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "a thousand headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
}


@ALL
@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
def test_half_an_answer_is_no_answer(ask: Any, cut: bytes) -> None:
    with RawServer(cut) as server, pytest.raises(TransportError) as caught:
        ask(server.url)
    assert not isinstance(caught.value, NotSent)


@ALL
def test_a_reset_is_a_transport_error(ask: Any) -> None:
    with (
        RawServer(reset) as server,
        pytest.raises(TransportError, match=r"^127\.0\.0\.1: ") as caught,
    ):
        ask(server.url)
    assert not isinstance(caught.value, NotSent)


def test_a_broken_gzip_body_is_an_error() -> None:
    with (
        RawServer(answer(b"no gzip", "Content-Encoding: gzip")) as server,
        pytest.raises(TransportError),
    ):
        get(server.url)


@given(st.binary(max_size=200), st.sampled_from([b"", b"Content-Type: ", b"Content-Encoding: "]))
def test_nothing_that_arrives_raises_anything_but_our_errors(data: bytes, header: bytes) -> None:
    start = b"HTTP/1.1 200 OK\r\n"
    with RawServer(data, start + header + data, start + header + data + b"\r\n\r\n{}") as server:
        for ask in (get, get, get, stream, stream):
            with contextlib.suppress(VideoJobsError):
                ask(server.url, timeout=1.0)


# One deadline

ENDLESS = {
    "silence": silence,
    "a drip in the status line": drip(b"HTTP/1.1 200 O", b"K"),
    "a drip in the headers": drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", every=0.02),
    "a drip in one header": drip(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "a drip in the body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x"),
    "a drip without a length": drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "a drip of chunks": drip(CHUNKED, b"1\r\nx\r\n"),
    "100 Continue": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every=0.02),
    "a flood of 100 Continue": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}  # fmt: skip


@ALL
@pytest.mark.parametrize("endless", ENDLESS.values(), ids=ENDLESS)
def test_an_answer_without_end_ends_at_the_deadline(ask: Any, endless: Any) -> None:
    # Python 3.14 ends a flood of interim responses sooner.
    ended = pytest.raises(TransportError, match=r"time|broke off \(HTTPException\)")
    with RawServer(endless) as server, within(5), ended as caught:
        ask(server.url, timeout=0.2)
    assert not isinstance(caught.value, NotSent)


@pytest.mark.parametrize("tls", [False, True])
def test_a_reused_connection_has_the_deadline_of_its_new_call(trusted: Path, tls: bool) -> None:
    dripping = drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", every=0.02)
    with RawServer(OK, dripping, keep=True, tls=trusted if tls else None) as server:
        get(server.url)
        with within(5), pytest.raises(TransportError, match="time"):
            get(server.url, timeout=0.2)
        assert server.connections == 1


def test_a_server_that_never_shakes_hands_ends_at_the_deadline_as_not_sent(trusted: Path) -> None:
    with RawServer(silence) as server, within(5), pytest.raises(NotSent, match="time"):
        post(server.url.replace("http:", "https:"), timeout=0.3)


def test_the_deadline_covers_all_redirects_together() -> None:
    def later(connection: socket.socket) -> None:
        time.sleep(0.2)
        connection.sendall(redirect("/again"))

    with RawServer(later) as server, within(5), pytest.raises(TransportError, match="time"):
        stream(server.url, timeout=0.5)


def test_a_slow_resolver_is_no_reason_to_send_after_the_deadline(
    names: Any, monkeypatch: Any
) -> None:
    names["slow.example"] = [["127.0.0.1"]]
    quick = socket.getaddrinfo

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.3)
        return quick(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with RawServer() as server, pytest.raises(NotSent, match="time"):
        post(f"http://slow.example:{server.port}", timeout=0.1)
    assert server.connections == 0


def test_many_dead_addresses_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda *_: ["127.0.0.1"] * 4)
    with contextlib.ExitStack() as stack:
        # A full backlog drops new connections, as a firewall does.
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with within(1.3), pytest.raises(NotSent):
            get(f"http://dead.example:{full.getsockname()[1]}", connect_timeout=0.4, timeout=0.5)


def test_deadlines_cost_no_thread_each() -> None:
    with RawServer(keep=True) as server:
        get(server.url)
        before = set(threading.enumerate())
        for _ in range(5):
            get(server.url)
            assert set(threading.enumerate()) <= before


def test_calls_that_have_ended_stay_in_memory_until_no_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[weakref.ref[connection.Exchange]] = []

    class Noted(connection.Exchange):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            ended.append(weakref.ref(self))

    monkeypatch.setattr(transport, "Exchange", Noted)
    with RawServer(keep=True) as server:
        for ask in (get, post, stream):
            ask(server.url, timeout=600.0)
            gc.collect()
    assert [exchange() for exchange in ended] == [None, None, None]


# Bounded bodies


def test_a_body_of_just_the_limit_is_read() -> None:
    with RawServer(answer(b"x" * 1000)) as server:
        assert len(get(server.url).body) == 1000


@pytest.mark.parametrize(
    "too_long",
    [
        answer(b"x" * 1001),
        flood(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["announced", "without end", "chunks without end"],
)
def test_a_body_over_the_limit_is_an_error(too_long: Any) -> None:
    with RawServer(too_long) as server, within(5), pytest.raises(TransportError, match="more than"):
        get(server.url)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_gzip_bomb_costs_neither_memory_nor_time(layers: int) -> None:
    bomb = gzip.compress(bytes(100 * 1024 * 1024))
    for _ in range(layers - 1):
        bomb = gzip.compress(bomb)
    headers = "Content-Encoding: " + ", ".join(["gzip"] * layers)
    with RawServer(answer(bomb, headers)) as server:
        tracemalloc.start()
        with within(5), pytest.raises(TransportError):
            get(server.url, max_bytes=1024 * 1024)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 12 * 1024 * 1024


# Connections


def test_a_call_reuses_the_connection_of_the_last_one() -> None:
    with RawServer(keep=True) as server:
        for _ in range(3):
            get(server.url)
        assert server.connections == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_share_its_parent_s_connection() -> None:
    with RawServer(keep=True) as server:
        get(server.url)
        assert in_a_child(lambda: get(server.url).body == b"ok")
        assert get(server.url).body == b"ok"
        assert server.connections == 2


def test_a_fresh_call_uses_a_connection_of_its_own_and_closes_it() -> None:
    closed = threading.Event()

    def wait_for_the_end(connection: socket.socket) -> None:
        connection.sendall(OK)
        closed.set() if connection.recv(1) == b"" else None

    with RawServer(OK, wait_for_the_end, keep=True) as server:
        get(server.url)
        post(server.url)
        assert closed.wait(2)
        assert server.connections == 2


def test_a_pooled_connection_that_the_server_has_closed_is_replaced() -> None:
    with RawServer() as server:
        get(server.url)
        assert server.finished.acquire(timeout=2)
        assert get(server.url).body == b"ok"


def test_a_connection_whose_answer_broke_off_is_not_used_again() -> None:
    with RawServer(answer(b"x" * 2000), OK, keep=True) as server:
        with pytest.raises(TransportError):
            get(server.url)
        assert get(server.url).body == b"ok"
        assert server.connections == 2


@ALL
@pytest.mark.parametrize("data", [OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", b""])
def test_no_call_leaves_a_socket_open(ask: Any, data: bytes) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        with RawServer(data) as server, contextlib.suppress(TransportError):
            ask(server.url)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    # One pooled connection to each server may still be open.
    assert after - before <= (20 if ask is get else 2)


# NotSent


@ALL
def test_a_refused_connection_is_not_sent(ask: Any, closed_port: int) -> None:
    with pytest.raises(NotSent, match="Connection refused"):
        ask(f"http://127.0.0.1:{closed_port}")


@ALL
@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example", "a..example"])
def test_a_name_without_an_address_is_not_sent(ask: Any, host: str) -> None:
    with pytest.raises(NotSent):
        ask(f"http://{host}/v.mp4")


@ALL
def test_an_untrusted_certificate_is_not_sent(ask: Any, certificate: Path) -> None:
    with (
        RawServer(tls=certificate) as server,
        pytest.raises(NotSent, match="certificate verify failed"),
    ):
        ask(server.url)
    assert server.requests == []


def test_a_certificate_of_another_host_is_not_sent(trusted: Path, names: Any) -> None:
    names["other.example"] = [["127.0.0.1"]]
    with RawServer(tls=trusted) as server, pytest.raises(NotSent, match="certificate"):
        post(f"https://other.example:{server.port}")
    assert server.requests == []


def test_a_server_that_speaks_no_tls_is_not_sent(trusted: Path) -> None:
    def babble(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RawServer())
        server._read = lambda connection: connection.recv(9)  # type: ignore[method-assign]
        server.answers = (babble,)
        with pytest.raises(NotSent):
            post(server.url.replace("http:", "https:"))


@pytest.mark.parametrize("key", ["schlüssel–1", "a\nb", "a\r\nX: y"])
def test_a_key_that_no_header_can_carry_is_an_error_of_ours_and_is_not_shown(key: str) -> None:
    with RawServer() as server, pytest.raises(TransportError) as caught:
        post(server.url, headers={"Authorization": f"Bearer {key}"})
    shown = "".join(traceback.format_exception(caught.value))
    assert key not in shown.replace(repr(key), key)
    assert server.requests == []


def test_the_second_address_is_tried_when_the_first_is_dead(names: Any) -> None:
    names["two.example"] = [["127.0.0.9", "127.0.0.1"]]
    with RawServer() as server:
        assert get(f"http://two.example:{server.port}").body == b"ok"


def test_tls_works_where_the_certificate_is_trusted(trusted: Path) -> None:
    with RawServer(tls=trusted) as server:
        assert (get(server.url).body, post(server.url).body) == (b"ok", b"ok")
        assert stream(server.url) == (200, b"ok")


# The content of error messages

KEY = "k3y-k3y"
PLACE = "/secret-path/v.mp4?Signature=s3cr3t&Expires=1"
FAILURES: dict[str, Answers] = {
    **CUT,
    "a reset": reset,
    "silence": silence,
}


@ALL
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_no_error_shows_more_of_a_url_than_its_host(ask: Any, failure: Any) -> None:
    with (
        RawServer(failure) as server,
        pytest.raises(TransportError, match=r"^127\.0\.0\.1: ") as caught,
    ):
        ask(server.url + PLACE, headers={"X-Key": KEY}, timeout=0.2)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not any(part in shown for part in ("secret-path", "s3cr3t", KEY))


@ALL
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{}", "http://no-such-host.invalid", "https://127.0.0.1:{}"]
)
def test_no_error_of_connecting_shows_more_of_a_url_than_its_host(
    ask: Any, url: str, closed_port: int
) -> None:
    with pytest.raises(NotSent) as caught:
        ask(url.format(closed_port) + PLACE)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(part in shown for part in ("secret-path", "s3cr3t"))


@ALL
def test_no_error_of_a_certificate_shows_more_of_a_url_than_its_host(
    ask: Any, certificate: Path
) -> None:
    """The error of urllib3 contains the whole URL, also in its traceback."""
    with RawServer(tls=certificate) as server, pytest.raises(NotSent) as caught:
        ask(server.url + PLACE)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(part in shown for part in ("secret-path", "s3cr3t"))


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """A time limit of Celery's prefork pool: the handler of a signal raises it anywhere."""

    def handle(*_: object) -> None:
        raise SoftTimeLimitExceeded(seconds)

    before = signal.signal(signal.SIGUSR1, handle)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGUSR1, before)


@ALL
@pytest.mark.parametrize(
    "answers",
    [silence, drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x")],
    ids=["before the answer", "in its body"],
)
@pytest.mark.parametrize("tls", [False, True])
def test_a_time_limit_of_the_task_is_no_error_of_the_network(
    ask: Any, answers: Any, tls: bool, trusted: Path
) -> None:
    with (
        RawServer(answers, tls=trusted if tls else None) as server,
        within(4),
        pytest.raises(SoftTimeLimitExceeded) as caught,
        time_limit(0.3),
    ):
        ask(server.url)
    assert caught.value.args == (0.3,)


@ALL
def test_a_time_limit_while_connecting_is_no_error_of_the_network(
    ask: Any, names: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    with within(4), pytest.raises(SoftTimeLimitExceeded), time_limit(0.2):
        ask("http://slow.example")


def test_a_connection_that_a_time_limit_interrupted_is_not_used_again() -> None:
    def late(connection: socket.socket) -> None:
        time.sleep(0.5)
        connection.sendall(answer(b"of the first call"))

    with RawServer(late, OK, keep=True) as server:
        with pytest.raises(SoftTimeLimitExceeded), time_limit(0.2):
            get(server.url)
        assert get(server.url).body == b"ok"
        assert server.connections == 2


def test_an_error_tells_what_the_system_said_even_inside_another_one_s_handling(
    closed_port: int,
) -> None:
    try:
        raise OSError(28, "No space left on device")
    except OSError:
        with pytest.raises(NotSent, match="Connection refused"):
            get(f"http://127.0.0.1:{closed_port}")


@BOTH
def test_headers_that_can_t_be_parsed_bring_no_url_into_the_log(
    ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    odd = b"HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 2\r\n\r\nok"
    with RawServer(odd) as server, caplog.at_level(logging.INFO):
        ask(server.url + PLACE)
    assert "Failed to parse headers" in caplog.text
    assert "s3cr3t" not in caplog.text


# The address check when connecting


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_guard_stands_in_urllib3_s_own_way_to_a_connection(
    scheme: str, trusted: Path, names: Any
) -> None:
    """Fails if urllib3 stops calling `_new_conn`, since addresses would not be checked."""
    names["inside.example"] = [["127.0.0.1"]]
    with RawServer(tls=trusted if scheme == "https" else None) as server:
        url = f"{scheme}://inside.example:{server.port}/v.mp4"
        with pytest.raises(ForbiddenAddress, match=r"^inside\.example resolves to"):
            stream(url, allowed=())
    assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_no_spelling_of_this_machine_is_connected_to(host: str) -> None:
    with RawServer() as server, pytest.raises(ForbiddenAddress):
        stream(f"http://{host}:{server.port}/", allowed=())
    assert server.connections == 0


@pytest.mark.parametrize("found", [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"]])
def test_a_name_with_one_forbidden_address_is_not_connected_to(
    names: Any, found: list[str]
) -> None:
    names["mixed.example"] = [found]
    with RawServer() as server, pytest.raises(ForbiddenAddress):
        stream(f"http://mixed.example:{server.port}/")
    assert server.connections == 0


def test_an_allowed_network_opens_exactly_itself() -> None:
    with RawServer() as server, RawServer(host="127.0.0.2") as other:
        assert stream(server.url) == (200, b"ok")
        with pytest.raises(ForbiddenAddress):
            stream(other.url)
    assert other.connections == 0


def test_a_name_that_resolves_to_another_address_later_uses_the_checked_one(
    names: Any,
) -> None:
    names["rebinding.example"] = [["127.0.0.1"], ["127.0.0.2"]]
    with RawServer() as server, contextlib.ExitStack() as stack:
        inside = stack.enter_context(socket.create_server(("127.0.0.2", server.port)))
        inside.setblocking(False)
        assert stream(f"http://rebinding.example:{server.port}/") == (200, b"ok")
        with pytest.raises(BlockingIOError):
            inside.accept()
        with pytest.raises(ForbiddenAddress):
            stream(f"http://rebinding.example:{server.port}/")


def test_the_operator_s_own_provider_may_be_anywhere() -> None:
    with RawServer() as server:
        assert get(server.url).status == 200


# Redirects


@pytest.mark.parametrize("code", ["301 Moved", "302 Found", "303 See", "307 T", "308 P"])
def test_a_redirect_is_followed_by_a_stream_and_not_by_a_request(code: str) -> None:
    with RawServer(answer(b"video")) as target, RawServer(redirect(target.url, code)) as server:
        assert stream(server.url) == (200, b"video")
        assert get(server.url).status == int(code[:3])
        assert post(server.url).status == int(code[:3])
    assert len(target.requests) == 1


SIGNED = b'/%7Ea/[b]|{c}%7e/..//d?Key=a%2Fb%2f|[]^`"&Sig=ab==&x'


def test_a_url_reaches_its_host_byte_by_byte_as_it_came() -> None:
    with RawServer() as server:
        stream(f"{server.url}{SIGNED.decode()}#part")
    assert server.requests[0].startswith(b"GET " + SIGNED + b" HTTP/1.1\r\n")


@pytest.mark.parametrize("kind", ["absolute", "relative to the host"])
def test_the_target_of_a_redirect_reaches_its_host_as_it_came(kind: str) -> None:
    with RawServer() as server:
        base = server.url if kind == "absolute" else ""
        server.answers = (redirect(f"{base}{SIGNED.decode()}"), OK)
        stream(f"{server.url}/%7Efirst?a|b")
    assert server.requests[0].startswith(b"GET /%7Efirst?a|b HTTP/1.1\r\n")
    assert server.requests[1].startswith(b"GET " + SIGNED + b" HTTP/1.1\r\n")


def test_a_blank_in_a_url_is_quoted_as_curl_does() -> None:
    with RawServer() as server:
        stream(f"{server.url}/a b.mp4?c d")
    assert server.requests[0].startswith(b"GET /a%20b.mp4?c%20d HTTP/1.1\r\n")


def test_a_relative_redirect_stays_at_its_host() -> None:
    with RawServer(redirect("../b?x=1"), OK) as server:
        assert stream(f"{server.url}/a/a") == (200, b"ok")
    assert server.requests[1].startswith(b"GET /b?x=1 HTTP/1.1\r\n")


def test_a_redirect_that_is_written_in_utf_8_is_read_as_such() -> None:
    with RawServer(redirect("/vidéo.mp4"), OK) as server:
        assert stream(server.url) == (200, b"ok")
    assert server.requests[1].startswith(b"GET /vid%C3%A9o.mp4 HTTP/1.1\r\n")


def test_a_redirect_that_is_not_written_in_utf_8_is_read_byte_by_byte() -> None:
    latin = redirect("/video.mp4").replace(b"video", b"vid\xe9o")
    with RawServer(latin, OK) as server:
        assert stream(server.url) == (200, b"ok")
    assert server.requests[1].startswith(b"GET /vid%C3%A9o.mp4 HTTP/1.1\r\n")


@pytest.mark.parametrize("status", ["201 Created", "300 Many", "304 Same", "305 Proxy", "306 x"])
def test_a_location_beside_any_other_status_is_not_followed(status: str) -> None:
    with RawServer() as target, RawServer(redirect(target.url, status)) as server:
        assert stream(server.url) == (int(status[:3]), b"")
    assert target.connections == 0


@pytest.mark.parametrize("hops", [3, 4])
def test_three_redirects_are_followed_and_no_fourth(hops: int) -> None:
    with RawServer(*[redirect("/next")] * hops, OK) as server:
        if hops == 3:
            assert stream(server.url) == (200, b"ok")
        else:
            with pytest.raises(ForbiddenAddress, match="more than 3 redirects"):
                stream(server.url)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "//127.0.0.2/",
        "file:///etc/passwd",
        "data:text/plain,x",
        "ftp://127.0.0.1/",
        "http://user@127.0.0.1:{port}/",
        "http://127.0.0.1:22/",
        "http://127.0.0.1\\@127.0.0.2/",
        "http://[nonsense/",
        "http://[fe80::1%25lo]/",
        "http://１２７.0.0.1:{port}/",
    ],
)
def test_a_redirect_to_a_forbidden_place_is_refused(location: str) -> None:
    with RawServer() as target:
        hostile = redirect(location.format(port=target.port))
        with RawServer(hostile) as server, pytest.raises(ForbiddenAddress):
            stream(server.url)
    assert (len(server.requests), target.connections) == (1, 0)


def test_a_redirect_to_a_host_outside_the_allowed_ones_is_refused() -> None:
    with RawServer() as target:
        elsewhere = redirect(f"http://localhost:{target.port}/")
        with (
            RawServer(elsewhere) as server,
            pytest.raises(ForbiddenAddress, match="localhost is not in ALLOWED_OUTPUT_HOSTS"),
        ):
            stream(server.url, hosts=["127.0.0.1"])
    assert target.connections == 0


def test_a_redirect_from_https_to_http_is_refused(trusted: Path) -> None:
    with (
        RawServer() as plain,
        RawServer(redirect(plain.url), tls=trusted) as server,
        pytest.raises(ForbiddenAddress, match="not https"),
    ):
        stream(server.url)
    assert plain.connections == 0


def test_a_redirect_from_http_to_https_and_back_is_refused(trusted: Path) -> None:
    with (
        RawServer() as plain,
        RawServer(redirect(plain.url), tls=trusted) as secure,
        RawServer(redirect(secure.url)) as server,
        pytest.raises(ForbiddenAddress),
    ):
        stream(server.url)
    assert (len(secure.requests), plain.connections) == (1, 0)


def test_plain_http_needs_leave() -> None:
    with RawServer() as server, pytest.raises(ForbiddenAddress):
        stream(server.url, insecure=False)
    assert server.connections == 0


@ALL
def test_the_body_of_a_redirect_is_not_waited_for(ask: Any) -> None:
    endless = flood(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", b"x")
    with RawServer(endless, OK) as server, within(5), contextlib.suppress(TransportError):
        ask(server.url)


def test_a_redirect_without_a_location_is_an_answer() -> None:
    with RawServer(answer(b"", status="302 Found")) as server:
        assert stream(server.url) == (302, b"")


# No influence of the environment, or of earlier responses


@pytest.fixture
def hostile_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    """A .netrc with a default entry, and a proxy for everything."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login intruder password s3cr3t\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer() as proxy:
        for name in (
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
        ):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        yield proxy


@ALL
def test_neither_netrc_nor_proxies_are_used(ask: Any, hostile_environment: RawServer) -> None:
    with RawServer(redirect("/next"), OK) as server:
        ask(server.url, headers={"X-Mine": "1"})
    assert hostile_environment.connections == 0
    assert all(b"authorization" not in request.lower() for request in server.requests)


@pytest.mark.usefixtures("hostile_environment")
def test_netrc_does_not_replace_a_key() -> None:
    with RawServer() as server:
        get(server.url, headers={"Authorization": "Bearer k"})
    assert b"\r\nAuthorization: Bearer k\r\n" in server.requests[0]


@ALL
def test_no_cookie_is_kept(ask: Any) -> None:
    cookies = "Set-Cookie: a=b; Path=/\r\nSet-Cookie: c=d; Domain=127.0.0.1"
    with RawServer(
        answer(b"", cookies, "Location: /x", status="302 Found"), answer(b"", cookies)
    ) as server:
        ask(server.url)
        ask(server.url)
    assert len(server.requests) >= 2
    assert all(b"cookie" not in request.lower() for request in server.requests)


# Small things

NOW = datetime(2030, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("0" * 20 + "5", 5),
        ("Mon, 06 May 2030 07:09:09 GMT", 60),
        ("Monday, 06-May-30 07:09:09 GMT", 60),
        ("Mon May  6 07:09:09 2030", 60),
        ("Mon, 06 May 2030 07:09:09 -0000", 60),
        ("Mon, 06 May 2030 09:09:09 +0200", 60),
        ("Mon, 06 May 2030 07:00:00 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        (None, None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("Mon, 99 May 2030 07:09:09 GMT", None),
        ("Mon, 06 May 99999 07:09:09 GMT", None),
    ],
)
def test_retry_after_is_understood_in_both_forms(value: str | None, seconds: float | None) -> None:
    # In a local time zone other than UTC.
    with time_machine.travel(NOW.astimezone(ZoneInfo("America/Chicago")), tick=False):
        assert transport.parse_retry_after(value) == seconds


@given(st.text() | st.from_regex(r"\A\w{3}, \d{1,3} \w{3} \d{1,5} \d\d?:\d\d:\d\d( \S+)?\Z"))
def test_no_retry_after_raises_or_is_negative(value: str) -> None:
    seconds = transport.parse_retry_after(value)
    assert seconds is None or seconds >= 0


@given(st.datetimes(datetime(2030, 6, 1), datetime(9990, 1, 1)))
def test_any_date_to_come_is_understood(date: datetime) -> None:
    date = date.replace(tzinfo=UTC, microsecond=0)
    with time_machine.travel(NOW, tick=False):
        seconds = transport.parse_retry_after(format_datetime(date, usegmt=True))
    assert seconds == pytest.approx((date - NOW) / timedelta(seconds=1))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.example/x", "https://a.example:443/y?z", True),
        ("http://a.example", "http://a.example:80/", True),
        ("https://A.example", "https://a.example", True),
        ("https://a.example", "http://a.example", False),
        ("https://a.example", "https://a.example:8443", False),
        ("https://a.example", "https://b.example", False),
        ("https://a.example", "https://a.example.b.example", False),
        ("https://a.example", "https://a.example@b.example", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert (transport.origin(one) == transport.origin(other)) is same

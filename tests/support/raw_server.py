"""A server that sends arbitrary bytes over real sockets, including invalid HTTP."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeAlias

import trustme

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answers: TypeAlias = bytes | Callable[[socket.socket], None]


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    # Without "Connection: close", a client may reuse a connection that is about to be closed.
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer(b"", f"Location: {location}", status=status)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def drip(first: bytes, then: bytes, every: float = 0.05) -> Callable[[socket.socket], None]:
    """Send `first`, then `then` repeatedly, with pauses shorter than any read timeout."""

    def send(connection: socket.socket) -> None:
        for piece in chain([first], repeat(then)):
            connection.sendall(piece)
            time.sleep(every)

    return send


def flood(first: bytes, then: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        for piece in chain([first], repeat(then * 1000)):
            connection.sendall(piece)

    return send


def silence(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.recv(1)


class RawServer:
    """A server whose answers are bytes, or functions that handle the connection.

    The n-th request gets the n-th answer, and the last answer repeats. The connection is closed
    after an answer, unless `keep` is set. `requests` are the received bytes, `connections` is their
    number, and `finished` is released after each complete answer.
    """

    def __init__(
        self,
        *answers: Answers,
        keep: bool = False,
        tls: Path | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.answers = answers or (OK,)
        self.keep = keep
        self.requests: list[bytes] = []
        self.connections = 0
        self.finished = threading.Semaphore(0)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        if self._context and tls:
            self._context.load_cert_chain(tls)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"

    def __enter__(self) -> "RawServer":
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # Closing a listener doesn't interrupt its accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self._lock:
                    self.connections += 1
                    self._open.append(connection)
                self._start(self._serve, connection)

    def _serve(self, raw: socket.socket) -> None:
        connection = raw
        with contextlib.suppress(OSError):
            if self._context:
                connection = self._context.wrap_socket(raw, server_side=True)
            while request := self._read(connection):
                with self._lock:
                    self.requests.append(request)
                    number = min(len(self.requests), len(self.answers)) - 1
                reply = self.answers[number]
                if callable(reply):
                    reply(connection)
                else:
                    connection.sendall(reply)
                if not self.keep:
                    break
        with self._lock, contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        self.finished.release()
        with contextlib.suppress(OSError):
            # With unread bytes, closing would reset the connection.
            connection.settimeout(1)
            while connection.recv(65536):
                pass
        with self._lock:
            connection.close()

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(65536)):
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [
            line[15:] for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"
        ]
        while lengths and len(body) < int(lengths[0]):
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body


def make_certificate(path: Path) -> Path:
    """Write a key and certificate for "localhost" and 127.0.0.1, and its CA certificate."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    pem = issued.private_key_and_cert_chain_pem.bytes() + authority.cert_pem.bytes()
    path.write_bytes(pem)
    return path


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds

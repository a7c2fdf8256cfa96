"""The cheapest HTTP client for asyncio: GET with keep-alive, without TLS or redirects."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

from benchmarks.poll_provider import content_length


class _Connection(asyncio.Protocol):
    """A kept connection with at most one request at a time."""

    transport: asyncio.Transport
    response: asyncio.Future[tuple[int, bytes]] | None = None

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4 or len(self._received) < end + content_length(self._received[:end]):
            return
        received, self._received = self._received, b""
        if self.response and not self.response.done():
            self.response.set_result((int(received[9:12]), received[end:]))

    def connection_lost(self, error: Exception | None) -> None:
        if self.response and not self.response.done():
            self.response.set_exception(error or ConnectionError("the server closed"))


class Client:
    """A client of one server. It opens as many connections as there are requests at once."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._head = f"GET {parts.path}%s HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
        self._idle: list[_Connection] = []

    async def get(self, path: str, *, timeout: float) -> tuple[int, bytes]:
        """The status and the body. OSError or TimeoutError without a response."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            connection = self._idle.pop() if self._idle else None
            if connection is None or connection.transport.is_closing():
                _transport, connection = await loop.create_connection(
                    _Connection, self._host, self._port
                )
            connection.response = loop.create_future()
            connection.transport.write((self._head % path).encode())
            try:
                response = await connection.response
            except BaseException:
                connection.transport.close()
                raise
        self._idle.append(connection)
        return response

    def close(self) -> None:
        for connection in self._idle:
            connection.transport.close()


async def load(base_url: str, *, places: int, seconds: float) -> float:
    """The calls per second that a server answers to `places` clients at once."""
    client, ends_at, calls = Client(base_url), time.monotonic() + seconds, 0

    async def call() -> None:
        nonlocal calls
        while time.monotonic() < ends_at:
            await client.get(f"/v1/result/load-{calls % 1000}", timeout=10)
            calls += 1

    began = time.monotonic()
    await asyncio.gather(*(call() for _place in range(places)))
    client.close()
    return calls / (time.monotonic() - began)
